//! Facts: one struct for each thing that happened and that a person may want to know. `emit` writes its log line and moves its
//! metric, so that the two never tell different stories.
//!
//! In: facts from every stage. Out: log lines and metrics. A crash loses the counters that are not sums over the ledger.

pub mod alerts;
pub mod catalog;
pub mod circuits;
mod metrics;

use std::time::Duration;

pub use metrics::{Metrics, seconds};

/// Readings of one push or answer were refused, one by one.
#[derive(Clone, Copy, Debug)]
pub struct ReadingsRejected<'a> {
    /// `http`, or the name of the source.
    pub via: &'a str,
    /// The code of the reason (a fixed word).
    pub reason: &'a str,
    /// How many.
    pub readings: u64,
}

impl ReadingsRejected<'_> {
    /// Counts them; the line is at debug level, since a sender can make any number of them.
    pub fn emit(self, metrics: &Metrics) {
        metrics.count_rejected(self.reason, self.readings);
        log::debug!(target: "belayd::ingest", via = self.via, reason = self.reason, readings = self.readings; "readings rejected");
    }
}

/// A push was turned away whole.
#[derive(Clone, Copy, Debug)]
pub struct PushRefused {
    /// The error code of the answer.
    pub code: &'static str,
}

impl PushRefused {
    /// Counts it; the line is at debug level, since a sender can make any number of them.
    pub fn emit(self, metrics: &Metrics) {
        metrics.pushes_refused.with_label_values(&[self.code]).inc();
        log::debug!(target: "belayd::ingest", code = self.code; "push refused");
    }
}

/// A message was taken: it and its deliveries are committed.
#[derive(Clone, Copy, Debug)]
pub struct MessageAccepted<'a> {
    /// The message.
    pub message_id: &'a str,
    /// The sink.
    pub via: &'a str,
    /// How many deliveries it has. Never to whom.
    pub deliveries: usize,
    /// The token's name.
    pub who: &'a str,
}

impl MessageAccepted<'_> {
    /// Counts it and says so.
    pub fn emit(self, metrics: &Metrics) {
        metrics.messages_accepted.with_label_values(&[self.via]).inc();
        log::info!(target: "belayd::web", messageId = self.message_id, via = self.via, deliveries = self.deliveries, who = self.who;
            "message accepted");
    }
}

/// A request was refused because its caller asked too much.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimited {
    /// What was counted: `token` or `address`.
    pub by: &'static str,
}

impl RequestLimited {
    /// Counts it; the line is at debug level, since a sender can make any number of them.
    pub fn emit(self, metrics: &Metrics) {
        metrics.requests_limited.with_label_values(&[self.by]).inc();
        log::debug!(target: "belayd::web", by = self.by; "request refused: more than [limits] allows");
    }
}

/// The database stopped answering.
#[derive(Clone, Copy, Debug)]
pub struct StoreWentDown<'a> {
    /// SQLSTATE or the engine's own code, where there was one.
    pub error_type: &'a str,
    /// What it said, without the URL.
    pub message: &'a str,
}

impl StoreWentDown<'_> {
    /// Says so.
    pub fn emit(self) {
        log::warn!(target: "belayd::store", errorType = self.error_type, error = self.message; "database is away; readings wait in the buffer");
    }
}

/// The database answers again.
#[derive(Clone, Copy, Debug)]
pub struct StoreCameBack {
    /// How long it was away.
    pub outage: Duration,
}

impl StoreCameBack {
    /// Says so.
    pub fn emit(self) {
        log::info!(target: "belayd::store", durationMs = millis(self.outage); "database is back");
    }
}

/// Everything that had waited for the database is settled.
#[derive(Clone, Copy, Debug)]
pub struct Recovered {
    /// From the database's return until nothing of the outage was left.
    pub took: Duration,
}

impl Recovered {
    /// Keeps the time and says so.
    pub fn emit(self, metrics: &Metrics) {
        metrics.recovery_seconds.set(seconds(self.took));
        log::info!(target: "belayd::store", durationMs = millis(self.took); "caught up with the database");
    }
}

/// A sink took a delivery.
#[derive(Clone, Copy, Debug)]
pub struct DeliverySent<'a> {
    /// The delivery.
    pub delivery_id: &'a str,
    /// The message that it belongs to, where it is a message's.
    pub message_id: Option<&'a str>,
    /// The sink.
    pub sink: &'a str,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// How long the attempt took.
    pub took: Duration,
    /// From the arrival of the fact to now, for the first notice of an alert.
    pub alert_latency: Option<Duration>,
    /// Whether it has a line of its own; where very many are sent, they are told together.
    pub has_line: bool,
}

impl DeliverySent<'_> {
    /// Observes the durations and says so.
    pub fn emit(self, metrics: &Metrics) {
        metrics.dispatch_duration.with_label_values(&[self.sink]).observe(seconds(self.took));
        if let Some(latency) = self.alert_latency {
            metrics.alert_latency.observe(seconds(latency));
        }
        if self.has_line {
            match self.message_id {
                Some(message_id) => {
                    log::info!(target: "belayd::outbox", deliveryId = self.delivery_id, messageId = message_id, sink = self.sink,
                        attempt = self.attempt, durationMs = millis(self.took); "delivery sent");
                }
                None => {
                    log::info!(target: "belayd::outbox", deliveryId = self.delivery_id, sink = self.sink, attempt = self.attempt,
                        durationMs = millis(self.took); "delivery sent");
                }
            }
        }
    }
}

/// An attempt to send failed.
#[derive(Clone, Copy, Debug)]
pub struct SendFailed<'a> {
    /// The delivery.
    pub delivery_id: &'a str,
    /// The message that it belongs to, where it is a message's.
    pub message_id: Option<&'a str>,
    /// The sink.
    pub sink: &'a str,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// How long the attempt took.
    pub took: Duration,
    /// A fixed word for the kind of failure.
    pub error_type: &'a str,
    /// What happened, without secrets.
    pub message: &'a str,
    /// What becomes of the delivery: `retry`, `dead`, `uncertain`.
    pub verdict: &'a str,
    /// Whether the log is to hear of it at `warn`: an outage is told once, not at every try.
    pub loud: bool,
}

impl SendFailed<'_> {
    /// Counts it and says so.
    pub fn emit(self, metrics: &Metrics) {
        metrics.send_failures.with_label_values(&[self.sink, self.error_type]).inc();
        metrics.dispatch_duration.with_label_values(&[self.sink]).observe(seconds(self.took));
        let level = if self.loud { log::Level::Warn } else { log::Level::Debug };
        match self.message_id {
            Some(message_id) => {
                log::log!(target: "belayd::outbox", level, deliveryId = self.delivery_id, messageId = message_id, sink = self.sink,
                    attempt = self.attempt, errorType = self.error_type, durationMs = millis(self.took), verdict = self.verdict,
                    error = self.message; "delivery failed");
            }
            None => {
                log::log!(target: "belayd::outbox", level, deliveryId = self.delivery_id, sink = self.sink, attempt = self.attempt,
                    errorType = self.error_type, durationMs = millis(self.took), verdict = self.verdict, error = self.message;
                    "delivery failed");
            }
        }
    }
}

/// A sink takes something again, and what waited for it is due now.
#[derive(Clone, Copy, Debug)]
pub struct ChannelBack<'a> {
    /// The sink.
    pub sink: &'a str,
    /// The store in which they waited.
    pub store: &'a str,
    /// How many, at least 1.
    pub deliveries: usize,
}

impl ChannelBack<'_> {
    /// Counts them and says so.
    pub fn emit(self, metrics: &Metrics) {
        metrics.outbox_forwarded.with_label_values(&[self.sink]).inc_by(self.deliveries as u64);
        log::info!(target: "belayd::outbox", sink = self.sink, store = self.store, deliveries = self.deliveries;
            "the sink takes deliveries again; those that waited for it are due now");
    }
}

/// Kafka has committed a run of readings.
#[derive(Clone, Copy, Debug)]
pub struct RunRelayed<'a> {
    /// The stream.
    pub lane: &'a str,
    /// Deliveries in it.
    pub deliveries: usize,
    /// Readings in it.
    pub readings: u64,
    /// How long the transaction took.
    pub took: Duration,
}

impl RunRelayed<'_> {
    /// Counts it; the line is at debug level, since there are many a second.
    pub fn emit(self, metrics: &Metrics) {
        metrics.readings_relayed.inc_by(self.readings);
        metrics.dispatch_duration.with_label_values(&["kafka"]).observe(seconds(self.took));
        log::debug!(target: "belayd::relay", stream = self.lane, deliveries = self.deliveries, readings = self.readings,
            durationMs = millis(self.took); "readings relayed");
    }
}

/// Kafka did not take a run, or could not be reached.
#[derive(Clone, Copy, Debug)]
pub struct RelayFailed<'a> {
    /// The stream.
    pub lane: &'a str,
    /// A fixed word for the kind of failure.
    pub error_type: &'a str,
    /// What happened, without secrets.
    pub message: &'a str,
    /// Whether the log is to hear of it: an outage is told once, not at every try.
    pub loud: bool,
}

impl RelayFailed<'_> {
    /// Counts it and says so.
    pub fn emit(self, metrics: &Metrics) {
        metrics.send_failures.with_label_values(&["kafka", self.error_type]).inc();
        let level = if self.loud { log::Level::Warn } else { log::Level::Debug };
        log::log!(target: "belayd::relay", level, stream = self.lane, errorType = self.error_type, error = self.message;
            "readings were not relayed; they wait in the database");
    }
}

/// Due deliveries could not be claimed.
#[derive(Clone, Copy, Debug)]
pub struct ClaimFailed<'a> {
    /// `control` or `store`.
    pub store: &'a str,
    /// SQLSTATE or the engine's own code, where there was one.
    pub error_type: &'a str,
    /// What it said.
    pub message: &'a str,
}

impl ClaimFailed<'_> {
    /// Counts it and says so.
    pub fn emit(self, metrics: &Metrics) {
        metrics.claim_failures.inc();
        log::warn!(target: "belayd::outbox", store = self.store, errorType = self.error_type, error = self.message; "claim of due deliveries failed");
    }
}

/// The control store refuses an alert for ever; those behind it go on.
#[derive(Clone, Copy, Debug)]
pub struct AlertSetAside<'a> {
    /// The rule or condition.
    pub name: &'a str,
    /// What it is about.
    pub subject: &'a str,
    /// Whether it began.
    pub firing: bool,
    /// What the control store said.
    pub message: &'a str,
}

impl AlertSetAside<'_> {
    /// Counts it and says so.
    pub fn emit(self, metrics: &Metrics) {
        metrics.alerts_set_aside.inc();
        log::error!(target: "belayd::alert", name = self.name, subject = self.subject, firing = self.firing, error = self.message;
            "the control store refuses this alert for ever; it is set aside");
    }
}

/// Someone showed a token that is not valid.
#[derive(Clone, Copy, Debug)]
pub struct SignInFailed<'a> {
    /// The client's address.
    pub address: &'a str,
    /// How many failures this address has had in the current window.
    pub failures: u32,
}

impl SignInFailed<'_> {
    /// Says so, once for each failure of a form or a bearer token.
    pub fn emit(self) {
        log::warn!(target: "belayd::web", address = self.address, failures = self.failures; "sign-in failed");
    }
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
