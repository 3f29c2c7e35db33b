//! What the daemon shows of itself, as the description has it: buffer, outbox, instances, duties, audit, configuration.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, Schema},
    },
};

use crate::config::keys::SECTIONS;

shapes! {
    /// Something that was asked for by name.
    Requested { name: String, /// requested
        state: String, }
    /// The account of readings: what was accepted is in one of the others.
    AccountItem {
        accepted: u64,
        stored: u64,
        duplicate: u64,
        conflict: u64,
        dead: u64,
        discarded: u64,
        quarantined: u64,
        void: u64,
        lost: u64,
        buffered: u64,
    }
    /// The buffer, the account over all streams, and what may be let in now.
    BufferLook {
        /// memory, journal, redis or triple
        tier: String,
        /// The level that the medium reaches by itself
        ack: String,
        /// What a crash may lose, in words
        may_lose: String,
        /// The same as a word
        may_lose_code: String,
        /// The streams being written, one a lane
        streams: Vec<String>,
        rows: u64,
        /// Null where only bytes count
        rows_bound: Option<u64>,
        bytes: u64,
        bytes_bound: u64,
        oldest_age_ms: u64,
        /// Senders that wait for store
        waiters: u64,
        /// Whether the next batch would be refused for want of room
        refuses: bool,
        /// Whether it is refused because the medium does not take it
        failing: bool,
        /// Streams whose end was cut off
        lost_ends: u64,
        /// Of the streams being written
        account: AccountItem,
        /// 0 unless a reading vanished or was made up
        difference: i64,
        /// Over all streams of the directory
        total: AccountItem,
        store_ack: StoreAck,
        admission: Admission,
        /// Where the tier has one
        redis: Option<RedisItem>,
    }
    /// What a sender gets that asks for store, and why it is less.
    StoreAck { level: String, reason: Option<String>, }
    /// What may be let in now.
    Admission { bytes: u64, bytes_bound: u64, /// Null where there is no limit
        readings_per_s: Option<u32>, readings_room: Option<i64>, }
    /// Redis, where readings wait in it.
    RedisItem {
        /// Without user and password
        address: String,
        /// up, down or full
        state: String,
        /// closed, open or half-open
        circuit: String,
        cause: Option<String>,
        down_ms: Option<u64>,
        facts: Option<RedisFacts>,
        bytes: u64,
        bytes_bound: u64,
        /// Removed since the start before redis.keep had passed or their readings were relayed
        removed_early_bytes: u64,
        /// Of these, removed before their readings were relayed
        removed_unrelayed_bytes: u64,
        streams: u64,
        rows: u64,
        /// Tier triple only
        uncopied: Option<u64>,
        /// Tier triple only
        uncopied_dropped_bytes: Option<u64>,
        looked_back: bool,
    }
    /// What Redis says of itself.
    RedisFacts {
        version: String,
        /// always, everysec, no, unknown or off
        append_fsync: String,
        used_memory: u64,
        /// 0 where there is no bound
        max_memory: u64,
        memory_policy: String,
        replicas: u64,
    }
    /// Deliveries by state, and by sink.
    OutboxLook {
        scheduled: u64,
        ready: u64,
        claimed: u64,
        sending: u64,
        retry: u64,
        uncertain: u64,
        dead: u64,
        sent_total: u64,
        /// Of the oldest due one, seconds
        oldest_age_s: f64,
        /// Of the oldest due one that nobody has taken up, seconds
        oldest_waiting_s: f64,
        sinks: Vec<OutboxSink>,
    }
    /// What waits for a sink.
    OutboxSink { name: String, /// closed, open or half-open
        state: String, backlog: u64, in_flight: u64, }
    /// Who uses the same database, this one first.
    Instances { items: Vec<InstanceItem>, next_cursor: Option<String>, }
    /// One instance.
    InstanceItem {
        instance: String,
        /// alive, dead or stopped
        state: String,
        /// Whether it is the one that answers
        this: bool,
        host: String,
        pid: i64,
        version: String,
        url: String,
        tier: String,
        started_at: String,
        last_seen_at: String,
        /// Names of the leases that it holds
        holds: Vec<String>,
    }
    /// Who did what. away names what could not be asked.
    Audit { items: Vec<AuditItem>, next_cursor: Option<String>, away: Vec<String>, }
    /// One line of the audit.
    AuditItem {
        /// Null for message.create, which is kept with the message
        id: Option<i64>,
        at: String,
        actor: String,
        action: String,
        subject: String,
        reason: Option<String>,
        /// ok, or the code of the failure
        outcome: String,
    }
    /// What runs at fixed times.
    Duties {
        items: Vec<DutyItem>,
        /// Null before the first
        statistics: Option<StatisticsItem>,
        /// Null before the first
        integrity: Option<IntegrityItem>,
        next_cursor: Option<String>,
    }
    /// One duty.
    DutyItem { name: String, status: DutyStatusItem, }
    /// When it ran and runs.
    DutyStatusItem {
        last_run_at: Option<String>,
        next_run_at: Option<String>,
        running: bool,
        /// In a row
        failures: u32,
        /// How late the last run began, microseconds
        lateness_us: i64,
        outcome: Option<String>,
    }
    /// The store in figures.
    StatisticsItem {
        taken_at: String,
        size_bytes: u64,
        control_bytes: u64,
        /// Null, as the next three, where SQLite's file is too large to look through
        readings_bytes: Option<u64>,
        deliveries_bytes: Option<u64>,
        ledger_bytes: Option<u64>,
        index_bytes: Option<u64>,
        /// Null on PostgreSQL
        free_bytes: Option<u64>,
        partitions: u64,
        oldest_reading_at: Option<String>,
        /// Null where there are too many to count
        readings: Option<u64>,
        conflicts: u64,
        dead: u64,
    }
    /// The last whole integrity check.
    IntegrityItem {
        ended_at: String,
        streams: u64,
        ledger_rows: u64,
        rows: u64,
        missing: u64,
        twice: u64,
        unsettled: u64,
        ledger_faults: u64,
        repaired: u64,
        restored: u64,
        deliveries: u64,
        delivery_faults: u64,
        /// The first ones in words
        faults: Vec<String>,
    }
    /// A description of an interface, OpenAPI 3.1.
    OpenApiDocument {
        /// 3.1.0
        openapi: String,
        #[schema(value_type = Object)]
        info: serde_json::Value,
        #[schema(value_type = Object)]
        paths: serde_json::Value,
        #[schema(value_type = Object)]
        components: serde_json::Value,
        security: Vec<serde_json::Value>,
        tags: Vec<serde_json::Value>,
    }
}

/// The configuration in force: by section its keys in camelCase, secrets as `***`.
pub struct ConfigAnswer;

impl PartialSchema for ConfigAnswer {
    fn schema() -> RefOr<Schema> {
        let table = || ObjectBuilder::new().additional_properties(Some(AdditionalProperties::FreeForm(true)));
        let sections = SECTIONS.into_iter().fold(ObjectBuilder::new(), |all, section| {
            let all = all.required(section.name);
            if section.is_list() {
                all.property(section.name, ArrayBuilder::new().items(table()).description(Some(section.doc)))
            } else {
                all.property(section.name, table().description(Some(section.doc)))
            }
        });
        sections.description(Some("By section its keys in camelCase, as docs/CONFIGURATION.md has them; secrets as ***")).into()
    }
}

impl ToSchema for ConfigAnswer {}
