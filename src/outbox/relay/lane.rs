//! One stream on its way to Kafka: its thread's loop.
//!
//! In: its deliveries. Out: transactions of Kafka, settled deliveries. A crash between any two steps is found out by the mark, see
//! [`relay::resolve`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{LOOK, Shared, circuit::News};
use crate::{
    domain::alert::{Level, Transition},
    event::{RelayFailed, RunRelayed, seconds},
    sinks::{
        ErrorClass, SINK_DOWN, SendError,
        kafka::{Link, Outgoing, Rendering},
    },
    store::{
        Conn, StoreError, StoreResult, Writer,
        leases::{self, Lease},
        relay::{self, Body, Claimed, Run, RunDelivery},
    },
};

/// Readings in one transaction of Kafka, about: enough that its cost hardly counts, and few enough to be sent within the time-out.
const RUN_READINGS: u64 = 20_000;
/// Pause after the store failed.
const STORE_PAUSE: Duration = Duration::from_millis(200);
/// From one look at the number of partitions to the next.
const PARTITIONS_EVERY: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Lane {
    shared: Arc<Shared>,
    lane: String,
    lease: Lease,
    renewed: Instant,
    writer: Writer,
    link: Option<Link>,
    looked: Instant,
    /// The mark of the run that Kafka has committed and the store has not settled yet.
    sent: Option<String>,
    rendering: Rendering,
}

/// How one turn of the loop ended.
enum Turn {
    /// A run went.
    Sent,
    /// Nothing waits.
    Idle,
    /// Kafka is left alone for a while.
    Wait(Duration),
}

/// Why a turn failed.
enum Trouble {
    Store(StoreError),
    Kafka(SendError),
    /// Another worker has this stream.
    LeaseLost,
    /// One delivery of a run can never be sent.
    Unreadable {
        delivery: RunDelivery,
        message: String,
    },
    /// A run is being sent that this lane knows nothing of: the answer to its claim was lost, or an older database was put in place.
    Unresolved,
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<SendError> for Trouble {
    fn from(error: SendError) -> Self {
        Self::Kafka(error)
    }
}

impl Lane {
    pub(super) fn new(shared: Arc<Shared>, lane: String, lease: Lease) -> Self {
        let writer = shared.parts.store.writer();
        let now = Instant::now();
        let rendering = Rendering::default();
        Self { shared, lane, lease, renewed: now, writer, link: None, looked: now, sent: None, rendering }
    }

    /// Until the relay stops, the lease is lost, or nothing is left of a stream that another process wrote.
    pub(super) fn run(&mut self) {
        let shared = self.shared.clone();
        while !shared.stopping() {
            let wakes = shared.wakes();
            match self.turn() {
                Ok(Turn::Sent) => {}
                Ok(Turn::Idle) if shared.owns(&self.lane) => shared.wait(wakes, LOOK),
                Ok(Turn::Idle) => break,
                Ok(Turn::Wait(limit)) => shared.pause(limit.min(LOOK)),
                Err(Trouble::LeaseLost) => {
                    shared.circuit.nothing_tried();
                    log::warn!(target: "belayd::relay", stream = self.lane.as_str(); "another instance relays this stream now");
                    return;
                }
                Err(Trouble::Store(error)) => {
                    shared.circuit.nothing_tried();
                    log::debug!(target: "belayd::relay", stream = self.lane.as_str(), error:% = error; "the store failed the relay; tried again");
                    shared.pause(STORE_PAUSE);
                }
                Err(Trouble::Kafka(error)) => self.kafka_failed(&error),
                Err(Trouble::Unreadable { delivery, message }) => self.reject(&delivery, &message),
                Err(Trouble::Unresolved) => {
                    // The link that is opened next finds out.
                    self.link = None;
                    shared.circuit.nothing_tried();
                    shared.pause(STORE_PAUSE);
                }
            }
        }
        self.leave();
    }

    fn turn(&mut self) -> Result<Turn, Trouble> {
        if !(self.shared.parts.store_is_up)() {
            return Ok(Turn::Wait(STORE_PAUSE));
        }
        self.renew()?;
        let opens = self.link.is_none();
        if opens {
            if let Err(wait) = self.shared.circuit.permit() {
                return Ok(Turn::Wait(wait));
            }
            // A database that is away must not cost Kafka a producer for each try.
            self.write(|_| Ok(()))?;
            self.open()?;
        }
        self.look_at_partitions();
        let run = match self.settle_and_claim()? {
            Claimed::Run(run) => Some(run),
            Claimed::Nothing => None,
            Claimed::Unresolved => return Err(Trouble::Unresolved),
        };
        if let Some(run) = &run {
            self.send(run)?;
        }
        // A turn that asked nothing of Kafka says nothing about it.
        if opens || run.is_some() {
            self.works();
        }
        Ok(if run.is_some() { Turn::Sent } else { Turn::Idle })
    }

    /// In the transaction of whatever is written: the lease is this lane's, and stays so until it ends.
    fn write<T>(&mut self, f: impl FnOnce(&mut Conn) -> StoreResult<T>) -> Result<T, Trouble> {
        let lease = &self.lease;
        let written = self
            .writer
            .with(|conn| conn.write(|conn| if leases::still_held(conn, lease)? { f(conn).map(Some) } else { Ok(None) }))?;
        written.ok_or(Trouble::LeaseLost)
    }

    fn renew(&mut self) -> Result<(), Trouble> {
        if self.renewed.elapsed() < leases::RENEW_EVERY {
            return Ok(());
        }
        let (lease, begun) = (&self.lease, Instant::now());
        if self.writer.with(|conn| conn.write(|conn| leases::renew(conn, lease, leases::TTL)))? {
            self.renewed = begun;
            return Ok(());
        }
        Err(Trouble::LeaseLost)
    }

    /// Opens the link, and finds out what became of whatever was being sent.
    fn open(&mut self) -> Result<(), Trouble> {
        let mut link = Link::open(&self.shared.parts.kafka, &self.lane)?;
        let (lane, mark, now_us) = (self.lane.clone(), link.mark().map(str::to_owned), self.shared.parts.clock.now_us());
        let resolved = self.write(|conn| relay::resolve(conn, &lane, mark.as_deref(), now_us))?;
        self.tell_resolved(&resolved);
        link.begin_marking()?;
        self.shared.parts.metrics.relay_partitions.set(link.partitions().into());
        self.looked = Instant::now();
        self.link = Some(link);
        Ok(())
    }

    /// A link that opens says little: only one that has sent what waits, or has nothing to send, works.
    fn works(&self) {
        if self.shared.circuit.succeeded() == News::Up {
            self.tell(false, "Kafka takes readings".to_owned());
        }
    }

    /// Nothing of it was counted or told before: what this lane knows to be sent is settled before it opens another link.
    fn tell_resolved(&self, resolved: &relay::Resolved) {
        let relay::Resolved { sent, readings, last_seq, again, uncertain, left_out } = *resolved;
        let stream = self.lane.as_str();
        if let (Ok(stream), Some(numbers)) = (stream.parse(), left_out) {
            self.shared.board.left_out(stream, numbers);
        }
        if sent + again + uncertain == 0 {
            return;
        }
        self.shared.parts.outbox.watch.touch();
        if sent > 0 {
            self.shared.parts.metrics.readings_relayed.inc_by(readings);
            if let Ok(stream) = stream.parse() {
                self.shared.board.relayed(stream, last_seq);
            }
        }
        if uncertain > 0 {
            log::error!(target: "belayd::relay", stream = stream, deliveries = uncertain;
                "Kafka has forgotten what it committed last; whether these readings arrived is not known: see `belayd failures list`");
        }
        log::info!(target: "belayd::relay", stream = stream, sent = sent, again = again; "found out what became of readings that were being sent");
    }

    /// Settles what went and claims what goes next, in one transaction.
    fn settle_and_claim(&mut self) -> Result<Claimed, Trouble> {
        let (lane, sent, now_us) = (self.lane.clone(), self.sent.clone(), self.shared.parts.clock.now_us());
        let mark = Uuid::now_v7().to_string();
        let claimed = self.write(|conn| {
            if let Some(sent) = &sent {
                relay::settle_run(conn, &lane, sent, now_us)?;
            }
            relay::claim_run(conn, &lane, &mark, RUN_READINGS, now_us)
        })?;
        if self.sent.take().is_some() {
            self.shared.parts.outbox.watch.touch();
        }
        Ok(claimed)
    }

    fn send(&mut self, run: &Run) -> Result<(), Trouble> {
        let (shared, began) = (self.shared.clone(), Instant::now());
        let Some(mut link) = self.link.take() else { return Ok(()) };
        let (writer, rendering) = (&mut self.writer, &mut self.rendering);
        let offset = run.deliveries.last().map_or(0, |last| last.seq);
        link.transact::<Trouble>(&run.mark, offset, |outgoing| {
            let mut sender = Sender { shared: &shared, lane: &run.lane, writer, rendering, outgoing };
            run.deliveries.iter().try_for_each(|delivery| sender.send(delivery))
        })?;
        self.link = Some(link);
        self.sent = Some(run.mark.clone());
        if let Ok(stream) = run.lane.parse() {
            shared.board.relayed(stream, run.last_seq());
        }
        let now_us = shared.parts.clock.now_us();
        for delivery in &run.deliveries {
            let since_us = u64::try_from(now_us.saturating_sub(delivery.created_at_us)).unwrap_or(0);
            shared.parts.metrics.relay_latency.observe(seconds(Duration::from_micros(since_us)));
        }
        RunRelayed { lane: &run.lane, deliveries: run.deliveries.len(), readings: run.readings(), took: began.elapsed() }
            .emit(&shared.parts.metrics);
        Ok(())
    }

    fn look_at_partitions(&mut self) {
        let Some(link) = self.link.as_mut().filter(|_| self.looked.elapsed() >= PARTITIONS_EVERY) else { return };
        self.looked = Instant::now();
        let before = link.partitions();
        match link.look_again() {
            Ok(now) if now != before => {
                self.shared.parts.metrics.relay_partitions.set(now.into());
                log::warn!(target: "belayd::relay", before = before, now = now;
                    "the topic has another number of partitions; engines that were relayed before stay in theirs");
            }
            Ok(_) => {}
            Err(error) => {
                log::debug!(target: "belayd::relay", error:% = error; "the number of partitions was not seen; tried again")
            }
        }
    }

    fn kafka_failed(&mut self, error: &SendError) {
        self.link = None;
        let fatal = error.class == ErrorClass::Fatal;
        let news = self.shared.circuit.failed(fatal);
        let (lane, error_type, message) = (self.lane.as_str(), error.error_type, error.message.as_str());
        RelayFailed { lane, error_type, message, loud: news == News::Down }.emit(&self.shared.parts.metrics);
        if news == News::Down {
            self.tell(true, format!("Kafka does not take readings, they wait in the database: {message}"));
        }
    }

    fn tell(&self, firing: bool, text: String) {
        if !firing {
            log::info!(target: "belayd::relay", "{text}");
        }
        let now_us = self.shared.parts.clock.now_us();
        self.shared.parts.outbox.raise(vec![Transition::system((SINK_DOWN, relay::SINK), Level::Critical, firing, text, now_us)]);
    }

    /// The rest of its run goes again, without it.
    fn reject(&mut self, delivery: &RunDelivery, message: &str) {
        self.link = None;
        self.shared.circuit.nothing_tried();
        let id = delivery.id.as_str();
        log::error!(target: "belayd::relay", stream = self.lane.as_str(), deliveryId = id, error = message; "a delivery cannot be relayed; see `belayd failures list`");
        if let Ok(stream) = self.lane.parse() {
            // Before it is written down: the answer to that may be lost.
            self.shared.board.left_out(stream, (delivery.first_seq, delivery.last_seq));
        }
        let now_us = self.shared.parts.clock.now_us();
        let rejected = self.write(|conn| relay::reject(conn, id, ("unreadable", message), now_us));
        self.shared.parts.outbox.watch.touch();
        if let Err(Trouble::Store(error)) = rejected {
            log::debug!(target: "belayd::relay", error:% = error; "it was not written down; tried again");
        }
    }

    /// Settles what went, where the store takes it, and gives the lease back.
    fn leave(&mut self) {
        let (lane, sent, now_us) = (self.lane.clone(), self.sent.take(), self.shared.parts.clock.now_us());
        let lease = self.lease.clone();
        self.link = None;
        let left = self.write(|conn| {
            if let Some(sent) = &sent {
                relay::settle_run(conn, &lane, sent, now_us)?;
            }
            leases::release(conn, &lease)
        });
        if let Err(Trouble::Store(error)) = left {
            log::debug!(target: "belayd::relay", stream = lane.as_str(), error:% = error; "the stream's lease was not given back; it runs out");
        }
    }
}

/// The records of one run on their way.
struct Sender<'a, 'l> {
    shared: &'a Shared,
    lane: &'a str,
    writer: &'a mut Writer,
    rendering: &'a mut Rendering,
    outgoing: &'a mut Outgoing<'l>,
}

impl Sender<'_, '_> {
    fn send(&mut self, delivery: &RunDelivery) -> Result<(), Trouble> {
        let unreadable = |message: String| Trouble::Unreadable { delivery: delivery.clone(), message };
        let body: Body = match self.writer.with(|conn| relay::body(conn, &delivery.id))? {
            Some(body) => body.map_err(|damaged| unreadable(damaged.to_string()))?,
            None => return Err(unreadable("its readings are not there".to_owned())),
        };
        self.learn(&body)?;
        let partitions = self.outgoing.partitions();
        for segment in &body.segments {
            for (seq, reading) in (segment.first_seq..).zip(segment.batch.iter()) {
                let partition = self.shared.spread.partition(reading.engine_id, partitions);
                let value = self.rendering.render(&reading, segment.batch.received_at_us());
                let seq = seq.to_string();
                let headers = [("stream", self.lane.as_bytes()), ("seq", seq.as_bytes()), ("deliveryId", delivery.id.as_bytes())];
                self.outgoing.send(partition, reading.engine_id, value, &headers)?;
            }
        }
        Ok(())
    }

    fn learn(&mut self, body: &Body) -> Result<(), Trouble> {
        let engines = body.segments.iter().flat_map(|segment| segment.batch.iter()).map(|reading| reading.engine_id);
        let unknown = self.shared.spread.unknown(engines);
        if !unknown.is_empty() {
            let (spread, topic, partitions) = (&self.shared.spread, &self.shared.parts.kafka.topic, self.outgoing.partitions());
            self.writer.with(|conn| spread.learn(conn, topic, &unknown, partitions))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
