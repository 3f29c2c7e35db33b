//! A release daemon of its own for each scenario, and what can be learnt of it from outside.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A running daemon in a directory of its own; dropped, both are gone.
pub struct Daemon {
    child: Child,
    dir: tempfile::TempDir,
    /// `127.0.0.1:port`
    pub address: String,
    /// An admin token.
    pub token: String,
}

impl Daemon {
    /// Starts it with further lines of configuration and waits until it is ready.
    pub fn start(store_url: Option<&str>, more: &str) -> Self {
        let binary = env!("CARGO_BIN_EXE_belayd");
        let dir = tempfile::Builder::new().prefix("belayd-bench").tempdir_in(".").expect("the working directory can be written");
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let address = format!("127.0.0.1:{port}");
        let url = store_url.unwrap_or("sqlite://belayd.db");
        let config = dir.path().join("belayd.toml");
        fs::write(
            &config,
            format!(
                "[server]\nlisten = \"{address}\"\ndata_dir = \"data\"\n[store]\nurl = \"{url}\"\n[log]\nlevel = \"warn\"\n{more}\n"
            ),
        )
        .expect("the configuration can be written");
        let output = Command::new(binary)
            .args(["--config"])
            .arg(&config)
            .args(["token", "create", "bench", "--role", "admin"])
            .output()
            .expect("the binary runs");
        assert!(output.status.success(), "token create: {}", String::from_utf8_lossy(&output.stderr));
        let token = String::from_utf8(output.stdout).expect("a token is text").trim().to_owned();
        let child = Command::new(binary)
            .args(["run", "--config"])
            .arg(&config)
            .env("MALLOC_ARENA_MAX", "2")
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("log")).expect("a log file"))
            .spawn()
            .expect("the binary runs");
        let daemon = Self { child, dir, address, token };
        let until = Instant::now() + Duration::from_secs(15);
        while daemon.get("/readyz").is_none_or(|answer| !answer.contains("\"ready\"")) {
            assert!(Instant::now() < until, "not ready within 15 s; its log:\n{}", daemon.log());
            thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    /// The body of a GET, or nothing where the daemon does not answer.
    pub fn get(&self, path: &str) -> Option<String> {
        let mut socket = TcpStream::connect(&self.address).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        write!(
            socket,
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            self.address, self.token
        )
        .ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    }

    /// One metric's value, without labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").expect("the daemon answers");
        let line =
            text.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap_or_else(|| panic!("no metric {name}"));
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a metric is a number")
    }

    /// Waits until everything accepted is stored, and returns how many rows the daemon has stored since its start.
    pub fn drained(&self) -> u64 {
        let until = Instant::now() + Duration::from_secs(60);
        while self.metric("belayd_readings_buffered") > 0.0 {
            assert!(Instant::now() < until, "not drained within 60 s; its log:\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
        self.metric("belayd_readings_stored_total") as u64
    }

    /// Private and resident memory, bytes.
    pub fn memory(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        (field("RssAnon:"), field("VmRSS:"))
    }

    /// Processor time used so far.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks: u64 = [11, 12].iter().filter_map(|n| fields.get(*n)?.parse::<u64>().ok()).sum();
        // USER_HZ is 100 on every Linux that Rust runs on.
        Duration::from_millis(ticks * 10)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long the disk of the working directory takes to make 4 KiB durable: p50 and p99.
pub fn fdatasync(length: Duration) -> (Duration, Duration) {
    let mut file = tempfile::NamedTempFile::new_in(Path::new(".")).expect("the working directory can be written");
    let mut times = Vec::new();
    let until = Instant::now() + length;
    while Instant::now() < until {
        file.write_all(&[7; 4096]).expect("the disk has room");
        let started = Instant::now();
        file.as_file().sync_data().expect("the disk syncs");
        times.push(started.elapsed());
    }
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// The processor's name.
pub fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name")).unwrap_or_default();
    line.split(": ").nth(1).unwrap_or("unknown processor").to_owned()
}
