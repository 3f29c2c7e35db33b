//! Kafka as the relay speaks to it: a transactional producer for each stream, and what it says when it fails.
//!
//! In: runs of readings of one stream. Out: their records, committed together with the run's mark or not at all. A crash loses nothing
//! here: the next producer of the same stream ends what this one left open, and reads the mark of the last run that was committed.
//!
//! One transaction holds the records of a run and, as the offset of a consumer group that nobody joins, its mark. Kafka commits both or
//! neither, so that a look at the mark tells whether the records are there, without a look at the topic.

mod classify;
mod client;
mod link;
mod partition;
mod record;
mod topic;

pub use self::{
    classify::classify,
    link::{Link, Outgoing, group_of},
    partition::partition_of,
    record::Rendering,
    topic::{Probe, probe},
};
