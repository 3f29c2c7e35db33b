//! CRITICAL alerts open issues: the delivery that tells the store of one, beside those that tell people.

use uuid::Uuid;

use super::notice;
use crate::{
    config::OnUnknown,
    domain::alert::{Alert, Level},
    sinks,
    store::{alerts::Change, deliveries::NewDelivery},
};

/// The delivery to the issues that a change of an alert asks for. Whether people are told is another matter: what is silenced happened
/// all the same.
pub(super) fn delivery(alert: &Alert, change: Change, now_us: i64) -> Option<NewDelivery> {
    (alert.level == Level::Critical && change != Change::Repeated).then(|| NewDelivery {
        id: Uuid::now_v7().to_string(),
        sink: sinks::ISSUES.to_owned(),
        lane: alert.episode(),
        subject: alert.id.clone(),
        payload: notice::render(alert, change.as_str(), now_us),
        due_at_us: now_us,
        // The receiver is the database, which comes back.
        max_attempts: i32::MAX as u32,
        // The issue remembers the delivery: a repeat adds nothing.
        on_unknown: OnUnknown::Resend,
        recipient: String::new(),
    })
}
