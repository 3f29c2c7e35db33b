//! What is measured.

use std::{
    process::Command,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use crate::{
    bare::bare,
    lists::lists,
    mail,
    report::{
        Aim::{self, AtLeast, AtMost, AtMostOnDisk, None as NoAim},
        Figure, Scenario, Sync, aimed, plain,
    },
    setup::{Bench, Database, ENQUEUE, Running, own_cpu},
};

/// Deliveries a second where their latency is measured.
const TRICKLE: u64 = 200;
/// Deliveries that are due at moments of their own.
const DUE: u64 = 200;

/// What the beginning of a send is aimed at.
const SOON: Aim = AtMostOnDisk(5.0, Sync::P99, 3.0, 3.0);

/// In the order in which they are printed.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "enqueue-sqlite",
        what: "1,000 a transaction, one writer, no outbox",
        once: false,
        run: |b| enqueue(b, Database::Sqlite),
    },
    Scenario { name: "enqueue-postgres", what: "the same", once: false, run: |b| enqueue(b, Database::Postgres) },
    Scenario {
        name: "drain-sqlite",
        what: "a backlog in 10,000 lanes, claimed, sent and settled",
        once: false,
        run: |b| drain(b, Database::Sqlite, None),
    },
    Scenario { name: "drain-postgres", what: "the same", once: false, run: |b| drain(b, Database::Postgres, None) },
    Scenario {
        name: "bare-sqlite",
        what: "the least of it: rows added in bulk, read in order and marked as sent; no leases, no fencing, no lanes",
        once: false,
        run: |b| bare(b, Database::Sqlite),
    },
    Scenario { name: "bare-postgres", what: "the same, by two workers", once: false, run: |b| bare(b, Database::Postgres) },
    Scenario {
        name: "settled-sqlite",
        what: "enqueued beside the outbox as fast as it goes, until all is settled",
        once: false,
        run: |b| settled(b, Database::Sqlite),
    },
    Scenario { name: "settled-postgres", what: "the same", once: false, run: |b| settled(b, Database::Postgres) },
    Scenario {
        name: "one-lane-sqlite",
        what: "a backlog in one lane: all of it in order",
        once: false,
        run: |b| drain(b, Database::Sqlite, Some(1)),
    },
    Scenario { name: "one-lane-postgres", what: "the same", once: false, run: |b| drain(b, Database::Postgres, Some(1)) },
    Scenario {
        name: "latency-sqlite",
        what: "200 a second, from before the transaction that enqueues to the beginning of the send",
        once: false,
        run: |b| latency(b, Database::Sqlite),
    },
    Scenario { name: "latency-postgres", what: "the same", once: false, run: |b| latency(b, Database::Postgres) },
    Scenario {
        name: "latency-other-process",
        what: "the same, enqueued by another process, on PostgreSQL",
        once: false,
        run: latency_other,
    },
    Scenario {
        name: "due-sqlite",
        what: "200 that are due at random moments, from that moment to the beginning of the send",
        once: false,
        run: |b| due(b, Database::Sqlite),
    },
    Scenario { name: "due-postgres", what: "the same", once: false, run: |b| due(b, Database::Postgres) },
    Scenario {
        name: "lists-sqlite",
        what: "pages of messages, failures, issues and alerts over 1,000,000 rows each",
        once: true,
        run: |b| lists(b, Database::Sqlite),
    },
    Scenario { name: "lists-postgres", what: "the same", once: true, run: |b| lists(b, Database::Postgres) },
    Scenario {
        name: "smtp",
        what: "a backlog of a tenth as many mails on SQLite, by the mail sink into a receiver in a process of its own",
        once: false,
        run: smtp,
    },
    Scenario { name: "idle-sqlite", what: "nothing to do", once: false, run: |b| idle(b, Database::Sqlite) },
    Scenario { name: "idle-postgres", what: "the same", once: false, run: |b| idle(b, Database::Postgres) },
];

fn a_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn enqueue(bench: &mut Bench, database: Database) -> Vec<Figure> {
    let place = bench.place(database);
    let count = bench.options.deliveries;
    let took = place.enqueue(count, None, || {});
    vec![aimed("deliveries enqueued a second", a_second(count, took), AtLeast(100_000.0))]
}

fn drain(bench: &mut Bench, database: Database, lanes: Option<u64>) -> Vec<Figure> {
    let place = bench.place(database);
    let count = bench.options.deliveries;
    place.enqueue(count, lanes, || {});
    let (cpu, server) = (own_cpu(), bench.server_cpu());
    let started = Instant::now();
    let running = place.start();
    running.wait_for(count);
    let took = started.elapsed();
    let aim = match (lanes, database) {
        (Some(_), _) => NoAim,
        (None, Database::Sqlite) => AtLeast(60_000.0),
        (None, Database::Postgres) => AtLeast(50_000.0),
    };
    let mut figures = vec![aimed("deliveries sent and settled a second", a_second(count, took), aim)];
    figures.extend(costs(bench, count, cpu, server));
    drop(running);
    assert_eq!(place.settled(), count, "each of them once, in {}", place.path().display());
    figures
}

fn costs(bench: &Bench, count: u64, cpu: Duration, server: Duration) -> [Figure; 2] {
    let each = |used: Duration| used.as_secs_f64() * 1e6 / count as f64;
    [
        plain("processor time of one here, us", each(own_cpu().saturating_sub(cpu))),
        plain("and in the server, us", each(bench.server_cpu().saturating_sub(server))),
    ]
}

fn settled(bench: &mut Bench, database: Database) -> Vec<Figure> {
    let place = bench.place(database);
    let count = bench.options.deliveries;
    let (cpu, server) = (own_cpu(), bench.server_cpu());
    let running = place.start();
    let started = Instant::now();
    place.enqueue(count, None, running.wake());
    let enqueued = started.elapsed();
    running.wait_for(count);
    let took = started.elapsed();
    let aim = if database == Database::Sqlite { 60_000.0 } else { 30_000.0 };
    let mut figures = vec![
        aimed("deliveries a second from enqueue to settled", a_second(count, took), AtLeast(aim)),
        plain("enqueued a second meanwhile", a_second(count, enqueued)),
    ];
    figures.extend(costs(bench, count, cpu, server));
    drop(running);
    assert_eq!(place.settled(), count, "each of them once");
    figures
}

fn quantiles(running: &Running, count: u64, aim: Aim) -> Vec<Figure> {
    running.wait_for(count);
    let latency = running.sink.latency.lock().expect("no panic");
    let ms = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    vec![plain("p50, ms", ms(0.5)), aimed("p99, ms", ms(0.99), aim), plain("longest, ms", ms(1.0))]
}

fn latency(bench: &mut Bench, database: Database) -> Vec<Figure> {
    let place = bench.place(database);
    let running = place.start();
    let count = TRICKLE * bench.options.seconds;
    place.trickle(count, TRICKLE, running.wake());
    quantiles(&running, count, SOON)
}

fn due(bench: &mut Bench, database: Database) -> Vec<Figure> {
    let place = bench.place(database);
    let running = place.start();
    place.schedule(DUE, Duration::from_secs(bench.options.seconds), running.wake());
    let mut figures = quantiles(&running, DUE, AtMost(1_000.0));
    figures.push(aimed("before their time", running.sink.early.load(Ordering::Relaxed) as f64, AtMost(0.0)));
    figures
}

fn latency_other(bench: &mut Bench) -> Vec<Figure> {
    let place = bench.place(Database::Postgres);
    let running = place.start();
    let count = TRICKLE * bench.options.seconds;
    let program = std::env::current_exe().expect("this program has a path");
    let args = [ENQUEUE.to_owned(), place.url.clone(), count.to_string(), TRICKLE.to_string()];
    let done = Command::new(program).args(args).status().expect("it runs once more");
    assert!(done.success(), "the other process failed");
    quantiles(&running, count, SOON)
}

fn smtp(bench: &mut Bench) -> Vec<Figure> {
    let place = bench.place(Database::Sqlite);
    let count = bench.options.deliveries / 10;
    place.enqueue_to("smtp", count, None, || {});
    let receiver = mail::Receiver::start();
    let (cpu, theirs, started) = (own_cpu(), receiver.cpu(), Instant::now());
    let running = receiver.start_outbox(&place);
    running.wait_for(count);
    let took = started.elapsed();
    let each = |used: Duration| used.as_secs_f64() * 1e6 / count as f64;
    let figures = vec![
        aimed("mails sent and settled a second", a_second(count, took), AtLeast(1_000.0)),
        plain("processor time of one here, us", each(own_cpu().saturating_sub(cpu))),
        plain("and in the receiver, us", each(receiver.cpu().saturating_sub(theirs))),
    ];
    drop(running);
    assert_eq!((place.settled(), receiver.end()), (count, count), "each of them once");
    figures
}

fn idle(bench: &mut Bench, database: Database) -> Vec<Figure> {
    let place = bench.place(database);
    let running = place.start();
    place.enqueue(1, None, running.wake());
    running.wait_for(1);
    thread::sleep(Duration::from_secs(1));
    let (cpu, server, started) = (own_cpu(), bench.server_cpu(), Instant::now());
    thread::sleep(Duration::from_secs(bench.options.seconds));
    let percent = |used: Duration| used.as_secs_f64() * 100.0 / started.elapsed().as_secs_f64();
    vec![
        aimed("of a core here, %", percent(own_cpu() - cpu), AtMost(0.5)),
        plain("and in the server, %", percent(bench.server_cpu().saturating_sub(server))),
    ]
}
