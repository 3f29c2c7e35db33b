//! One attempt, from the claim to the written end. It runs in a task of its own: a panic in a sink ends that attempt, as unknown.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::FutureExt;

use super::{
    backoff,
    state::{CONTROL, Outbox, Side, lock},
};
use crate::{
    config::OnUnknown,
    domain::alert::{AlertKind, Level, Transition},
    domain::breaker::Turn,
    event::{DeliverySent, SendFailed},
    sinks::{self, ErrorClass, Letter, SendError, Sent, Sink},
    store::deliveries::{self, DeliveryRow, Outcome, Settlement},
};

/// No sink may hold a delivery for longer; each has a shorter time-out of its own.
const ATTEMPT_MAX: Duration = Duration::from_secs(300);

impl Outbox {
    /// Starts an attempt for each.
    pub(super) fn start(self: &Arc<Self>, side: &'static str, claimed: Vec<DeliveryRow>) {
        let Some(index) = self.sides.iter().position(|known| known.name == side) else { return };
        for row in claimed {
            let sink = lock(&self.sinks).get_mut(&row.sink).map(|way| {
                way.in_flight += 1;
                way.sink.clone()
            });
            let Some(sink) = sink else {
                self.give_up_orphan(&self.sides[index], &row);
                continue;
            };
            lock(&self.sides[index].in_flight).insert(row.id.clone(), row.epoch);
            let outbox = self.clone();
            actix::spawn(async move { outbox.attempt(index, row, sink).await });
        }
    }

    /// The sink was removed from the configuration: a person decides, who can have it sent once the sink is back. In the shared
    /// store the lease ends instead, since another instance may still have the sink.
    fn give_up_orphan(&self, side: &Side, row: &DeliveryRow) {
        if side.name != CONTROL {
            return;
        }
        let message = "no sink of this name is configured any more";
        let (outcome, error) = (Outcome::Rejected, Some(("sink_removed".to_owned(), message.to_owned())));
        SendFailed {
            delivery_id: &row.id,
            sink: &row.sink,
            attempt: row.attempt.unsigned_abs(),
            took: Duration::ZERO,
            error_type: "sink_removed",
            message,
            verdict: outcome.event().target().as_str(),
        }
        .emit(&self.metrics);
        lock(&side.ends).push(Settlement { held: row.held(), outcome, error, answer: None });
        self.wake();
    }

    async fn attempt(self: Arc<Self>, side: usize, row: DeliveryRow, sink: Arc<dyn Sink>) {
        let mut letter = Letter {
            id: row.id.clone(),
            sink: row.sink.clone(),
            recipient: row.recipient.clone(),
            subject: row.subject.clone(),
            payload: row.payload.as_str().into(),
            attempt: row.attempt.unsigned_abs(),
            possible_repeat: row.possible_repeat(),
            attachments: Vec::new(),
        };
        if let Some(outcome) = self.ask_others(side, &row).await {
            return self.end_untold(side, &row, outcome).await;
        }
        let began = Instant::now();
        let result = match self.attached(&self.sides[side], &row).await {
            Ok(attachments) => {
                letter.attachments = attachments;
                send(&*sink, &letter).await
            }
            Err(error) => Err(error),
        };
        if result.is_ok() {
            self.tell_others(side, &row).await;
        }
        let took = began.elapsed();
        let outcome = self.judge(&row, &result);
        self.tell(&row, &result, &outcome, took);
        self.count(&row.sink, &result);
        let (answer, error) = match result {
            Ok(sent) => (Some(sent.answer), None),
            Err(error) => (None, Some((error.error_type.to_owned(), error.message))),
        };
        let side = &self.sides[side];
        lock(&side.ends).push(Settlement { held: row.held(), outcome, error, answer });
        self.settle(side).await;
        self.wake(); // A place is free, and the lane's next may go.
    }

    /// What follows from the receiver's word.
    fn judge(&self, row: &DeliveryRow, result: &Result<Sent, SendError>) -> Outcome {
        let config = self.config.load();
        let later = |least: Duration| {
            let wait = backoff::wait(config.outbox.retry_base, config.outbox.retry_max, row.attempt.unsigned_abs()).max(least);
            self.clock.now_us().saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX))
        };
        match result.as_ref().map_err(|error| error.class) {
            Ok(_) => Outcome::Sent,
            Err(ErrorClass::Reject | ErrorClass::Fatal) => Outcome::Rejected,
            Err(ErrorClass::Unknown) if row.on_unknown() == OnUnknown::Review => Outcome::Uncertain,
            Err(_) if !row.may_retry() => Outcome::Exhausted,
            Err(ErrorClass::Unknown) => Outcome::Repeat { at_us: later(Duration::ZERO) },
            Err(ErrorClass::Retry { after }) => Outcome::Retry { at_us: later(after.unwrap_or_default()) },
        }
    }

    fn tell(&self, row: &DeliveryRow, result: &Result<Sent, SendError>, outcome: &Outcome, took: Duration) {
        let attempt = row.attempt.unsigned_abs();
        match result {
            Ok(_) => {
                self.sent_total.fetch_add(1, Ordering::Relaxed);
                let since_us = self.clock.now_us().saturating_sub(row.due_at_us);
                let alert_latency = (attempt == 1).then(|| Duration::from_micros(u64::try_from(since_us).unwrap_or(0)));
                DeliverySent { delivery_id: &row.id, sink: &row.sink, attempt, took, alert_latency }.emit(&self.metrics);
            }
            Err(error) => SendFailed {
                delivery_id: &row.id,
                sink: &row.sink,
                attempt,
                took,
                error_type: error.error_type,
                message: &error.message,
                verdict: outcome.event().target().as_str(),
            }
            .emit(&self.metrics),
        }
    }

    /// Moves the circuit. A rejection says that the sink is well: it is the delivery that is not.
    fn count(&self, sink: &str, result: &Result<Sent, SendError>) {
        let (turn, news, state) = {
            let mut sinks = lock(&self.sinks);
            let Some(way) = sinks.get_mut(sink) else { return };
            way.in_flight = way.in_flight.saturating_sub(1);
            let well = matches!(result.as_ref().map_err(|error| error.class), Ok(_) | Err(ErrorClass::Reject));
            let turn = if well { way.breaker.succeeded() } else { way.breaker.failed(Instant::now()) };
            // The first success of a run is told too: an earlier run may have left the alert open, and ending what is not open does nothing.
            let news = turn != Turn::None || (well && !way.told);
            way.told |= news;
            (turn, news, way.breaker.state(Instant::now()))
        };
        self.show_circuit(sink, state, result.as_ref().err().map_or("", |error| error.message.as_str()));
        if !news {
            return;
        }
        let firing = turn == Turn::Opened;
        let now_us = self.clock.now_us();
        let told = result.as_ref().err().map(|error| error.message.clone()).unwrap_or_default();
        let text = if firing {
            format!("sink {sink} failed several times in a row and is paused: {told}")
        } else {
            format!("sink {sink} works again")
        };
        self.raise(vec![Transition {
            kind: AlertKind::System,
            name: sinks::SINK_DOWN.to_owned(),
            subject: sink.to_owned(),
            level: Level::Warning,
            firing,
            observed_at_us: now_us,
            arrived_at_us: now_us,
            value: None,
            threshold: None,
            text,
        }]);
    }

    /// Writes the ends that wait, in one transaction. What cannot be written stays, its leases are renewed, and the dispatcher's
    /// next look tries again.
    pub(super) async fn settle(&self, side: &Side) {
        let _turn = side.settling.lock().await;
        let ends = std::mem::take(&mut *lock(&side.ends));
        if ends.is_empty() {
            return;
        }
        let (batch, now_us) = (ends.clone(), self.clock.now_us());
        let written = side.store.call(move |conn| conn.write(|conn| deliveries::settle(conn, &batch, now_us))).await;
        match written {
            Ok(fenced) => {
                let mut in_flight = lock(&side.in_flight);
                ends.iter().for_each(|end| {
                    in_flight.remove(&end.held.id);
                });
                drop(in_flight);
                self.watch.touch();
                for held in fenced {
                    log::warn!(target: "belayd::outbox", deliveryId = held.id.as_str(), epoch = held.epoch;
                        "the lease was lost while sending; another worker decides about this delivery");
                }
            }
            Err(error) => {
                log::debug!(target: "belayd::outbox", store = side.name, ends = ends.len(), error:% = error; "ends of attempts wait");
                lock(&side.ends).splice(0..0, ends);
            }
        }
    }
}

/// The receiver's word; a panic or a sink without an end counts as unknown.
async fn send(sink: &dyn Sink, letter: &Letter) -> Result<Sent, SendError> {
    let unknown = |error_type, message: &str| SendError { class: ErrorClass::Unknown, error_type, message: message.to_owned() };
    let attempt = AssertUnwindSafe(async { sink.send(letter).await }).catch_unwind();
    match tokio::time::timeout(ATTEMPT_MAX, attempt).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(unknown("panic", "the sink panicked; whether it had sent is not known")),
        Err(_) => Err(unknown("timeout", "the sink did not come to an end")),
    }
}
