//! The outbox table, in the control store and in the store alike: the only code that changes the state of a delivery.
//!
//! In: deliveries to be sent, and what became of attempts. Out: claims. Which moves are legal says
//! [`domain::delivery`](crate::domain::delivery); every statement here takes its states from there. A crash loses nothing: what
//! was claimed or being sent is found again by its lease, or at once when its worker restarts.

mod attempts;
mod claim;
mod enqueue;
mod fold;
mod forward;
mod holders;
mod inbox;
mod partial;
mod people;
#[cfg(feature = "fault-injection")]
mod plans;
mod row;
mod settle;
#[cfg(test)]
mod tests;
mod vanished;

pub(super) use self::claim::PG_CLOCK_US;
#[cfg(feature = "fault-injection")]
pub use self::plans::plans;
pub use self::{
    attempts::{ATTEMPTS_KEPT, AttemptRow, attempts},
    claim::{Claim, Held, Taken, claim_due, next_due, promote_due, ready_sinks, renew},
    enqueue::{CHANNEL, NewDelivery, enqueue},
    fold::{call_off, hasten, refill, untouched},
    forward::{FORWARD_ROWS, forward, forward_one, waiting_sinks},
    holders::LOOK_THROUGH_EVERY,
    inbox::{Cause, Edit, FailureFilter, causes, edit, failures_where},
    people::{Count, act, act_at, counts, failures, get, prune},
    row::DeliveryRow,
    settle::{Made, Outcome, Settlement, settle},
    vanished::{Owner, any_expired, reclaim_expired, take_back},
};
pub(in crate::store) use self::{
    fold::select,
    partial::{held, literals, open},
};
use crate::domain::delivery::Event;

/// The states that `event` moves, as SQL literals: SQLite uses a partial index only for literals that equal its condition.
fn sources(event: Event) -> String {
    literals(event.sources())
}
