//! The outbox: what was committed is sent, and what became of it is written down.
//!
//! ```text
//!  Wake, NOTIFY, poll, due retry, circuit -> Dispatcher, one a store: reclaim, claim + mark sending (committed)
//!                                        |  runs: what was claimed of one lane, one after the other; at most `concurrency` runs a sink
//!                                        v
//!                                      sink  -> verdict -> settlement queue -> settled in groups, fenced by the epoch of the claim
//! ```
//! In: deliveries of the control store and, while it is up, of the store. Out: sends. Everything that matters lives in the
//! [`Outbox`], outside the actor: attempts in flight and their ends survive its panic. A crash of the process loses the knowledge of
//! attempts in flight; at the start they go the way that their route wants for an unknown outcome.

mod actor;
mod attachments;
mod attempt;
mod backoff;
mod channel;
mod dispatcher;
mod episode;
mod issues;
mod listen;
mod rate;
mod relay;
mod settle;
mod state;
#[cfg(test)]
mod tests;
mod told;
mod watch;
mod way;

pub use self::{
    actor::OutboxActor,
    issues::IssueSink,
    relay::{Relay, RelayParts},
    state::{Outbox, OutboxParts, RaiseFn},
    watch::{OutboxCounts, SinkCounts},
};
