//! A mail server that is not belayd's: Python's aiosmtpd, in a process of its own. Dropped, it is gone.

#![allow(unreachable_pub, dead_code, reason = "not every test binary and benchmark uses all of it")]

use std::{
    env,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// The Python that has aiosmtpd; `None` where there is none.
pub fn python() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
    let folder = env::var_os("BELAYD_TEST_MAIL").map(PathBuf::from).or_else(|| Some(cache?.join("belayd-tests/mail")))?;
    let python = folder.join("bin/python");
    let found = Command::new(&python).args(["-c", "import aiosmtpd"]).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success()).then_some(python)
}

/// Whether there is a mail server to start; says so where there is none. In CI there must be.
pub fn is_there() -> bool {
    let there = super::needs::met(python().is_some(), "no Python with aiosmtpd was found (tests/run makes one)");
    if !there {
        super::left_out("mail to a server of other hands, because no Python with aiosmtpd was found (tests/run makes one)");
    }
    there
}

/// See the module.
#[derive(Debug)]
pub struct MailServer {
    child: Child,
    /// Where it listens.
    pub port: u16,
    said: Arc<Mutex<Vec<Value>>>,
}

impl MailServer {
    /// Starts one; `args` are those of `receive.py` behind the port.
    pub fn start(args: &[&str]) -> Self {
        let port = super::ports::free();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/mail/receive.py");
        let mut child = Command::new(python().expect("looked for before"))
            .args([script, &port.to_string()])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python runs");
        let said = Arc::new(Mutex::new(Vec::new()));
        let (lines, heard) = (BufReader::new(child.stdout.take().expect("piped")).lines(), said.clone());
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                heard.lock().expect("no panic").push(serde_json::from_str(&line).expect("one line of JSON"));
            }
        });
        let server = Self { child, port, said };
        server.wait_for("listening", |said| said.iter().any(|line| line["ready"] == true));
        server
    }

    /// Mails so far, oldest first.
    pub fn mails(&self) -> Vec<Value> {
        self.said().into_iter().filter(|line| line["messageId"].is_string()).collect()
    }

    /// Everything it said.
    pub fn said(&self) -> Vec<Value> {
        self.said.lock().expect("no panic").clone()
    }

    /// Waits until as many mails have come, and returns them.
    pub fn wait_for_mails(&self, count: usize) -> Vec<Value> {
        self.wait_for(&format!("{count} mails"), |said| said.iter().filter(|line| line["messageId"].is_string()).count() >= count);
        self.mails()
    }

    fn wait_for(&self, what: &str, done: impl Fn(&[Value]) -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        while !done(&self.said()) {
            assert!(Instant::now() < until, "never: {what}; it said {:#?}", self.said());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
