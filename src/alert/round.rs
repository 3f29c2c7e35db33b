//! What has to be looked at by time: alerts whose turn has come (a repeat, the end of what held them back), notices that wait for
//! too long, and, every half minute, whether anything due was forgotten.
//!
//! In: the clock, by the desk's tick. Out: words for the [`Teller`], conditions; one transaction. A crash loses nothing: everything is
//! found again by its time.

use std::collections::BTreeSet;

use super::{
    fallback, policy,
    teller::{Teller, Word},
};
use crate::{
    config::Config,
    domain::{
        alert::{Alert, AlertKind, AlertState, Level, Transition},
        delivery::DeliveryState,
    },
    sinks,
    store::{
        Conn, StoreResult,
        alerts::{groups, looks},
        deliveries,
    },
};

/// The condition that notices are due and stay untouched although their sink works; its subject is the sink.
pub(super) const DELIVERY_OVERDUE: &str = "delivery-overdue";
/// The condition that an alert was open about which nobody was told and nothing says why.
pub(super) const NOTIFICATION_MISSING: &str = "notification-missing";

/// Alerts looked at in one round; the next one comes within a second.
const LOOKS_MAX: i64 = 500;
/// Groups that were ahead of the clock and are set right by one audit.
const GROUPS_MAX: i64 = 1_000;
/// Alerts without a word that one audit takes up.
const UNTOLD_MAX: i64 = 500;

/// What a round finds outside the control store.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    /// Whether the audit's turn has come.
    pub(super) audit: bool,
    /// Sinks whose circuit is open or half-open: their deliveries wait for good reason.
    pub(super) away: Vec<String>,
    /// Open alerts.
    pub(super) open: Vec<Alert>,
}

/// What a round brought beside deliveries.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Conditions that began or ceased.
    pub(super) conditions: Vec<Transition>,
    /// By sink, what is overdue; `None` where no audit was made.
    pub(super) overdue: Option<Vec<(String, u64)>>,
    /// The sink of each delivery that was copied to a fallback.
    pub(super) copied: Vec<String>,
}

/// Whether a round would find anything. Only reads.
///
/// # Errors
/// Those of the control store.
pub(super) fn anything_due(conn: &mut Conn, config: &Config, now_us: i64) -> StoreResult<bool> {
    Ok(looks::any_due(conn, now_us)? || fallback::is_due(conn, config, now_us)?)
}

/// One round.
///
/// # Errors
/// Those of the control store.
pub(super) fn carry_out(conn: &mut Conn, teller: &mut Teller<'_>, around: &Surroundings) -> StoreResult<Found> {
    let mut found = Found::default();
    if around.audit {
        after_a_step_back(conn, teller)?;
    }
    for due in looks::due(conn, teller.now_us, LOOKS_MAX)? {
        policy::look(conn, teller, &due)?;
    }
    found.copied = fallback::copy(conn, teller)?;
    if around.audit {
        audit(conn, teller, around, &mut found)?;
    }
    Ok(found)
}

/// The clock was set back: what was to be told in a moment would wait for the old time.
fn after_a_step_back(conn: &mut Conn, teller: &mut Teller<'_>) -> StoreResult<()> {
    let now_us = teller.now_us;
    for mut group in groups::ahead(conn, now_us, GROUPS_MAX)? {
        for id in group.waiting.iter().chain(&group.digest_id) {
            teller.deliveries += usize::from(deliveries::hasten(conn, id, now_us, now_us)?);
        }
        (group.last_at_us, group.window_from_us) = (now_us, group.window_from_us.min(now_us));
        group.digest_at_us = group.digest_at_us.min(now_us);
        groups::put(conn, &group)?;
    }
    Ok(())
}

fn audit(conn: &mut Conn, teller: &mut Teller<'_>, around: &Surroundings, found: &mut Found) -> StoreResult<()> {
    let now_us = teller.now_us;
    // What was settled longer ago than deliveries are kept has been deleted, and is not missing.
    let kept_us = i64::try_from(teller.config.retention.deliveries.as_micros()).unwrap_or(i64::MAX);
    let untold = looks::untold(conn, now_us.saturating_sub(kept_us), UNTOLD_MAX)?;
    let mut missing = BTreeSet::new();
    for (alert, lost) in untold {
        missing.insert(alert.id.clone());
        teller.count("found_missing");
        match lost {
            None => policy::begins(conn, teller, &Word { alert: &alert, event: "firing", since_us: now_us })?,
            Some(lost) => policy::again(conn, teller, &alert, &lost)?,
        }
    }
    let text = match missing.len() {
        0 => "every open alert has been told, or says why not".to_owned(),
        count => format!(
            "{count} open alerts had not been told and nothing says why; that is done now: look for who wrote to the control store"
        ),
    };
    let is_open = around.open.iter().any(|alert| alert.name == NOTIFICATION_MISSING && alert.kind == AlertKind::System);
    if missing.is_empty() == is_open {
        found.conditions.push(condition(NOTIFICATION_MISSING, "alerts", is_open, missing.len() as u64, text, now_us));
    }
    overdue(conn, teller, around, found)
}

/// Notices that are due and stay untouched. A sink that is away, or busy, explains it; nothing else does.
fn overdue(conn: &mut Conn, teller: &Teller<'_>, around: &Surroundings, found: &mut Found) -> StoreResult<()> {
    let now_us = teller.now_us;
    let bound_us = i64::try_from(teller.config.alerts.overdue_after.as_micros()).unwrap_or(i64::MAX);
    let counts = deliveries::counts(conn)?;
    let sinks: BTreeSet<&str> = counts.iter().map(|count| count.sink.as_str()).collect();
    let mut all = Vec::new();
    for sink in sinks {
        let busy = counts.iter().any(|count| {
            count.sink == sink && matches!(count.state, DeliveryState::Claimed | DeliveryState::Sending) && count.count > 0
        });
        // What waits for the database is told of by the alert that it is away.
        if sink == sinks::ISSUES || busy || around.away.iter().any(|away| away == sink) {
            continue;
        }
        let number = deliveries::untouched(conn, sink, now_us.saturating_sub(bound_us))?;
        if number > 0 {
            all.push((sink.to_owned(), number));
        }
    }
    let open = around.open.iter().filter(|alert| alert.kind == AlertKind::System && alert.name == DELIVERY_OVERDUE);
    let open: BTreeSet<&str> =
        open.filter(|alert| alert.state != AlertState::Resolved).map(|alert| alert.subject.as_str()).collect();
    for (sink, number) in all.iter().filter(|(sink, _)| !open.contains(sink.as_str())) {
        let text =
            format!("{number} notices to sink {sink} have been due for longer than alerts.overdue_after and nothing explains why");
        found.conditions.push(condition(DELIVERY_OVERDUE, sink, false, *number, text, now_us));
    }
    for sink in open.into_iter().filter(|sink| !all.iter().any(|(known, _)| known == sink)) {
        let text = format!("nothing to sink {sink} is overdue any more");
        found.conditions.push(condition(DELIVERY_OVERDUE, sink, true, 0, text, now_us));
    }
    found.overdue = Some(all);
    Ok(())
}

fn condition(name: &str, subject: &str, over: bool, number: u64, text: String, now_us: i64) -> Transition {
    Transition { value: Some(number as f64), ..Transition::system((name, subject), Level::Warning, !over, text, now_us) }
}
