//! What every client of Kafka is given: addresses, security, time-outs, and a place for what it says of its connections.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError, message::DeliveryResult,
    producer::ProducerContext, types::RDKafkaErrorCode as Code,
};

use crate::config::{KafkaConfig, KafkaSecurity};

/// Longest text that is kept of what a client says.
const HEARD_MAX_BYTES: usize = 300;

/// How long a client that failed is listened to: some hundred words.
const LISTEN: Duration = Duration::from_millis(50);

/// What a client said: the last error of its connections, and the first record that was not taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Ears(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    connection: Option<(Code, String)>,
    record: Option<KafkaError>,
}

impl Ears {
    fn with<T>(&self, f: impl FnOnce(&mut Heard) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The last error of a connection.
    pub(super) fn connection(&self) -> Option<(Code, String)> {
        self.with(|heard| heard.connection.clone())
    }

    /// The first record that was not taken since the last call.
    pub(super) fn take_record(&self) -> Option<KafkaError> {
        self.with(|heard| heard.record.take())
    }
}

impl ClientContext for Ears {
    /// The relay tells what matters, once; the library repeats itself with every attempt to connect.
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log::debug!(target: "belayd::kafka", level:? = level, fac = fac; "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        // That all brokers are away follows from what was said of one of them.
        if code == Code::AllBrokersDown {
            return;
        }
        let reason: String = reason.char_indices().take_while(|(at, _)| *at < HEARD_MAX_BYTES).map(|(_, c)| c).collect();
        self.with(|heard| heard.connection = Some((code, reason)));
    }
}

impl ConsumerContext for Ears {}

impl ProducerContext for Ears {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.with(|heard| {
                heard.record.get_or_insert_with(|| error.clone());
            });
        }
    }
}

/// Has a client hear what its connections have said, after it failed: only a poll does, and each takes one of the words that wait, most
/// of which are for the log.
pub(super) fn listen(poll: impl Fn()) {
    let until = Instant::now() + LISTEN;
    while Instant::now() < until {
        poll();
    }
}

/// The settings that every client shares.
pub(super) fn settings(config: &KafkaConfig) -> ClientConfig {
    let millis = |duration: Duration| duration.as_millis().to_string();
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", &config.brokers)
        .set("client.id", "belayd")
        .set("socket.timeout.ms", millis(config.timeout))
        .set("socket.connection.setup.timeout.ms", millis(config.timeout.max(Duration::from_secs(1))))
        .set("socket.keepalive.enable", "true")
        // A broker that is back is found within a second.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("security.protocol", config.security.as_str());
    if matches!(config.security, KafkaSecurity::SaslPlaintext | KafkaSecurity::SaslSsl) {
        settings.set("sasl.mechanism", &config.mechanism);
        settings.set("sasl.username", config.username.as_deref().unwrap_or_default());
        settings.set("sasl.password", config.password.as_deref().unwrap_or_default());
    }
    if matches!(config.security, KafkaSecurity::Ssl | KafkaSecurity::SaslSsl) {
        for (name, path) in
            [("ssl.ca.location", &config.ca), ("ssl.certificate.location", &config.cert), ("ssl.key.location", &config.key)]
        {
            if let Some(path) = path {
                settings.set(name, path.to_string_lossy());
            }
        }
    }
    settings
}

/// What the client that looks (topic, marks) is given besides.
pub(super) fn looking(config: &KafkaConfig, group: &str) -> ClientConfig {
    let mut settings = settings(config);
    settings
        .set("group.id", group)
        // Only what is committed for good counts; the broker is asked again while a commit is under way.
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("allow.auto.create.topics", "false");
    settings
}
