//! `ScheduleActor`: looks once a second whether a duty is due.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix::prelude::*;

use super::desk::ScheduleDesk;
use crate::{
    protocol::{Drain, Reconfigure, RunDuty},
    supervise::service,
};

/// Messages that may wait for this actor.
const MAILBOX: usize = 64;
/// From one look to the next. Duties are chores: a second is precise enough.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// See the module. It holds nothing that its panic could lose.
pub struct ScheduleActor {
    desk: Arc<ScheduleDesk>,
}

service!(ScheduleActor, "ScheduleActor", MAILBOX);

impl ScheduleActor {
    /// A fresh actor over a desk that stays.
    pub fn new(desk: Arc<ScheduleDesk>) -> Self {
        Self { desk }
    }

    /// Re-armed at its end, so that a stall is not followed by a burst.
    fn tick(&mut self, ctx: &mut Context<Self>) {
        self.desk.work();
        ctx.run_later(TICK, Self::tick);
    }
}

impl Actor for ScheduleActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.tick(ctx);
    }
}

impl Handler<RunDuty> for ScheduleActor {
    type Result = ();

    fn handle(&mut self, RunDuty { name }: RunDuty, _: &mut Self::Context) {
        if !self.desk.ask(&name) {
            log::warn!(target: "belayd::schedule", duty = name.as_str(); "no duty has this name");
        }
        self.desk.work();
    }
}

impl Handler<Reconfigure> for ScheduleActor {
    type Result = ();

    fn handle(&mut self, _: Reconfigure, _: &mut Self::Context) {
        self.desk.reckon();
        self.desk.work();
    }
}

impl Handler<Drain> for ScheduleActor {
    type Result = ();

    fn handle(&mut self, drain: Drain, _: &mut Self::Context) {
        self.desk.begin_stop();
        let desk = self.desk.clone();
        actix::spawn(async move {
            while desk.is_running() && Instant::now() < drain.deadline {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let _ = drain.done.send(());
        });
    }
}
