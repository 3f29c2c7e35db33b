//! The metrics registry with one typed handle a metric.
//!
//! In: facts from everywhere, and at each scrape the look of those who keep their own counts (buffer account, actor registry,
//! outbox). Out: Prometheus text. A crash loses the counters marked "since the start"; sums over the ledger come back with it.

use std::{fmt, sync::Mutex, time::Duration};

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use super::{
    alerts::AlertMetrics,
    catalog::{CATALOG, Entry, names},
    circuits::{Circuit, Circuits},
};
use crate::{buffer::Account, domain::ack::AckLevel};

/// Bounds from 100 microseconds to 10 seconds: an acknowledgement from memory, and one that waited for the database.
const LATENCY_BUCKETS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Called before each scrape to set what is kept elsewhere.
type Gatherer = Box<dyn Fn(&Metrics) + Send + Sync>;

/// Every metric of the daemon. Made once in `daemon.rs` and handed around in an `Arc`.
pub struct Metrics {
    registry: Registry,
    gatherers: Mutex<Vec<Gatherer>>,
    /// Refused readings by reason.
    pub readings_rejected: IntCounterVec,
    /// Pushes turned away whole, by error code.
    pub pushes_refused: IntCounterVec,
    /// From the arrival of a fact to the confirmation of its first notice, seconds.
    pub alert_latency: Histogram,
    /// Deliveries due or in the works, by sink.
    pub outbox_backlog: IntGaugeVec,
    /// Age of the oldest unsettled due delivery, by sink, seconds.
    pub outbox_oldest_age: GaugeVec,
    /// Failed attempts by sink and type.
    pub send_failures: IntCounterVec,
    /// Deliveries brought forward when their sink was back.
    pub outbox_forwarded: IntCounterVec,
    /// Messages taken, by sink.
    pub messages_accepted: IntCounterVec,
    /// Requests refused because of a quota, by what was counted.
    pub requests_limited: IntCounterVec,
    /// Failed claims.
    pub claim_failures: IntCounter,
    /// Time of one attempt by sink, seconds.
    pub dispatch_duration: HistogramVec,
    /// Readings that Kafka has committed.
    pub readings_relayed: IntCounter,
    /// From the database's commit to Kafka's, seconds.
    pub relay_latency: Histogram,
    /// Partitions of the topic.
    pub relay_partitions: IntGauge,
    /// Restarts by actor and reason; set from the registry of actors at a scrape.
    pub actor_restarts: IntCounterVec,
    /// Waiting messages by actor; set from the registry of actors at a scrape.
    pub actor_mailbox_depth: IntGaugeVec,
    /// Size of the buffer, bytes; set at a scrape.
    pub buffer_bytes: IntGauge,
    /// Its bound, bytes; set at a scrape.
    pub buffer_bytes_bound: IntGauge,
    /// Streams whose end was cut off; set at a scrape.
    pub journal_lost_ends: IntGauge,
    /// Readings in Redis, bytes; set at a scrape.
    pub redis_bytes: IntGauge,
    /// Bytes that left Redis before their time; set at a scrape.
    pub redis_removed_early: IntGaugeVec,
    /// Readings that wait for their copy in Redis; set at a scrape.
    pub redis_uncopied: IntGauge,
    /// Bytes that were dropped without one; set at a scrape.
    pub redis_uncopied_dropped: IntGauge,
    /// Time until journal or disk are full, seconds; set at a scrape.
    pub full_in_seconds: GaugeVec,
    /// Free bytes of the data directory's file system; set at a scrape.
    pub disk_free: IntGauge,
    /// Bytes of the store by kind; set at a scrape.
    pub store_bytes: IntGaugeVec,
    /// Partitions of readings; set at a scrape.
    pub store_partitions: IntGauge,
    /// Alerts that the control store refuses for ever.
    pub alerts_set_aside: IntCounter,
    /// Readings compared with the ledger.
    pub integrity_rows: IntCounter,
    /// Readings of the ledger that are not there.
    pub integrity_missing: IntGauge,
    /// Faults of the ledger itself.
    pub integrity_ledger_faults: IntGauge,
    /// Sums set right.
    pub integrity_repaired: IntCounter,
    /// Missing readings stored again.
    pub integrity_restored: IntCounter,
    /// Faults of the deliveries to Kafka.
    pub integrity_delivery_faults: IntGauge,
    /// Readings in the journal compared with what waits in it.
    pub integrity_journal_rows: IntCounter,
    /// Readings that wait and that the journal was found not to have.
    pub integrity_journal_missing: IntGauge,
    /// Readings in Redis compared with what should be there.
    pub integrity_redis_rows: IntCounter,
    /// Readings that Redis lacks, or should not have.
    pub integrity_redis_faults: IntGauge,
    /// Readings whose copy in Redis is made again.
    pub integrity_redis_copied: IntCounter,
    /// End of the last whole check.
    pub integrity_pass: Gauge,
    /// Readings stored twice divided by stored ones; set by the integrity check.
    pub duplicate_ratio: Gauge,
    /// Length of the last recovery, seconds.
    pub recovery_seconds: Gauge,
    /// 0 closed, 1 half-open, 2 open, by party.
    pub circuit_state: IntGaugeVec,
    /// Instances on the same database by state; set at a scrape.
    pub instances: IntGaugeVec,
    /// Lateness of the last run by duty, seconds; set at a scrape.
    pub schedule_lateness: GaugeVec,
    /// Those of the alert side.
    pub alerts: AlertMetrics,
    pub(super) circuits: Circuits,
    success_ratio: Gauge,
    ack: [Histogram; AckLevel::ALL.len()],
    accepted: IntCounter,
    stored: IntCounter,
    duplicate: IntCounter,
    conflict: IntCounter,
    lost: IntCounterVec,
    buffered: IntGauge,
    dead: IntGauge,
    violation: IntGauge,
    data_loss_ratio: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Registers every metric of the catalogue, and the process collector.
    ///
    /// # Errors
    /// Where two metrics share a name or a name is malformed: a fault of the catalogue, which a test rules out.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let ack = histogram_vec(&registry, names::ACK_SECONDS)?;
        let metrics = Self {
            readings_rejected: counter_vec(&registry, names::READINGS_REJECTED)?,
            pushes_refused: counter_vec(&registry, names::PUSHES_REFUSED)?,
            alert_latency: register(&registry, Histogram::with_opts(histogram_opts(names::ALERT_LATENCY))?)?,
            outbox_backlog: gauge_vec(&registry, names::OUTBOX_BACKLOG)?,
            outbox_oldest_age: register(
                &registry,
                GaugeVec::new(opts(names::OUTBOX_OLDEST_AGE), labels(names::OUTBOX_OLDEST_AGE))?,
            )?,
            send_failures: counter_vec(&registry, names::SEND_FAILURES)?,
            outbox_forwarded: counter_vec(&registry, names::OUTBOX_FORWARDED)?,
            messages_accepted: counter_vec(&registry, names::MESSAGES_ACCEPTED)?,
            requests_limited: counter_vec(&registry, names::REQUESTS_LIMITED)?,
            claim_failures: counter(&registry, names::CLAIM_FAILURES)?,
            dispatch_duration: histogram_vec(&registry, names::DISPATCH_DURATION)?,
            readings_relayed: counter(&registry, names::READINGS_RELAYED)?,
            relay_latency: register(&registry, Histogram::with_opts(histogram_opts(names::RELAY_LATENCY))?)?,
            relay_partitions: gauge(&registry, names::RELAY_PARTITIONS)?,
            actor_restarts: counter_vec(&registry, names::ACTOR_RESTARTS)?,
            actor_mailbox_depth: gauge_vec(&registry, names::ACTOR_MAILBOX_DEPTH)?,
            buffer_bytes: gauge(&registry, names::BUFFER_BYTES)?,
            buffer_bytes_bound: gauge(&registry, names::BUFFER_BYTES_BOUND)?,
            journal_lost_ends: gauge(&registry, names::JOURNAL_LOST_ENDS)?,
            redis_bytes: gauge(&registry, names::REDIS_BYTES)?,
            redis_removed_early: gauge_vec(&registry, names::REDIS_REMOVED_EARLY)?,
            redis_uncopied: gauge(&registry, names::REDIS_UNCOPIED)?,
            redis_uncopied_dropped: gauge(&registry, names::REDIS_UNCOPIED_DROPPED)?,
            full_in_seconds: register(&registry, GaugeVec::new(opts(names::FULL_IN_SECONDS), labels(names::FULL_IN_SECONDS))?)?,
            disk_free: gauge(&registry, names::DISK_FREE)?,
            store_bytes: gauge_vec(&registry, names::STORE_BYTES)?,
            store_partitions: gauge(&registry, names::STORE_PARTITIONS)?,
            alerts_set_aside: counter(&registry, names::ALERTS_SET_ASIDE)?,
            integrity_rows: counter(&registry, names::INTEGRITY_ROWS)?,
            integrity_missing: gauge(&registry, names::INTEGRITY_MISSING)?,
            integrity_ledger_faults: gauge(&registry, names::INTEGRITY_LEDGER_FAULTS)?,
            integrity_repaired: counter(&registry, names::INTEGRITY_REPAIRED)?,
            integrity_restored: counter(&registry, names::INTEGRITY_RESTORED)?,
            integrity_delivery_faults: gauge(&registry, names::INTEGRITY_DELIVERY_FAULTS)?,
            integrity_journal_rows: counter(&registry, names::INTEGRITY_JOURNAL_ROWS)?,
            integrity_journal_missing: gauge(&registry, names::INTEGRITY_JOURNAL_MISSING)?,
            integrity_redis_rows: counter(&registry, names::INTEGRITY_REDIS_ROWS)?,
            integrity_redis_faults: gauge(&registry, names::INTEGRITY_REDIS_FAULTS)?,
            integrity_redis_copied: counter(&registry, names::INTEGRITY_REDIS_COPIED)?,
            integrity_pass: float_gauge(&registry, names::INTEGRITY_PASS)?,
            duplicate_ratio: float_gauge(&registry, names::DUPLICATE_RATIO)?,
            recovery_seconds: float_gauge(&registry, names::RECOVERY_SECONDS)?,
            circuit_state: gauge_vec(&registry, names::CIRCUIT_STATE)?,
            alerts: AlertMetrics::new(&registry)?,
            circuits: Circuits::default(),
            success_ratio: float_gauge(&registry, names::SUCCESS_RATIO)?,
            instances: gauge_vec(&registry, names::INSTANCES)?,
            schedule_lateness: register(
                &registry,
                GaugeVec::new(opts(names::SCHEDULE_LATENESS), labels(names::SCHEDULE_LATENESS))?,
            )?,
            ack: AckLevel::ALL.map(|level| ack.with_label_values(&[level.as_str()])),
            accepted: counter(&registry, names::READINGS_ACCEPTED)?,
            stored: counter(&registry, names::READINGS_STORED)?,
            duplicate: counter(&registry, names::READINGS_DUPLICATE)?,
            conflict: counter(&registry, names::READINGS_CONFLICT)?,
            lost: counter_vec(&registry, names::READINGS_LOST)?,
            buffered: gauge(&registry, names::READINGS_BUFFERED)?,
            dead: gauge(&registry, names::READINGS_DEAD)?,
            violation: gauge(&registry, names::CONSERVATION_VIOLATION)?,
            data_loss_ratio: float_gauge(&registry, names::DATA_LOSS_RATIO)?,
            gatherers: Mutex::new(Vec::new()),
            registry,
        };
        // /proc is Linux's; elsewhere the daemon runs without these figures.
        #[cfg(target_os = "linux")]
        metrics.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// Has `gather` called before each scrape, to set metrics whose figures are kept elsewhere. It must not block.
    pub fn on_scrape(&self, gather: impl Fn(&Metrics) + Send + Sync + 'static) {
        self.gatherers.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(Box::new(gather));
    }

    /// The histogram of acknowledgements at `level`, resolved beforehand: the hot path looks nothing up.
    pub fn ack_seconds(&self, level: AckLevel) -> &Histogram {
        &self.ack[level as usize]
    }

    /// The circuit breaker of every party that there is.
    pub fn circuits(&self) -> Vec<Circuit> {
        self.circuits.list()
    }

    /// The party is gone from the configuration.
    pub fn forget_circuit(&self, party: &str) {
        self.circuits.forget(party);
        // It has none where the party was never told of.
        let _ = self.circuit_state.remove_label_values(&[party]);
    }

    /// Counts one reading refused for `reason` (a fixed code, never text of the sender).
    pub fn count_rejected(&self, reason: &str, readings: u64) {
        self.readings_rejected.with_label_values(&[reason]).inc_by(readings);
    }

    /// Readings refused since the start, for any reason.
    pub fn rejected_total(&self) -> u64 {
        use prometheus::core::Collector;
        let families = self.readings_rejected.collect();
        let metrics = families.iter().flat_map(|family| family.get_metric());
        metrics.map(|metric| metric.get_counter().get_value() as u64).sum()
    }

    /// Takes over the account, summed over all streams of this directory; `at_stop` of its lost readings went with the process's
    /// memory. Called from a gatherer.
    pub fn set_account(&self, account: &Account, at_stop: u64, difference: i128) {
        raise_to(&self.accepted, account.accepted);
        raise_to(&self.stored, account.stored);
        raise_to(&self.duplicate, account.duplicate);
        raise_to(&self.conflict, account.conflict);
        let restored = account.lost.saturating_sub(at_stop);
        for (reason, count) in
            [("stop", at_stop), ("restored", restored), ("quarantined", account.quarantined), ("void", account.void)]
        {
            raise_to(&self.lost.with_label_values(&[reason]), count);
        }
        self.buffered.set(signed(account.buffered));
        self.dead.set(signed(account.dead));
        self.violation.set(i64::from(difference != 0));
        let gone = account.lost + account.quarantined + account.void;
        self.success_ratio.set(account.success_ratio());
        self.data_loss_ratio.set(if account.accepted == 0 { 0.0 } else { gone as f64 / account.accepted as f64 });
    }

    /// Takes over what one actor's registry entry says of a restart reason.
    pub fn set_actor_restarts(&self, actor: &str, reason: &str, restarts: u64) {
        raise_to(&self.actor_restarts.with_label_values(&[actor, reason]), restarts);
    }

    /// The Prometheus text, after every gatherer has been asked.
    ///
    /// # Errors
    /// Where a metric cannot be encoded, which only a fault of the catalogue could cause.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        // The lock makes scrapes take turns, so that `raise_to` cannot count one step twice.
        let gatherers = self.gatherers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        gatherers.iter().for_each(|gather| gather(self));
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        drop(gatherers);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The media type of [`Metrics::render`].
    pub const CONTENT_TYPE: &'static str = prometheus::TEXT_FORMAT;
}

/// Seconds as Prometheus wants them.
pub fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// Lifts a counter to a sum that is kept elsewhere. A sum that fell (another database) starts the counter anew, as a restart would.
fn raise_to(counter: &IntCounter, sum: u64) {
    let now = counter.get();
    if sum < now {
        counter.reset();
        counter.inc_by(sum);
    } else {
        counter.inc_by(sum - now);
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn look_up(name: &str) -> Option<&'static Entry> {
    CATALOG.iter().find(|entry| entry.name == name)
}

fn opts(name: &str) -> Opts {
    Opts::new(name, look_up(name).map_or("", |entry| entry.help))
}

fn histogram_opts(name: &str) -> HistogramOpts {
    HistogramOpts::from(opts(name)).buckets(LATENCY_BUCKETS.to_vec())
}

fn labels(name: &str) -> &'static [&'static str] {
    look_up(name).map_or(&[], |entry| entry.labels)
}

fn register<M: prometheus::core::Collector + Clone + 'static>(registry: &Registry, metric: M) -> Result<M, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counter(registry: &Registry, name: &str) -> Result<IntCounter, prometheus::Error> {
    register(registry, IntCounter::with_opts(opts(name))?)
}

pub(super) fn counter_vec(registry: &Registry, name: &str) -> Result<IntCounterVec, prometheus::Error> {
    register(registry, IntCounterVec::new(opts(name), labels(name))?)
}

pub(super) fn gauge(registry: &Registry, name: &str) -> Result<IntGauge, prometheus::Error> {
    register(registry, IntGauge::with_opts(opts(name))?)
}

fn float_gauge(registry: &Registry, name: &str) -> Result<Gauge, prometheus::Error> {
    register(registry, Gauge::with_opts(opts(name))?)
}

fn gauge_vec(registry: &Registry, name: &str) -> Result<IntGaugeVec, prometheus::Error> {
    register(registry, IntGaugeVec::new(opts(name), labels(name))?)
}

fn histogram_vec(registry: &Registry, name: &str) -> Result<HistogramVec, prometheus::Error> {
    register(registry, HistogramVec::new(histogram_opts(name), labels(name))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::catalog;

    /// Gives every labelled metric a child, so that each family is exported.
    fn touched() -> Metrics {
        let metrics = Metrics::new().expect("the catalogue is sound");
        metrics.count_rejected("invalid", 1);
        metrics.pushes_refused.with_label_values(&["buffer_full"]).inc();
        metrics.messages_accepted.with_label_values(&["log"]).inc();
        metrics.requests_limited.with_label_values(&["token"]).inc();
        metrics.outbox_backlog.with_label_values(&["log"]).set(1);
        metrics.outbox_oldest_age.with_label_values(&["log"]).set(1.0);
        metrics.send_failures.with_label_values(&["log", "timeout"]).inc();
        metrics.outbox_forwarded.with_label_values(&["log"]).inc();
        metrics.dispatch_duration.with_label_values(&["log"]).observe(0.1);
        metrics.set_actor_restarts("IngestActor", "panic", 1);
        metrics.actor_mailbox_depth.with_label_values(&["IngestActor"]).set(0);
        metrics.circuit_state.with_label_values(&["database"]).set(0);
        metrics.redis_removed_early.with_label_values(&["keep"]).set(0);
        metrics.schedule_lateness.with_label_values(&["cleanup"]).set(0.1);
        metrics.instances.with_label_values(&["alive"]).set(1);
        metrics.set_account(&Account { accepted: 10, stored: 8, lost: 1, buffered: 1, ..Account::default() }, 0, 0);
        metrics.full_in_seconds.with_label_values(&["journal"]).set(f64::INFINITY);
        metrics.store_bytes.with_label_values(&["readings"]).set(1);
        metrics.alerts.notices.with_label_values(&["told"]).inc();
        metrics.alerts.fallbacks.with_label_values(&["hook"]).inc();
        metrics.alerts.deadman.with_label_values(&["sent"]).inc();
        metrics
    }

    #[test]
    fn what_is_exported_is_what_the_catalogue_says_and_nothing_else() {
        let text = touched().render().expect("renders");
        let exported: std::collections::BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
        let listed = catalog::CATALOG.iter().chain(catalog::PROCESS).map(|entry| (entry.name, entry.kind.as_str())).collect();
        assert_eq!(exported, listed);
    }

    #[test]
    fn the_reference_page_equals_the_catalogue() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md");
        if std::env::var_os("BELAYD_WRITE_DOCS").is_some() {
            std::fs::write(path, catalog::reference()).expect("docs/ is writable");
        }
        let page = std::fs::read_to_string(path).expect("docs/METRICS.md is there");
        assert_eq!(page, catalog::reference(), "print it anew with BELAYD_WRITE_DOCS=1");
    }

    #[test]
    fn sums_over_the_ledger_follow_it_up_and_down() {
        let metrics = Metrics::new().expect("the catalogue is sound");
        for accepted in [5, 9, 9, 3] {
            metrics.set_account(&Account { accepted, ..Account::default() }, 0, 0);
            assert_eq!(metrics.accepted.get(), accepted);
        }
    }

    #[test]
    fn a_difference_and_a_loss_show() {
        let metrics = Metrics::new().expect("the catalogue is sound");
        metrics.set_account(&Account { accepted: 100, lost: 3, void: 1, ..Account::default() }, 2, 98);
        let text = metrics.render().expect("renders");
        assert!(text.contains("belayd_conservation_violation 1"), "{text}");
        assert!(text.contains("belayd_data_loss_ratio 0.04"), "{text}");
        assert!(text.contains("belayd_readings_lost_total{reason=\"void\"} 1"), "{text}");
        assert!(text.contains("belayd_readings_lost_total{reason=\"stop\"} 2"), "{text}");
        assert!(text.contains("belayd_readings_lost_total{reason=\"restored\"} 1"), "{text}");
    }

    #[test]
    fn gatherers_are_asked_before_each_scrape() {
        let metrics = Metrics::new().expect("the catalogue is sound");
        metrics.on_scrape(|metrics| metrics.claim_failures.inc());
        metrics.render().expect("renders");
        assert!(metrics.render().expect("renders").contains("belayd_claim_failures_total 2"));
    }
}
