//! The way from alerts to issues: a sink of the daemon's own, whose receiver is the store.
//!
//! An alert is committed in the control store while the database may be away; the issue that it opens belongs to everybody and lies in
//! the database. So it takes the outbox, as everything that leaves the control store does: kept until the database has it, taken there once, since
//! the issue remembers the delivery.

use std::fmt;

use futures_util::future::BoxFuture;
use serde::Deserialize;

use crate::{
    clock::SharedClock,
    domain::alert::Level,
    sinks::{ErrorClass, ISSUES, Letter, SendError, Sent, Sink},
    store::{
        Store, StoreErrorKind,
        issues::{self, AlertNews, Followed},
    },
};

/// See the module.
pub struct IssueSink {
    store: Store,
    is_up: Box<dyn Fn() -> bool + Send + Sync>,
    clock: SharedClock,
}

impl fmt::Debug for IssueSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssueSink").finish_non_exhaustive()
    }
}

/// What is read of a notice.
#[derive(Deserialize)]
struct Notice {
    event: String,
    id: String,
    kind: String,
    name: String,
    subject: String,
    level: Level,
    text: String,
}

impl IssueSink {
    /// A sink into `store`, which takes nothing while `is_up` says no.
    pub fn new(store: Store, is_up: Box<dyn Fn() -> bool + Send + Sync>, clock: SharedClock) -> Self {
        Self { store, is_up, clock }
    }

    async fn follow(&self, letter: &Letter) -> Result<Sent, SendError> {
        let notice: Notice = serde_json::from_str(&letter.payload).map_err(|error| SendError {
            class: ErrorClass::Reject,
            error_type: "payload",
            message: format!("the payload is not a notice of an alert: {error}"),
        })?;
        let news = AlertNews {
            delivery_id: letter.id.clone(),
            alert_id: notice.id,
            resolved: notice.event == "resolved",
            kind: notice.kind,
            name: notice.name,
            subject: notice.subject,
            level: notice.level,
            text: notice.text,
        };
        let now_us = self.clock.now_us();
        match self.store.call(move |conn| issues::follow_alert(conn, &news, now_us)).await {
            Ok(Followed::Opened(id)) => Ok(Sent { answer: format!("issue {id} opened") }),
            Ok(Followed::Added(id)) => Ok(Sent { answer: format!("added to issue {id}") }),
            Ok(Followed::Nothing) => Ok(Sent { answer: "nothing to add".to_owned() }),
            // Another instance has just opened it, or the database went away: nothing is lost by asking again, and a repeat adds nothing.
            Err(error) => Err(SendError {
                class: ErrorClass::Retry { after: None },
                error_type: if error.kind == StoreErrorKind::Conflict { "conflict" } else { "store" },
                message: error.to_string(),
            }),
        }
    }
}

impl Sink for IssueSink {
    fn name(&self) -> &str {
        ISSUES
    }

    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<Sent, SendError>> {
        Box::pin(self.follow(letter))
    }

    fn is_ready(&self) -> bool {
        (self.is_up)()
    }
}
