//! The relay to Kafka on the same cores as PostgreSQL, generator and an independent consumer of committed records: how much, how soon, and
//! what is left to do after an outage of the broker.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{Headers, Message},
};

use crate::{
    daemon::Daemon,
    kafka::Kafka,
    load::{Load, Refused, Reins, histogram},
    report::{
        Aim::{AtLeast, AtMost},
        Figure, Scenario, aimed, plain,
    },
    setup::{self, Bench, Database},
};

pub const SUSTAINED: Scenario = Scenario {
    name: "kafka-sustained",
    what: "pushes of 1,000 on 16 connections into PostgreSQL and Kafka, lag flat",
    once: true,
    run: sustained,
};
pub const LATENCY: Scenario = Scenario {
    name: "kafka-latency",
    what: "5,000 readings a second in pushes of 10, from the moment when a push is due to a consumer of committed records",
    once: true,
    run: latency,
};
pub const OUTAGE: Scenario = Scenario {
    name: "kafka-outage",
    what: "Kafka killed for 30 s at 5,000 readings a second",
    once: true,
    run: |bench| {
        let away = Duration::from_secs(bench.options.sustained_seconds.min(30));
        outage(bench, away)
    },
};
pub const OUTAGE_LONG: Scenario = Scenario {
    name: "kafka-outage-long",
    what: "Kafka killed for 10 min (--outage-seconds) at 5,000 readings a second",
    once: true,
    run: |bench| {
        let away = Duration::from_secs(bench.options.outage_seconds);
        outage(bench, away)
    },
};

/// Readings that may be on their way, in the buffer and to Kafka together, while the load runs.
const LAG: f64 = 60_000.0;
const WARM_UP: Duration = Duration::from_secs(3);
/// The daemon's 40 MB, and what librdkafka may queue (`queue.buffering.max.kbytes`, 4,096 KiB) for each of PostgreSQL's two streams: the sum in
/// `docs/KAFKA.md`.
const RESIDENT_MB: f64 = 40.0 + 2.0 * 4.194_304;
/// Partitions of the topic.
const PARTITIONS: i32 = 6;

fn begin(bench: &mut Bench) -> Option<(Kafka, Daemon)> {
    let kafka = Kafka::start()?;
    kafka.create_topic("engine", PARTITIONS);
    let daemon = bench.daemon(Database::Postgres, &format!("[kafka]\nbrokers = \"{}\"\n", kafka.brokers()));
    Some((kafka, daemon))
}

fn relayed(daemon: &Daemon) -> f64 {
    daemon.metric("belayd_readings_relayed_total")
}

/// Stored readings that Kafka has not got.
fn behind(daemon: &Daemon) -> f64 {
    daemon.metric("belayd_readings_stored_total") - relayed(daemon)
}

fn all_relayed(daemon: &Daemon, limit: Duration) -> Duration {
    let started = Instant::now();
    while behind(daemon) > 0.0 || setup::buffered(daemon) > 0.0 {
        setup::flush(daemon);
        assert!(started.elapsed() < limit, "{} readings are not relayed; the log:\n{}", behind(daemon), daemon.log());
        thread::sleep(Duration::from_millis(50));
    }
    started.elapsed()
}

/// Counts what is committed, each reading by stream and number, and how long each took from the time that it bears.
struct Counter {
    read: Arc<AtomicU64>,
    repeats: Arc<AtomicU64>,
    latency: Arc<Mutex<Histogram<u64>>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Counter {
    fn start(kafka: &Kafka, each: bool) -> Self {
        let consumer: BaseConsumer = kafka
            .client()
            .set("group.id", "counter")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "10")
            .set("queued.max.messages.kbytes", "16384")
            .set("log_level", "0")
            .create()
            .expect("a consumer");
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            all.add_partition_offset("engine", partition, Offset::Beginning).expect("a place");
        }
        consumer.assign(&all).expect("assigned");
        let counter = Self {
            read: Arc::default(),
            repeats: Arc::default(),
            latency: Arc::new(Mutex::new(histogram())),
            stop: Arc::default(),
            thread: None,
        };
        let (read, repeats, latency, stop) =
            (counter.read.clone(), counter.repeats.clone(), counter.latency.clone(), counter.stop.clone());
        let thread = thread::spawn(move || {
            let mut seen: HashSet<(u64, u64)> = HashSet::new();
            while !stop.load(Ordering::Acquire) {
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) else { continue };
                let headers = message.headers().expect("headers");
                let header = |at: usize| headers.get(at).value.unwrap_or_default();
                let stream = header(0).iter().fold(0_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(*byte)));
                let seq = std::str::from_utf8(header(1)).ok().and_then(|text| text.parse().ok()).expect("a number");
                if !seen.insert((stream, seq)) {
                    repeats.fetch_add(1, Ordering::Relaxed);
                }
                if each {
                    let text = std::str::from_utf8(message.payload().unwrap_or_default()).unwrap_or_default();
                    let (_, rest) = text.split_once(r#""timestamp":""#).expect("a time");
                    let due = chrono::DateTime::parse_from_rfc3339(&rest[..27]).expect("a time").timestamp_micros();
                    let took = chrono::Utc::now().timestamp_micros() - due;
                    latency.lock().expect("no panic").saturating_record(took.unsigned_abs());
                }
                read.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { thread: Some(thread), ..counter }
    }

    /// Waits until `count` readings have been read, and says how many came twice.
    fn finish(mut self, count: u64) -> (u64, Histogram<u64>) {
        let until = Instant::now() + Duration::from_secs(120);
        while self.read.load(Ordering::Relaxed) < count && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_millis(300));
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the consumer failed");
        }
        let (read, repeats) = (self.read.load(Ordering::Relaxed), self.repeats.load(Ordering::Relaxed));
        assert_eq!(read - repeats, count, "stored, and read by a consumer of committed records");
        (repeats, self.latency.lock().expect("no panic").clone())
    }
}

fn sustained(bench: &mut Bench) -> Vec<Figure> {
    let Some((kafka, daemon)) = begin(bench) else { return Vec::new() };
    let length = Duration::from_secs(bench.options.sustained_seconds);
    let reins = Arc::new(Reins::default());
    let load = setup::load(&daemon, 16, 1_000);
    let pushing = {
        let reins = reins.clone();
        thread::spawn(move || load.closed_under(WARM_UP + length + Duration::from_secs(60), &reins, Refused::Waits))
    };
    let hold = |until: Instant, lag: &mut Vec<f64>| {
        while Instant::now() < until {
            let waiting = setup::buffered(&daemon) + behind(&daemon);
            reins.pause.store(waiting > LAG, Ordering::Relaxed);
            lag.push(waiting);
            thread::sleep(Duration::from_millis(50));
        }
    };
    hold(Instant::now() + WARM_UP, &mut Vec::new());
    let (stored, sent, cpu) = (daemon.metric("belayd_readings_stored_total"), relayed(&daemon), daemon.cpu());
    let (started, mut lag) = (Instant::now(), Vec::new());
    hold(started + length, &mut lag);
    let took = started.elapsed().as_secs_f64();
    let (stored, sent) = (daemon.metric("belayd_readings_stored_total") - stored, relayed(&daemon) - sent);
    let cpu = (daemon.cpu() - cpu).as_secs_f64() / took * 100.0;
    let (private, resident) = daemon.memory();
    reins.pause.store(false, Ordering::Relaxed);
    reins.stop.store(true, Ordering::Relaxed);
    let outcome = pushing.join().expect("the generator failed");
    all_relayed(&daemon, Duration::from_secs(120));
    // The consumer reads afterwards: it would take a share of the cores that no daemon pays for.
    let (repeats, _) = Counter::start(&kafka, false).finish(daemon.metric("belayd_readings_stored_total") as u64);
    let half = lag.len() / 2;
    let mean = |lag: &[f64]| lag.iter().sum::<f64>() / lag.len().max(1) as f64;
    vec![
        aimed("readings/s relayed", sent / took, AtLeast(50_000.0)),
        aimed("readings/s stored", stored / took, AtLeast(50_000.0)),
        plain("readings on their way, mean of the first half", mean(&lag[..half])),
        plain("readings on their way, mean of the second half", mean(&lag[half..])),
        aimed("repeats in the topic", repeats as f64, AtMost(0.0)),
        plain("answer p99, ms", outcome.ms(0.99)),
        plain("daemon, % of a core", cpu),
        plain("RssAnon, MB", private as f64 / 1e6),
        plain("VmRSS, MB", resident as f64 / 1e6),
    ]
}

fn latency(bench: &mut Bench) -> Vec<Figure> {
    let Some((kafka, daemon)) = begin(bench) else { return Vec::new() };
    let counter = Counter::start(&kafka, true);
    let length = Duration::from_secs(bench.options.sustained_seconds);
    // A new broker makes its own topics at the first transaction, and each stream opens its producer once.
    setup::load(&daemon, 2, 10).open(50, WARM_UP);
    all_relayed(&daemon, Duration::from_secs(60));
    counter.latency.lock().expect("no panic").reset();
    let cpu = daemon.cpu();
    // The sender's own times: what is measured begins when a push is due, before its first byte is sent.
    let outcome = Load { dated: true, ..setup::load(&daemon, setup::SENDERS, 10) }.open(500, length);
    let cpu = (daemon.cpu() - cpu).as_secs_f64() / length.as_secs_f64() * 100.0;
    let (private, resident) = daemon.memory();
    all_relayed(&daemon, Duration::from_secs(60));
    let (repeats, latency) = counter.finish(daemon.metric("belayd_readings_stored_total") as u64);
    let ms = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    vec![
        aimed("push to consumer p99, ms", ms(0.99), AtMost(250.0)),
        plain("push to consumer p50, ms", ms(0.5)),
        plain("push to consumer, most, ms", ms(1.0)),
        plain("readings/s", outcome.readings_per_s()),
        plain("answer p99, ms", outcome.ms(0.99)),
        aimed("repeats in the topic", repeats as f64, AtMost(0.0)),
        plain("daemon, % of a core", cpu),
        plain("RssAnon, MB", private as f64 / 1e6),
        plain("VmRSS, MB", resident as f64 / 1e6),
    ]
}

fn outage(bench: &mut Bench, away: Duration) -> Vec<Figure> {
    let Some((mut kafka, daemon)) = begin(bench) else { return Vec::new() };
    let (reins, most) = (Arc::new(Reins::default()), Arc::new(AtomicU64::new(0)));
    let load = setup::load(&daemon, 8, 100);
    let pushing = {
        let reins = reins.clone();
        thread::spawn(move || load.open_under(50, away + Duration::from_secs(600), &reins))
    };
    let watch = |until: &mut dyn FnMut() -> bool| {
        while !until() {
            most.fetch_max(daemon.memory().1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(100));
        }
    };
    let warm = Instant::now() + WARM_UP;
    watch(&mut || Instant::now() >= warm);
    kafka.kill();
    let over = Instant::now() + away;
    watch(&mut || Instant::now() >= over);
    let waited = behind(&daemon);
    kafka.restart();
    let back = Instant::now();
    // Ingest goes on: caught up is when no more waits than comes in a second.
    watch(&mut || behind(&daemon) < 5_000.0 || back.elapsed() > Duration::from_secs(300));
    let caught_up = back.elapsed();
    reins.stop.store(true, Ordering::Relaxed);
    let outcome = pushing.join().expect("the generator failed");
    all_relayed(&daemon, Duration::from_secs(60));
    let (repeats, _) = Counter::start(&kafka, false).finish(daemon.metric("belayd_readings_stored_total") as u64);
    let aim = (away.as_secs_f64() * 120.0 / 600.0).max(10.0);
    vec![
        aimed("caught up after its return, s", caught_up.as_secs_f64(), AtMost(aim)),
        plain("readings that waited at its return", waited),
        plain("length of the outage, s", away.as_secs_f64()),
        aimed("repeats, % of the readings", repeats as f64 / outcome.accepted.max(1) as f64 * 100.0, AtMost(0.01)),
        plain("answer p99 over all of it, ms", outcome.ms(0.99)),
        plain("refused pushes", outcome.refused as f64),
        aimed("VmRSS, most, MB", most.load(Ordering::Relaxed) as f64 / 1e6, AtMost(RESIDENT_MB)),
    ]
}
