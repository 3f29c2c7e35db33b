//! Every metric that belayd exports: name, kind, labels, meaning. The registry is built from this table and `docs/METRICS.md` is
//! printed from it, so neither can say what the other does not.

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises; sums over the ledger keep their value over a restart.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Distribution in fixed buckets.
    Histogram,
}

impl Kind {
    /// The word that Prometheus uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Full name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Label names.
    pub labels: &'static [&'static str],
    /// One sentence, with the unit where it has one.
    pub help: &'static str,
}

const fn entry(name: &'static str, kind: Kind, labels: &'static [&'static str], help: &'static str) -> Entry {
    Entry { name, kind, labels, help }
}

/// Names, so that code and table cannot differ by a letter.
pub mod names {
    #![allow(missing_docs)]
    pub const READINGS_ACCEPTED: &str = "belayd_readings_accepted_total";
    pub const READINGS_REJECTED: &str = "belayd_readings_rejected_total";
    pub const READINGS_STORED: &str = "belayd_readings_stored_total";
    pub const READINGS_DUPLICATE: &str = "belayd_readings_duplicate_total";
    pub const READINGS_CONFLICT: &str = "belayd_readings_conflict_total";
    pub const READINGS_LOST: &str = "belayd_readings_lost_total";
    pub const READINGS_BUFFERED: &str = "belayd_readings_buffered";
    pub const BUFFER_BYTES: &str = "belayd_buffer_bytes";
    pub const BUFFER_BYTES_BOUND: &str = "belayd_buffer_bound_bytes";
    pub const JOURNAL_LOST_ENDS: &str = "belayd_journal_lost_ends";
    pub const REDIS_BYTES: &str = "belayd_redis_bytes";
    pub const REDIS_REMOVED_EARLY: &str = "belayd_redis_removed_early_bytes";
    pub const REDIS_UNCOPIED: &str = "belayd_redis_uncopied_readings";
    pub const REDIS_UNCOPIED_DROPPED: &str = "belayd_redis_uncopied_dropped_bytes";
    pub const FULL_IN_SECONDS: &str = "belayd_full_in_seconds";
    pub const DISK_FREE: &str = "belayd_disk_free_bytes";
    pub const STORE_BYTES: &str = "belayd_store_bytes";
    pub const STORE_PARTITIONS: &str = "belayd_store_partitions";
    pub const READINGS_DEAD: &str = "belayd_readings_dead";
    pub const PUSHES_REFUSED: &str = "belayd_pushes_refused_total";
    pub const ACK_SECONDS: &str = "belayd_ack_seconds";
    pub const ALERT_LATENCY: &str = "belayd_alert_latency_seconds";
    pub const ALERTS_SET_ASIDE: &str = "belayd_alerts_set_aside_total";
    pub const ALERT_NOTICES: &str = "belayd_alert_notices_total";
    pub const NOTICES_OVERDUE: &str = "belayd_alert_notices_overdue";
    pub const FALLBACKS: &str = "belayd_alert_fallbacks_total";
    pub const DEADMAN_PINGS: &str = "belayd_deadman_pings_total";
    pub const OUTBOX_BACKLOG: &str = "belayd_outbox_backlog";
    pub const OUTBOX_OLDEST_AGE: &str = "belayd_outbox_oldest_age_seconds";
    pub const SEND_FAILURES: &str = "belayd_send_failures_total";
    pub const OUTBOX_FORWARDED: &str = "belayd_outbox_forwarded_total";
    pub const MESSAGES_ACCEPTED: &str = "belayd_messages_accepted_total";
    pub const REQUESTS_LIMITED: &str = "belayd_requests_limited_total";
    pub const CLAIM_FAILURES: &str = "belayd_claim_failures_total";
    pub const DISPATCH_DURATION: &str = "belayd_dispatch_duration_seconds";
    pub const READINGS_RELAYED: &str = "belayd_readings_relayed_total";
    pub const RELAY_LATENCY: &str = "belayd_relay_latency_seconds";
    pub const RELAY_PARTITIONS: &str = "belayd_relay_partitions";
    pub const ACTOR_RESTARTS: &str = "belayd_actor_restarts_total";
    pub const ACTOR_MAILBOX_DEPTH: &str = "belayd_actor_mailbox_depth";
    pub const CONSERVATION_VIOLATION: &str = "belayd_conservation_violation";
    pub const DATA_LOSS_RATIO: &str = "belayd_data_loss_ratio";
    pub const DUPLICATE_RATIO: &str = "belayd_duplicate_ratio";
    pub const SUCCESS_RATIO: &str = "belayd_success_ratio";
    pub const RECOVERY_SECONDS: &str = "belayd_recovery_seconds";
    pub const CIRCUIT_STATE: &str = "belayd_circuit_state";
    pub const INSTANCES: &str = "belayd_instances";
    pub const INTEGRITY_ROWS: &str = "belayd_integrity_rows_total";
    pub const INTEGRITY_MISSING: &str = "belayd_integrity_missing_rows";
    pub const INTEGRITY_LEDGER_FAULTS: &str = "belayd_integrity_ledger_faults";
    pub const INTEGRITY_REPAIRED: &str = "belayd_integrity_repaired_total";
    pub const INTEGRITY_RESTORED: &str = "belayd_integrity_restored_total";
    pub const INTEGRITY_DELIVERY_FAULTS: &str = "belayd_integrity_delivery_faults";
    pub const INTEGRITY_JOURNAL_ROWS: &str = "belayd_integrity_journal_rows_total";
    pub const INTEGRITY_JOURNAL_MISSING: &str = "belayd_integrity_journal_missing_rows";
    pub const INTEGRITY_REDIS_ROWS: &str = "belayd_integrity_redis_rows_total";
    pub const INTEGRITY_REDIS_FAULTS: &str = "belayd_integrity_redis_faulty_rows";
    pub const INTEGRITY_REDIS_COPIED: &str = "belayd_integrity_redis_copied_again_total";
    pub const INTEGRITY_PASS: &str = "belayd_integrity_pass_timestamp_seconds";
    pub const SCHEDULE_LATENESS: &str = "belayd_schedule_lateness_seconds";
}

/// The table, in the order of the data flow.
pub const CATALOG: &[Entry] = &[
    entry(
        names::READINGS_ACCEPTED,
        Kind::Counter,
        &[],
        "Readings that were accepted with a number; a sum over all streams, kept over a restart.",
    ),
    entry(
        names::READINGS_REJECTED,
        Kind::Counter,
        &["reason"],
        "Readings that were refused, by the code of the reason; since the start.",
    ),
    entry(
        names::READINGS_STORED,
        Kind::Counter,
        &[],
        "Readings that the database says it inserted; a sum over the ledger, kept over a restart.",
    ),
    entry(
        names::READINGS_DUPLICATE,
        Kind::Counter,
        &[],
        "Repeats of stored readings with the same values, suppressed; a sum over the ledger, kept over a restart.",
    ),
    entry(
        names::READINGS_CONFLICT,
        Kind::Counter,
        &[],
        "Readings whose engine and time were stored with other values; a sum over the ledger, kept over a restart.",
    ),
    entry(
        names::READINGS_LOST,
        Kind::Counter,
        &["reason"],
        "Acknowledged readings that are gone: quarantined (damaged on disk), void (a sync failed), restored (with a database that was replaced by an older one, or in Redis, which had acknowledged them), stop (with the memory of a process); all but the last are kept over a restart.",
    ),
    entry(names::READINGS_BUFFERED, Kind::Gauge, &[], "Readings that wait for the database."),
    entry(names::BUFFER_BYTES, Kind::Gauge, &[], "Size of the buffer: of what waits in memory, or of the journal's files, bytes."),
    entry(names::BUFFER_BYTES_BOUND, Kind::Gauge, &[], "Most bytes that the buffer may take."),
    entry(
        names::JOURNAL_LOST_ENDS,
        Kind::Gauge,
        &[],
        "Streams whose end was cut off or damaged in the journal, so that acknowledged readings of an unknown number may be gone behind \
         it and are in no other count; of the last 16 streams, kept over a restart.",
    ),
    entry(
        names::REDIS_BYTES,
        Kind::Gauge,
        &[],
        "Tiers redis and triple: bytes of readings in Redis, about, those included that the database has and `redis.keep` holds.",
    ),
    entry(
        names::REDIS_REMOVED_EARLY,
        Kind::Gauge,
        &["before"],
        "Tiers redis and triple: bytes of readings that the database has and that were removed from Redis since the start, because `redis.stream_bytes` or Redis' memory was reached, or more than 1,024 settled streams were there: before keep (`redis.keep` had not passed, or they were not known to be relayed), and of these before relay (for certain not relayed).",
    ),
    entry(names::REDIS_UNCOPIED, Kind::Gauge, &[], "Tier triple: readings that the journal has synced and Redis has not, yet."),
    entry(
        names::REDIS_UNCOPIED_DROPPED,
        Kind::Gauge,
        &[],
        "Tier triple: bytes that the journal has dropped since the start before Redis had them, because `buffer.journal_bytes` was reached while Redis was away: the database has the only copy.",
    ),
    entry(
        names::FULL_IN_SECONDS,
        Kind::Gauge,
        &["what"],
        "Time until journal or disk are full at the rate of the last minutes, seconds; +Inf while they do not grow.",
    ),
    entry(names::DISK_FREE, Kind::Gauge, &[], "Free bytes of the file system of the data directory."),
    entry(
        names::STORE_BYTES,
        Kind::Gauge,
        &["kind"],
        "What takes how much on the disk, as of the last statistics: all (the database), of it readings, deliveries, ledger, indexes and free (room within SQLite's file); control (the control store), bytes.",
    ),
    entry(
        names::STORE_PARTITIONS,
        Kind::Gauge,
        &[],
        "Partitions of readings on PostgreSQL, the default one not counted; 0 on SQLite.",
    ),
    entry(
        names::READINGS_DEAD,
        Kind::Gauge,
        &[],
        "Readings that the database can never take and that nobody has discarded or stored yet.",
    ),
    entry(
        names::PUSHES_REFUSED,
        Kind::Counter,
        &["code"],
        "Pushes that were turned away whole for want of room or because of a stop, by error code; since the start.",
    ),
    entry(
        names::ACK_SECONDS,
        Kind::Histogram,
        &["level"],
        "Time from the end of a push's body to its acknowledgement, by the level reached, seconds.",
    ),
    entry(
        names::ALERT_LATENCY,
        Kind::Histogram,
        &[],
        "Time from the arrival of the reading or fact to the sink's confirmation of its first notice, seconds; what waited for others counts from when it was due. Messages and tests do not count.",
    ),
    entry(
        names::ALERTS_SET_ASIDE,
        Kind::Counter,
        &[],
        "Beginnings and ends of alerts that the control store refused for ever and that were set aside; since the start.",
    ),
    entry(
        names::ALERT_NOTICES,
        Kind::Counter,
        &["outcome"],
        "Decisions about notices of alerts: told (one by one), digest (with others), folded (was to be told one by one, and went into a digest), silenced, inhibited, acknowledged, no_route, not_told and not_wanted (ends that nobody waits for), found_missing (by the audit); since the start.",
    ),
    entry(
        names::NOTICES_OVERDUE,
        Kind::Gauge,
        &[],
        "Notices that were due for longer than `alerts.overdue_after` at the last audit and that nothing explains.",
    ),
    entry(
        names::FALLBACKS,
        Kind::Counter,
        &["sink"],
        "Notices that were copied to the fallback of their sink, by the sink that did not take them; since the start.",
    ),
    entry(
        names::DEADMAN_PINGS,
        Kind::Counter,
        &["outcome"],
        "Pings to the address of `[deadman]`: sent, failed, withheld (an actor or a loop made no progress); since the start.",
    ),
    entry(names::OUTBOX_BACKLOG, Kind::Gauge, &["sink"], "Deliveries that are due or in the works, by sink."),
    entry(names::OUTBOX_OLDEST_AGE, Kind::Gauge, &["sink"], "Age of the oldest unsettled due delivery, by sink, seconds."),
    entry(
        names::SEND_FAILURES,
        Kind::Counter,
        &["sink", "type"],
        "Attempts to send that failed, by sink and kind of failure; since the start.",
    ),
    entry(
        names::OUTBOX_FORWARDED,
        Kind::Counter,
        &["sink"],
        "Deliveries that waited for a sink which took nothing, and became due before their time when it was back; since the start.",
    ),
    entry(names::MESSAGES_ACCEPTED, Kind::Counter, &["via"], "Messages to people that were taken, by sink; since the start."),
    entry(
        names::REQUESTS_LIMITED,
        Kind::Counter,
        &["by"],
        "Requests that were refused because of [limits], by what was counted: token or address; since the start.",
    ),
    entry(names::CLAIM_FAILURES, Kind::Counter, &[], "Attempts to claim due deliveries that failed; since the start."),
    entry(names::DISPATCH_DURATION, Kind::Histogram, &["sink"], "Time that one attempt to send took, by sink, seconds."),
    entry(
        names::READINGS_RELAYED,
        Kind::Counter,
        &[],
        "Readings that Kafka has committed at this daemon's word, or that it was found to have when nobody had heard of their end; since the start. A run is counted before it is settled: whoever has its stream after a kill in between counts it again.",
    ),
    entry(
        names::RELAY_LATENCY,
        Kind::Histogram,
        &[],
        "From the commit of readings in the database to their commit in Kafka, by transaction of the database, seconds.",
    ),
    entry(names::RELAY_PARTITIONS, Kind::Gauge, &[], "Partitions of the topic when the relay last looked; 0 without a relay."),
    entry(
        names::ACTOR_RESTARTS,
        Kind::Counter,
        &["actor", "reason"],
        "Restarts of actors, by reason (panic, stop, hang, request); since the start.",
    ),
    entry(names::ACTOR_MAILBOX_DEPTH, Kind::Gauge, &["actor"], "Messages that wait in an actor's mailbox."),
    entry(
        names::CONSERVATION_VIOLATION,
        Kind::Gauge,
        &[],
        "1 while accepted readings differ from the sum of what became of them, else 0.",
    ),
    entry(
        names::DATA_LOSS_RATIO,
        Kind::Gauge,
        &[],
        "Acknowledged readings that are gone, for whatever reason, divided by accepted ones.",
    ),
    entry(
        names::DUPLICATE_RATIO,
        Kind::Gauge,
        &[],
        "Readings stored twice divided by stored ones; suppressed repeats do not count.",
    ),
    entry(
        names::SUCCESS_RATIO,
        Kind::Gauge,
        &[],
        "Readings that are stored (repeats included) divided by those that do not wait any more and that nobody discarded; 1 before the first.",
    ),
    entry(
        names::RECOVERY_SECONDS,
        Kind::Gauge,
        &[],
        "Length of the last recovery: from the database's return until nothing of the outage was left waiting, seconds.",
    ),
    entry(names::CIRCUIT_STATE, Kind::Gauge, &["party"], "Circuit breaker of an outside party: 0 closed, 1 half-open, 2 open."),
    entry(
        names::INSTANCES,
        Kind::Gauge,
        &["state"],
        "Instances that use this database, this one included: alive, or dead (not heard of for 15 s, nor stopped in order).",
    ),
    entry(
        names::INTEGRITY_ROWS,
        Kind::Counter,
        &[],
        "Stored readings that the integrity check compared with the ledger; since the start.",
    ),
    entry(
        names::INTEGRITY_MISSING,
        Kind::Gauge,
        &[],
        "Readings that the ledger says are stored and that the last whole integrity check did not find.",
    ),
    entry(
        names::INTEGRITY_LEDGER_FAULTS,
        Kind::Gauge,
        &[],
        "Holes, overlaps and wrong sums that the last whole integrity check found in the ledger.",
    ),
    entry(
        names::INTEGRITY_REPAIRED,
        Kind::Counter,
        &[],
        "Sums of streams that the integrity check has set right from the ledger; since the start.",
    ),
    entry(
        names::INTEGRITY_RESTORED,
        Kind::Counter,
        &[],
        "Readings that the ledger says are stored, that the database did not have, and that the integrity check has stored again from the journal or, with tiers redis and triple, from Redis; since the start.",
    ),
    entry(
        names::INTEGRITY_DELIVERY_FAULTS,
        Kind::Gauge,
        &[],
        "Deliveries to Kafka of which the last whole integrity check found that they are gone, that there are two for the same numbers, that the ledger does not know theirs, or that their readings are gone before they were sent.",
    ),
    entry(
        names::INTEGRITY_JOURNAL_ROWS,
        Kind::Counter,
        &[],
        "Readings in the journal that its integrity check compared with what waits in it; since the start.",
    ),
    entry(
        names::INTEGRITY_JOURNAL_MISSING,
        Kind::Gauge,
        &[],
        "Readings that wait for the database and that the last whole integrity check of the journal did not find there.",
    ),
    entry(
        names::INTEGRITY_REDIS_ROWS,
        Kind::Counter,
        &[],
        "Readings in Redis that its integrity check compared with what should be there; since the start.",
    ),
    entry(
        names::INTEGRITY_REDIS_FAULTS,
        Kind::Gauge,
        &[],
        "Readings that the last whole integrity check of Redis did not find there, or found where none should be.",
    ),
    entry(
        names::INTEGRITY_REDIS_COPIED,
        Kind::Counter,
        &[],
        "Tier triple: readings whose copy in Redis the integrity check had made again from the journal, because some of it was missing; since the start.",
    ),
    entry(
        names::INTEGRITY_PASS,
        Kind::Gauge,
        &[],
        "When the last whole integrity check ended, seconds since the epoch; 0 before the first.",
    ),
    entry(
        names::SCHEDULE_LATENESS,
        Kind::Gauge,
        &["duty"],
        "How much later than due the last run of a periodic duty began, seconds.",
    ),
];

/// What the process collector of the Prometheus client adds, as far as the platform has it.
pub const PROCESS: &[Entry] = &[
    entry("process_cpu_seconds_total", Kind::Counter, &[], "User and system CPU time, seconds."),
    entry("process_open_fds", Kind::Gauge, &[], "Open file descriptors."),
    entry("process_max_fds", Kind::Gauge, &[], "Most file descriptors that may be open."),
    entry("process_virtual_memory_bytes", Kind::Gauge, &[], "Virtual memory, bytes."),
    entry("process_resident_memory_bytes", Kind::Gauge, &[], "Resident memory, bytes."),
    entry("process_start_time_seconds", Kind::Gauge, &[], "Start of the process, seconds since the epoch."),
    entry("process_threads", Kind::Gauge, &[], "Threads."),
];

/// The reference as Markdown; `docs/METRICS.md` is this text.
pub fn reference() -> String {
    let mut text = String::from(
        "# Metrics\n\nServed as Prometheus text at `/metrics`. This page is printed from `src/event/catalog.rs`; a test keeps them equal.\n\n\
         | name | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    for entry in CATALOG.iter().chain(PROCESS) {
        let labels = if entry.labels.is_empty() { "-".to_owned() } else { format!("`{}`", entry.labels.join("`, `")) };
        text.push_str(&format!("| `{}` | {} | {labels} | {} |\n", entry.name, entry.kind.as_str(), entry.help));
    }
    text
}
