//! The overseer: stalls, stuck threads, dead loops, the watchdog.

use std::{os::unix::net::UnixDatagram, sync::Mutex};

use super::*;
use crate::systemd::Notifier;

/// A real notify socket, and the watchdog's pings that arrive on it.
struct Watchdog {
    _dir: tempfile::TempDir,
    socket: UnixDatagram,
    notifier: Notifier,
}

impl Watchdog {
    fn new(limit: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { _dir: dir, socket, notifier: Notifier::new(Some(path.into()), Some(limit)) }
    }

    /// Pings since the last call.
    fn pings(&self) -> usize {
        let mut buffer = [0; 64];
        let mut pings = 0;
        while let Ok(length) = self.socket.recv(&mut buffer) {
            assert_eq!(&buffer[..length], b"WATCHDOG=1\n");
            pings += 1;
        }
        pings
    }
}

/// An overseer that notes its verdict instead of ending the process.
pub(super) fn oversee(supervisor: &Supervisor, notifier: Notifier) -> (Overseer, Arc<Mutex<Vec<String>>>) {
    let ended = Arc::new(Mutex::new(Vec::new()));
    let note = ended.clone();
    let exit = Box::new(move |stuck: &[String]| note.lock().unwrap().extend_from_slice(stuck));
    let overseer = Overseer::start_with(supervisor.registry().clone(), settings().hang_after, notifier, exit).unwrap();
    (overseer, ended)
}

#[actix::test]
async fn a_blocked_thread_silences_the_watchdog_until_it_turns_again() {
    let supervisor = Supervisor::new(settings());
    let puppet = start(&supervisor);
    let watchdog = Watchdog::new(Duration::from_millis(400));
    let (_overseer, ended) = oversee(&supervisor, watchdog.notifier.clone());
    until("the first pings", || watchdog.pings() > 0).await;
    puppet.courier().try_send(Do::Block(Duration::from_secs(6))).unwrap();
    until("it is seen", || supervisor.registry().status("Puppet").unwrap().state == ActorState::Stalled).await;
    watchdog.pings();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(watchdog.pings(), 0, "silence for longer than the watchdog's limit");
    until("it turns again", || supervisor.registry().status("Puppet").unwrap().state == ActorState::Running).await;
    until("pings again", || watchdog.pings() > 0).await;
    assert!(ended.lock().unwrap().is_empty(), "systemd would have ended it, not we");
    assert_eq!(supervisor.registry().status("Puppet").unwrap().restarts, 0);
}

#[actix::test]
async fn without_a_watchdog_a_thread_that_stays_blocked_ends_the_process() {
    let supervisor = Supervisor::new(settings());
    let puppet = start(&supervisor);
    let (_overseer, ended) = oversee(&supervisor, Notifier::default());
    puppet.courier().try_send(Do::Block(Duration::from_secs(6))).unwrap();
    until("the end", || !ended.lock().unwrap().is_empty()).await;
    assert_eq!(ended.lock().unwrap()[0], "Puppet");
}

#[actix::test]
async fn a_hung_actor_is_restarted_and_the_watchdog_goes_on() {
    let supervisor = Supervisor::new(settings());
    let puppet = start(&supervisor);
    let watchdog = Watchdog::new(Duration::from_millis(800));
    let (_overseer, ended) = oversee(&supervisor, watchdog.notifier.clone());
    puppet.courier().try_send(Do::Hang).unwrap();
    assert_eq!(ask(&puppet.courier()).await, (2, 1));
    watchdog.pings();
    let mut pings = 0;
    until("pings go on", || {
        pings += watchdog.pings();
        pings > 2
    })
    .await;
    assert!(ended.lock().unwrap().is_empty());
}

#[actix::test]
async fn an_idle_actor_is_no_hung_one() {
    let supervisor = Supervisor::new(settings());
    let puppet = start(&supervisor);
    let (_overseer, _) = oversee(&supervisor, Notifier::default());
    tokio::time::sleep(settings().hang_after * 4).await;
    assert_eq!(ask(&puppet.courier()).await, (1, 1));
    let status = supervisor.registry().status("Puppet").unwrap();
    assert!(status.last_progress_ms < 800, "{status:?}");
}

#[actix::test]
async fn a_loop_that_dies_is_noticed_and_one_that_ends_is_not() {
    let supervisor = Supervisor::new(settings());
    let registry = supervisor.registry().clone();
    let watchdog = Watchdog::new(Duration::from_millis(400));
    let (_overseer, _) = oversee(&supervisor, watchdog.notifier.clone());
    let ended = registry.register_loop("ended", Duration::from_millis(100));
    ended.beat();
    drop(ended);
    assert!(registry.loops().is_empty());
    let dies = registry.register_loop("dies", Duration::from_millis(100));
    let thread = std::thread::spawn(move || {
        dies.beat();
        panic!("as told");
    });
    assert!(thread.join().is_err());
    until("its stamp is old", || registry.loops()[0].last_progress_ms > 300).await;
    watchdog.pings();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(watchdog.pings(), 0);
    assert_eq!((registry.loops()[0].name.as_str(), registry.loops()[0].limit_ms), ("dies", 100));
}

#[actix::test]
async fn the_thread_bears_the_name_of_its_actor() {
    let supervisor = Supervisor::new(settings());
    let _puppet = start(&supervisor);
    let names = || {
        std::fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
    };
    assert!(names().any(|name| name.trim() == "Puppet"));
}

#[test]
fn the_status_serializes_as_the_admin_interface_says() {
    let status = ActorStatus {
        name: "IngestActor",
        state: ActorState::Backoff,
        generation: 2,
        restarts: 2,
        restarts_by_reason: RestartsByReason { panic: 1, hang: 1, ..Default::default() },
        last_restart_ms: 3.5,
        mailbox_depth: 1,
        mailbox_bound: 1_024,
        last_progress_ms: 12,
    };
    assert_eq!(
        serde_json::to_string(&status).unwrap(),
        r#"{"name":"IngestActor","state":"backoff","generation":2,"restarts":2,"restartsByReason":{"panic":1,"stop":0,"hang":1,"requested":0},"lastRestartMs":3.5,"mailboxDepth":1,"mailboxBound":1024,"lastProgressMs":12}"#
    );
}
