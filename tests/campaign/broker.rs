//! Kafka behind a network that can be made bad, and the independent consumer that counts what arrived.
//!
//! The daemon knows the broker by a listener of its own whose advertised address is the proxy's; the consumer, a Python with a client
//! of its own (librdkafka beneath, as in the daemon), reads past the proxy. In: what the database holds. Out: what of it is not in Kafka, is there more
//! often than once, or is there and was never committed.

use std::{
    collections::HashMap,
    env,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::OnceLock,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{database::Database, part::Part};
use crate::support::{
    kafka::{self, Kafka},
    ports,
    proxy::Proxy,
};

/// Longest wait for what the database holds to be sent.
const SENT: Duration = Duration::from_secs(120);

/// The Python with a Kafka client: where BELAYD_TEST_CONSUMER says, or below the cache, where it is made if it is not there.
///
/// # Errors
/// It cannot be made; with what to do.
fn python() -> Result<PathBuf, String> {
    static MADE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    MADE.get_or_init(make_python).clone()
}

fn make_python() -> Result<PathBuf, String> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
    let folder = env::var_os("BELAYD_TEST_CONSUMER").map(PathBuf::from).or_else(|| Some(cache?.join("belayd-tests/consumer")));
    let folder = folder.ok_or("no independent consumer: set BELAYD_TEST_CONSUMER to a folder for a Python with a Kafka client")?;
    let python = folder.join("bin/python");
    if said(Command::new(&python).args(["-c", "import confluent_kafka"])).is_ok() {
        return Ok(python);
    }
    println!("making a Python with a Kafka client in {}", folder.display());
    let made = said(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder)).and_then(|()| {
        said(Command::new(folder.join("bin/pip")).args(["install", "-q", "-r", "tests/support/kafka/requirements.txt"]))
    });
    made.map(|()| python).map_err(|error| {
        format!(
            "no independent consumer of Kafka: install python3-venv and let pip reach its registry, or let BELAYD_TEST_CONSUMER name a venv \
             with confluent-kafka: {error}"
        )
    })
}

/// Runs it to its end; where it fails, what it said.
fn said(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(format!("{}: {}", command.get_program().display(), String::from_utf8_lossy(&text).trim()))
}

/// Whether there is a broker to start and a consumer to count by. No broker is said in the report; no consumer is a failure of the part.
pub fn is_there(part: &mut Part) -> bool {
    if kafka::jars().is_none() {
        part.left_out.push("Kafka's jars or java are missing (tests/run gets both)".into());
        return false;
    }
    python().map_err(|error| part.failed(error, None)).is_ok()
}

/// See the module.
pub struct Broker {
    /// The broker.
    pub kafka: Kafka,
    /// The network between daemon and broker.
    pub proxy: Proxy,
}

impl Broker {
    /// Starts it; `None`, and said in the report, where something is missing.
    pub fn start(part: &mut Part) -> Option<Self> {
        if !is_there(part) {
            return None;
        }
        let port = ports::free();
        let proxy = Proxy::start(&format!("127.0.0.1:{port}"));
        let kafka = Kafka::start_with(&[
            &format!("listeners=PLAINTEXT://127.0.0.1:{{port}},FAR://127.0.0.1:{port},CONTROLLER://127.0.0.1:{{controller}}"),
            &format!("advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},FAR://{}", proxy.address),
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,FAR:PLAINTEXT",
            "inter.broker.listener.name=PLAINTEXT",
        ])?;
        Some(Self { kafka, proxy })
    }

    /// What stands in the daemon's configuration.
    pub fn config(&self, topic: &str) -> String {
        format!("[kafka]\nbrokers = \"{}\"\ntopic = \"{topic}\"\npartitions = 3\nreplication = 1\n", self.proxy.address)
    }
}

/// What an independent consumer of committed records has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// By engine and time: how often.
    counts: HashMap<String, HashMap<i64, u32>>,
    /// Records.
    pub records: u64,
    /// Records that were not committed in the database when they were seen, in words.
    pub early: Vec<String>,
}

/// A consumer at work.
pub struct Consumer {
    child: Child,
    input: Option<ChildStdin>,
    reader: JoinHandle<Result<Seen, String>>,
}

impl Consumer {
    /// Reads `topic` from its beginning. Each record is looked up in `database`, where one is given, the moment it is seen.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(brokers: &str, topic: &str, database: Option<Database>) -> Result<Self, String> {
        let mut child = Command::new(python()?)
            .args(["tests/support/kafka/consume.py", brokers, topic])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("the consumer does not start: {error}"))?;
        let (input, output) = (child.stdin.take(), child.stdout.take().ok_or("no output")?);
        Ok(Self { child, input, reader: thread::spawn(move || read(output, database.as_ref())) })
    }

    /// Lets it read to the end and returns what it saw.
    ///
    /// # Errors
    /// It did not get there.
    pub fn finish(mut self) -> Result<Seen, String> {
        drop(self.input.take());
        let mut said = String::new();
        let mut errors = self.child.stderr.take().ok_or("no errors")?;
        let _ = errors.read_to_string(&mut said);
        let status = self.child.wait().map_err(|error| error.to_string())?;
        let seen = self.reader.join().map_err(|_| "the reader of the consumer failed".to_owned())??;
        if status.success() { Ok(seen) } else { Err(format!("the independent consumer did not reach the end: {said}")) }
    }
}

fn read(output: ChildStdout, database: Option<&Database>) -> Result<Seen, String> {
    let mut look = database.map(Database::look).transpose()?;
    let (mut seen, mut fresh) = (Seen::default(), Vec::new());
    for line in BufReader::new(output).lines() {
        let line = line.map_err(|error| error.to_string())?;
        let mut words = line.split('\t');
        if let (Some(engine), Some(time)) = (words.next(), words.next()) {
            let at = chrono::DateTime::parse_from_rfc3339(time).map_err(|error| format!("{line}: {error}"))?.timestamp_micros();
            seen.records += 1;
            *seen.counts.entry(engine.to_owned()).or_default().entry(at).or_default() += 1;
            if look.is_some() {
                fresh.push((engine.to_owned(), at));
            }
        } else if let Some(look) = look.as_mut().filter(|_| !fresh.is_empty()) {
            let missing = look.missing(&fresh)?;
            let room = 10_usize.saturating_sub(seen.early.len());
            seen.early.extend(missing.into_iter().take(room).map(|(engine, at)| format!("{engine} at {at}")));
            fresh.clear();
        }
    }
    Ok(seen)
}

/// What the comparison of database and Kafka came to.
#[derive(Debug, Default)]
pub struct Relayed {
    /// Records in Kafka.
    pub records: u64,
    /// Records beyond the first of a reading.
    pub repeats: u64,
}

/// Waits until nothing waits for Kafka, reads the topic with `consumer` to its end and compares it with the database.
///
/// # Errors
/// Something is not there, is there and was not committed, or is there twice: at all, or, with `may_repeat`, once in 10,000 records.
pub fn compare(consumer: Consumer, database: &Database, may_repeat: bool) -> Result<Relayed, String> {
    let mut look = database.look()?;
    let until = Instant::now() + SENT;
    while look.unsent()? > 0 {
        if Instant::now() > until {
            return Err(format!("{} deliveries to Kafka still wait after {SENT:?}", look.unsent()?));
        }
        thread::sleep(Duration::from_millis(50));
    }
    let mut seen = consumer.finish()?;
    let (mut missing, mut evidence, mut relayed) = (0, Vec::new(), Relayed { records: seen.records, repeats: 0 });
    let mut say = |what: String| {
        if evidence.len() < 8 {
            evidence.push(what);
        }
    };
    for engine in look.engines()? {
        let mut counts = seen.counts.remove(&engine).unwrap_or_default();
        for row in look.rows(&engine)? {
            match counts.remove(&row.observed_at_us) {
                Some(1) => {}
                Some(count) => {
                    relayed.repeats += u64::from(count) - 1;
                    say(format!("{count} times in Kafka: {engine} {row:?}"));
                }
                None => {
                    missing += 1;
                    say(format!("not in Kafka: {engine} {row:?}"));
                }
            }
        }
        seen.counts.insert(engine, counts);
    }
    let alone: u64 = seen.counts.values().map(|counts| counts.len() as u64).sum();
    seen.counts.iter().filter(|(_, counts)| !counts.is_empty()).take(3).for_each(|(engine, counts)| {
        say(format!("in Kafka and not in the database: {engine} at {:?}", counts.keys().take(5).collect::<Vec<_>>()));
    });
    let too_often = if may_repeat { relayed.repeats * 10_000 >= relayed.records.max(1) } else { relayed.repeats > 0 };
    if missing + alone > 0 || too_often || !seen.early.is_empty() {
        return Err(format!(
            "Kafka: {missing} missing, {alone} never committed, {} repeats of {} records; seen before they were committed: {:?}\n  {}",
            relayed.repeats,
            relayed.records,
            seen.early,
            evidence.join("\n  ")
        ));
    }
    Ok(relayed)
}
