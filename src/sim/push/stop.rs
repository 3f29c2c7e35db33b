//! One flag that ends a run: set by a signal or by the first fault that repeating cannot mend.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

/// Cheap to clone; set once.
#[derive(Clone, Debug)]
pub struct Stop(Arc<watch::Sender<bool>>);

impl Default for Stop {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Stop {
    /// Ends the run: nothing new is made, what is packed gets one more attempt.
    pub fn set(&self) {
        self.0.send_replace(true);
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for `duration`, or until it is set.
    pub async fn sleep(&self, duration: Duration) {
        let mut seen = self.0.subscribe();
        // Both ends of the channel live in `self`, so it cannot close; and running out of time is the ordinary end.
        let _ = tokio::time::timeout(duration, seen.wait_for(|stopped| *stopped)).await;
    }

    /// Waits until it is set.
    pub async fn wait(&self) {
        let _ = self.0.subscribe().wait_for(|stopped| *stopped).await;
    }
}
