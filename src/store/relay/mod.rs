//! What the relay to Kafka keeps in the store: one delivery for each transaction that stored readings, its readings, and the number of
//! partitions that each engine was first spread over.
//!
//! In: from the drain, within the transaction of its readings. Out: runs of deliveries of one lane (a stream), claimed together and
//! settled together. A crash loses nothing: a run whose end is unknown is found by its mark, and Kafka knows which mark it committed.
//!
//! A run is a list of consecutive deliveries of one lane that go in one transaction of Kafka. Its mark, a UUID, stands in `claimed_by` of
//! its deliveries, and Kafka keeps the mark of the last committed run beside its readings.

mod body;
mod engines;
mod enqueue;
mod run;
mod state;

use diesel::{QueryableByName, sql_types::BigInt};

pub use self::{
    body::{Body, BodyDamaged, Segment},
    engines::{Spread, remember, spread_otherwise},
    run::{Claimed, Run, RunDelivery, body, claim_run, lanes, reject, settle_run},
    state::{Resolved, first_waiting, is_relayed, last_waiting, resolve, unresolved, unsure},
};
pub(super) use self::{
    enqueue::{Payload, enqueue, enqueue_retried, new_id},
    state::decided,
};

/// The sink's name in `deliveries`.
pub const SINK: &str = "kafka";

/// First and last of consecutive numbers of a stream.
pub type Numbers = (u64, u64);

/// One number as a query answers it.
#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}
