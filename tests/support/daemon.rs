//! The real daemon as a process of its own, in a directory of its own, seen only from outside: HTTP, signals, /proc, its log.
//! Dropped, process and directory are gone.

#![allow(unreachable_pub, dead_code, reason = "each test binary and benchmark uses its own part")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// How to start a daemon.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Lines after `[server]` and before the first other section.
    pub server: String,
    /// Lines after `[store]`'s URL; the URL itself where it is not SQLite.
    pub store_url: String,
    /// Further sections.
    pub more: String,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// Log level.
    pub log: String,
    /// How many files the process may open: soft and hard limit.
    pub open_files: Option<(u64, u64)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            server: String::new(),
            store_url: "sqlite://belayd.db".into(),
            more: String::new(),
            env: Vec::new(),
            log: "info".into(),
            open_files: None,
        }
    }
}

impl Setup {
    /// Further sections of configuration.
    pub fn with(more: &str) -> Self {
        Self { more: more.into(), ..Self::default() }
    }

    /// Another database.
    pub fn store(mut self, url: &str) -> Self {
        self.store_url = url.into();
        self
    }

    /// One environment variable more.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts the daemon and waits until it answers `/readyz` with 200.
    pub fn start(&self) -> Daemon {
        let mut daemon = self.lay_out();
        daemon.start_again();
        daemon
    }

    /// Starts the daemon and waits for nothing.
    pub fn start_unready(&self) -> Daemon {
        let mut daemon = self.lay_out();
        daemon.spawn();
        daemon
    }

    /// A directory with configuration and control store, and no process yet.
    pub fn lay_out(&self) -> Daemon {
        let mut daemon = self.bare();
        daemon.token = daemon.create_token("test", "admin");
        daemon
    }

    /// A directory with configuration and nothing else.
    pub fn bare(&self) -> Daemon {
        let dir = tempfile::Builder::new().prefix("belayd-test").tempdir().expect("a temporary directory");
        let address = free_address();
        let config = dir.path().join("belayd.toml");
        let text = format!(
            "[server]\nlisten = \"{address}\"\ndata_dir = \"data\"\n{}\n[store]\nurl = \"{}\"\n[log]\nlevel = \"{}\"\n{}\n",
            self.server, self.store_url, self.log, self.more
        );
        fs::write(&config, text).expect("the configuration can be written");
        Daemon { child: None, dir, config, address, token: String::new(), setup: self.clone() }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Daemon {
    child: Option<Child>,
    dir: tempfile::TempDir,
    config: PathBuf,
    setup: Setup,
    /// `127.0.0.1:port`
    pub address: String,
    /// An admin token.
    pub token: String,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code; 0 where there was no answer at all.
    pub status: u16,
    /// The head, lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// The `error.code` of the body.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Daemon {
    /// The binary under test: the one built with the tests, or the one that `BELAYD_TEST_BINARY` names.
    pub fn binary() -> &'static str {
        static NAMED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
        NAMED.get_or_init(|| std::env::var("BELAYD_TEST_BINARY").ok()).as_deref().unwrap_or(env!("CARGO_BIN_EXE_belayd"))
    }

    /// Runs a command of the command line beside the daemon.
    pub fn command(&self, args: &[&str]) -> std::process::Output {
        let output = Command::new(Self::binary()).arg("--config").arg(&self.config).args(args).output();
        output.expect("the binary runs")
    }

    /// Makes a token and returns its text.
    pub fn create_token(&self, name: &str, role: &str) -> String {
        let output = self.command(&["token", "create", name, "--role", role]);
        assert!(output.status.success(), "token create: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a token is text").trim().to_owned()
    }

    /// Starts the process on the same directory and waits until it answers `/readyz` with 200; for a moment also for the database, which
    /// a daemon that buffers does without.
    pub fn start_again(&mut self) {
        self.spawn();
        self.wait_for("ready", Duration::from_secs(60), |daemon| daemon.get("/readyz").status == 200);
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until && self.get("/readyz").json()["checks"]["store"] == "away" {
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sets one variable of the environment for later starts.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.setup.env.retain(|(known, _)| known != name);
        self.setup.env.push((name.into(), value.into()));
    }

    /// Starts the process and waits for nothing.
    pub fn spawn(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path()).expect("a log file");
        let mut command = Command::new(Self::binary());
        command.args(["run", "--config"]).arg(&self.config).stdout(Stdio::null()).stderr(log).env("MALLOC_ARENA_MAX", "2");
        command.envs(self.setup.env.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        if let Some((soft, hard)) = self.setup.open_files {
            let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
            // SAFETY: between fork and exec only one system call is made, over a value that was copied.
            unsafe {
                command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                });
            }
        }
        self.child = Some(command.spawn().expect("the binary runs"));
    }

    /// Waits until `done`, or fails with the log. The limit bounds a failure and is no promise of speed: a machine that does much else
    /// gets a minute in any case.
    pub fn wait_for(&self, what: &str, limit: Duration, mut done: impl FnMut(&Self) -> bool) {
        let limit = limit.max(Duration::from_secs(60));
        let until = Instant::now() + limit;
        while !done(self) {
            assert!(Instant::now() < until, "not {what} within {limit:?}; the log:\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("started").id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.pid()).expect("a process id");
        // SAFETY: plain system call on a child of ours that has not been waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "the daemon is gone; the log:\n{}", self.log());
    }

    /// kill -9, and waits for the end.
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        let status = self.wait(Duration::from_secs(10));
        assert_eq!(status.signal(), Some(libc::SIGKILL));
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait(Duration::from_secs(40))
    }

    /// Waits for the end.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.as_mut().expect("started").try_wait().expect("a child can be asked") {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < until, "still running after {limit:?}; the log:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether the process has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("a child can be asked").is_none())
    }

    /// GET with the admin token.
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "")
    }

    /// POST of JSON with the admin token.
    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.request("POST", path, &[("Content-Type", "application/json")], body)
    }

    /// Any request with the admin token.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let mut all = vec![("Authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        self.raw(method, path, &all, body.as_bytes())
    }

    /// Any request, with these headers beside Host, Content-Length and `Connection: close`.
    pub fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_raw(method, path, headers, body).unwrap_or(Answer { status: 0, head: String::new(), body: String::new() })
    }

    fn try_raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Answer> {
        let mut socket = TcpStream::connect(&self.address).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(40))).ok()?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {}\r\n", self.address));
        }
        if !body.is_empty() || method != "GET" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        head.push_str("\r\n");
        socket.write_all(head.as_bytes()).ok()?;
        // A server that refuses early may close before it has read all: its answer still counts.
        let _ = socket.write_all(body);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        let split = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&answer[..split]).to_ascii_lowercase();
        let status = head.get(9..12)?.parse().ok()?;
        let mut body = answer[split + 4..].to_vec();
        if head.contains("transfer-encoding: chunked") {
            body = dechunk(&body);
        }
        Some(Answer { status, head, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// One metric's value, by its name with labels as Prometheus prints it; 0 where it is not there (yet).
    pub fn metric(&self, name: &str) -> f64 {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{}", answer.body);
        let line = answer.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        line.unwrap_or(0.0)
    }

    /// Waits until nothing is buffered any more, and returns the number of stored readings since the first start.
    pub fn drained(&self) -> u64 {
        // Flushing is by time or number: a batch that is not full may wait for the whole interval.
        self.wait_for("drained", Duration::from_secs(60), |daemon| daemon.metric("belayd_readings_buffered") == 0.0);
        self.metric("belayd_readings_stored_total") as u64
    }

    /// Private (`RssAnon`) and resident (`VmRSS`) memory, bytes.
    pub fn memory(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        (field("RssAnon:"), field("VmRSS:"))
    }

    /// Processor time used so far.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks: u64 = [11, 12].iter().filter_map(|n| fields.get(*n)?.parse::<u64>().ok()).sum();
        // USER_HZ is 100 on every Linux that Rust runs on.
        Duration::from_millis(ticks * 10)
    }

    /// The log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The directory with configuration, data and database.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The configuration file.
    pub fn config_path(&self) -> &Path {
        &self.config
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            eprintln!("last lines of the daemon's log:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

/// A loopback address that nobody listened on a moment ago.
pub fn free_address() -> String {
    format!("127.0.0.1:{}", super::ports::free())
}

fn dechunk(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&body[..end]).ok().and_then(|hex| usize::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
        let Some(chunk) = body.get(end + 2..end + 2 + size).filter(|chunk| !chunk.is_empty()) else { break };
        whole.extend_from_slice(chunk);
        body = body.get(end + 4 + size..).unwrap_or_default();
    }
    whole
}
