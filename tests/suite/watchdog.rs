//! systemd's side of supervision, with a real notify socket. Needs the feature `fault-injection`.

use std::{
    os::unix::net::UnixDatagram,
    thread,
    time::{Duration, Instant},
};

use crate::support::daemon::{Daemon, Setup};

/// The limit that the daemon is told.
const LIMIT: Duration = Duration::from_secs(4);

struct Systemd {
    socket: UnixDatagram,
    _dir: tempfile::TempDir,
}

impl Systemd {
    fn start(setup: Setup) -> (Self, Daemon) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out");
        let setup =
            setup.env("NOTIFY_SOCKET", path.to_str().expect("a plain path")).env("WATCHDOG_USEC", &LIMIT.as_micros().to_string());
        (Self { socket, _dir: dir }, setup.start())
    }

    /// What was told within `length`, with the time of each message.
    fn hear(&self, length: Duration) -> Vec<(Instant, String)> {
        let until = Instant::now() + length;
        let mut heard = Vec::new();
        let mut message = [0; 4096];
        while Instant::now() < until {
            if let Ok(read) = self.socket.recv(&mut message) {
                heard.push((Instant::now(), String::from_utf8_lossy(&message[..read]).into_owned()));
            }
        }
        heard
    }
}

fn pings(heard: &[(Instant, String)]) -> Vec<Instant> {
    heard.iter().filter(|(_, text)| text.contains("WATCHDOG=1")).map(|(at, _)| *at).collect()
}

#[test]
fn ready_is_told_once_and_the_watchdog_is_fed_in_time() {
    let (systemd, mut daemon) = Systemd::start(Setup::default());
    let heard = systemd.hear(Duration::from_secs(10));
    assert_eq!(heard.iter().filter(|(_, text)| text.contains("READY=1")).count(), 1, "{heard:?}");
    let fed = pings(&heard);
    assert!(fed.windows(2).all(|pair| pair[1] - pair[0] < LIMIT) && fed.len() >= 4, "{heard:?}");
    assert_eq!(daemon.stop().code(), Some(0));
    let heard = systemd.hear(Duration::from_millis(300));
    assert!(heard.iter().any(|(_, text)| text.contains("STOPPING=1")), "{heard:?}");
}

#[test]
fn an_actor_stuck_in_its_thread_makes_the_watchdog_go_silent() {
    for actor in ["IngestActor", "OutboxActor"] {
        let (systemd, daemon) = Systemd::start(Setup::with("[supervision]\nhang_after = \"1s\"\n"));
        assert!(!pings(&systemd.hear(Duration::from_secs(4))).is_empty());
        let stuck = daemon.post(&format!("/admin/actors/{actor}/fault"), r#"{"kind":"block"}"#);
        assert_eq!(stuck.status, 202, "{stuck:?}");
        let at = Instant::now();
        // One second until it counts as hung, and the look in hand; from then on systemd's limit runs.
        let last = pings(&systemd.hear(Duration::from_secs(9))).last().copied().unwrap_or(at);
        assert!(last - at < Duration::from_secs(4), "{actor}: still fed {:?} after it got stuck", last - at);
    }
}

#[test]
fn a_stop_of_a_stuck_daemon_ends_within_its_deadline() {
    let setup = Setup { server: "stop_timeout = \"3s\"".into(), ..Setup::default() };
    let mut daemon = setup.start();
    assert_eq!(daemon.post("/admin/actors/OutboxActor/fault", r#"{"kind":"hang"}"#).status, 202);
    thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    daemon.stop();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
