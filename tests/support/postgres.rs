//! A PostgreSQL of a test's own, from the binaries of the distribution: it can be stopped, crashed and started again.
//!
//! It listens on loopback at a free port, keeps everything in a temporary directory and ends with its handle. As root it runs as
//! `postgres` or `nobody`, since PostgreSQL refuses root.

#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::{
    ffi::OsStr,
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{needs, ports};

/// Name of the variable that holds the URL of a server on which tests may create databases.
pub const URL_VARIABLE: &str = "BELAYD_TEST_POSTGRES";

/// The URL of the shared server, where `tests/run` or the caller has started one. Says once what is left out without it; in CI that is a
/// failure.
pub fn shared_url() -> Option<String> {
    static NOTICE: std::sync::Once = std::sync::Once::new();
    let url = std::env::var(URL_VARIABLE).ok().filter(|url| !url.is_empty());
    if !needs::met(url.is_some(), &format!("{URL_VARIABLE} is not set: tests/run starts a PostgreSQL and sets it")) {
        NOTICE.call_once(|| {
            super::left_out(&format!("PostgreSQL, because {URL_VARIABLE} is not set (tests/run starts one)"));
        });
    }
    url
}

/// A private server.
pub struct Postgres {
    bin: PathBuf,
    dir: TempDir,
    port: u16,
    user: Option<(u32, u32)>,
    settings: Vec<String>,
    child: Option<Child>,
}

impl Postgres {
    /// Makes a cluster and starts it with further `settings` such as `fsync=off`.
    ///
    /// # Panics
    /// Where the binaries are missing or the server does not come up: the test cannot go on.
    pub fn start(settings: &[&str]) -> Self {
        let bin = find_bin().expect("PostgreSQL's initdb: install the package postgresql");
        let dir = tempfile::Builder::new().prefix("belayd-pg-").tempdir_in("/tmp").expect("a temporary directory");
        let user = (unsafe { libc::geteuid() } == 0).then(|| find_user().expect("a user postgres or nobody"));
        if let Some((uid, gid)) = user {
            chown(dir.path(), Some(uid), Some(gid)).expect("to own the directory");
        }
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Self { bin, dir, port: ports::free(), user, settings, child: None };
        let made = server
            .command("initdb")
            .args(["--auth=trust", "--username=belayd", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(server.data())
            .stdout(Stdio::null())
            .status()
            .expect("initdb runs");
        assert!(made.success(), "initdb failed");
        server.restart();
        server
    }

    /// The URL of `database`; `postgres` always exists.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://belayd@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes a database and returns its URL.
    ///
    /// # Panics
    /// It refuses.
    pub fn new_database(&self, name: &str) -> String {
        use diesel::{Connection, RunQueryDsl};
        let mut conn = diesel::PgConnection::establish(&self.url("postgres")).expect("the server answers");
        diesel::sql_query(format!("CREATE DATABASE {name}")).execute(&mut conn).expect("a database of this name is new");
        self.url(name)
    }

    /// The port it listens on while it runs.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Process id of the server, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts it again on the same port and data, and waits until it answers.
    pub fn restart(&mut self) {
        self.stop();
        let log = fs::File::create(self.dir.path().join("log")).expect("a log file");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let mut command = self.command("postgres");
            command.arg("-D").arg(self.data()).args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
            command.args(["-c", &format!("port={}", self.port), "-c", "shared_buffers=64MB", "-c", "logging_collector=off"]);
            for setting in &self.settings {
                command.args(["-c", setting]);
            }
            let error_log = log.try_clone().expect("a second handle");
            let mut child = command.stdout(Stdio::null()).stderr(error_log).spawn().expect("postgres runs");
            while Instant::now() < deadline {
                // After a SIGKILL the old backends may still hold the shared memory; then it ends at once and is tried again.
                if child.try_wait().expect("a child").is_some() {
                    break;
                }
                let answer = self.command("pg_isready").args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]).status();
                if answer.is_ok_and(|status| status.success()) {
                    self.child = Some(child);
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "PostgreSQL did not come up:\n{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Stops it in order (fast shutdown): open transactions are rolled back, connections are told.
    pub fn stop(&mut self) {
        self.end(libc::SIGINT);
    }

    /// Stops it as a crash of the server would: nothing is flushed, the next start recovers.
    pub fn crash(&mut self) {
        self.end(libc::SIGQUIT);
    }

    /// Kills all of its processes at once, as the end of their host would.
    pub fn kill(&mut self) {
        let Some(pid) = self.pid() else { return };
        // Halted first, so that none of them sees another go.
        self.freeze(true);
        for backend in children(pid) {
            send(backend, libc::SIGKILL);
        }
        self.end(libc::SIGKILL);
    }

    /// Halts all of it, so that connections hang without being closed, or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        let Some(pid) = self.pid() else { return };
        let signal = if frozen { libc::SIGSTOP } else { libc::SIGCONT };
        for pid in children(pid).into_iter().chain([pid]) {
            send(pid, signal);
        }
    }

    fn end(&mut self, signal: i32) {
        if let Some(mut child) = self.child.take() {
            send(child.id(), signal);
            let _ = child.wait();
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").current_dir("/").stdin(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.freeze(false);
        self.crash();
    }
}

fn send(pid: u32, signal: i32) {
    // SAFETY: kill(2) only reads its arguments; the process is a child of ours and not yet waited for, or a child of it.
    unsafe { libc::kill(pid.cast_signed(), signal) };
}

fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// The folder with `initdb` and `postgres`: Debian keeps each version apart from the path.
fn find_bin() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin")).collect();
    versions.sort();
    let configured = Command::new("pg_config").arg("--bindir").output().ok();
    let configured = configured.and_then(|output| String::from_utf8(output.stdout).ok()).map(|text| PathBuf::from(text.trim()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).collect::<Vec<_>>();
    versions.into_iter().rev().chain(configured).chain(on_path).find(|bin| bin.join("initdb").exists())
}

fn find_user() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    ["postgres", "nobody"].iter().find_map(|wanted| {
        let line = users.lines().find(|line| line.split(':').next() == Some(wanted))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

/// Gives a file to the user that servers run as, where that is not the caller.
pub fn give(path: &Path) {
    if unsafe { libc::geteuid() } == 0 {
        let (uid, gid) = find_user().expect("a user postgres or nobody");
        chown(path, Some(uid), Some(gid)).expect("to own the file");
    }
}

/// Whether the binaries for a private server are there; in CI they must be.
pub fn is_installed() -> bool {
    let installed = find_bin().is_some_and(|bin| bin.join(OsStr::new("postgres")).exists());
    needs::met(installed, "PostgreSQL's binaries are missing: install the package postgresql (tests/run does)")
}
