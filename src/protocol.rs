//! Every message between actors, in the order in which a reading and its alarm pass them.
//!
//! Orders are imperative, facts are past. Replies travel in oneshot channels owned by the waiter, so that an actor which dies
//! while it holds one makes the waiter see a closed channel at once, never a hang.

use std::sync::Arc;

use actix::prelude::*;
use tokio::sync::oneshot;

use crate::{
    config::Config,
    domain::{
        ack::AckLevel,
        alert::{Alert, Transition},
        batch::Batch,
        receipt::Receipt,
    },
    ingest::admission::Permit,
};

/// What became of a batch, as far as is known when the answer is due.
#[derive(Debug)]
pub struct Accepted {
    /// The numbers its readings got.
    pub receipt: Receipt,
    /// The level reached when this was sent.
    pub level: AckLevel,
    /// Resolves when the level that was asked for is reached; `None` where it is already.
    pub upgrade: Option<oneshot::Receiver<AckLevel>>,
    /// Resolves when alerts that this batch raised are committed; `None` where it raised none.
    pub alerts: Option<oneshot::Receiver<()>>,
}

/// Why a batch was not taken. The sender should come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The buffer's bound is reached.
    Full,
    /// The daemon is stopping.
    Stopping,
    /// The medium has no room (507).
    DiskFull,
    /// The medium failed for this batch; it was not taken.
    Failed,
}

/// Carries the outcome of a batch to the one who waits for it.
pub type Reply = oneshot::Sender<Result<Accepted, Refusal>>;

/// To `IngestActor`: check these readings against the rules and hand them on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Ingest {
    /// Valid readings.
    pub batch: Batch,
    /// The level that the sender asked for.
    pub ack: AckLevel,
    /// Who waits.
    pub reply: Reply,
    /// Room in the byte budget, given back when this message is gone.
    pub permit: Permit,
}

/// To `BatchBufferActor`: number these readings and keep them until they are stored.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Append {
    /// Valid readings, checked against the rules.
    pub batch: Batch,
    /// The level that the sender asked for.
    pub ack: AckLevel,
    /// Who waits.
    pub reply: Reply,
    /// Passed through to [`Accepted::alerts`].
    pub alerts: Option<oneshot::Receiver<()>>,
    /// Room in the byte budget, given back when this message is gone.
    pub permit: Permit,
}

/// To `BatchBufferActor`: readings wait for the database and no timer runs for them.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Visible;

/// To `AlertActor`: conditions began or ceased to hold. All of one message are committed together with their deliveries.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Raise {
    /// In the order in which they happened.
    pub transitions: Vec<Transition>,
    /// Told when they are committed. Closed without a word: they were not taken (the queue was full) and must be raised again.
    pub committed: Option<oneshot::Sender<()>>,
}

/// To `AlertActor`: a person takes an alert on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AcknowledgeAlert {
    /// The alert's id.
    pub id: String,
    /// Who: the name of the token.
    pub by: String,
    /// Why, in the person's words.
    pub reason: Option<String>,
    /// Told what became of it; a repeat by anyone of an acknowledged alert is answered with the alert as it is.
    pub reply: oneshot::Sender<Result<Alert, AcknowledgeError>>,
}

/// Why an alert was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcknowledgeError {
    /// No alert has this id (404).
    NotFound,
    /// It is resolved already (409).
    Resolved,
    /// The control store could not be written (503); the text says why.
    Unavailable(String),
}

/// To `OutboxActor`: there may be due deliveries. Losing this costs one poll interval, nothing else.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Wake;

/// To `ScheduleActor`: run one periodic duty now, by its name.
#[derive(Message)]
#[rtype(result = "()")]
pub struct RunDuty {
    /// One of the registered duties.
    pub name: String,
}

/// To every actor: the configuration has been replaced; take over what concerns you.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct Reconfigure(pub Arc<Config>);

/// To every actor, from its supervisor: prove that your mailbox turns.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Heartbeat;

/// To every actor, in the order of the stop: finish what you hold, then say so.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Drain {
    /// When to give up, by the monotonic clock.
    pub deadline: std::time::Instant,
    /// Told when nothing is left.
    pub done: oneshot::Sender<()>,
}

/// How an actor is made to fail. Only test builds can send it.
#[cfg(feature = "fault-injection")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, Message)]
#[serde(rename_all = "kebab-case")]
#[rtype(result = "()")]
pub enum Fault {
    /// The handler panics.
    Panic,
    /// The actor stops itself.
    Stop,
    /// The actor waits for ever while its thread turns.
    Hang,
    /// The thread sleeps for ever.
    Block,
}
