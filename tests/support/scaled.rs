//! The set-up of `examples/scale-out` while it runs: three daemons on one PostgreSQL, Redis and Kafka, seen by what its script says of
//! itself. Dropped, the script is told to stop, and everything is gone.

#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{daemon::Daemon, kafka, left_out, postgres, redis};

/// Longest wait for all of it to be ready, on a slow machine.
const READY: Duration = Duration::from_secs(240);

/// Whether all its servers can be started here. What is missing is told; in CI nothing is.
pub fn is_possible() -> bool {
    let installed = postgres::is_installed();
    if !installed {
        left_out("examples/scale-out, because PostgreSQL's binaries are not installed (tests/run installs them)");
    }
    installed && redis::is_installed() && kafka::jars().is_some()
}

/// See the module.
pub struct Scaled {
    child: Child,
    dir: tempfile::TempDir,
}

impl Scaled {
    /// Starts it with the binary under test and the tier of this name, and waits until all is ready.
    ///
    /// # Errors
    /// It does not come up; with its log.
    pub fn start(tier: &str) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("examples/scale-out/run: {error}");
        let dir = tempfile::Builder::new().prefix("belayd-scaled-").tempdir_in("/tmp").map_err(failed)?;
        // PostgreSQL's user passes through.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).map_err(failed)?;
        let log = fs::File::create(dir.path().join("log")).map_err(failed)?;
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/scale-out/run"));
        command.arg("--tier").arg(tier);
        command.arg("--dir").arg(dir.path().join("work")).arg("--json").arg(dir.path().join("json"));
        command.env("BELAYD_BIN", Daemon::binary()).stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        // SAFETY: one system call; with this thread its set-up ends too.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                Ok(())
            });
        }
        let mut scaled = Self { child: command.spawn().map_err(failed)?, dir };
        let until = Instant::now() + READY;
        while scaled.json()["ready"] != true {
            if scaled.child.try_wait().map_err(failed)?.is_some() || Instant::now() > until {
                return Err(format!("the set-up did not come up:\n{}", scaled.log()));
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(scaled)
    }

    /// What the script says of itself; null once it has ended.
    pub fn json(&self) -> Value {
        let text = fs::read_to_string(self.dir.path().join("json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// What the script printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A text of the description, by its place.
    pub fn text(&self, path: &str) -> String {
        self.json().pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// A process of the description, by its place.
    ///
    /// # Errors
    /// There is none.
    pub fn pid(&self, path: &str) -> Result<i32, String> {
        let pid = self.json().pointer(path).and_then(Value::as_i64).and_then(|pid| i32::try_from(pid).ok());
        pid.filter(|pid| *pid > 1).ok_or_else(|| format!("{path} is no process: {}", self.json()))
    }

    /// Sends a signal to one of its processes.
    ///
    /// # Errors
    /// There is none.
    pub fn signal(&self, path: &str, signal: i32) -> Result<(), String> {
        let pid = self.pid(path)?;
        // SAFETY: plain system call; what died a moment ago is no error, the script starts it again.
        unsafe { libc::kill(pid, signal) };
        Ok(())
    }

    /// Address and token of one instance, `admin` or `ingest`.
    pub fn instance(&self, number: usize, token: &str) -> (String, String) {
        let url = self.text(&format!("/instances/{number}/url"));
        (url.trim_start_matches("http://").to_owned(), self.text(&format!("/instances/{number}/{token}")))
    }

    /// Tells it to stop, and waits for its end.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn stop(&mut self) -> std::io::Result<ExitStatus> {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // SAFETY: plain system call on a child of ours that has not been waited for.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        self.child.wait()
    }

    /// The folder around data and logs.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A copy of all logs and data.
    pub fn keep(&self) -> PathBuf {
        let place = std::env::temp_dir().join(format!("belayd-campaign-scaled-{}", self.child.id()));
        let _ = Command::new("cp").arg("-a").arg(self.dir.path()).arg(&place).status();
        place
    }
}

impl Drop for Scaled {
    fn drop(&mut self) {
        if let (Ok(None), Ok(pid)) = (self.child.try_wait(), i32::try_from(self.child.id())) {
            // SAFETY: plain system call on a child of ours that has not been waited for.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let _ = self.child.wait();
    }
}
