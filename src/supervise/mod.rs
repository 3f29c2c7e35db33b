//! Supervision: every actor on its own thread, restarted in place when it fails, watched for progress.
//!
//! ```text
//!  Courier<M> --(seat taken)--> mailbox --> Keeper: polls the actor under catch_unwind
//!                                             |  panic, stop, hang, request
//!                                             v
//!                                  fresh state from the factory, after a wait (RestartPolicy)
//!                                             |  too many in the window
//!                                             v
//!                                  Escalation -> daemon -> non-zero exit -> systemd
//!  Overseer (plain thread): heartbeats, stalls, stuck threads, the watchdog of systemd
//! ```
//! In: a factory for each actor, and [`SupervisionConfig`](crate::config::SupervisionConfig). Out: [`ActorRef`]s that stay valid
//! over every restart, an [`ActorRegistry`] that says how everyone is, an [`Escalation`].
//! A crash loses: the message whose handler panicked, and whatever the actor's struct and its futures held. Messages that wait in
//! the mailbox survive. What was acknowledged or waits for an answer must therefore live outside the actor.
//!
//! actix facts that shaped this (0.13.5): its own supervisor does not survive a panic; `ContextFut::restart` keeps the mailbox; a
//! mailbox that never runs empty starves the actor's timers and its thread (so [`Counted`] yields now and then); a handle given to
//! `cancel_future` in the very turn that panics may hit a future of the next life, so re-arm timers instead of cancelling them.

mod drain;
mod escalation;
#[cfg(feature = "fault-injection")]
pub mod fault;
mod keeper;
mod linger;
mod mailbox;
mod overseer;
mod policy;
mod registry;
mod supervisor;
#[cfg(test)]
mod tests;
mod vitals;

use actix::prelude::*;

pub use drain::DrainReport;
pub use escalation::{Cause, Escalation};
pub use keeper::{current_actor, renew};
pub use linger::brings_much;
pub use mailbox::{Counted, Courier, Forwarded, Probe, SendRefused};
pub use overseer::Overseer;
pub use policy::{Decision, RestartPolicy};
pub use registry::{ActorRegistry, ActorStatus, LoopStamp, LoopStatus, RestartsByReason};
pub use supervisor::{ActorRef, StartError, Supervisor};
pub use vitals::{ActorState, Reason};

use crate::protocol::{Drain, Heartbeat, Reconfigure};

/// An actor that can be supervised. Write `service!(MyActor, "MyActor", 1024);` beside the actor: it implements this, the restart
/// from the factory, the counted mailbox, the heartbeat and, in test builds, the faults. What remains to the author is the actor
/// with its handlers, among them [`Drain`] and [`Reconfigure`].
pub trait Service:
    Actor<Context = Context<Self>>
    + Supervised
    + Handler<Counted<Heartbeat>>
    + Handler<Counted<Drain>>
    + Handler<Counted<Reconfigure>>
    + FaultTarget
{
    /// The name in the log, the metrics and `/admin/actors`.
    const NAME: &'static str;
    /// Most messages that wait; a further `try_send` is refused as full. At least 1.
    const MAILBOX: usize;
    /// Whether its messages may gather for a millisecond or two where some thousand a second come.
    const GATHERS: bool;
}

/// Actors that can be made to fail on purpose; nothing at all without the feature `fault-injection`.
#[cfg(feature = "fault-injection")]
pub trait FaultTarget: Handler<crate::protocol::Fault> {}
#[cfg(feature = "fault-injection")]
impl<A: Handler<crate::protocol::Fault>> FaultTarget for A {}

/// Actors that can be made to fail on purpose; nothing at all without the feature `fault-injection`.
#[cfg(not(feature = "fault-injection"))]
pub trait FaultTarget {}
#[cfg(not(feature = "fault-injection"))]
impl<A> FaultTarget for A {}

/// Makes an actor a [`Service`]: `service!(Type, "Name", mailbox bound);`, with `, gathers` where its messages may gather.
macro_rules! service {
    ($actor:ty, $name:literal, $mailbox:expr) => {
        $crate::supervise::service!(@ $actor, $name, $mailbox, false);
    };
    ($actor:ty, $name:literal, $mailbox:expr, gathers) => {
        $crate::supervise::service!(@ $actor, $name, $mailbox, true);
    };
    (@ $actor:ty, $name:literal, $mailbox:expr, $gathers:literal) => {
        impl $crate::supervise::Service for $actor {
            const NAME: &'static str = $name;
            const MAILBOX: usize = $mailbox;
            const GATHERS: bool = $gathers;
        }

        impl ::actix::Supervised for $actor {
            fn restarting(&mut self, _: &mut ::actix::Context<Self>) {
                $crate::supervise::renew(self);
            }
        }

        impl<M> ::actix::Handler<$crate::supervise::Counted<M>> for $actor
        where
            $actor: ::actix::Handler<M>,
            M: ::actix::Message + Send + 'static,
            M::Result: Send,
        {
            type Result = $crate::supervise::Forwarded<<$actor as ::actix::Handler<M>>::Result, M>;

            fn handle(&mut self, counted: $crate::supervise::Counted<M>, ctx: &mut ::actix::Context<Self>) -> Self::Result {
                let message = counted.open(ctx);
                $crate::supervise::Forwarded::new(::actix::Handler::<M>::handle(self, message, ctx))
            }
        }

        impl ::actix::Handler<$crate::protocol::Heartbeat> for $actor {
            type Result = ();

            fn handle(&mut self, _: $crate::protocol::Heartbeat, _: &mut ::actix::Context<Self>) {}
        }

        #[cfg(feature = "fault-injection")]
        impl ::actix::Handler<$crate::protocol::Fault> for $actor {
            type Result = ();

            fn handle(&mut self, fault: $crate::protocol::Fault, ctx: &mut ::actix::Context<Self>) {
                $crate::supervise::fault::commit(fault, ctx);
            }
        }
    };
}
pub(crate) use service;
