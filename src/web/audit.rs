//! Who did what, when and why: one row in the control store for each action of a person.

use std::future::Future;

use super::{auth::Caller, error::ApiError, state::WebState};
use crate::store::{
    StoreResult,
    audit::{AuditEntry, record},
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

/// Writes an action down. The future owns what it needs.
pub fn audit(
    state: &WebState,
    caller: &Caller,
    action: &str,
    subject: &str,
    reason: Option<&str>,
    outcome: &str,
) -> impl Future<Output = StoreResult<()>> + use<> {
    let entry = entry(state, caller, action, subject, reason, outcome);
    log::info!(target: "belayd::web", who = entry.actor.as_str(), action = entry.action.as_str(), subject = entry.subject.as_str(),
        outcome = entry.outcome.as_str(); "admin action");
    let control = state.control.clone();
    async move { control.call(move |conn| record(conn, &entry)).await }
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
/// 400 where it is longer than 500 characters.
pub fn optional_reason(reason: Option<&str>) -> Result<Option<String>, ApiError> {
    let reason = reason.unwrap_or_default().trim();
    if reason.chars().count() > REASON_MAX_CHARS {
        return Err(ApiError::field("reason", format!("longer than {REASON_MAX_CHARS} characters")));
    }
    Ok((!reason.is_empty()).then(|| reason.to_owned()))
}
