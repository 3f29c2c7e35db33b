//! Keys of the daemon itself: its surface, its store, its chores, its log.

use super::{
    Absent::{Example, Is},
    Kind::{
        self, Addresses, Bool, Credential, Duration, Filter, Float, Hosts, InputFile, Int, Path, Size, Socket, StoreUrl, TimeOfDay,
    },
    Section, breaker_failures, breaker_pause, breaker_pause_max, key,
};

pub(super) static SERVER: Section = Section {
    name: "server",
    most: 0,
    doc: "The HTTP surface and the data directory.",
    restart: "the listener and the data directory are opened once, at start",
    default_entries: "",
    keys: &[
        key(
            "listen",
            Socket,
            Is(r#""127.0.0.1:7070""#),
            "Where the HTTP surface listens; port 0 takes a free one. Beyond loopback it needs tls_cert and tls_key, or behind_proxy.",
        ),
        key(
            "data_dir",
            Path,
            Is(r#""belayd-data""#),
            "Control store, control socket and, unless store.url says otherwise, the database. Made with mode 0700.",
        ),
        key(
            "hosts",
            Hosts,
            Is(r#"["localhost", "127.0.0.1"]"#),
            "Accepted Host headers, without port. Other ones are refused, so that a foreign page cannot reach belayd by a name of its own.",
        ),
        key("tls_cert", InputFile, Example(r#""cert.pem""#), "PEM certificate chain; with tls_key belayd serves HTTPS."),
        key("tls_key", InputFile, Example(r#""key.pem""#), "PEM private key of tls_cert."),
        key(
            "behind_proxy",
            Addresses,
            Is("[]"),
            "Reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed, by address. It allows to listen beyond loopback without TLS.",
        ),
        key("metrics_open", Bool, Is("false"), "Whether /metrics is served without a token."),
        key("workers", Int(1, 64), Is("2"), "HTTP worker threads."),
        key("max_connections", Int(8, 100_000), Is("1024"), "Most connections at once; further ones wait in the listen queue."),
        key(
            "client_timeout",
            Duration("100ms", "5m"),
            Is(r#""10s""#),
            "How long a client may take to send its headers, to send each part of its body, and to take any of what is sent to it.",
        ),
        key("session_lifetime", Duration("1m", "30d"), Is(r#""12h""#), "How long a sign-in on the page lasts."),
        key("max_streams", Int(1, 10_000), Is("64"), "Most live pages and log tails at once; further ones get 503."),
        key(
            "stop_timeout",
            Duration("1s", "10m"),
            Is(r#""30s""#),
            "How long an orderly stop may take altogether. What tier memory still holds after that is lost, and is said so.",
        ),
    ],
};

pub(super) static STORE: Section = Section {
    name: "store",
    most: 0,
    doc: "The database of readings, ledger and deliveries.",
    restart: "connections to the database are opened once, at start",
    default_entries: "",
    keys: &[
        key(
            "url",
            StoreUrl,
            Example(r#""sqlite://belayd-data/belayd.db""#),
            "sqlite://PATH (sqlite:///var/… is absolute) or postgres://USER:PASSWORD@HOST/DATABASE. Left out: belayd.db in server.data_dir.",
        ),
        key("url_file", InputFile, Example(r#""store-url""#), "File whose first line is the URL, instead of url."),
        key(
            "url_credential",
            Credential,
            Example(r#""store-url""#),
            "systemd credential (LoadCredential=) that holds the URL, instead of url.",
        ),
        key("pool_size", Int(1, 64), Is("4"), "Connections for queries beside the one that drains the buffer."),
        key("connect_timeout", Duration("100ms", "1m"), Is(r#""5s""#), "How long to wait for a connection."),
        key("statement_timeout", Duration("100ms", "1h"), Is(r#""30s""#), "How long one statement may take (PostgreSQL)."),
        breaker_failures("1"),
        breaker_pause(r#""50ms""#),
        breaker_pause_max(r#""1s""#),
    ],
};

pub(super) static RETENTION: Section = Section {
    name: "retention",
    most: 0,
    doc: "How long things are kept. What is older is deleted by the retention pass.",
    restart: "",
    default_entries: "",
    keys: &[
        key(
            "readings",
            KEEP,
            Is(r#""3650d""#),
            "Readings, by the time at which they were observed. On PostgreSQL they go a partition at a time: at most 1h, or a tenth of this, later.",
        )
        .live(),
        key("deliveries", KEEP, Is(r#""30d""#), "Settled deliveries, and messages of which every delivery is settled. Unsettled ones are never deleted.").live(),
        key(
            "idempotency_keys",
            Duration("1m", "365d"),
            Example(r#""24h""#),
            "Idempotency keys of messages: for so long the same key makes no second message; never beyond retention.deliveries. Left out: \"24h\", or retention.deliveries where that is shorter.",
        )
        .live(),
        key("ledger", KEEP, Is(r#""90d""#), "Rows of the ledger; receipts older than that answer \"settled\".").live(),
        key("alerts", KEEP, Is(r#""365d""#), "Resolved alerts and their history. Open ones are never deleted.").live(),
        key("issues", KEEP, Is(r#""1825d""#), "Closed issues with their comments, by the time at which they were closed.").live(),
        key("audit", KEEP, Is(r#""365d""#), "Rows of the audit.").live(),
    ],
};

const KEEP: Kind = Duration("1h", "36500d");

pub(super) static SCHEDULE: Section = Section {
    name: "schedule",
    most: 0,
    doc: "Periodic duties.",
    restart: "the duties are laid out once, at start",
    default_entries: "",
    keys: &[
        key(
            "cleanup_at",
            TimeOfDay,
            Is(r#""03:00""#),
            "When the daily clean-up runs (sessions, expired tokens, optimising the databases).",
        ),
        key(
            "integrity_interval",
            Duration("1m", "7d"),
            Is(r#""1h""#),
            "From one run of the integrity check to the next; a large database is checked over several runs.",
        ),
        key("retention_interval", Duration("1m", "7d"), Is(r#""1h""#), "From one retention pass to the next."),
        key("statistics_interval", Duration("1s", "1d"), Is(r#""1m""#), "From one look at the sizes of the store to the next."),
    ],
};

const PERCENT: Kind = Float(1.0, 100.0);

pub(super) static MONITOR: Section = Section {
    name: "monitor",
    most: 0,
    doc: "Thresholds of host and daemon. 100 switches one off.",
    restart: "the monitor is paced once, at start",
    default_entries: "",
    keys: &[
        key("interval", Duration("100ms", "1m"), Is(r#""1s""#), "From one look to the next; the page moves at this pace."),
        key("cpu_percent", PERCENT, Is("80"), "CPU of the host above which a WARNING is raised, percent.").live(),
        key("memory_percent", PERCENT, Is("90"), "Memory of the host above which a CRITICAL is raised, percent.").live(),
        key("disk_percent", PERCENT, Is("85"), "Disk of the data directory above which a WARNING is raised, percent.").live(),
    ],
};

pub(super) static RECOVERY: Section = Section {
    name: "recovery",
    most: 0,
    doc: "Service levels of recovery. Where one is missed, the alert recovery-late says which.",
    restart: "",
    default_entries: "",
    keys: &[
        key(
            "outbox_within",
            Duration("100ms", "1h"),
            Is(r#""2s""#),
            "A delivery that is due is taken up within this time; one to Kafka is sent.",
        )
        .live(),
        key(
            "buffer_within",
            Duration("1s", "1h"),
            Is(r#""1m""#),
            "Readings that wait are tried with the database at least this often; never more often than buffer.flush_interval asks.",
        )
        .live(),
        key(
            "within",
            Duration("1s", "1d"),
            Is(r#""5m""#),
            "Once the database is back, what an outage has left waiting is stored within this time.",
        )
        .live(),
        key(
            "success_percent",
            Float(0.0, 100.0),
            Is("99.9"),
            "Of the readings that do not wait any more, at least this share is stored (repeats count); judged from 1,000 on.",
        )
        .live(),
    ],
};

pub(super) static SUPERVISION: Section = Section {
    name: "supervision",
    most: 0,
    doc: "Restart policy of the actors.",
    restart: "the actors are started under their policy",
    default_entries: "",
    keys: &[
        key(
            "max_restarts",
            Int(0, 1_000_000),
            Is("5"),
            "So many restarts of one actor are survived within the window; one more ends the process with code 1, and systemd starts it anew.",
        ),
        key("within", Duration("1s", "1d"), Is(r#""30s""#), "The window of max_restarts."),
        key("backoff_base", Duration("1ms", "10s"), Is(r#""5ms""#), "First wait before a restart; it doubles, with jitter."),
        key("backoff_max", Duration("1ms", "5m"), Is(r#""5s""#), "Longest wait before a restart."),
        key("healthy_after", Duration("100ms", "1h"), Is(r#""10s""#), "Health that resets the wait to the first."),
        key(
            "hang_after",
            Duration("100ms", "10m"),
            Is(r#""10s""#),
            "Silence after which an actor counts as hung: it is restarted where its thread still turns, else the watchdog falls silent.",
        ),
    ],
};

pub(super) static LOG: Section = Section {
    name: "log",
    most: 0,
    doc: "The log: one line an event, on stderr unless file is set.",
    restart: "the log is opened once, at start",
    default_entries: "",
    keys: &[
        key("format", Kind::Word(&["logfmt", "json"]), Is(r#""logfmt""#), "The form of a line."),
        key("level", Filter, Is(r#""info""#), "A level, or filter directives such as \"info,belayd::outbox=debug\".").live(),
        key("file", Path, Example(r#""belayd.log""#), "A file instead of stderr, where there is no systemd."),
        key("rotate_bytes", Size("10kB", "100GB"), Is(r#""10MB""#), "Size at which the file is rotated."),
        key("keep_files", Int(0, 1000), Is("5"), "Rotated files kept."),
    ],
};
