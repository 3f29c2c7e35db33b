//! Who did what, when and why: one row in the control store for each action of a person.

use std::future::Future;

use super::{auth::Caller, error::ApiError, state::WebState};
use crate::{
    domain::message::text_fault,
    store::{
        self, StoreResult,
        audit::{AuditEntry, BEGUN, record},
    },
};

/// Longest reason that is kept, characters.
const REASON_MAX_CHARS: usize = 500;

/// The entry for an action of `caller`.
pub fn entry(state: &WebState, caller: &Caller, action: &str, subject: &str, reason: Option<&str>, outcome: &str) -> AuditEntry {
    AuditEntry {
        at_us: state.clock.now_us(),
        actor: caller.name().to_owned(),
        action: action.to_owned(),
        subject: subject.to_owned(),
        reason: reason.map(str::to_owned),
        outcome: outcome.to_owned(),
    }
}

/// Writes down what has been refused. The future owns what it needs.
pub fn audit(
    state: &WebState,
    caller: &Caller,
    action: &str,
    subject: &str,
    reason: Option<&str>,
    outcome: &str,
) -> impl Future<Output = StoreResult<()>> + use<> {
    let entry = entry(state, caller, action, subject, reason, outcome);
    tell(&entry, outcome);
    let control = state.control.clone();
    async move { control.call(move |conn| record(conn, &entry)).await }
}

/// Writes an action down before it is done, so that nothing is done that the audit does not know of.
///
/// # Errors
/// 503 where the control store does not take it; then it must not be done.
pub async fn begin(
    state: &WebState,
    caller: &Caller,
    action: &str,
    subject: &str,
    reason: Option<&str>,
) -> Result<Begun, ApiError> {
    let entry = entry(state, caller, action, subject, reason, BEGUN);
    let written = entry.clone();
    let id = state.control.call(move |conn| store::audit::begin(conn, &written)).await?;
    Ok(Begun { id, entry })
}

/// An action that has been written down and not done yet.
#[must_use = "how it ended belongs into the audit"]
#[derive(Debug)]
pub struct Begun {
    id: i64,
    entry: AuditEntry,
}

impl Begun {
    /// Writes down how it ended: `ok` in other words where it succeeded, else the code of the failure; and returns it.
    ///
    /// # Errors
    /// Those of the action itself. Where the outcome cannot be written, the entry goes on saying that it was begun.
    pub async fn end<T>(self, state: &WebState, done: Result<T, ApiError>, ok: &'static str) -> Result<T, ApiError> {
        let Self { id, entry } = self;
        let outcome = done.as_ref().map_or_else(|error| error.code, |_| ok);
        tell(&entry, outcome);
        if let Err(error) = state.control.call(move |conn| store::audit::conclude(conn, id, outcome)).await {
            log::warn!(target: "belayd::web", error:% = error, action = entry.action.as_str(); "the outcome of an action is missing in the audit");
        }
        done
    }
}

fn tell(entry: &AuditEntry, outcome: &str) {
    log::info!(target: "belayd::web", who = entry.actor.as_str(), action = entry.action.as_str(), subject = entry.subject.as_str(),
        outcome = outcome; "admin action");
}

/// A reason that says something.
///
/// # Errors
/// 400 where it is missing, blank or longer than 500 characters.
pub fn required_reason(reason: Option<&str>) -> Result<String, ApiError> {
    optional_reason(reason)?.ok_or_else(|| ApiError::new(super::error::ErrorCode::ReasonRequired, "a reason must be given"))
}

/// A reason, where one was given.
///
/// # Errors
/// 400 where it is longer than 500 characters, or holds control characters other than tab and line breaks.
pub fn optional_reason(reason: Option<&str>) -> Result<Option<String>, ApiError> {
    let reason = reason.unwrap_or_default().trim();
    if reason.chars().count() > REASON_MAX_CHARS {
        return Err(ApiError::field("reason", format!("longer than {REASON_MAX_CHARS} characters")));
    }
    if reason.is_empty() {
        return Ok(None);
    }
    match text_fault(reason) {
        None => Ok(Some(reason.to_owned())),
        Some(fault) => Err(ApiError::field("reason", fault)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_plain_text_or_none() {
        for (given, taken) in [(None, None), (Some("  "), None), (Some(" why\nnot\t"), Some("why\nnot".to_owned()))] {
            assert_eq!(optional_reason(given).expect("good"), taken);
        }
        for bad in ["a\u{0}b", "a\u{1b}[2Jb", "a\u{85}b", &"x".repeat(REASON_MAX_CHARS + 1)] {
            let refused = optional_reason(Some(bad)).expect_err("refused");
            assert_eq!((refused.status.as_u16(), &refused.details[0]["field"]), (400, &"reason".into()), "{bad:?}");
        }
        assert!(required_reason(Some("\t")).is_err());
    }
}
