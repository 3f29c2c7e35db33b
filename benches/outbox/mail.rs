//! The receiver of mails: this program once more, so that its processor time is counted apart.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use belayd::{config, sinks};

use crate::{
    host,
    setup::{NoopSink, Place, Running},
    smtp_server::{Act, SmtpServer},
};

/// Asks this program to be the receiver.
pub const RECEIVE: &str = "--receive-mail";

/// Takes mails until nobody holds its stdin any more: says its port first, and how many there were at last.
pub fn receive() {
    let server = SmtpServer::start(|_| Act::Take(Duration::ZERO));
    println!("{}", server.port);
    // Whatever comes, only the end counts.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    assert!(server.faults().is_empty(), "{:?}", server.faults());
    println!("{}", server.taken());
}

/// See the module.
pub struct Receiver {
    child: Child,
    said: BufReader<ChildStdout>,
    port: u64,
}

impl Receiver {
    pub fn start() -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let child = Command::new(program).arg(RECEIVE).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("it runs once more");
        let said = BufReader::new(child.stdout.take().expect("piped"));
        let mut receiver = Self { child, said, port: 0 };
        receiver.port = receiver.number();
        receiver
    }

    fn number(&mut self) -> u64 {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("it says something");
        line.trim().parse().expect("a number")
    }

    /// Its processor time.
    pub fn cpu(&self) -> Duration {
        host::cpu_of(self.child.id())
    }

    /// An outbox whose mails go there, with the settings that ship.
    pub fn start_outbox(&self, place: &Place) -> Running {
        let text = format!(
            "[smtp]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nfrom = \"belayd <belayd@example.org>\"\n\
             hello = \"belayd.example.org\"\n",
            self.port
        );
        let config = config::parse(&text).expect("a right configuration");
        let sink = sinks::build(&config).into_iter().find(|sink| sink.name() == sinks::smtp::NAME).expect("it is configured");
        place.start_with(config, sink, Arc::new(NoopSink::default()))
    }

    /// How many it has taken.
    pub fn end(mut self) -> u64 {
        drop(self.child.stdin.take());
        let taken = self.number();
        let _ = self.child.wait();
        taken
    }
}

impl Drop for Receiver {
    /// After a panic of the scenario.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
