//! Attempts, from the claim to the end that is to be written. Workers, as many as a sink takes at once, send run by run; a panic in a
//! sink ends that attempt, as unknown.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::FutureExt;

use super::{
    backoff,
    state::{Outbox, lock},
    way::{Run, Way, runs_of},
};
use crate::{
    config::OnUnknown,
    domain::{
        alert::{Level, Transition},
        breaker::{CircuitState, Turn},
        delivery::DeliveryState,
    },
    event::{DeliverySent, SendFailed},
    sinks::{self, ErrorClass, Letter, SendError, Sent, Sink},
    store::{
        Backend,
        deliveries::{DeliveryRow, Made, Outcome, Settlement},
    },
};

/// No sink may hold a delivery for longer; each has a shorter time-out of its own.
const ATTEMPT_MAX: Duration = Duration::from_secs(300);

/// Attempts of one worker between two breaths: others share its thread.
const BREATH: u32 = 64;

impl Outbox {
    /// Has all of them sent, run by run. They were asked for at `since`.
    pub(super) fn start(self: &Arc<Self>, at: usize, claimed: Vec<DeliveryRow>, since: Instant) {
        if claimed.is_empty() {
            return;
        }
        self.note_in_flight(at, &claimed, since);
        let concurrency = self.config.load().outbox.concurrency;
        for run in runs_of(at, claimed) {
            let name = run.sink.clone();
            let begins = match lock(&self.sinks).get_mut(&name) {
                Some(way) => Ok(way.push(run, concurrency)),
                None => Err(run),
            };
            match begins {
                Ok(true) => drop(actix::spawn(Worker { outbox: self.clone(), sink: name, has_ended: false }.work())),
                Ok(false) => {}
                Err(run) => run.rows.iter().for_each(|row| self.give_up_orphan(at, row)),
            }
        }
    }

    /// The sink was removed from the configuration: a person decides, who can have it sent once the sink is back. In a store that other
    /// instances share it is given back: one of them may still have the sink.
    fn give_up_orphan(self: &Arc<Self>, at: usize, row: &DeliveryRow) {
        if self.sides[at].store.backend() != Backend::Sqlite {
            return self.give_back(Run { side: at, sink: row.sink.clone(), rows: vec![row.clone()] });
        }
        let message = "no sink of this name is configured any more";
        let (outcome, error) = (Outcome::Rejected, Some(("sink_removed".to_owned(), message.to_owned())));
        SendFailed {
            delivery_id: &row.id,
            message_id: row.message_id(),
            sink: &row.sink,
            attempt: row.attempt.unsigned_abs(),
            took: Duration::ZERO,
            error_type: "sink_removed",
            message,
            verdict: outcome.event().target().as_str(),
            loud: true,
        }
        .emit(&self.metrics);
        self.ended(at, Settlement { held: row.held(), outcome, error, answer: None, made: None });
    }

    /// Whether nothing more may be sent there now.
    fn is_shut(&self, sink: &str) -> bool {
        self.stopping.load(Ordering::Acquire) || lock(&self.sinks).get(sink).is_none_or(|way| way.is_open(Instant::now()))
    }

    /// Sends a run in its order, up to one that has to come again: it holds up what is behind it in its lane, which is given back.
    async fn send_run(self: &Arc<Self>, run: Run, sink: &dyn Sink, begun: &mut u32) {
        let Run { side, sink: name, rows } = run;
        let mut rows = rows.into_iter();
        while let Some(row) = rows.next() {
            // A worker that was halted may have lost its lease; what it has not begun is not its own any more.
            if self.is_shut(&name) || !self.sides[side].holds(row.seq, row.epoch) {
                return self.give_back(Run { side, sink: name, rows: std::iter::once(row).chain(rows).collect() });
            }
            if !self.attempt(side, row, sink).await {
                break;
            }
            *begun += 1;
            if begun.is_multiple_of(BREATH) {
                tokio::task::yield_now().await;
            }
        }
        let rest: Vec<DeliveryRow> = rows.collect();
        if !rest.is_empty() {
            self.give_back(Run { side, sink: name, rows: rest });
        }
    }

    /// One attempt. Returns whether its lane goes on.
    async fn attempt(self: &Arc<Self>, at: usize, row: DeliveryRow, sink: &dyn Sink) -> bool {
        if let Some(outcome) = self.ask_others(at, &row).await {
            let goes_on = outcome == Outcome::ToldByAnother;
            self.end_untold(at, &row, outcome);
            return goes_on;
        }
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
        let (began, began_at_us) = (Instant::now(), self.clock.now_us());
        let result = match self.attached(&self.sides[at], &row).await {
            Ok(attachments) => {
                letter.attachments = attachments;
                send(sink, &letter).await
            }
            Err(error) => Err(error),
        };
        let took = began.elapsed();
        if result.is_ok() {
            self.tell_others(at, &row).await;
        }
        let outcome = self.judge(&row, &result);
        let goes_on = outcome.event().target() != DeliveryState::Retry;
        self.tell(&row, &result, &outcome, took);
        self.count(&row.sink, &result, took);
        let (answer, error) = match result {
            Ok(sent) => (Some(sent.answer), None),
            Err(error) => (None, Some((error.error_type.to_owned(), error.message))),
        };
        let (worker, attempt) = (self.worker.clone(), row.attempt.unsigned_abs());
        let made = Some(Made { worker, attempt, began_at_us, ended_at_us: self.clock.now_us() });
        self.ended(at, Settlement { held: row.held(), outcome, error, answer, made });
        goes_on
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
            Err(ErrorClass::Reject) => Outcome::Rejected,
            Err(ErrorClass::Unknown) if row.on_unknown() == OnUnknown::Review => Outcome::Uncertain,
            Err(_) if self.is_for_the_channel(row, result) => {
                Outcome::Waits { at_us: later(Duration::ZERO), attempts: row.attempt.unsigned_abs().saturating_sub(1) }
            }
            Err(_) if !row.may_retry() => Outcome::Exhausted,
            Err(ErrorClass::Fatal) => Outcome::Rejected,
            Err(ErrorClass::Unknown) => Outcome::Repeat { at_us: later(Duration::ZERO) },
            Err(ErrorClass::Retry { after }) => Outcome::Retry { at_us: later(after.unwrap_or_default()) },
        }
    }

    /// Whether this attempt only tried a channel that is known to be away: it is not counted, or an outage would use up the attempts. What has
    /// one attempt only is to tell how that went.
    fn is_for_the_channel(&self, row: &DeliveryRow, result: &Result<Sent, SendError>) -> bool {
        let is_away = || {
            let ways = lock(&self.sinks);
            ways.get(&row.sink).is_some_and(|way| way.breaker.state(Instant::now()) != CircuitState::Closed)
        };
        // With a sink that is set up wrongly no attempt counts, the first ones neither.
        let is_known = |error: &SendError| error.class == ErrorClass::Fatal || is_away();
        row.max_attempts > 1 && result.as_ref().is_err_and(|error| error.left_nothing() && is_known(error))
    }

    fn tell(&self, row: &DeliveryRow, result: &Result<Sent, SendError>, outcome: &Outcome, took: Duration) {
        let attempt = row.attempt.unsigned_abs();
        match result {
            Ok(_) => {
                self.sent_total.fetch_add(1, Ordering::Relaxed);
                let since_us = self.clock.now_us().saturating_sub(row.due_at_us);
                let message_id = row.message_id();
                let is_first = attempt == 1 && row.last_error_type.is_none() && message_id.is_none();
                let alert_latency = is_first.then(|| Duration::from_micros(u64::try_from(since_us).unwrap_or(0)));
                let has_line = self.told.has_line();
                DeliverySent { delivery_id: &row.id, message_id, sink: &row.sink, attempt, took, alert_latency, has_line }
                    .emit(&self.metrics);
            }
            Err(error) => SendFailed {
                delivery_id: &row.id,
                message_id: row.message_id(),
                sink: &row.sink,
                attempt,
                took,
                error_type: error.error_type,
                message: &error.message,
                verdict: outcome.event().target().as_str(),
                // That the channel is away has been told.
                loud: !matches!(outcome, Outcome::Waits { .. }),
            }
            .emit(&self.metrics),
        }
    }

    /// Moves the circuit. A rejection says that the sink is well: it is the delivery that is not.
    fn count(&self, sink: &str, result: &Result<Sent, SendError>, took: Duration) {
        let (turn, news, state) = {
            let mut sinks = lock(&self.sinks);
            let Some(way) = sinks.get_mut(sink) else { return };
            way.took(took);
            let well = matches!(result.as_ref().map_err(|error| error.class), Ok(_) | Err(ErrorClass::Reject));
            let now = Instant::now();
            let turn = match result {
                Err(error) if error.left_nothing() && error.class != ErrorClass::Fatal => {
                    if error.error_type == "connect" {
                        way.refund(1);
                    }
                    way.breaker.failed_for_now(now, rand::random())
                }
                Err(SendError { class: ErrorClass::Retry { after: Some(after) }, .. }) => way.breaker.failed_and_asks(now, *after),
                Err(_) if !well => way.breaker.failed(now),
                _ => way.breaker.succeeded(),
            };
            if turn == Turn::Closed || (well && !way.told) {
                way.came_back(now);
            }
            // The first success of a run is told too: an earlier run may have left the alert open, and ending what is not open does nothing.
            let news = turn != Turn::None || (well && !way.told);
            way.told |= news;
            (turn, news, way.breaker.state(Instant::now()))
        };
        if turn != Turn::None || result.is_err() {
            self.show_circuit(sink, state, result.as_ref().err().map_or("", |error| error.message.as_str()));
        }
        if turn == Turn::Opened {
            let waits = lock(&self.sinks).get_mut(sink).map(Way::take_queue).unwrap_or_default();
            waits.into_iter().for_each(|run| self.give_back(run));
        }
        if !news {
            return;
        }
        self.wake(); // What waited may go, in both stores.
        let firing = turn == Turn::Opened;
        let now_us = self.clock.now_us();
        let told = result.as_ref().err().map(|error| error.message.clone()).unwrap_or_default();
        let text = if firing {
            format!("sink {sink} failed several times in a row and is paused: {told}")
        } else {
            format!("sink {sink} works again")
        };
        self.raise(vec![Transition::system((sinks::SINK_DOWN, sink), Level::Warning, firing, text, now_us)]);
    }
}

/// Sends runs of one sink until none waits.
struct Worker {
    outbox: Arc<Outbox>,
    sink: String,
    has_ended: bool,
}

impl Worker {
    async fn work(mut self) {
        let mut begun = 0;
        loop {
            let next = lock(&self.outbox.sinks).get_mut(&self.sink).and_then(Way::next);
            let Some((run, sink)) = next else {
                self.has_ended = true; // It was counted out under the same lock.
                return;
            };
            self.outbox.send_run(run, &*sink, &mut begun).await;
        }
    }
}

impl Drop for Worker {
    /// A panic gives its place back too.
    fn drop(&mut self) {
        if !self.has_ended
            && let Some(way) = lock(&self.outbox.sinks).get_mut(&self.sink)
        {
            way.ended();
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
