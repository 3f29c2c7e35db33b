//! This instance's sign of life in the shared database, and what it learns there of the others.
//!
//! In: the clock of a thread of its own, with a connection of its own, so that a full pool does not make an instance look dead. Out: the
//! list of instances, the alerts `instance-dead` and `instance-twin`, which alerts are open here. A crash loses nothing: the others see
//! the silence.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    alert::AlertBoard,
    clock::SharedClock,
    domain::{
        alert::{Level, Transition},
        time::rfc3339_us,
    },
    monitor::{InstanceBoard, InstanceView},
    store::{
        Backend, Conn, Store, StoreResult, episodes,
        instances::{self, DEAD_AFTER, Instance, InstanceRow},
        leases,
    },
};

/// From one sign of life to the next where several instances may use the database.
const EVERY: Duration = Duration::from_secs(3);
/// The same on SQLite, which one process has to itself: nobody waits for it, and each costs a sync.
const EVERY_ALONE: Duration = Duration::from_secs(60);
/// Instances that nobody has heard of for so long are forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(7 * 24 * 3_600);
/// How often leases that nobody holds any more are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(3_600);
/// Most rows that are looked at.
const ROWS_MAX: u32 = 200;

/// What the thread works with.
pub(super) struct Parts {
    pub(super) store: Store,
    pub(super) is_up: Box<dyn Fn() -> bool + Send + Sync>,
    pub(super) me: Instance,
    pub(super) clock: SharedClock,
    pub(super) board: Arc<InstanceBoard>,
    pub(super) alerts: Arc<AlertBoard>,
    pub(super) raise: Box<dyn Fn(Vec<Transition>) + Send + Sync>,
}

/// The thread. Dropped or stopped, it ends; stopped, it notes that this instance ended in order.
pub(super) struct Heartbeat {
    stop: mpsc::Sender<()>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Heartbeat {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system refused it.
    pub(super) fn start(parts: Parts) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new().name("heartbeat".into()).spawn(move || Pulse::new(parts).run(&stopped))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Notes the end in the database and gives the leases back; waits for at most `limit`.
    pub(super) async fn stop(mut self, limit: Duration) {
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            // A thread inside a hung statement is left to the process's end.
            let joined = tokio::task::spawn_blocking(move || drop(thread.join()));
            let _ = tokio::time::timeout(limit, joined).await;
        }
    }
}

/// What is known from one beat to the next.
struct Pulse {
    parts: Parts,
    /// Since when every beat has come through: the others are judged only after as long as they have.
    steady_since: Option<Instant>,
    beaten: bool,
    forgot: Option<Instant>,
    twin_seen: Option<Instant>,
    twin_told: Option<bool>,
    dead: Option<BTreeSet<String>>,
}

impl Pulse {
    fn new(parts: Parts) -> Self {
        Self { parts, steady_since: None, beaten: false, forgot: None, twin_seen: None, twin_told: None, dead: None }
    }

    fn run(mut self, stopped: &mpsc::Receiver<()>) {
        let shared = self.parts.store.backend() == Backend::Postgres;
        let mut writer = self.parts.store.writer();
        let mut wait = Duration::ZERO;
        loop {
            match stopped.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) => {
                    if self.beaten && (self.parts.is_up)() {
                        let (me, now_us) = (&self.parts.me, self.parts.clock.now_us());
                        let _ = writer.with(|conn| {
                            leases::release_all(conn, &me.instance)?;
                            instances::stopped(conn, me, now_us)
                        });
                    }
                    return;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            wait = if shared { EVERY } else { EVERY_ALONE };
            if !(self.parts.is_up)() {
                self.steady_since = None;
                wait = Duration::from_millis(200);
                continue;
            }
            if let Err(error) = writer.with(|conn| self.beat(conn, shared)) {
                self.steady_since = None;
                wait = EVERY;
                log::debug!(target: "belayd::store", error:% = error; "the sign of life was not written");
            }
        }
    }

    fn beat(&mut self, conn: &mut Conn, shared: bool) -> StoreResult<()> {
        let (began, now_us) = (Instant::now(), self.parts.clock.now_us());
        let other = instances::beat(conn, &self.parts.me, now_us)?;
        // At the first beat it may be an earlier life of this directory; after that it can only be a process that lives.
        let twin = other.filter(|_| std::mem::replace(&mut self.beaten, true));
        let rows = instances::list(conn, ROWS_MAX, now_us)?;
        let held = leases::list(conn, 1_000)?;
        if shared {
            let open: Vec<String> = self.parts.alerts.open().iter().map(crate::domain::alert::Alert::episode).collect();
            episodes::reconcile(conn, &self.parts.me.instance, &open, now_us)?;
            instances::forget(conn, FORGET_AFTER, now_us)?;
        }
        if self.forgot.is_none_or(|at| at.elapsed() >= FORGET_EVERY) {
            leases::forget(conn)?;
            self.forgot = Some(began);
        }
        let me = &self.parts.me;
        let view = |row: &InstanceRow| InstanceView {
            state: state_of(row, me),
            this: row.instance == me.instance,
            holds: held.iter().filter(|lease| lease.live && lease.owner == row.instance).map(|lease| lease.name.clone()).collect(),
            instance: row.instance.clone(),
            host: row.host.clone(),
            pid: row.pid,
            version: row.version.clone(),
            url: row.url.clone(),
            tier: row.tier.clone(),
            started_at: rfc3339_us(row.started_at_us),
            last_seen_at: rfc3339_us(row.heartbeat_at_us),
        };
        let mut views: Vec<InstanceView> = rows.iter().map(view).collect();
        views.sort_by_key(|view| !view.this);
        self.parts.board.set(views);
        self.judge_twin(twin.as_ref(), now_us);
        let steady = *self.steady_since.get_or_insert(began);
        if shared && steady.elapsed() >= DEAD_AFTER {
            self.judge_dead(&rows, now_us);
        }
        Ok(())
    }

    /// Two processes write one row in turns: each finds the other's start there although it has written its own.
    fn judge_twin(&mut self, twin: Option<&InstanceRow>, now_us: i64) {
        if let Some(other) = twin {
            self.twin_seen = Some(Instant::now());
            if self.twin_told != Some(true) {
                self.twin_told = Some(true);
                let me = &self.parts.me;
                let text = format!(
                    "another process (host {}, pid {}, started {}) runs on a copy of this data directory ({}, host {}, pid {}): stop one of \
                     the two, and give it a new, empty server.data_dir; readings are stored once all the same, but they share a name for \
                     everything that instances divide among themselves",
                    other.host,
                    other.pid,
                    rfc3339_us(other.started_at_us),
                    me.instance,
                    me.host,
                    me.pid
                );
                log::error!(target: "belayd", host = other.host.as_str(), pid = other.pid; "{text}");
                self.tell("instance-twin", "daemon", Level::Critical, true, text, now_us);
            }
        } else if self.twin_seen.is_none_or(|seen| seen.elapsed() >= DEAD_AFTER) && self.twin_told != Some(false) {
            // At the first look too: an earlier run may have left it open.
            self.twin_told = Some(false);
            self.tell(
                "instance-twin",
                "daemon",
                Level::Critical,
                false,
                "no other process runs on a copy of this directory".into(),
                now_us,
            );
        }
    }

    fn judge_dead(&mut self, rows: &[InstanceRow], now_us: i64) {
        let me = self.parts.me.instance.clone();
        let others = || rows.iter().filter(|row| row.instance != me);
        let dead: BTreeSet<String> =
            others().filter(|row| !row.alive && row.stopped_at_us.is_none()).map(|row| row.instance.clone()).collect();
        let first = self.dead.is_none();
        let known = self.dead.take().unwrap_or_default();
        for row in others().filter(|row| dead.contains(&row.instance) && !known.contains(&row.instance)) {
            let text = format!(
                "instance {} (host {}, pid {}) has not been heard of since {}: what it shares with others is done by them; readings that wait \
                 in its data directory wait for its return",
                row.instance,
                row.host,
                row.pid,
                rfc3339_us(row.heartbeat_at_us)
            );
            log::warn!(target: "belayd", instance = row.instance.as_str(), host = row.host.as_str(), pid = row.pid; "an instance is not heard of any more");
            self.tell("instance-dead", &row.instance, Level::Warning, true, text, now_us);
        }
        // What an earlier run of this instance left open is over too.
        let open = self.parts.alerts.open();
        let left = open.iter().filter(|alert| first && alert.name == "instance-dead").map(|alert| alert.subject.clone());
        let over: BTreeSet<String> = known.into_iter().chain(left).filter(|instance| !dead.contains(instance)).collect();
        for instance in over {
            let text = format!("instance {instance} is back, has stopped in order, or was forgotten");
            log::info!(target: "belayd", instance = instance.as_str(); "an instance is not missed any more");
            self.tell("instance-dead", &instance, Level::Warning, false, text, now_us);
        }
        self.dead = Some(dead);
    }

    fn tell(&self, name: &str, subject: &str, level: Level, firing: bool, text: String, now_us: i64) {
        (self.parts.raise)(vec![Transition::system((name, subject), level, firing, text, now_us)]);
    }
}

fn state_of(row: &InstanceRow, me: &Instance) -> &'static str {
    match (row.alive, row.stopped_at_us) {
        _ if row.run == me.run => "alive",
        (true, _) => "alive",
        (false, Some(_)) => "stopped",
        (false, None) => "dead",
    }
}
