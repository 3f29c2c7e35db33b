//! Whether the database answers, as the drain last saw it: for readiness, the page and the metrics.

use std::sync::{Mutex, PoisonError};

use crate::domain::breaker::CircuitState;

/// Shared; the drain's observer writes, everyone reads.
#[derive(Debug, Default)]
pub struct StoreHealth(Mutex<HealthView>);

/// What is known of the database now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthView {
    /// Whether the last try worked. `false` from the start until the first success.
    pub up: bool,
    /// Since when it has been away, microseconds since the epoch; `None` while it is up, and before the first try.
    pub down_since_us: Option<i64>,
    /// Why, without secrets.
    pub cause: Option<String>,
    /// The circuit breaker around it.
    pub circuit: CircuitState,
    /// How long the last outage took, microseconds.
    pub last_outage_us: Option<i64>,
}

impl StoreHealth {
    /// The state now.
    pub fn view(&self) -> HealthView {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the database answers.
    pub fn is_up(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).up
    }

    /// It ceased to answer at `now_us`.
    pub fn went_down(&self, now_us: i64, cause: String) {
        let mut view = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        view.up = false;
        view.down_since_us.get_or_insert(now_us);
        view.cause = Some(cause);
    }

    /// It answers at `now_us`.
    pub fn came_up(&self, now_us: i64) {
        let mut view = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let outage = view.down_since_us.map(|since| now_us - since);
        let last_outage_us = outage.or(view.last_outage_us);
        *view = HealthView { up: true, down_since_us: None, cause: None, circuit: view.circuit, last_outage_us };
    }

    /// Its circuit breaker turned.
    pub fn turned(&self, circuit: CircuitState) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).circuit = circuit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_has_one_beginning_and_one_length() {
        let health = StoreHealth::default();
        assert!(!health.is_up());
        health.went_down(10, "refused".into());
        health.went_down(20, "refused".into());
        assert_eq!(health.view().down_since_us, Some(10));
        health.came_up(50);
        let healthy = HealthView { up: true, last_outage_us: Some(40), ..HealthView::default() };
        assert_eq!(health.view(), healthy);
    }
}
