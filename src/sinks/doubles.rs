//! Sinks for tests: one that takes everything and remembers it, one that fails as it is told; and a letter to give them.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{BoxFuture, ready};

use super::{Letter, Limits, SendError, Sent, Sink};

/// A delivery with this payload, sent once before.
pub fn letter(payload: &str) -> Letter {
    Letter {
        id: "0198c1a2-0000-7000-8000-000000000001".into(),
        sink: "sink".into(),
        recipient: String::new(),
        subject: "alert".into(),
        payload: payload.into(),
        attempt: 2,
        possible_repeat: true,
        attachments: Vec::new(),
    }
}

/// Takes everything.
#[derive(Debug)]
pub struct NoopSink {
    name: &'static str,
    taken: Mutex<Vec<Letter>>,
}

impl NoopSink {
    /// A sink of that name.
    pub fn named(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, taken: Mutex::default() })
    }

    /// What it took, oldest first.
    pub fn taken(&self) -> Vec<Letter> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Sink for NoopSink {
    fn name(&self) -> &str {
        self.name
    }

    fn takes_batches(&self) -> bool {
        true
    }

    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<Sent, SendError>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).push(letter.clone());
        Box::pin(ready(Ok(Sent::default())))
    }
}

/// Fails with the given errors in turn, the last one for ever after; with none left to give from the start it succeeds.
#[derive(Debug)]
pub struct FailingSink {
    name: &'static str,
    errors: Mutex<Vec<Option<SendError>>>,
    tries: Mutex<Vec<Letter>>,
}

impl FailingSink {
    /// A sink of that name; `None` among the errors is a success.
    pub fn named(name: &'static str, errors: Vec<Option<SendError>>) -> Arc<Self> {
        Arc::new(Self { name, errors: Mutex::new(errors), tries: Mutex::default() })
    }

    /// What it was asked to send, oldest first.
    pub fn tries(&self) -> Vec<Letter> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Sink for FailingSink {
    fn name(&self) -> &str {
        self.name
    }

    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<Sent, SendError>> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner).push(letter.clone());
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let next = if errors.len() > 1 { errors.remove(0) } else { errors.first().cloned().flatten() };
        Box::pin(ready(next.map_or(Ok(Sent::default()), Err)))
    }
}

/// Takes everything, within limits, and its receiver cannot tell repeats.
#[derive(Debug)]
pub struct LimitedSink {
    name: &'static str,
    limits: Limits,
    begun: Mutex<Vec<(String, std::time::Instant)>>,
}

impl LimitedSink {
    /// A sink of that name.
    pub fn named(name: &'static str, limits: Limits) -> Arc<Self> {
        Arc::new(Self { name, limits, begun: Mutex::default() })
    }

    /// Ids of what it took and when, oldest first.
    pub fn begun(&self) -> Vec<(String, std::time::Instant)> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Sink for LimitedSink {
    fn name(&self) -> &str {
        self.name
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<Sent, SendError>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).push((letter.id.clone(), std::time::Instant::now()));
        Box::pin(ready(Ok(Sent::default())))
    }
}
