//! Keys along the way of a reading: buffer, sources, rules, routes, the outbox, the relay.

use super::{
    Absent::{Example, Fault, Is},
    Key,
    Kind::{
        self, Bool, Brokers, Credential, Duration, Fields, Float, Headers, HttpUrl, InputFile, Int, Metric, Name, Names, Ranges,
        Secret, Size, Text, Word,
    },
    Section, breaker_failures, breaker_pause, breaker_pause_max, key,
};
use crate::domain::anomaly::{SENSITIVITY_RANGE, WARM_UP_RANGE};

pub(super) static BUFFER: Section = Section {
    name: "buffer",
    most: 0,
    doc: "Where accepted readings wait for the database.",
    restart: "the buffer is laid out once, at start",
    default_entries: "",
    keys: &[
        key(
            "tier",
            Word(&["journal", "memory", "redis", "triple"]),
            Is(r#""journal""#),
            "The medium. journal: on this host's disk, acknowledged after a sync, and there again after a crash. memory: faster, and what still waits is lost if the process dies. redis: in the Redis of [redis], from where other instances can take over, and on this host's disk while Redis is away. triple: in the database before the answer (on this host's disk while it is away), with a copy in Redis: any one of the three may be destroyed. docs/TIERS.md helps to choose.",
        ),
        key(
            "batch_rows",
            Int(1, 100_000),
            Is("100"),
            "Rows a batch when the load is light: so many are written at once, or, where something was written less than 50 ms ago, with what has come by then. It grows by itself while catching up.",
        ),
        key(
            "flush_interval",
            Duration("1ms", "1h"),
            Is(r#""10s""#),
            "Longest wait before rows are written, however few. A sender that waits for ack=store flushes at once.",
        ),
        key(
            "memory_rows",
            Int(100, 10_000_000),
            Is("100000"),
            "Most readings in memory; the bound that is hit first wins. Beyond it senders get 503 until the database has caught up.",
        ),
        key("memory_bytes", Size("100kB", "100GB"), Is(r#""10MB""#), "Most bytes in memory."),
        key(
            "journal_bytes",
            Size("8MB", "1TB"),
            Is(r#""2GB""#),
            "Tiers journal, redis and triple: most bytes of journal in server.data_dir, read or not. Beyond it senders get 503 until the database has caught up; an alert tells before.",
        ),
        key(
            "streams",
            Int(1, 8),
            Example("2"),
            "Tiers journal, redis and triple: how many numbered sequences share the journal, and how many streams in Redis are written at once, each drained through a database connection of its own. Left out: 1 with SQLite, which has one writer, and 2 with PostgreSQL.",
        ),
        key(
            "ack_timeout",
            Duration("100ms", "5m"),
            Is(r#""10s""#),
            "Longest wait for the ack level that a sender asked for; then 202 says the level reached.",
        ),
        key(
            "admission_bytes",
            Size("8MB", "10GB"),
            Is(r#""16MB""#),
            "Most bytes of request bodies being read and parsed at once; beyond that senders get 429.",
        ),
        key(
            "readings_per_s",
            Int(1, 100_000_000),
            Example("50000"),
            "Most readings a second that are let in by push, on average, with a second's worth at once after a quiet time; beyond that senders get 429 before their body is read, with the time after which there is room in Retry-After. Set it below what the database takes, so that the buffer never fills. Left out: no limit.",
        ),
    ],
};

pub(super) static READINGS: Section = Section {
    name: "readings",
    most: 0,
    doc: "What a reading may look like.",
    restart: "",
    default_entries: "",
    keys: &[
        key("max_ahead", Duration("0", "3650d"), Is(r#""24h""#), "How far ahead of now a timestamp may lie.").live(),
        key(
            "max_behind",
            Duration("1s", "36500d"),
            Example(r#""3650d""#),
            "How far behind now a timestamp may lie; never beyond retention.readings. Left out: \"3650d\", or retention.readings where that is shorter.",
        )
        .live(),
        key(
            "ranges",
            Ranges,
            Example("{ temperature = [-100, 2000] }"),
            "Lowest and highest accepted value by metric; a reading with a value outside is refused. Left out: any finite number.",
        )
        .live(),
        key(
            "max_engines",
            Int(1, 1_000_000),
            Is("10000"),
            "Most engines whose latest reading and rule state are kept in memory; beyond that the one quiet for longest is dropped.",
        )
        .live(),
    ],
};

pub(super) const URL_FILE: Key =
    key("url_file", InputFile, Example(r#""secret-url""#), "File whose first line is the URL, instead of url.").live();
pub(super) const URL_CREDENTIAL: Key = key(
    "url_credential",
    Credential,
    Example(r#""secret-url""#),
    "systemd credential (LoadCredential=) that holds the URL, instead of url.",
)
.live();
pub(super) const ALLOW_LINK_LOCAL: Key = key(
    "allow_link_local",
    Bool,
    Is("false"),
    "Whether link-local and metadata addresses (169.254.169.254 and the like) may be asked.",
)
.live();

pub(super) static SOURCES: Section = Section {
    name: "sources",
    most: 1_000,
    doc: "Sources that are polled. Each is polled on its own: a slow one delays no other.",
    restart: "",
    default_entries: "",
    keys: &[
        key("name", Name, Fault(r#""simulator""#), "Unique among the sources.").live(),
        key(
            "url",
            HttpUrl,
            Example(r#""http://127.0.0.1:7071/api/engines""#),
            "Where the readings are; url, url_file or url_credential must be given. {after} in it is replaced by the last X-Next header, so that nothing is lost when an answer is cut.",
        )
        .live(),
        URL_FILE,
        URL_CREDENTIAL,
        key("interval", Duration("10ms", "1d"), Is(r#""1s""#), "From one poll to the next.").live(),
        key("timeout", Duration("10ms", "10m"), Is(r#""5s""#), "For one whole answer.").live(),
        key("headers", Headers, Example(r#"{ Authorization = "Bearer …" }"#), "Extra request headers; their values are never shown.").live(),
        key("ca", InputFile, Example(r#""ca.pem""#), "PEM file of a further certificate authority.").live(),
        key(
            "fields",
            Fields,
            Example(r#"{ engine_id = "unit", temperature = "egt" }"#),
            "The source's field name by reading field, where it differs.",
        )
        .live(),
        ALLOW_LINK_LOCAL,
        breaker_failures("5").live(),
        breaker_pause(r#""1s""#).live(),
        breaker_pause_max(r#""5s""#).live(),
    ],
};

pub(super) static RULES: Section = Section {
    name: "rules",
    most: 1_000,
    doc: "Rules, evaluated for each engine apart, before storage. Kind threshold compares one metric with a fixed value; metric, op and threshold must be given. Kind anomaly learns from the first readings of each engine what is normal for it and tells when it moves away; name and kind are enough (docs/ANOMALY.md). The two threshold rules below hold where no [[rules]] is given at all; rules = [] at the top of the file switches them off.",
    restart: "",
    default_entries: r#"[[rules]]
name = "overheat"
metric = "temperature"
op = ">"
threshold = 350.0
clear = 340.0
for = "0s"
level = "CRITICAL"

[[rules]]
name = "overspeed"
metric = "rpm"
op = ">"
threshold = 8000.0
clear = 7800.0
for = "0s"
level = "WARNING"
"#,
    keys: &[
        key("name", Name, Fault(r#""overheat""#), "Unique among the rules; alerts carry it.").live(),
        key("kind", Word(&["threshold", "anomaly"]), Is(r#""threshold""#), "How it judges.").live(),
        key(
            "metric",
            Metric,
            Example(r#""temperature""#),
            "Kind threshold: what is compared; must be given. Kind anomaly: as metrics, for one alone.",
        )
        .live(),
        key(
            "op",
            Word(&[">", ">=", "<", "<="]),
            Example(r#"">""#),
            "Kind threshold: the comparison that makes a breach, metric op threshold; must be given.",
        )
        .live(),
        key("threshold", ANY, Example("350.0"), "Kind threshold: what the metric is compared with; must be given.").live(),
        key(
            "clear",
            ANY,
            Example("340.0"),
            "Kind threshold, hysteresis: the alert is over only when the metric has come back to this value or beyond. Left out: as soon as it no longer breaches.",
        )
        .live(),
        key("for", Duration("0", "365d"), Is(r#""0s""#), "Kind threshold: how long the breach must last, by the times of the readings, before the alert opens.").live(),
        key(
            "metrics",
            Names,
            Example(r#"["temperature", "oil_pressure"]"#),
            "Kind anomaly: the metrics that are learned and judged. Left out: every one that the readings bring, further ones included.",
        )
        .live(),
        key(
            "sensitivity",
            Float(SENSITIVITY_RANGE.0, SENSITIVITY_RANGE.1),
            Is("1.0"),
            "Kind anomaly: every limit is divided by it. 2 warns at half the distance from the baseline, 0.5 at twice.",
        )
        .live(),
        key(
            "warm_up",
            Int(WARM_UP_RANGE.0 as i64, WARM_UP_RANGE.1 as i64),
            Is("50"),
            "Kind anomaly: how many readings of an engine are learned from before it is judged. Another number, or other metrics, lets every engine be learned anew.",
        )
        .live(),
        key("level", Word(&LEVELS), Is(r#""WARNING""#), "The level of the alert.").live(),
        key(
            "labels",
            Kind::Labels,
            Example(r#"{ site = "north" }"#),
            "What its alerts carry beside name and level, for routes and silences to select by.",
        )
        .live(),
    ],
};

const ANY: Kind = Float(f64::MIN, f64::MAX);
pub(super) const LEVELS: [&str; 3] = ["INFO", "WARNING", "CRITICAL"];

pub(super) static OUTBOX: Section = Section {
    name: "outbox",
    most: 0,
    doc: "How deliveries leave.",
    restart: "the outbox is paced once, at start",
    default_entries: "",
    keys: &[
        key(
            "poll_interval",
            Duration("10ms", "5s"),
            Is(r#""1s""#),
            "Longest time between looks for due deliveries; a new one wakes the outbox at once.",
        ),
        key(
            "lease",
            Duration("1s", "1h"),
            Is(r#""10s""#),
            "How long a claim lasts before another worker may take over; it is renewed while a send lasts.",
        ),
        key(
            "max_attempts",
            Int(1, 1_000),
            Is("30"),
            "Attempts before a delivery is dead and waits among the failures for a person.",
        ),
        key("retry_base", Duration("10ms", "1h"), Is(r#""1s""#), "First wait before a retry; it doubles, with jitter."),
        key("retry_max", Duration("10ms", "1d"), Is(r#""15m""#), "Longest wait before a retry."),
        key("concurrency", Int(1, 256), Is("4"), "Sends at once for each sink."),
    ],
};

pub(super) static KAFKA: Section = Section {
    name: "kafka",
    most: 0,
    doc: "The relay of stored readings to Kafka: each of them once, for consumers that read committed records (docs/KAFKA.md). It is on where brokers is given.",
    restart: "the relay is set up once, at start",
    default_entries: "",
    keys: &[
        key(
            "brokers",
            Brokers,
            Example(r#""127.0.0.1:9092""#),
            "One or several HOST:PORT, separated by commas, from which the others are learnt. Left out: nothing is relayed.",
        ),
        key("topic", Name, Is(r#""engine""#), "Where the readings go; no colon in it."),
        key(
            "create_topic",
            Bool,
            Is("true"),
            "Whether a topic that is missing is made. Otherwise the relay waits for it, and says so.",
        ),
        key("partitions", Int(1, 10_000), Is("6"), "Partitions of a topic that is made."),
        key(
            "replication",
            Int(1, 100),
            Example("3"),
            "Copies of each partition of a topic that is made. Left out: what the broker does by default.",
        ),
        key(
            "timeout",
            Duration("100ms", "5m"),
            Is(r#""3s""#),
            "How long Kafka may take for each step of a transaction before it is tried anew.",
        ),
        key(
            "security",
            Word(&["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]),
            Is(r#""plaintext""#),
            "How brokers are spoken to. ssl and sasl_ssl need a build with the feature kafka-tls, which is on by default.",
        ),
        key(
            "mechanism",
            Word(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]),
            Is(r#""PLAIN""#),
            "How belayd signs in where security has sasl. SCRAM needs a build with the feature kafka-tls, which is on by default.",
        ),
        key("username", Text, Example(r#""belayd""#), "Who signs in."),
        key("password", Secret, Example(r#""secret""#), "Its password; never shown."),
        key(
            "password_file",
            InputFile,
            Example(r#""kafka-password""#),
            "File whose first line is the password, instead of password.",
        ),
        key(
            "password_credential",
            Credential,
            Example(r#""kafka-password""#),
            "systemd credential (LoadCredential=) that holds the password, instead of password.",
        ),
        key(
            "ca",
            InputFile,
            Example(r#""ca.pem""#),
            "PEM file of the authorities that may sign for a broker. Left out: the system's.",
        ),
        key("cert", InputFile, Example(r#""client.pem""#), "PEM certificate by which belayd shows who it is, with key."),
        key("key", InputFile, Example(r#""client.key""#), "PEM private key of cert."),
        breaker_failures("2"),
        breaker_pause(r#""250ms""#),
        breaker_pause_max(r#""2s""#),
    ],
};
