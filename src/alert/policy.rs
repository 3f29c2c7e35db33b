//! Whether an alert is told: routes, silences, inhibition, acknowledgement, and when to look at it again.
//!
//! In: an alert and what happened to it. Out: words for the [`Teller`], and for everything that is not told the reason, in the caller's
//! transaction. What is held back has a time at which it is looked at again; what is told too, for the repeat.

use super::{
    routes::{self, Target},
    teller::{Teller, Word},
};
use crate::{
    domain::alert::{Alert, AlertState, Level},
    store::{
        Conn, StoreResult,
        alerts::{Change, looks, notices},
    },
};

/// Why an alert is not told although a route wants it.
struct Held {
    /// `silenced` or `inhibited`.
    reason: &'static str,
    /// The silence, or the CRITICAL.
    by: String,
    /// Until when at the longest; `None` where its end is an event of its own.
    until_us: Option<i64>,
}

/// What follows from a change of an alert. `since_us`: when it could have been told first.
pub(super) fn follow(conn: &mut Conn, teller: &mut Teller<'_>, alert: &Alert, change: Change, since_us: i64) -> StoreResult<()> {
    match change {
        Change::Repeated => Ok(()),
        Change::Opened | Change::Escalated => begins(conn, teller, &Word { alert, event: change.as_str(), since_us }),
        Change::Resolved => {
            ends(conn, teller, alert, since_us)?;
            if alert.level == Level::Critical {
                looks::release(conn, alert.kind, &alert.subject, teller.now_us)?;
            }
            Ok(())
        }
    }
}

/// An alert begins, or is graver than before.
pub(super) fn begins(conn: &mut Conn, teller: &mut Teller<'_>, word: &Word<'_>) -> StoreResult<()> {
    let alert = word.alert;
    let targets = routes::targets(teller.config, alert);
    if targets.is_empty() {
        return teller.leave_out(conn, (alert, word.event), None, ("no_route", None));
    }
    if let Some(held) = held_back(conn, teller, alert)? {
        teller.leave_out(conn, (alert, word.event), None, (held.reason, Some(&held.by)))?;
        return looks::set(conn, &alert.id, Some(held.reason), held.until_us);
    }
    for target in &targets {
        teller.tell(conn, word, target)?;
    }
    let repeats = targets.iter().filter_map(|target| target.route.repeat_interval);
    let next_us = repeats.min().map(|interval| after(teller.now_us, interval));
    looks::set(conn, &alert.id, None, next_us.filter(|_| alert.state == AlertState::Firing))
}

/// Whoever was told that it fires is told that it is over, silence or not: a receiver must not be left with an alert that never ends.
/// Nobody else is.
fn ends(conn: &mut Conn, teller: &mut Teller<'_>, alert: &Alert, since_us: i64) -> StoreResult<()> {
    let told = notices::told(conn, &alert.id)?;
    let earlier = told.is_empty() && notices::is_earlier(conn, &alert.id)?;
    if told.is_empty() && !earlier {
        return teller.leave_out(conn, (alert, "resolved"), None, ("not_told", Some("nobody was told that it fires")));
    }
    let word = Word { alert, event: "resolved", since_us };
    let mut targets = routes::targets(teller.config, alert);
    // A route of one level only does not match any more what has risen above it, and a reload may have taken a route away.
    for one in told.iter().filter(|one| !targets.iter().any(|target| is_to(one, target))).collect::<Vec<_>>() {
        match routes::former(teller.config, alert, &one.sink, &one.recipient) {
            Some(target) => targets.push(target),
            None => no_route(conn, teller, alert, "resolved", (&one.sink, &one.recipient))?,
        }
    }
    for target in targets {
        if !target.route.notify_resolved {
            teller.leave_out(conn, (alert, "resolved"), Some(&target), ("not_wanted", Some("notify_resolved = false")))?;
        } else if earlier || told.iter().any(|one| is_to(one, &target)) {
            teller.tell(conn, &word, &target)?;
        } else {
            teller.leave_out(conn, (alert, "resolved"), Some(&target), ("not_told", Some("it was not told that it fires")))?;
        }
    }
    Ok(())
}

/// Looks at an alert that fires and whose time has come: what held it back may be over, or it is to be told again.
pub(super) fn look(conn: &mut Conn, teller: &mut Teller<'_>, due: &looks::Due) -> StoreResult<()> {
    let alert = &due.alert;
    if let Some(held) = held_back(conn, teller, alert)? {
        // Told once, not at every look.
        if due.withheld.as_deref() != Some(held.reason) {
            let event = if due.withheld.is_some() { "firing" } else { "repeat" };
            teller.leave_out(conn, (alert, event), None, (held.reason, Some(&held.by)))?;
        }
        return looks::set(conn, &alert.id, Some(held.reason), held.until_us);
    }
    let told = notices::told(conn, &alert.id)?;
    let risen = notices::escalation_held_back(conn, &alert.id)?;
    let now_us = teller.now_us;
    let mut next_us = None;
    for target in routes::targets(teller.config, alert) {
        let last = told.iter().find(|one| is_to(one, &target));
        let last_us = last.map(|one| one.at_us);
        let mut soon = |from_us: i64| {
            let at_us = target.route.repeat_interval.map(|interval| after(from_us, interval));
            next_us = [next_us, at_us].into_iter().flatten().min();
        };
        let event = match (last_us, target.route.repeat_interval) {
            (None, _) => "firing",
            // It rose to a higher level while nobody was told.
            _ if last.map(|one| one.last_id) < risen => "escalated",
            (Some(last_us), Some(interval)) if after(last_us, interval) <= now_us => "repeat",
            (Some(last_us), _) => {
                soon(last_us);
                continue;
            }
        };
        soon(now_us);
        teller.tell(conn, &Word { alert, event, since_us: now_us }, &target)?;
    }
    if next_us.is_some() {
        notices::forget_repeats(conn, &alert.id)?;
    }
    looks::set(conn, &alert.id, None, next_us)
}

/// A delivery vanished from the table: whom it was to tell is told again, where the routes still name him.
pub(super) fn again(conn: &mut Conn, teller: &mut Teller<'_>, alert: &Alert, lost: &looks::Lost) -> StoreResult<()> {
    let named = |target: &Target| target.sink == lost.sink && target.recipient == lost.recipient;
    match routes::targets(teller.config, alert).into_iter().find(named) {
        Some(target) => {
            let since_us = teller.now_us;
            teller.tell(conn, &Word { alert, event: "firing", since_us }, &target)
        }
        None => no_route(conn, teller, alert, "firing", (&lost.sink, &lost.recipient)),
    }
}

/// Writes down that a receiver which was told before cannot be told any more.
fn no_route(
    conn: &mut Conn,
    teller: &Teller<'_>,
    alert: &Alert,
    event: &'static str,
    (sink, recipient): (&str, &str),
) -> StoreResult<()> {
    let (alert_id, at_us) = (alert.id.as_str(), teller.now_us);
    let (delivery_id, reason, detail) = (None, "no_route", None);
    notices::note(conn, &notices::NewNotice { alert_id, at_us, event, sink, recipient, delivery_id, reason, detail })
}

/// A person has taken it on: no repeats from here on.
pub(super) fn acknowledged(conn: &mut Conn, teller: &mut Teller<'_>, alert: &Alert, by: &str) -> StoreResult<()> {
    teller.leave_out(conn, (alert, "repeat"), None, ("acknowledged", Some(by)))?;
    looks::set(conn, &alert.id, None, None)
}

fn held_back(conn: &mut Conn, teller: &Teller<'_>, alert: &Alert) -> StoreResult<Option<Held>> {
    // Of several the one that lasts longest: after it there is nothing left to wait for.
    let silence = teller.silences.iter().filter(|silence| silence.matchers.matches(alert)).max_by_key(|silence| silence.ends_at_us);
    if let Some(silence) = silence {
        return Ok(Some(Held { reason: "silenced", by: silence.id.clone(), until_us: Some(silence.ends_at_us) }));
    }
    if alert.level == Level::Critical {
        return Ok(None);
    }
    let critical = looks::critical_of(conn, alert.kind, &alert.subject, &alert.id)?;
    Ok(critical.map(|by| Held { reason: "inhibited", by, until_us: None }))
}

fn is_to(told: &notices::Told, target: &Target) -> bool {
    told.sink == target.sink && told.recipient == target.recipient
}

fn after(at_us: i64, interval: std::time::Duration) -> i64 {
    at_us.saturating_add(i64::try_from(interval.as_micros()).unwrap_or(i64::MAX))
}
