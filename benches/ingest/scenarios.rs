//! The scenarios, in the order in which they are printed.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Options,
    daemon::{Daemon, Setup},
    load::{self, Pusher},
};

/// Runs every scenario that was asked for.
pub fn run(options: &Options) {
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| name == only || (only.len() > 6 && name.contains(only)));
    // Rounds are interleaved, so that a slow minute of the machine falls on all.
    let pushes = [("push-100", 16, 100), ("push-1000", 16, 1000), ("push-1", 16, 1), ("push-1-c64", 64, 1)];
    let mut figures: Vec<Vec<Throughput>> = vec![Vec::new(); pushes.len()];
    for _ in 0..options.rounds {
        for (slot, (name, connections, push)) in figures.iter_mut().zip(pushes) {
            if wanted(name) {
                slot.push(throughput(options, connections, push));
            }
        }
    }
    for (slot, (name, connections, push)) in figures.iter_mut().zip(pushes) {
        if !slot.is_empty() {
            slot.sort_by(|a, b| a.stored_per_s.total_cmp(&b.stored_per_s));
            let (low, middle, high) = (&slot[0], &slot[slot.len() / 2], &slot[slot.len() - 1]);
            println!(
                "{name}: {:.0} readings/s accepted and stored ({:.0} to {:.0}), {:.0} requests/s, pushes of {push} on {connections} connections; \
                 {} refused and sent again; daemon {:.0} % of a core; RssAnon {:.1} MB, VmRSS {:.1} MB",
                middle.stored_per_s,
                low.stored_per_s,
                high.stored_per_s,
                middle.requests_per_s,
                middle.refused,
                middle.cpu_percent,
                middle.private_mb,
                middle.resident_mb
            );
        }
    }
    if wanted("idle-memory") {
        idle_memory(options);
    }
    if wanted("memory") {
        memory(options);
    }
    if wanted("alert") {
        alert(options);
    }
}

fn start(options: &Options, more: &str) -> Daemon {
    let setup = Setup { log: "warn".into(), ..Setup::with(more) };
    options.store_url.iter().fold(setup, |setup, url| setup.store(url)).start()
}

#[derive(Clone, Debug)]
struct Throughput {
    stored_per_s: f64,
    requests_per_s: f64,
    refused: u64,
    cpu_percent: f64,
    private_mb: f64,
    resident_mb: f64,
}

/// Everything that was accepted is stored when the clock stops.
fn throughput(options: &Options, connections: usize, push: usize) -> Throughput {
    let daemon = start(options, "");
    let before = daemon.metric("belayd_readings_stored_total") as u64;
    let started = Instant::now();
    let cpu = daemon.cpu();
    let (totals, pushed) =
        load::closed_loop(&daemon.address, &daemon.token, connections, push, Duration::from_secs(options.seconds), "memory");
    let cpu = daemon.cpu() - cpu;
    let (private, resident) = daemon.memory();
    flush(&daemon);
    let elapsed = started.elapsed();
    let stored = daemon.drained() - before - 1;
    assert_eq!(stored, totals.accepted, "accepted and stored must be the same readings");
    Throughput {
        stored_per_s: stored as f64 / elapsed.as_secs_f64(),
        requests_per_s: totals.requests as f64 / pushed.as_secs_f64(),
        refused: totals.refused,
        cpu_percent: cpu.as_secs_f64() / pushed.as_secs_f64() * 100.0,
        private_mb: private as f64 / 1e6,
        resident_mb: resident as f64 / 1e6,
    }
}

/// Stores what waits now, by one reading whose sender waits for the database: a batch that is not full would wait for its time.
fn flush(daemon: &Daemon) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = daemon.post("/api/readings?ack=store", r#"{"engineId":"flush","rpm":1}"#);
        if answer.json()["ack"] == "store" {
            return;
        }
        // A load that has just ended may have left the buffer full.
        assert!(answer.status == 503 && Instant::now() < until, "{answer:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn idle_memory(options: &Options) {
    let daemon = start(options, "");
    thread::sleep(Duration::from_secs(5));
    let before = daemon.cpu();
    thread::sleep(Duration::from_secs(10));
    let (private, resident) = daemon.memory();
    let cpu = (daemon.cpu() - before).as_secs_f64() * 10.0;
    println!("idle-memory: RssAnon {:.1} MB, VmRSS {:.1} MB, {cpu:.1} % of a core", private as f64 / 1e6, resident as f64 / 1e6);
}

fn memory(options: &Options) {
    let daemon = start(options, "");
    let (address, token, length) = (daemon.address.clone(), daemon.token.clone(), Duration::from_secs(options.memory_seconds));
    let load = thread::spawn(move || load::open_loop(&address, &token, 16, 5_000, length));
    let before = daemon.cpu();
    let mut samples = Vec::new();
    for _ in 0..12 {
        thread::sleep(length / 12);
        samples.push(daemon.memory());
    }
    let cpu = (daemon.cpu() - before).as_secs_f64() / length.as_secs_f64() * 100.0;
    let (totals, latency) = load.join().expect("the generator failed");
    flush(&daemon);
    assert_eq!(daemon.drained(), totals.accepted + 1);
    let series: Vec<_> = samples.iter().map(|(private, _)| format!("{:.1}", *private as f64 / 1e6)).collect();
    println!(
        "memory: 5,000 single pushes/s for {} s: RssAnon MB over time {}; VmRSS {:.1} MB at the end; {cpu:.0} % of a core; answer p50 {} us, p99 {} us; {} refused",
        options.memory_seconds,
        series.join(" "),
        samples.last().map_or(0, |(_, resident)| *resident) as f64 / 1e6,
        latency.value_at_quantile(0.5),
        latency.value_at_quantile(0.99),
        totals.refused
    );
}

/// From the first byte of the breaking reading on its way to the notification's first byte at the receiver.
fn alert(options: &Options) {
    let receiver = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = receiver.local_addr().expect("bound").port();
    let (heard, arrivals) = mpsc::channel();
    thread::spawn(move || {
        for socket in receiver.incoming().flatten() {
            let heard = heard.clone();
            thread::spawn(move || receive_webhooks(socket, &heard));
        }
    });
    let more = format!("[[webhooks]]\nname = \"bench\"\nurl = \"http://127.0.0.1:{port}/\"\n[[routes]]\nsinks = [\"bench\"]\n");
    let daemon = start(options, &more);
    let (address, token, length) = (daemon.address.clone(), daemon.token.clone(), Duration::from_secs(options.seconds.max(20)));
    let load = thread::spawn(move || load::open_loop(&address, &token, 16, 5_000, length));
    let mut pusher = Pusher::new(&daemon.address, &daemon.token, 900, 1, "memory");
    let mut latency = load::histogram();
    let until = Instant::now() + length - Duration::from_secs(2);
    while Instant::now() < until {
        for (temperature, counts) in [("399", true), ("100", false)] {
            pusher.set_temperature(temperature);
            pusher.advance();
            let sent = Instant::now();
            pusher.send();
            assert_eq!(pusher.receive(), 202, "{}", pusher.last_answer());
            let arrived: Instant = arrivals.recv_timeout(Duration::from_secs(5)).expect("a notification arrives");
            if counts {
                latency.saturating_record(u64::try_from((arrived - sent).as_micros()).unwrap_or(u64::MAX));
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    let (totals, _) = load.join().expect("the generator failed");
    println!(
        "alert: {} breaking readings beside {} pushes at 5,000/s: reading sent to webhook socket p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        latency.len(),
        totals.requests,
        latency.value_at_quantile(0.5) as f64 / 1e3,
        latency.value_at_quantile(0.99) as f64 / 1e3,
        latency.max() as f64 / 1e3
    );
}

/// Answers every request with 204 and tells when its first byte came.
fn receive_webhooks(mut socket: std::net::TcpStream, heard: &mpsc::Sender<Instant>) {
    let mut buffer = vec![0; 64 * 1024];
    let mut length = 0;
    let mut first = None;
    loop {
        let Ok(read) = socket.read(&mut buffer[length..]) else { return };
        if read == 0 {
            return;
        }
        first.get_or_insert_with(Instant::now);
        length += read;
        let text = String::from_utf8_lossy(&buffer[..length]).to_ascii_lowercase();
        let Some(head) = text.find("\r\n\r\n") else { continue };
        let body =
            text[..head].lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok()).unwrap_or(0);
        if length >= head + 4 + body {
            let at = first.take().unwrap_or_else(Instant::now);
            // A busy machine raises alerts of its own beside those of the rule.
            if (text.contains("overheat") && heard.send(at).is_err())
                || socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err()
            {
                return;
            }
            length = 0;
        }
    }
}
