//! `OutboxActor`: keeps the dispatcher going, passes wake-ups on, and lets attempts end before a stop.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use actix::prelude::*;

use super::state::Outbox;
use crate::{
    protocol::{Drain, Reconfigure, Wake},
    sinks,
    supervise::service,
};

/// Messages that may wait for this actor. A wake-up that finds no room is not missed: others wait already.
const MAILBOX: usize = 256;
/// From one look at the dispatcher and the counts to the next.
const TICK: Duration = Duration::from_secs(1);
/// Ticks after which counts are taken even where nothing is known to have changed.
const COUNT_EVERY: u32 = 15;

/// See the module. It holds nothing that its panic could lose.
pub struct OutboxActor {
    outbox: Arc<Outbox>,
    ticks: u32,
}

service!(OutboxActor, "OutboxActor", MAILBOX);

impl OutboxActor {
    /// A fresh actor over an outbox that stays.
    pub fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox, ticks: 0 }
    }

    /// Re-armed at its end, so that a stall is not followed by a burst.
    fn tick(&mut self, ctx: &mut Context<Self>) {
        if !self.outbox.stopping.load(Ordering::Acquire) {
            self.outbox.drive();
        }
        self.outbox.told.tick();
        let due = self.ticks.is_multiple_of(COUNT_EVERY);
        self.ticks = self.ticks.wrapping_add(1);
        let outbox = self.outbox.clone();
        let count = async move {
            if outbox.watch.take_changed() || due {
                outbox.refresh().await;
            }
        };
        ctx.spawn(actix::fut::wrap_future(count).map(|(), _: &mut Self, ctx: &mut Context<Self>| {
            ctx.run_later(TICK, Self::tick);
        }));
    }
}

impl Actor for OutboxActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.tick(ctx);
    }
}

impl Handler<Wake> for OutboxActor {
    type Result = ();

    fn handle(&mut self, _: Wake, _: &mut Self::Context) {
        self.outbox.watch.touch();
        self.outbox.wake();
    }
}

impl Handler<Reconfigure> for OutboxActor {
    type Result = ();

    fn handle(&mut self, Reconfigure(config): Reconfigure, _: &mut Self::Context) {
        self.outbox.replace_sinks(sinks::build(&config));
        self.outbox.wake();
    }
}

impl Handler<Drain> for OutboxActor {
    type Result = ();

    fn handle(&mut self, drain: Drain, _: &mut Self::Context) {
        self.outbox.stopping.store(true, Ordering::Release);
        self.outbox.wake();
        let outbox = self.outbox.clone();
        actix::spawn(async move {
            while outbox.in_flight() > 0 && Instant::now() < drain.deadline {
                for at in 0..outbox.sides.len() {
                    outbox.settle(at).await;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let left = outbox.in_flight();
            if left > 0 {
                log::warn!(target: "belayd::outbox", inFlight = left;
                    "stopping while deliveries are being sent; the next start treats them as their routes want for an unknown outcome");
            }
            let _ = drain.done.send(());
        });
    }
}
