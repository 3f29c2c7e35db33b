//! `IngestActor`: every reading passes here once, in order of arrival, is checked against the rules and handed to the buffer.
//!
//! In: batches from pushes and pollers. Out: [`Append`] to `BatchBufferActor`, transitions to the [`Raiser`]. It owns the pollers.
//! A panic loses the message in hand, whose sender sees a closed channel and comes again; the engine table and the raiser live
//! outside.

use std::{pin::Pin, sync::Arc, time::Duration};

use actix::prelude::*;

use super::{
    engines::{EngineTable, SavedBaseline, SavedPhase},
    poll::{PollContext, Poller, retire_missing},
    raiser::Raiser,
};
use crate::{
    clock::SharedClock,
    config::Config,
    domain::batch::Batch,
    protocol::{Append, Drain, Ingest, Reconfigure, Refusal},
    supervise::{Courier, SendRefused, brings_much, service},
};

/// Messages that may wait for this actor. Pushes are bounded in bytes before; this bounds their number.
const MAILBOX: usize = 4_096;

/// How often phases that have changed are saved. A crash in between starts the `for` of a rule anew, nothing worse.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// See [`IngestParts::save_phases`].
pub type SavePhases = Box<dyn Fn(Vec<SavedPhase>) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// See [`IngestParts::save_baselines`].
pub type SaveBaselines = Box<dyn Fn(Vec<SavedBaseline>) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// See [`IngestParts::refuses`].
pub type Refuses = Box<dyn Fn(&Batch) -> Option<Refusal> + Send + Sync>;

/// See [`IngestParts::poll`].
pub type MakePollContext = Box<dyn Fn(&Config) -> Option<PollContext> + Send + Sync>;

/// What the actor works with; it outlives every restart.
pub struct IngestParts {
    /// Newest readings, trends and phases.
    pub engines: Arc<EngineTable>,
    /// The way of transitions.
    pub raiser: Raiser,
    /// The way of readings.
    pub buffer: Courier<Append>,
    /// Why the buffer would refuse a batch now; asked before the rules see it.
    pub refuses: Refuses,
    /// The configuration in force; a restarted actor polls by it.
    pub config: Arc<arc_swap::ArcSwap<Config>>,
    /// Wall-clock time.
    pub clock: SharedClock,
    /// Saves phases that have begun; resolves with whether it worked.
    pub save_phases: SavePhases,
    /// Saves what anomaly rules have learned; resolves with whether it worked.
    pub save_baselines: SaveBaselines,
    /// Makes what a poller needs, by the configuration in force. `None` until the daemon knows this actor's own address; it then
    /// sends a [`Reconfigure`], with which polling begins.
    pub poll: MakePollContext,
}

/// See the module.
pub struct IngestActor {
    parts: Arc<IngestParts>,
    pollers: Vec<Poller>,
    stopping: bool,
}

service!(IngestActor, "IngestActor", MAILBOX, gathers);

impl IngestActor {
    /// A fresh actor over parts that stay.
    pub fn new(parts: Arc<IngestParts>) -> Self {
        Self { parts, pollers: Vec::new(), stopping: false }
    }

    /// Ends the pollers there are and starts those of the configuration. All of them: the limits for readings travel with each.
    fn poll_by(&mut self, config: &Config) {
        self.pollers.clear();
        if let Some(context) = (self.parts.poll)(config) {
            retire_missing(&context, &config.sources);
            self.pollers.extend(config.sources.iter().map(|source| Poller::spawn(source.clone(), context.clone())));
        }
    }
}

impl Actor for IngestActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let config = self.parts.config.load_full();
        self.poll_by(&config);
        save_later(ctx);
    }
}

/// Saves the phases after a while, and again; the timer is armed anew only when saving has ended.
fn save_later(ctx: &mut Context<IngestActor>) {
    ctx.run_later(SAVE_EVERY, |this, ctx| {
        let saving = save(this.parts.clone());
        ctx.spawn(actix::fut::wrap_future(saving).map(|(), _, ctx| save_later(ctx)));
    });
}

async fn save(parts: Arc<IngestParts>) {
    if let Some(phases) = parts.engines.phases_to_save()
        && !(parts.save_phases)(phases).await
    {
        parts.engines.mark_unsaved();
    }
    let learned = parts.engines.baselines_to_save();
    if !learned.is_empty() && !(parts.save_baselines)(learned).await {
        parts.engines.mark_baselines_unsaved();
    }
}

impl Handler<Ingest> for IngestActor {
    type Result = ();

    fn handle(&mut self, Ingest { batch, ack, reply, permit }: Ingest, _: &mut Self::Context) {
        if !batch.is_small() {
            brings_much();
        }
        let refusal = if self.stopping {
            Some(Refusal::Stopping)
        } else if !self.parts.raiser.has_room() {
            Some(Refusal::Full)
        } else {
            (self.parts.refuses)(&batch)
        };
        if let Some(refusal) = refusal {
            // The sender may have gone; then there is nobody to tell.
            let _ = reply.send(Err(refusal));
            return;
        }
        let transitions = self.parts.engines.observe(&batch);
        let alerts = (!transitions.is_empty()).then(|| self.parts.raiser.raise(transitions));
        if let Err(refused) = self.parts.buffer.try_send(Append { batch, ack, reply, alerts, permit }) {
            let refusal = match &refused {
                SendRefused::Full(_) => Refusal::Full,
                SendRefused::Closed(_) => Refusal::Stopping,
            };
            let _ = refused.into_inner().reply.send(Err(refusal));
        }
    }
}

impl Handler<Reconfigure> for IngestActor {
    type Result = ();

    fn handle(&mut self, Reconfigure(config): Reconfigure, _: &mut Self::Context) {
        let now_us = self.parts.clock.now_us();
        let Config { rules, anomaly_rules, readings, .. } = &*config;
        let closed = self.parts.engines.replace_rules(rules, anomaly_rules, readings.max_engines, now_us);
        if !closed.is_empty() {
            // Nobody waits for this commit; the raiser repeats it until it is done.
            drop(self.parts.raiser.raise(closed));
        }
        if !self.stopping {
            self.poll_by(&config);
        }
    }
}

impl Handler<Drain> for IngestActor {
    type Result = ();

    fn handle(&mut self, drain: Drain, _: &mut Self::Context) {
        // Whatever came before lies behind us in the mailbox; what comes now is refused.
        self.stopping = true;
        self.pollers.clear();
        let parts = self.parts.clone();
        actix::spawn(async move {
            save(parts).await;
            // Nobody listens where the deadline has passed.
            let _ = drain.done.send(());
        });
    }
}
