//! `AlertActor`: puts what comes in on the desk and keeps the desk at work.

use std::{sync::Arc, time::Instant};

use actix::prelude::*;

use super::desk::AlertDesk;
use crate::{
    protocol::{AcknowledgeAlert, Drain, Raise, Reconfigure},
    supervise::service,
};

/// Messages that may wait for this actor; each is put on the desk in microseconds.
const MAILBOX: usize = 1_024;

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
}

impl Actor for AlertActor {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        // What an earlier life left on the desk.
        self.desk.work();
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

    /// Nothing to do: the desk reads the configuration in force with each commit.
    fn handle(&mut self, _: Reconfigure, _: &mut Self::Context) {}
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
