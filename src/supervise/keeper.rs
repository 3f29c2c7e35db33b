//! Keeps one actor alive: polls it under `catch_unwind` and gives it a fresh life after a panic, a stop, a hang or a request.
//!
//! In: the actor's `ContextFut` (which owns its mailbox), its factory. Out: the same mailbox and addresses, whatever happens.
//! A failure rebuilds the state from the factory at once, so that everything the old life held is let go (who waited for it sees a
//! closed channel), and the new life begins after the wait that [`RestartPolicy`] names. A crash loses the old struct and futures.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::{Duration, Instant},
};

use actix::{dev::ContextFut, prelude::*};
use tokio::time::Sleep;

use super::{
    Service,
    escalation::{Cause, Escalation},
    linger::{Linger, brought_much},
    policy::{Decision, RestartPolicy},
    vitals::{ActorState, Reason, Vitals},
};
use crate::config::SupervisionConfig;

thread_local! {
    /// The actor of this thread, for the panic hook.
    static CURRENT: Cell<Option<&'static str>> = const { Cell::new(None) };
    /// A fresh actor on its way from the keeper to `Supervised::restarting`, which actix calls without a way to pass anything.
    static FRESH: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

/// The name of the actor whose thread this is.
pub fn current_actor() -> Option<&'static str> {
    CURRENT.try_with(Cell::get).ok().flatten()
}

pub(super) fn set_current_actor(name: &'static str) {
    CURRENT.with(|current| current.set(Some(name)));
}

/// Replaces a failed actor by the one that its factory has just made. `service!` calls it from `Supervised::restarting`; outside a
/// restart it does nothing.
pub fn renew<A: Actor>(actor: &mut A) {
    let fresh = FRESH.with(|slot| slot.borrow_mut().take());
    if let Some(Ok(fresh)) = fresh.map(Box::<dyn Any>::downcast::<A>) {
        *actor = *fresh;
    }
}

enum Phase {
    Live,
    /// A failure was noticed; the fresh life begins when the timer ends.
    Waiting(Pin<Box<Sleep>>),
}

/// See the module.
pub(super) struct Keeper<A: Service> {
    /// `None` only while it is being dropped.
    actor: Option<ContextFut<A, Context<A>>>,
    factory: Box<dyn Fn() -> A>,
    vitals: Arc<Vitals>,
    policy: RestartPolicy,
    escalation: Escalation,
    phase: Phase,
    /// Where the actor's messages may gather.
    linger: Option<Linger>,
    /// When the failure was noticed that the present wait follows.
    failed_at: Option<Instant>,
    /// False where the factory itself panicked.
    fresh: bool,
    origin: Instant,
}

impl<A: Service> Unpin for Keeper<A> {}

impl<A: Service> Keeper<A> {
    /// Builds the actor. Must run on the actor's own thread.
    pub(super) fn new(
        factory: Box<dyn Fn() -> A>,
        vitals: Arc<Vitals>,
        settings: SupervisionConfig,
        escalation: Escalation,
    ) -> (Self, Addr<A>) {
        let mut ctx = Context::new();
        // Seats bound the mailbox; actix's own bound is a second fence for what bypasses them, and must not be hit first.
        ctx.set_mailbox_capacity(vitals.bound().saturating_add(64));
        let actor = ctx.into_future(factory());
        let addr = actor.address();
        let policy = RestartPolicy::new(settings, Duration::ZERO);
        let keeper = Self {
            actor: Some(actor),
            factory,
            vitals,
            policy,
            escalation,
            phase: Phase::Live,
            linger: A::GATHERS.then(Linger::new),
            failed_at: None,
            fresh: true,
            origin: Instant::now(),
        };
        (keeper, addr)
    }

    /// Polls the actor once, unless nothing has come for it. `Some(reason)` where its life ended.
    fn poll_actor(&mut self, cx: &mut TaskContext<'_>) -> Option<Reason> {
        let actor = self.actor.as_mut()?;
        let waker = match &self.linger {
            Some(linger) if linger.is_idle(cx) => return None,
            Some(linger) => linger.waker(),
            None => cx.waker().clone(),
        };
        let before = self.vitals.handled();
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(actor).poll(&mut TaskContext::from_waker(&waker))));
        if let Some(linger) = &mut self.linger {
            let handled = self.vitals.handled().wrapping_sub(before);
            linger.turned(handled.saturating_sub(brought_much()), cx);
        }
        match polled {
            Ok(Poll::Pending) => None,
            Ok(Poll::Ready(())) => Some(Reason::Stop),
            Err(_) => Some(Reason::Panic),
        }
    }

    /// Decides what follows a failure. False where it is the last.
    fn failed(&mut self, reason: Reason) -> bool {
        self.failed_at.get_or_insert_with(Instant::now);
        self.vitals.count_restart(reason);
        let decision = match reason {
            Reason::Requested => Decision::Restart(Duration::ZERO),
            Reason::Panic | Reason::Stop | Reason::Hang => self.policy.failed(self.origin.elapsed()),
        };
        let (actor, why) = (self.vitals.name(), reason.as_str());
        match decision {
            Decision::Restart(wait) => {
                log::warn!(target: "belayd::supervise", actor, reason = why, waitMs = wait.as_millis() as u64; "actor restarts");
                self.vitals.set_state(ActorState::Backoff);
                self.rebuild();
                self.phase = Phase::Waiting(Box::pin(tokio::time::sleep(wait)));
                true
            }
            Decision::Escalate(failures) => {
                log::error!(target: "belayd::supervise", actor, reason = why, failures; "actor failed too often, the process ends");
                let within = self.policy.within();
                self.escalation.raise(Cause::TooManyRestarts { actor, failures, within });
                false
            }
        }
    }

    /// Puts a fresh actor in place of the failed one and lets go of all its futures; a factory or destructor that panics is another
    /// try when the wait is over.
    fn rebuild(&mut self) {
        let factory = &self.factory;
        let Some(actor) = self.actor.as_mut() else { return };
        let rebuilt = catch_unwind(AssertUnwindSafe(|| {
            let fresh: Box<dyn Any> = Box::new(factory());
            FRESH.with(|slot| slot.borrow_mut().replace(fresh));
            actor.restart();
        }));
        self.fresh = rebuilt.is_ok();
    }

    /// The wait is over. False where there is still no fresh actor.
    fn begin_life(&mut self) -> bool {
        if !self.fresh {
            self.rebuild();
        }
        if self.fresh {
            self.phase = Phase::Live;
            if let Some(linger) = &self.linger {
                linger.stir();
            }
            self.policy.life_began(self.origin.elapsed());
            let took = self.failed_at.take().map(|at| at.elapsed()).unwrap_or_default();
            self.vitals.restarted(took);
            self.vitals.set_state(ActorState::Running);
        }
        self.fresh
    }

    /// A restart that someone asked for. While a failure's wait runs, a request ends the wait, and a hang is already being cured.
    fn serve_request(&mut self, reason: Reason) -> bool {
        match (&self.phase, reason) {
            (Phase::Live, _) | (Phase::Waiting(_), Reason::Requested) => self.failed(reason),
            (Phase::Waiting(_), _) => true,
        }
    }
}

impl<A: Service> Future for Keeper<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.vitals.turn_began();
        loop {
            if let Some(reason) = this.vitals.take_request(cx.waker())
                && !this.serve_request(reason)
            {
                return Poll::Ready(());
            }
            if let Phase::Waiting(sleep) = &mut this.phase {
                if sleep.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                if !this.begin_life() {
                    if !this.failed(Reason::Panic) {
                        return Poll::Ready(());
                    }
                    continue;
                }
            }
            match this.poll_actor(cx) {
                None => return Poll::Pending,
                Some(Reason::Stop) if this.vitals.is_retiring() => return Poll::Ready(()),
                Some(reason) if !this.failed(reason) => return Poll::Ready(()),
                Some(_) => {}
            }
        }
    }
}

impl<A: Service> Drop for Keeper<A> {
    fn drop(&mut self) {
        self.vitals.seats().close();
        // Dropping the future runs the actor's `stopping` and `stopped`, which may panic like any other code of it.
        let actor = self.actor.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(actor)));
        self.vitals.set_state(ActorState::Stopped);
    }
}
