//! The instances that use the same database, as the page and `/admin/instances` show them.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceView {
    /// The id of its data directory.
    pub instance: String,
    /// `alive`, `dead` (not heard of for 15 s) or `stopped` (in order).
    pub state: &'static str,
    /// Whether it is this one.
    pub this: bool,
    /// The host's name.
    pub host: String,
    /// The process id there.
    pub pid: i64,
    /// Of belayd.
    pub version: String,
    /// Where its page is.
    pub url: String,
    /// The tier of its buffer.
    pub tier: String,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    pub last_seen_at: String,
    /// Names of the leases that it holds.
    pub holds: Vec<String>,
}

/// The last list that the database gave. Made once, shared in an `Arc`; written after each sign of life.
#[derive(Debug, Default)]
pub struct InstanceBoard(Mutex<Vec<InstanceView>>);

impl InstanceBoard {
    /// The instances, this one first.
    pub fn list(&self) -> Vec<InstanceView> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a new list.
    pub fn set(&self, list: Vec<InstanceView>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = list;
    }

    /// How many are in a state.
    pub fn count(&self, state: &str) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|view| view.state == state).count()
    }
}
