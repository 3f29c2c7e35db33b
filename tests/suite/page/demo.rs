//! `belayd demo` as a person starts it, in a directory of the test.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A running demo.
pub struct Demo {
    child: Child,
    /// The address that it printed, token included.
    pub url: String,
    listen: String,
    dir: PathBuf,
}

impl Demo {
    /// Starts one that keeps everything under `dir`.
    pub fn start(dir: &Path) -> Self {
        // A free port, fixed so that a second life is found at the same address.
        let listen = crate::support::daemon::free_address();
        Self::on(dir, listen)
    }

    fn on(dir: &Path, listen: String) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_belayd"))
            .args(["demo", "--listen", &listen, "--dir"])
            .arg(dir)
            .current_dir(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let url = lines
            .by_ref()
            .find_map(|line| Some(line.strip_prefix("belayd demo: ")?.split_whitespace().next()?.to_owned()))
            .expect("the demo prints its address");
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url, listen, dir: dir.to_owned() }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: libc::c_int) {
        super::signal(&self.child, signal);
    }

    /// Kills it without a chance to tidy up.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again in the same directory, at the same address.
    pub fn again(&mut self) {
        *self = Self::on(&self.dir.clone(), self.listen.clone());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.kill();
    }
}
