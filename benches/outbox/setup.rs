//! Stores, a sink that does nothing, and an outbox over them as the daemon runs it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use actix::prelude::*;
use arc_swap::ArcSwap;
use belayd::{
    clock::{SharedClock, SystemClock},
    config::{Config, OnUnknown},
    event::Metrics,
    outbox::{Outbox, OutboxActor, OutboxParts},
    protocol::{Drain, Wake},
    sinks::{Letter, SendError, Sent, Sink},
    store::{
        Store,
        deliveries::{self, NewDelivery},
    },
};
use diesel::{Connection, PgConnection, RunQueryDsl};
use futures_util::future::{BoxFuture, ready};
use hdrhistogram::Histogram;
use tempfile::TempDir;

use crate::{Options, host, postgres::Postgres};

/// Asks this program to be the other process.
pub const ENQUEUE: &str = "--enqueue-slowly";
/// Deliveries of one transaction in bulk.
pub const BULK: u64 = 1_000;
/// Deliveries go to so many receivers, each with its order.
const LANES: u64 = 10_000;
const SINK: &str = "bench";

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Database {
    Sqlite,
    Postgres,
}

/// What scenarios share.
pub struct Bench {
    pub options: Options,
    server: Option<Postgres>,
    databases: u32,
}

impl Bench {
    pub fn new(options: Options) -> Self {
        Self { options, server: None, databases: 0 }
    }

    /// Processor time of this program and of PostgreSQL.
    pub fn cpu(&self) -> Duration {
        host::cpu_of(std::process::id()) + self.server_cpu()
    }

    /// Processor time of PostgreSQL.
    pub fn server_cpu(&self) -> Duration {
        self.server.as_ref().and_then(Postgres::pid).map_or(Duration::ZERO, host::cpu_of_all)
    }

    /// A new store.
    pub fn place(&mut self, database: Database) -> Place {
        let dir = tempfile::tempdir_in(".").expect("the working directory can be written");
        let url = match database {
            Database::Sqlite => format!("sqlite://{}/belayd.db", dir.path().display()),
            Database::Postgres => self.new_database(),
        };
        let control = Store::open_control(&dir.path().join("control.db")).expect("a plain path");
        let store = open(&url);
        for store in [&control, &store] {
            store.migrate().expect("migrations run");
        }
        Place { control, store, url, dir }
    }

    fn new_database(&mut self) -> String {
        self.databases += 1;
        let name = format!("bench_{}", self.databases);
        let server = self.server.get_or_insert_with(|| Postgres::start(&["shared_buffers=128MB"]));
        let mut admin = PgConnection::establish(&server.url("postgres")).expect("the server answers");
        let before = format!("DROP DATABASE IF EXISTS bench_{} WITH (FORCE)", self.databases - 1);
        diesel::sql_query(before).execute(&mut admin).expect("a database is dropped");
        diesel::sql_query(format!("CREATE DATABASE {name}")).execute(&mut admin).expect("a database");
        // So that no scenario pays for what the one before has left to be written.
        diesel::sql_query("CHECKPOINT").execute(&mut admin).expect("a checkpoint");
        server.url(&name)
    }
}

fn open(url: &str) -> Store {
    let mut config = Config::default().store;
    config.url = url.to_owned();
    Store::open(&config).expect("a valid URL")
}

/// The two stores of a daemon.
pub struct Place {
    control: Store,
    store: Store,
    pub url: String,
    dir: TempDir,
}

/// What the kernel counts from the start of the machine, the same for all processes, nanoseconds.
fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Processor time of this process, finer than `/proc` has it.
pub fn own_cpu() -> Duration {
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut used) };
    Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec as u32)
}

/// One delivery, as a message of some words makes it, due at once.
pub fn delivery(n: u64, lane: u64) -> NewDelivery {
    delivery_at(n, lane, monotonic_ns())
}

/// One whose way is measured from this moment on.
fn delivery_at(n: u64, lane: u64, from_ns: u64) -> NewDelivery {
    let id = uuid::Uuid::now_v7().to_string();
    let payload = format!(
        r#"{{"at":{},"message":{{"id":"{id}","subject":"Engine {n} wants oil","body":"The oil of engine {n} was last changed a year ago. Somebody should look at it today, and tell the others when it is done.","createdAt":"2026-11-21T00:00:00.000000Z"}}}}"#,
        from_ns
    );
    NewDelivery {
        subject: id.clone(),
        id,
        sink: SINK.to_owned(),
        lane: format!("to:engineer{lane}@example.com"),
        payload,
        due_at_us: 0,
        max_attempts: 30,
        on_unknown: OnUnknown::Review,
        recipient: format!("engineer{lane}@example.com"),
    }
}

impl Place {
    /// Enqueues in transactions of [`BULK`]; returns how long these took, without the making up of what is enqueued.
    pub fn enqueue(&self, count: u64, lanes: Option<u64>, committed: impl FnMut()) -> Duration {
        self.enqueue_to(SINK, count, lanes, committed)
    }

    /// The same, to another sink.
    pub fn enqueue_to(&self, sink: &str, count: u64, lanes: Option<u64>, mut committed: impl FnMut()) -> Duration {
        let lanes = lanes.unwrap_or(LANES);
        let (mut done, mut took) = (0, Duration::ZERO);
        while done < count {
            let rows: Vec<NewDelivery> =
                (done..count.min(done + BULK)).map(|n| NewDelivery { sink: sink.to_owned(), ..delivery(n, n % lanes) }).collect();
            let started = Instant::now();
            add(&self.store, &rows);
            took += started.elapsed();
            done += rows.len() as u64;
            committed();
        }
        took
    }

    /// One by one, at a steady rate.
    pub fn trickle(&self, count: u64, a_second: u64, committed: impl FnMut()) {
        trickle(&self.store, count, a_second, committed);
    }

    /// All at once, each due at a moment of its own within a time that begins in a second.
    pub fn schedule(&self, count: u64, within: Duration, committed: impl FnOnce()) {
        let (now_us, now_ns) = (belayd::clock::Clock::now_us(&SystemClock), monotonic_ns());
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let rows: Vec<NewDelivery> = (0..count)
            .map(|n| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let after_us = 1_000_000 + (random >> 33) % within.as_micros().max(1) as u64;
                let due_at_us = now_us + after_us.cast_signed();
                NewDelivery { due_at_us, ..delivery_at(n, n, now_ns + after_us * 1_000) }
            })
            .collect();
        add(&self.store, &rows);
        committed();
    }

    /// The store and the control store.
    pub fn stores(&self) -> (&Store, &Store) {
        (&self.store, &self.control)
    }

    /// An outbox over it.
    pub fn start(&self) -> Running {
        let sink = Arc::new(NoopSink::default());
        self.start_with(Config::default(), sink.clone(), sink)
    }

    /// An outbox over it with this configuration and way out; `noop` notes latencies, where that is the way.
    pub fn start_with(&self, config: Config, way: Arc<dyn Sink>, noop: Arc<NoopSink>) -> Running {
        let outbox = Outbox::new(OutboxParts {
            control: self.control.clone(),
            store: Some((self.store.clone(), Box::new(|| true))),
            config: Arc::new(ArcSwap::from_pointee(config)),
            sinks: vec![way],
            own_sinks: Vec::new(),
            clock: Arc::new(SystemClock) as SharedClock,
            metrics: Arc::new(Metrics::new().expect("the catalogue is sound")),
            worker: "bench".into(),
        });
        let (tell, told) = mpsc::channel();
        let of_actor = outbox.clone();
        let thread = thread::spawn(move || {
            let system = System::new();
            system.block_on(async move {
                let actor = OutboxActor::new(of_actor).start();
                tell.send((actor, System::current())).expect("somebody waits");
            });
            system.run().expect("the system ends in order");
        });
        let (actor, system) = told.recv().expect("it starts");
        Running { sink: noop, outbox, actor, system, thread: Some(thread) }
    }

    /// How many are in a state.
    pub fn settled(&self) -> u64 {
        #[derive(diesel::QueryableByName)]
        struct Count {
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            n: i64,
        }
        let text = "SELECT count(*) AS n FROM deliveries WHERE state = 'sent'";
        let count: Count =
            self.store.with(|conn| Ok(belayd::on_backend!(conn, |c| diesel::sql_query(text).get_result(c))?)).expect("counts");
        count.n.unsigned_abs()
    }

    /// The directory.
    pub fn path(&self) -> &std::path::Path {
        self.dir.path()
    }
}

fn add(store: &Store, rows: &[NewDelivery]) {
    let now_us = belayd::clock::Clock::now_us(&SystemClock);
    store.with(|conn| conn.write(|conn| deliveries::enqueue(conn, rows, now_us))).expect("enqueues");
}

fn trickle(store: &Store, count: u64, a_second: u64, mut committed: impl FnMut()) {
    let started = Instant::now();
    for n in 0..count {
        let due = started + Duration::from_secs(1) * u32::try_from(n).unwrap_or(u32::MAX) / u32::try_from(a_second).unwrap_or(1);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        add(store, &[delivery(n, n)]);
        committed();
    }
}

/// The other process: URL, count, how many a second.
pub fn enqueue_slowly(args: &[String]) {
    let [url, count, a_second] = args else { panic!("{ENQUEUE} takes three arguments") };
    trickle(&open(url), count.parse().expect("a number"), a_second.parse().expect("a number"), || {});
}

/// An outbox that runs.
pub struct Running {
    pub sink: Arc<NoopSink>,
    pub outbox: Arc<Outbox>,
    actor: Addr<OutboxActor>,
    system: System,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    /// As whoever has committed a delivery does.
    pub fn wake(&self) -> impl Fn() + Send + use<> {
        let actor = self.actor.clone();
        move || drop(actor.try_send(Wake))
    }

    /// Waits until `count` were sent and nothing is on its way.
    pub fn wait_for(&self, count: u64) {
        let until = Instant::now() + Duration::from_secs(300);
        while self.outbox.sent_total() < count || self.outbox.in_flight() > 0 {
            assert!(Instant::now() < until, "{} of {count} were sent", self.outbox.sent_total());
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let (done, _) = tokio::sync::oneshot::channel();
        self.actor.do_send(Drain { deadline: Instant::now(), done });
        self.system.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Takes everything at once, and notes how long it was on its way.
#[derive(Debug)]
pub struct NoopSink {
    /// Microseconds from before its transaction, or from when it is due, to the beginning of its send.
    pub latency: Mutex<Histogram<u64>>,
    /// How many began before that.
    pub early: AtomicU64,
}

impl Default for NoopSink {
    fn default() -> Self {
        // With a bound: one that grows by itself takes what lies beyond its end for its smallest value when it saturates.
        let latency = Histogram::new_with_max(60_000_000, 3).expect("three digits up to a minute are allowed");
        Self { latency: Mutex::new(latency), early: AtomicU64::new(0) }
    }
}

impl Sink for NoopSink {
    fn name(&self) -> &str {
        SINK
    }

    fn takes_batches(&self) -> bool {
        true
    }

    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<Sent, SendError>> {
        let text = letter.payload[6..].split(',').next().expect("the payload begins with its time");
        let (at, now): (u64, u64) = (text.parse().expect("a number"), monotonic_ns());
        self.early.fetch_add(u64::from(now < at), Ordering::Relaxed);
        let took_us = now.saturating_sub(at) / 1_000;
        self.latency.lock().expect("no panic").saturating_record(took_us);
        Box::pin(ready(Ok(Sent { answer: "200 OK".into() })))
    }
}
