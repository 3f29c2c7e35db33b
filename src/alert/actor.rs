//! `AlertActor`: puts what comes in on the desk and keeps the desk at work.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix::prelude::*;

use super::desk::AlertDesk;
use crate::{
    protocol::{AcknowledgeAlert, Drain, Raise, Reconfigure},
    supervise::service,
};

/// Messages that may wait for this actor; each is put on the desk in microseconds.
const MAILBOX: usize = 1_024;
/// From one look at what is due to the next.
const TICK: Duration = Duration::from_secs(1);

/// See the module. It holds nothing that its panic could lose.
pub struct AlertActor {
    desk: Arc<AlertDesk>,
}

service!(AlertActor, "AlertActor", MAILBOX);

impl AlertActor {
    /// A fresh actor over a desk that stays.
    pub fn new(desk: Arc<AlertDesk>) -> Self {
        Self { desk }
    }

    /// Re-armed at its end, so that a stall is not followed by a burst.
    fn tick(&mut self, ctx: &mut Context<Self>) {
        let desk = self.desk.clone();
        let look = async move {
            desk.look_round().await;
            desk.work();
        };
        ctx.spawn(actix::fut::wrap_future(look).map(|(), _: &mut Self, ctx: &mut Context<Self>| {
            ctx.run_later(TICK, Self::tick);
        }));
    }
}

impl Actor for AlertActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // What an earlier life left on the desk.
        self.desk.work();
        self.desk.forget_round();
        ctx.run_later(TICK, Self::tick);
    }
}

impl Handler<Raise> for AlertActor {
    type Result = ();

    fn handle(&mut self, raise: Raise, _: &mut Self::Context) {
        self.desk.take_raise(raise);
        self.desk.work();
    }
}

impl Handler<AcknowledgeAlert> for AlertActor {
    type Result = ();

    fn handle(&mut self, wish: AcknowledgeAlert, _: &mut Self::Context) {
        self.desk.take_acknowledge(wish);
        self.desk.work();
    }
}

impl Handler<Reconfigure> for AlertActor {
    type Result = ();

    /// The desk reads the configuration in force with each commit; what fires may have other receivers now.
    fn handle(&mut self, _: Reconfigure, _: &mut Self::Context) {
        self.desk.take_rerouted();
        self.desk.work();
    }
}

impl Handler<Drain> for AlertActor {
    type Result = ();

    fn handle(&mut self, drain: Drain, _: &mut Self::Context) {
        let desk = self.desk.clone();
        actix::spawn(async move {
            let left = drain.deadline.saturating_duration_since(Instant::now());
            if tokio::time::timeout(left, desk.emptied()).await.is_err() {
                log::error!(target: "belayd::alert", waiting = desk.waiting();
                    "stopping with alerts that could not be committed; their rules raise them again at the next breach");
            }
            let _ = drain.done.send(());
        });
    }
}
