//! Keys of the Redis that tier redis uses.

use super::{
    Absent::{Example, Is},
    Kind::{Credential, Duration, InputFile, Int, Name, RedisUrl, RedisUrls, Size},
    Section, breaker_failures, breaker_pause, breaker_pause_max, key,
};

pub(super) static REDIS: Section = Section {
    name: "redis",
    most: 0,
    doc: "The Redis of tiers redis and triple: one server or a cluster, at least version 6.2, append-only, never evicting. Without one of them nothing is asked of it.",
    restart: "connections to Redis are opened once, at start",
    default_entries: "",
    keys: &[
        key(
            "url",
            RedisUrl,
            Example(r#""redis://127.0.0.1:6379""#),
            "redis://USER:PASSWORD@HOST:PORT/DB, or rediss:// for TLS. Left out, with cluster: redis://127.0.0.1:6379.",
        ),
        key("url_file", InputFile, Example(r#""redis-url""#), "File whose first line is the URL, instead of url."),
        key(
            "url_credential",
            Credential,
            Example(r#""redis-url""#),
            "systemd credential (LoadCredential=) that holds the URL, instead of url.",
        ),
        key(
            "cluster",
            RedisUrls,
            Example(r#"["redis://10.0.0.1:6379", "redis://10.0.0.2:6379"]"#),
            "Nodes of a Redis Cluster that are asked for the others, instead of url. User and password are those of the first that answers.",
        ),
        key(
            "prefix",
            Name,
            Is(r#""belayd""#),
            "What the names of keys begin with. Instances that share a database share it; others must not.",
        ),
        key(
            "timeout",
            Duration("20ms", "4s"),
            Is(r#""2s""#),
            "Longest wait for an answer of Redis; then the batch goes to the journal, whose answer follows. Keep it well below buffer.ack_timeout.",
        ),
        key(
            "keep",
            Duration("0", "30d"),
            Is(r#""24h""#),
            "How long readings stay in Redis at least, once the database has them; with [kafka] also until they are relayed; stream_bytes comes before both. A database that was put back is filled from there.",
        ),
        key(
            "stream_bytes",
            Size("10MB", "1TB"),
            Is(r#""1GB""#),
            "Most bytes of readings in Redis, about. Beyond it the oldest that the database has go before keep has passed; where none are left, batches go to the journal (tier triple: and wait there for their copy).",
        ),
        key(
            "replicas",
            Int(0, 16),
            Is("0"),
            "Replicas that must have a batch before it is acknowledged (WAIT). It narrows what a fail-over may lose; where they are missing batches go to the journal.",
        ),
        breaker_failures("1"),
        breaker_pause(r#""200ms""#),
        breaker_pause_max(r#""5s""#),
    ],
};
