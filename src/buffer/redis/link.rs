//! A connection to the Redis that holds a key: one server, or the node of a cluster that has the key's slot.
//!
//! In: commands. Out: their answers, or why there are none; every call has an end (the time-out). A failed link is thrown away by its
//! user: what was sent on it has an unknown outcome. MOVED and ASK are definite (nothing was done), so they are followed here, once.

use std::{fmt, time::Duration};

use redis::{Cmd, Connection, ConnectionAddr, ConnectionInfo, ConnectionLike, IntoConnectionInfo, Pipeline, RedisError, Value};

/// Slots of a cluster.
const SLOTS: u16 = 16_384;

/// Where Redis is. Holds the password: never shown.
#[derive(Clone)]
pub struct Server {
    /// The server, or the nodes of the cluster that are asked first.
    nodes: Vec<ConnectionInfo>,
    cluster: bool,
    timeout: Duration,
    /// For people: without user and password.
    shown: String,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Why a command has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkError {
    /// Redis' own code (`OOM`, `NOPERM`, `CLUSTERDOWN`), or `io`.
    pub code: String,
    /// For a person; no secrets.
    pub message: String,
    /// Whether it is certain that nothing was done.
    pub definite: bool,
    /// `MOVED` and `ASK`: the node to ask.
    pub(in crate::buffer) redirect: Option<(String, u16)>,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl LinkError {
    /// A fault that we noticed ourselves.
    pub(in crate::buffer) fn ours(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), definite: false, redirect: None }
    }

    /// Whether this user of Redis, or this Redis, never takes the command: asked again it says the same, until a person changes it. Every other
    /// refusal may pass: a failover, a full disk, a script that runs, a node that loads its data.
    pub(in crate::buffer) fn is_forbidden(&self) -> bool {
        let unknown = self.code == "ERR" && self.message.contains("unknown command");
        self.definite && (self.code == "NOPERM" || unknown)
    }

    fn of(error: &RedisError, definite: bool) -> Self {
        let redirect = error.redirect_node().map(|(node, _)| node).and_then(|node| {
            let (host, port) = node.rsplit_once(':')?;
            Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
        });
        let code = error.code().map_or_else(|| if error.is_io_error() { "io" } else { "error" }.to_owned(), str::to_owned);
        let message = if error.is_timeout() { "no answer in time".to_owned() } else { error.to_string() };
        // Never a user or a password: the library does not print them, and this makes sure.
        Self { code, message: message.chars().take(300).collect(), definite, redirect }
    }
}

impl From<RedisError> for LinkError {
    fn from(error: RedisError) -> Self {
        Self::of(&error, false)
    }
}

impl Server {
    /// Takes URLs apart: one server, or nodes of a cluster.
    ///
    /// # Errors
    /// What is wrong with a URL; never the URL itself.
    pub fn new(urls: &[String], cluster: bool, timeout: Duration) -> Result<Self, String> {
        // The process may have installed one already; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let parse = |url: &String| url.as_str().into_connection_info().map_err(|_| "not a URL of Redis".to_owned());
        let nodes: Vec<_> = urls.iter().map(parse).collect::<Result<_, _>>()?;
        if nodes.is_empty() {
            return Err("names no Redis".into());
        }
        let shown: Vec<_> = nodes.iter().map(|node| node.addr().to_string()).collect();
        Ok(Self { nodes, cluster, timeout, shown: shown.join(", ") })
    }

    /// Where it is, without secrets.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether it is a cluster.
    pub fn is_cluster(&self) -> bool {
        self.cluster
    }

    /// Longest wait for an answer.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Connects to the node that holds `key`.
    ///
    /// # Errors
    /// No node answers, or none holds the slot.
    pub fn connect(&self, key: &str) -> Result<Link, LinkError> {
        if !self.cluster {
            return self.open(&self.nodes[0]);
        }
        let slot = slot_of(key);
        let mut failed = None;
        for seed in &self.nodes {
            match self.holder(seed, slot).and_then(|node| self.open(&node)) {
                Ok(link) => return Ok(link),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| LinkError::ours("io", "no node of the cluster answers")))
    }

    fn open(&self, node: &ConnectionInfo) -> Result<Link, LinkError> {
        let opened = redis::Client::open(node.clone()).and_then(|client| client.get_connection_with_timeout(self.timeout));
        // Nothing but the greeting was sent.
        let connection = opened.map_err(|error| LinkError::of(&error, true))?;
        connection.set_read_timeout(Some(self.timeout))?;
        connection.set_write_timeout(Some(self.timeout))?;
        Ok(Link { connection, server: self.clone(), node: node.clone() })
    }

    /// The same server at another address.
    fn at(&self, like: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
        let addr = match like.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host.to_owned(), port),
        };
        like.clone().set_addr(addr)
    }

    /// Asks `seed` who holds `slot`.
    fn holder(&self, seed: &ConnectionInfo, slot: u16) -> Result<ConnectionInfo, LinkError> {
        let mut link = self.open(seed)?;
        let Value::Array(ranges) = link.ask(redis::cmd("CLUSTER").arg("SLOTS"))? else {
            return Err(LinkError::ours("error", "CLUSTER SLOTS was not answered with slots"));
        };
        let number = |value: &Value| if let Value::Int(number) = value { Some(*number) } else { None };
        for range in ranges {
            let Value::Array(range) = range else { continue };
            let [from, to, Value::Array(master), ..] = range.as_slice() else { continue };
            let within = number(from).zip(number(to)).is_some_and(|(from, to)| (from..=to).contains(&i64::from(slot)));
            if let (true, [host, port, ..]) = (within, master.as_slice()) {
                // A node that does not know its own name is the one that was asked.
                let host = text(host).filter(|host| !host.is_empty() && *host != "?");
                let asked = match seed.addr() {
                    ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.as_str(),
                    _ => "127.0.0.1",
                };
                let port = number(port).and_then(|port| u16::try_from(port).ok()).unwrap_or(6379);
                return Ok(self.at(seed, host.unwrap_or(asked), port));
            }
        }
        Err(LinkError::ours("CLUSTERDOWN", format!("no node of the cluster holds slot {slot}")))
    }
}

/// See the module.
pub struct Link {
    connection: Connection,
    server: Server,
    node: ConnectionInfo,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({})", self.node.addr())
    }
}

impl Link {
    /// The node's address.
    pub fn shown(&self) -> String {
        self.node.addr().to_string()
    }

    /// Longest wait for an answer.
    pub fn timeout(&self) -> Duration {
        self.server.timeout
    }

    /// One command. A redirect is followed once.
    ///
    /// # Errors
    /// Redis refused it (definite), or its outcome is unknown: throw the link away then.
    pub fn ask(&mut self, command: &Cmd) -> Result<Value, LinkError> {
        let mut answers = self.ask_all(std::slice::from_ref(command))?;
        answers.pop().unwrap_or_else(|| Err(LinkError::ours("error", "no answer")))
    }

    /// Commands on one key, answered one by one. Redirects are followed once, all together.
    ///
    /// # Errors
    /// The outcome of all of them is unknown: throw the link away.
    pub fn ask_all(&mut self, commands: &[Cmd]) -> Result<Vec<Result<Value, LinkError>>, LinkError> {
        let answers = self.send(commands, false)?;
        let redirected = answers.iter().filter_map(|answer| answer.as_ref().err()?.redirect.clone()).next();
        let Some((host, port)) = redirected.filter(|_| self.server.cluster) else { return Ok(answers) };
        // All of them name one key, so either all were redirected or those that were not have had their effect.
        let ask = answers.iter().any(|answer| answer.as_ref().err().is_some_and(|error| error.code == "ASK"));
        let first = answers.iter().position(|answer| answer.as_ref().err().is_some_and(|error| error.redirect.is_some()));
        let in_transaction = commands.first().is_some_and(|command| command.get_packed_command().ends_with(b"\r\nMULTI\r\n"));
        if ask && in_transaction {
            // ASKING holds for one command, and within a transaction it would be queued. Nothing was done: the caller goes elsewhere.
            return Ok(answers);
        }
        let node = self.server.at(&self.node, &host, port);
        let mut other = self.server.open(&node)?;
        let first = first.unwrap_or(0);
        // A transaction that was refused in its middle was refused as a whole.
        let from = if in_transaction { 0 } else { first };
        let again = other.send(&commands[from..], ask)?;
        if !ask {
            self.connection = other.connection;
            self.node = other.node;
        }
        Ok(answers.into_iter().take(from).chain(again).collect())
    }

    fn send(&mut self, commands: &[Cmd], asking: bool) -> Result<Vec<Result<Value, LinkError>>, LinkError> {
        let mut pipeline = Pipeline::with_capacity(commands.len() * 2);
        for command in commands {
            if asking {
                pipeline.cmd("ASKING");
            }
            pipeline.add_command(command.clone());
        }
        let step = if asking { 2 } else { 1 };
        let answers = self.connection.req_packed_commands(&pipeline.get_packed_pipeline(), 0, commands.len() * step)?;
        let answer = |value| match value {
            Value::ServerError(error) => Err(LinkError::of(&RedisError::from(error), true)),
            value => Ok(value),
        };
        Ok(answers.into_iter().skip(step - 1).step_by(step).map(answer).collect())
    }
}

/// Text of an answer.
pub(in crate::buffer) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        Value::Okay => Some("OK"),
        _ => None,
    }
}

/// The slot of a key: CRC16 (XMODEM) over what stands between the first braces, or over all of it.
fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag).filter(|tag| !tag.is_empty());
    let crc = tag.unwrap_or(key).bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot_of("123456789"), 0x31c3 % SLOTS);
        assert_eq!(slot_of("{user1000}.following"), slot_of("user1000"));
        assert_eq!(slot_of("foo{}{bar}"), slot_of("foo{}{bar}"));
        assert_ne!(slot_of("foo{}{bar}"), slot_of("bar"));
    }

    #[test]
    fn only_a_missing_right_and_an_unknown_command_are_refused_for_good() {
        let said = |line: &str| {
            let Ok(Value::ServerError(error)) = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()) else {
                panic!("{line}")
            };
            LinkError::of(&RedisError::from(error), true)
        };
        for line in [
            "NOPERM this user has no permissions to run the 'unlink' command",
            "NOPERM No permissions to access a key",
            "ERR unknown command 'UNLINK', with args beginning with: 'belayd:{x}' ",
            "ERR unknown command `watch`, with args beginning with: `k`, ",
        ] {
            assert!(said(line).is_forbidden(), "{line}");
            assert!(!LinkError { definite: false, ..said(line) }.is_forbidden(), "nobody said so for certain: {line}");
        }
        for line in [
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
            "READONLY You can't write against a read only replica.",
            "LOADING Redis is loading the dataset in memory",
            "BUSY Redis is busy running a script.",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "CLUSTERDOWN The cluster is down",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "NOREPLICAS Not enough good replicas to write.",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "EXECABORT Transaction discarded because of previous errors.",
            "MOVED 3999 127.0.0.1:6381",
            "NOAUTH Authentication required.",
            "ERR max number of clients reached",
        ] {
            assert!(!said(line).is_forbidden(), "{line}");
        }
        let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let server = Server::new(&[format!("redis://{closed}")], false, Duration::from_secs(5)).expect("a URL");
        let away = server.connect("k").expect_err("nobody listens");
        assert!(away.definite && !away.is_forbidden(), "{away:?}");
    }

    #[test]
    fn a_server_is_shown_without_its_password() {
        let urls = ["rediss://belayd:hunter2@redis.local:6380/1".to_owned()];
        let server = Server::new(&urls, false, Duration::from_secs(1)).expect("a URL");
        assert_eq!(server.shown(), "redis.local:6380");
        assert!(!format!("{server:?}").contains("hunter2"));
        let wrong = Server::new(&["http://u:hunter2@h".to_owned()], false, Duration::from_secs(1)).expect_err("not Redis");
        assert!(!wrong.contains("hunter2"), "{wrong}");
    }
}
