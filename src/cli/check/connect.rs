//! Tries what the configuration names: the store by a ping, mail by signing in, sources and other sinks by a bare
//! connection, Kafka by a look at the topic. Nothing is sent to a sink, and neither a database nor a topic is made.

use std::{
    fmt, fs, io,
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    path::Path,
    sync::Arc,
    time::Duration,
};

use url::Url;

use crate::{
    buffer::redis::{facts::Facts, link::Server},
    config::{Config, KafkaConfig, RedisConfig, SmtpConfig, StoreConfig},
    ingest::address::refuse_address,
    sinks::{SmtpSink, kafka, templates::Templates},
    store::Store,
};

/// Longest wait for one connection, whatever the configuration allows: a person is waiting.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// What came of one trial.
pub(super) struct Trial {
    /// `store`, `source "a"`, `webhook "b"`.
    subject: String,
    /// What was reached, or why it was not.
    pub(super) outcome: Result<String, String>,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Ok(reached) => write!(f, "{}: OK, {reached}", self.subject),
            Err(reason) => write!(f, "{}: FAILED, {reason}", self.subject),
        }
    }
}

/// Tries everything, one after the other.
pub(super) fn try_all(config: &Config) -> Vec<Trial> {
    let mut trials = vec![Trial { subject: "store".to_owned(), outcome: try_store(&config.store) }];
    if config.buffer.tier.uses_redis() {
        trials.push(Trial { subject: "redis".to_owned(), outcome: try_redis(&config.redis) });
    }
    for source in &config.sources {
        let outcome = try_url(&source.url, source.allow_link_local, source.timeout);
        trials.push(Trial { subject: format!("source \"{}\"", source.name), outcome });
    }
    if let Some(smtp) = &config.smtp {
        trials.push(Trial { subject: "smtp".to_owned(), outcome: try_smtp(config, smtp) });
    }
    for (name, chat) in [("slack", &config.slack), ("discord", &config.discord)] {
        let tried = chat.iter().map(|chat| try_url(&chat.url, false, chat.timeout));
        trials.extend(tried.map(|outcome| Trial { subject: name.to_owned(), outcome }));
    }
    for hook in &config.webhooks {
        let outcome = try_url(&hook.url, hook.allow_link_local, hook.timeout);
        trials.push(Trial { subject: format!("webhook \"{}\"", hook.name), outcome });
    }
    for bot in &config.bots {
        let outcome = try_url(&bot.url, bot.allow_link_local, bot.timeout);
        trials.push(Trial { subject: format!("bot \"{}\"", bot.name), outcome });
    }
    if let Some(kafka) = &config.kafka {
        trials.push(Trial { subject: "kafka".to_owned(), outcome: try_kafka(kafka) });
    }
    trials
}

fn try_kafka(config: &KafkaConfig) -> Result<String, String> {
    let found = kafka::probe(config, config.timeout.min(WAIT_MAX)).map_err(|error| error.message)?;
    let topic = &config.topic;
    match found.partitions {
        Some(partitions) => Ok(format!("topic \"{topic}\" has {partitions} partitions")),
        None if config.create_topic => Ok(format!("connected; topic \"{topic}\" is made at the first start")),
        None => Err(format!("topic \"{topic}\" is missing, and kafka.create_topic is false: create it, or allow it")),
    }
}

/// Connects and signs in as for a mail, and sends none.
fn try_smtp(config: &Config, smtp: &SmtpConfig) -> Result<String, String> {
    let texts = Arc::new(Templates::in_force(&config.templates));
    let mut smtp = smtp.clone();
    smtp.timeout = smtp.timeout.min(WAIT_MAX);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(SmtpSink::new(&smtp, 1, texts).probe())
}

fn try_store(config: &StoreConfig) -> Result<String, String> {
    if let Some(path) = config.url.strip_prefix("sqlite://").map(Path::new)
        && !path.exists()
    {
        return room_for(path);
    }
    let store = Store::open(config).map_err(|error| error.to_string())?;
    store.ping().map_err(|error| error.to_string())?;
    Ok(format!("connected to {}", store.redacted_url()))
}

/// Whether a database could be made at `path`: the nearest directory that exists must take files.
fn room_for(path: &Path) -> Result<String, String> {
    let nearest =
        path.ancestors().skip(1).map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir }).find(|dir| dir.exists());
    let Some(dir) = nearest else { return Err(format!("there is no directory for {}", path.display())) };
    let read_only = fs::metadata(dir).map(|metadata| !metadata.is_dir() || metadata.permissions().readonly());
    match read_only {
        Ok(false) => Ok(format!("{} is made at the first start", path.display())),
        Ok(true) => Err(format!("{} is not a directory that can be written", dir.display())),
        Err(error) => Err(format!("{}: {error}", dir.display())),
    }
}

/// Connects, and tells what it would lose.
fn try_redis(config: &RedisConfig) -> Result<String, String> {
    let (urls, cluster) = config.urls();
    let server = Server::new(&urls, cluster, config.timeout)?;
    let asked = server.connect(&config.prefix).and_then(|mut link| Ok((Facts::ask(&mut link)?, link.shown())));
    let (facts, node) = asked.map_err(|error| format!("{}: {error}", server.shown()))?;
    let room = if facts.is_smaller_than(config.stream_bytes) {
        format!("; its maxmemory, {} bytes, is less than redis.stream_bytes: raise it well above that", facts.max_memory)
    } else {
        String::new()
    };
    Ok(format!("connected to {node}, Redis {}; it may lose {}{room}", facts.version, facts.may_lose()))
}

fn try_url(url: &str, allow_link_local: bool, timeout: Duration) -> Result<String, String> {
    let url = Url::parse(url).map_err(|error| error.to_string())?;
    let host = url.host_str().ok_or("the URL names no host")?.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().ok_or("the URL names no port")?;
    let addresses = (host, port).to_socket_addrs().map_err(|error| format!("{host} is not found: {error}"))?;
    let mut reason = format!("{host} has no address");
    for address in addresses {
        match try_address(address, allow_link_local, timeout) {
            Ok(()) => return Ok(format!("connected to {address}")),
            Err(error) => reason = error,
        }
    }
    Err(reason)
}

fn try_address(address: SocketAddr, allow_link_local: bool, timeout: Duration) -> Result<(), String> {
    refuse_address(address.ip(), allow_link_local).map_err(|error| error.to_string())?;
    let connected: io::Result<TcpStream> = TcpStream::connect_timeout(&address, timeout.min(WAIT_MAX));
    connected.map(drop).map_err(|error| format!("{address}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::config::parse;

    fn outcomes(text: &str) -> Vec<bool> {
        try_all(&parse(text).expect("no fault")).iter().map(|trial| trial.outcome.is_ok()).collect()
    }

    #[test]
    fn each_party_is_tried_and_told_apart() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = TcpListener::bind("127.0.0.1:0").expect("a port");
        let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let text = format!(
            "[store]\nurl = \"sqlite://{}/a.db\"\n[[sources]]\nname = \"s\"\nurl = \"http://{closed}/x\"\n[[webhooks]]\nname = \"w\"\n\
             url = \"http://{}/x\"\n",
            dir.path().display(),
            open.local_addr().expect("an address"),
        );
        assert_eq!(outcomes(&text), [true, false, true]);
        assert!(!dir.path().join("a.db").exists(), "a check makes no database");
    }

    #[test]
    fn a_broker_that_is_not_there_is_told() {
        let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let dir = tempfile::tempdir().expect("a directory");
        let store = format!("[store]\nurl = \"sqlite://{}/a.db\"\n", dir.path().display());
        let text = format!("{store}[kafka]\nbrokers = \"{closed}\"\ntimeout = \"300ms\"\n");
        assert_eq!(outcomes(&text), [true, false]);
    }

    #[test]
    fn a_store_that_cannot_be_made_is_told() {
        let text = "[store]\nurl = \"sqlite:///dev/null/a.db\"\n";
        assert_eq!(outcomes(text), [false]);
    }
}
