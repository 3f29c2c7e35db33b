//! The outbox table, in the control store and in the store alike: the only code that changes the state of a delivery.
//!
//! In: deliveries to be sent, and what became of attempts. Out: claims. Which moves are legal says
//! [`domain::delivery`](crate::domain::delivery); every statement here takes its states from there. What is being sent stands as `ready`
//! with a claim ([`claims`]), so that a claim writes one row and not one for each delivery; deliveries to Kafka stand as `sending`. A crash
//! loses nothing: what was being sent is found again by its claim's lease, or at once when its worker restarts.

mod attempts;
mod claim;
mod claims;
mod enqueue;
mod fold;
mod forward;
mod inbox;
mod people;
#[cfg(feature = "fault-injection")]
mod plans;
mod row;
mod settle;
#[cfg(test)]
mod tests;
mod vanished;

pub(super) use self::claim::PG_CLOCK_US;
pub(in crate::store) use self::claims::state_sql;
pub(in crate::store) use self::fold::select;
#[cfg(feature = "fault-injection")]
pub use self::plans::plans;
pub use self::{
    attempts::{ATTEMPTS_KEPT, AttemptRow, attempts},
    claim::{Claim, Held, Taken, claim_due, next_due, promote_due, ready_sinks},
    claims::renew,
    enqueue::{CHANNEL, NewDelivery, enqueue},
    fold::{call_off, hasten, refill, untouched},
    forward::{FORWARD_ROWS, forward, forward_one, waiting_sinks},
    inbox::{Cause, Edit, FailureFilter, causes, edit, failures_where},
    people::{Count, act, act_at, counts, failures, get, prune},
    row::DeliveryRow,
    settle::{Made, Outcome, Settlement, settle},
    vanished::{Owner, any_expired, reclaim_expired, take_back},
};
use crate::domain::delivery::{DeliveryState, Event};

/// The states that `event` moves, as SQL literals: SQLite uses a partial index only for literals that equal its condition.
fn sources(event: Event) -> String {
    literals(event.sources())
}

/// Whether a column holds one of these states. SQLite uses a partial index only for a condition that is its own, word by word; and for
/// a list of three and more it builds a table whenever it looks, which is once for each row that it writes. Those are spelled out, in
/// the migrations as well.
pub(in crate::store) fn is_one_of(column: &str, states: &[DeliveryState]) -> String {
    match states {
        [one] => format!("{column} = '{one}'"),
        [_, _] => format!("{column} IN ({})", literals(states)),
        many => {
            let each: Vec<String> = many.iter().map(|state| format!("{column} = '{state}'")).collect();
            format!("({})", each.join(" OR "))
        }
    }
}

/// States as SQL literals.
pub(in crate::store) fn literals(states: &[DeliveryState]) -> String {
    let words: Vec<String> = states.iter().map(|state| format!("'{state}'")).collect();
    words.join(", ")
}
