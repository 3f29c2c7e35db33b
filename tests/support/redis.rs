//! A Redis of a test's own, from the binary of the distribution: one server or a cluster, that can be killed, paused and started again on
//! the same port and data. It listens on loopback, keeps everything in a temporary directory and ends with its handle.

#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{needs, ports};

/// Whether `redis-server` is there. Says once what is left out without it; in CI that is a failure.
pub fn is_installed() -> bool {
    static NOTICE: std::sync::Once = std::sync::Once::new();
    let installed = Command::new("redis-server").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !needs::met(installed, "redis-server is missing: install the package redis-server (tests/run does)") {
        NOTICE.call_once(|| super::left_out("tier redis, because redis-server is not installed (tests/run installs it)"));
    }
    installed
}

/// One server.
pub struct Redis {
    dir: TempDir,
    port: u16,
    settings: Vec<String>,
    env: Vec<(String, PathBuf)>,
    child: Option<Child>,
}

impl Redis {
    /// Starts one with further `settings`, for example `--appendfsync always`; append-only every second where none are said.
    ///
    /// # Panics
    /// The server does not come up: the test cannot go on.
    pub fn start(settings: &[&str]) -> Self {
        let mut server = Self::lay_out(settings);
        server.restart();
        server
    }

    /// As [`Redis::start`], with variables in its environment.
    ///
    /// # Panics
    /// The server does not come up: the test cannot go on.
    pub fn start_with_env(settings: &[&str], env: &[(&str, &Path)]) -> Self {
        let mut server = Self::lay_out(settings);
        server.env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        server.restart();
        server
    }

    fn lay_out(settings: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("belayd-redis-").tempdir_in("/tmp").expect("a temporary directory");
        let mut words: Vec<String> = settings.iter().flat_map(|setting| setting.split(' ')).map(str::to_owned).collect();
        if !words.iter().any(|word| word == "--appendonly") {
            words.extend(["--appendonly".to_owned(), "yes".to_owned()]);
        }
        Self { dir, port: ports::free_where(ports::has_bus), settings: words, env: Vec::new(), child: None }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The port it listens on while it runs.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts it again on the same port and data, and waits until it answers.
    ///
    /// # Panics
    /// It does not come up.
    pub fn restart(&mut self) {
        self.kill();
        let log = fs::File::create(self.dir.path().join("log")).expect("a log file");
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--dir"]).arg(self.data());
        command.args(["--protected-mode", "no", "--loglevel", "notice"]).args(&self.settings);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        self.child = Some(command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null()).spawn().expect("redis-server runs"));
        let until = Instant::now() + Duration::from_secs(30);
        while self.try_ask(&["PING"]).is_none() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "Redis did not come up:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts it again with its data at another port, which is free now.
    ///
    /// # Panics
    /// It does not come up.
    pub fn move_to(&mut self, port: u16) {
        self.kill();
        self.port = port;
        self.restart();
    }

    /// Where it keeps its data.
    pub fn data_dir(&self) -> PathBuf {
        self.data()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it in order.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // SAFETY: kill(2) only reads its arguments; the process is a child of ours that has not been waited for.
            unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) };
            let _ = child.wait();
        }
    }

    /// Whether it was started and neither stopped nor killed since.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Halts it, so that connections hang without being closed, or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        if let Some(child) = &self.child {
            let signal = if frozen { libc::SIGSTOP } else { libc::SIGCONT };
            // SAFETY: kill(2) only reads its arguments; the process is a child of ours that has not been waited for.
            unsafe { libc::kill(child.id().cast_signed(), signal) };
        }
    }

    /// Takes its data away; it must not run.
    pub fn delete_data(&self) {
        for entry in fs::read_dir(self.data()).into_iter().flatten().flatten() {
            let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
        }
    }

    /// One command; text of the answer.
    ///
    /// # Panics
    /// It does not answer.
    pub fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = self.connection().expect("Redis answers");
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut connection).expect("Redis takes the command")
    }

    fn try_ask(&self, words: &[&str]) -> Option<redis::Value> {
        let mut connection = self.connection().ok()?;
        redis::cmd(words[0]).query(&mut connection).ok()
    }

    fn connection(&self) -> redis::RedisResult<redis::Connection> {
        let connection = redis::Client::open(self.url())?.get_connection_with_timeout(Duration::from_secs(2))?;
        connection.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(connection)
    }

    /// Keys of streams.
    pub fn streams(&self) -> Vec<String> {
        self.ask::<Vec<String>>(&["KEYS", "belayd:{*"])
    }

    fn data(&self) -> PathBuf {
        let data = self.dir.path().join("data");
        let _ = fs::create_dir(&data);
        data
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.freeze(false);
        self.kill();
    }
}

/// Three masters, each with a replica where that is wanted.
pub struct Cluster {
    /// The masters, then their replicas.
    pub nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts it and waits until it serves all slots.
    ///
    /// # Panics
    /// It does not come up.
    pub fn start(replicas: bool) -> Self {
        let count = if replicas { 6 } else { 3 };
        let settings = [
            "--cluster-enabled yes",
            "--cluster-node-timeout 1500",
            "--cluster-require-full-coverage no",
            "--repl-diskless-sync-delay 0",
        ];
        let nodes: Vec<Redis> = (0..count).map(|_| Redis::start(&settings)).collect();
        for (at, node) in nodes.iter().take(3).enumerate() {
            let (from, to) = (at * 5_462, ((at + 1) * 5_462 - 1).min(16_383));
            node.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()]);
        }
        for node in &nodes[1..] {
            nodes[0].ask::<()>(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string()]);
        }
        let cluster = Self { nodes };
        cluster.wait("known to all", |node| {
            node.ask::<String>(&["CLUSTER", "INFO"]).contains(&format!("cluster_known_nodes:{count}"))
        });
        for at in 3..count {
            let master: String = cluster.nodes[at - 3].ask(&["CLUSTER", "MYID"]);
            cluster.nodes[at].ask::<()>(&["CLUSTER", "REPLICATE", &master]);
        }
        cluster.wait("whole", |node| node.ask::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
        if replicas {
            let linked = |node: &Redis| node.ask::<String>(&["INFO", "replication"]).contains("master_link_status:up");
            let until = Instant::now() + Duration::from_secs(30);
            while !cluster.nodes[3..].iter().all(linked) {
                assert!(Instant::now() < until, "the replicas do not follow");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        cluster
    }

    fn wait(&self, what: &str, done: impl Fn(&Redis) -> bool) {
        let until = Instant::now() + Duration::from_secs(30);
        while !self.nodes.iter().all(&done) {
            assert!(Instant::now() < until, "the cluster is not {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The lines of `[redis]` that name it.
    pub fn config(&self) -> String {
        let urls: Vec<_> = self.nodes.iter().map(|node| format!("\"{}\"", node.url())).collect();
        format!("cluster = [{}]\n", urls.join(", "))
    }
}
