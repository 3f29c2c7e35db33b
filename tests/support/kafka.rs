//! A real Apache Kafka of a test's own: one broker in KRaft mode, which can be stopped, killed, halted and started again.
//!
//! Its jars lie in the folder that BELAYD_TEST_KAFKA names, or where `tests/run` puts them. It listens on loopback at free ports, keeps
//! everything in a temporary directory and ends with its handle.

#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use tempfile::TempDir;

use super::{needs, ports};

/// Name of the variable that holds the folder of jars.
pub const JARS_VARIABLE: &str = "BELAYD_TEST_KAFKA";

/// The folder of jars, where there is one and a JVM. In CI there must be.
pub fn jars() -> Option<PathBuf> {
    static NOTICE: std::sync::Once = std::sync::Once::new();
    let found = find_jars().filter(|_| has_java());
    let missing =
        format!("no Kafka to test with: {JARS_VARIABLE} names no folder of jars, or java is missing (tests/run gets both)");
    if !needs::met(found.is_some(), &missing) {
        NOTICE.call_once(|| super::left_out("the relay to Kafka, because there is no broker to start (tests/run gets one)"));
    }
    found
}

fn find_jars() -> Option<PathBuf> {
    let named = std::env::var_os(JARS_VARIABLE).map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let cache = cache.map(|cache| cache.join("belayd-tests/kafka"));
    named.into_iter().chain(cache).find(|dir| {
        let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.into_iter().any(|name| name.to_string_lossy().starts_with("kafka_2.13-"))
    })
}

fn has_java() -> bool {
    Command::new("java").arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// See the module.
pub struct Kafka {
    jars: PathBuf,
    dir: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Kafka {
    /// Formats a directory and starts a broker in it; `None` where there is none to start.
    ///
    /// # Panics
    /// It does not come up: the test cannot go on.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// As [`Kafka::start`], with further lines of its configuration; `{port}` and `{controller}` in them are its ports.
    pub fn start_with(settings: &[&str]) -> Option<Self> {
        Self::start_formatted(settings, &[])
    }

    /// As [`Kafka::start_with`], with further arguments for the tool that formats its directory.
    pub fn start_formatted(settings: &[&str], arguments: &[&str]) -> Option<Self> {
        let jars = jars()?;
        let dir = tempfile::Builder::new().prefix("belayd-kafka-").tempdir().expect("a temporary directory");
        let (port, controller) = (ports::free(), ports::free());
        let text = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT\nlog.dirs={}\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=4\n\
             transaction.abort.timed.out.transaction.cleanup.interval.ms=1000\ngroup.initial.rebalance.delay.ms=0\n\
             auto.create.topics.enable=false\ndefault.replication.factor=1\nnum.partitions=1\nlog.cleaner.enable=false\n\
             num.network.threads=2\nnum.io.threads=2\nbackground.threads=2\ninitial.broker.registration.timeout.ms=20000\n{}\n",
            dir.path().join("data").display(),
            settings.join("\n").replace("{port}", &port.to_string()).replace("{controller}", &controller.to_string()),
        );
        fs::write(dir.path().join("server.properties"), text).expect("the configuration can be written");
        let mut kafka = Self { jars, dir, port, child: None };
        let mut format = kafka.java("kafka.tools.StorageTool", "64m");
        format.args(["format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c"]);
        let formatted = format.arg("server.properties").args(arguments).stdout(Stdio::null()).stderr(kafka.log_file()).status();
        assert!(formatted.expect("java runs").success(), "{}", kafka.log());
        kafka.restart();
        Some(kafka)
    }

    /// `127.0.0.1:PORT`
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it again on the same port and data, and waits until it answers.
    pub fn restart(&mut self) {
        self.stop();
        self.spawn();
        self.wait();
    }

    /// Starts it and waits for nothing.
    pub fn spawn(&mut self) {
        let log = self.log_file();
        let mut command = self.java("kafka.Kafka", "256m");
        self.child = Some(command.arg("server.properties").stdout(Stdio::null()).stderr(log).spawn().expect("java runs"));
    }

    /// Waits until it answers.
    pub fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(300);
        while TcpStream::connect(self.brokers()).is_err() || !self.answers() {
            assert!(Instant::now() < until, "Kafka did not come up:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn answers(&self) -> bool {
        use rdkafka::consumer::{BaseConsumer, Consumer};
        let consumer: BaseConsumer = self.client().set("log_level", "0").create().expect("a consumer");
        consumer.fetch_metadata(None, Duration::from_secs(2)).is_ok()
    }

    /// Stops it in order.
    pub fn stop(&mut self) {
        self.end(libc::SIGTERM);
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.end(libc::SIGKILL);
    }

    /// Whether it was started and neither stopped nor killed since.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Halts it, so that connections hang without being closed, or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        if let Some(child) = &self.child {
            send(child.id(), if frozen { libc::SIGSTOP } else { libc::SIGCONT });
        }
    }

    fn end(&mut self, signal: i32) {
        if let Some(mut child) = self.child.take() {
            send(child.id(), libc::SIGCONT);
            send(child.id(), signal);
            let until = Instant::now() + Duration::from_secs(120);
            while child.try_wait().expect("a child").is_none() {
                if Instant::now() > until {
                    let _ = child.kill();
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// What clients of it begin with.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers());
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("an admin client")
    }

    /// Makes a topic.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let made = block_on(self.admin().create_topics([&topic], &AdminOptions::new())).expect("an answer");
        made.into_iter().for_each(|one| drop(one.expect("a topic of this name is new")));
    }

    /// Gives a topic more partitions.
    pub fn grow_topic(&self, name: &str, partitions: usize) {
        let more = NewPartitions::new(name, partitions);
        let made = block_on(self.admin().create_partitions([&more], &AdminOptions::new())).expect("an answer");
        made.into_iter().for_each(|one| drop(one.expect("more than before")));
    }

    /// Lets a consumer group be forgotten, with all that it has committed.
    pub fn forget_group(&self, group: &str) {
        let until = Instant::now() + Duration::from_secs(120);
        loop {
            let gone = block_on(self.admin().delete_groups(&[group], &AdminOptions::new())).expect("an answer");
            // After its start the broker still reads what groups there are.
            match gone.into_iter().next().expect("one answer") {
                Ok(_) => return,
                Err(error) => assert!(Instant::now() < until, "{error:?}"),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn log_file(&self) -> fs::File {
        fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log")).expect("a log file")
    }

    fn java(&self, class: &str, heap: &str) -> Command {
        let mut command = Command::new("java");
        command
            .args([&format!("-Xmx{heap}"), "-Xshare:auto", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            .arg("-cp")
            .arg(format!("{}/*", self.jars.display()))
            .arg(class)
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The folder, for whoever starts a broker in another way.
pub fn data_dir(kafka: &Kafka) -> &Path {
    kafka.dir.path()
}

fn send(pid: u32, signal: i32) {
    // SAFETY: kill(2) only reads its arguments; the process is a child of ours and not yet waited for.
    unsafe { libc::kill(pid.cast_signed(), signal) };
}

/// Waits on this thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}
