//! How many readings a second one core reads out of bodies: `cargo bench --bench parse [-- ROUNDS]`.
//!
//! The forms take turns round by round, so that a busy neighbour slows all of them alike; the median of the rounds is printed.
#![allow(clippy::print_stdout)]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use belayd::{
    clock::{ArrivalClock, SystemClock},
    config::ReadingsConfig,
    ingest::parse::{BodyKind, ParseContext, parse_body},
};

/// How long one form is measured in one round.
const TURN: Duration = Duration::from_millis(150);

struct Form {
    name: &'static str,
    kind: BodyKind,
    items: u32,
    body: String,
    rates: Vec<f64>,
}

fn reading(n: usize) -> String {
    let (temperature, rpm, pressure) = (250.0 + (n % 997) as f64 * 0.125, 4000 + n % 3989, 28.5 + (n % 83) as f64 * 0.01);
    let fuel_flow = 1.0 + (n % 131) as f64 / 97.0;
    format!(
        r#"{{"engineId":"engine-{:03}","timestamp":"{}","status":"running","temperature":{temperature},"rpm":{rpm},"pressure":{pressure:.2},"fuelFlow":{fuel_flow:.4}}}"#,
        n % 200,
        chrono::DateTime::from_timestamp_micros(started_us() + n as i64 * 1_013).unwrap_or_default().format("%FT%T%.6fZ"),
    )
}

fn started_us() -> i64 {
    chrono::Utc::now().timestamp_micros() - 60_000_000
}

fn bare(n: usize) -> String {
    format!(r#"{{"engineId":"e{}","rpm":{}}}"#, n % 200, 4000 + n % 3989)
}

fn form(name: &'static str, kind: BodyKind, items: u32, reading: impl Fn(usize) -> String) -> Form {
    let all: Vec<_> = (0..items as usize).map(reading).collect();
    let body = match kind {
        BodyKind::Ndjson => all.join("\n") + "\n",
        BodyKind::Json if items == 1 => all.concat(),
        BodyKind::Json => format!("[{}]", all.join(",")),
    };
    Form { name, kind, items, body, rates: Vec::new() }
}

fn main() {
    let rounds = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(7usize);
    let limits = ReadingsConfig {
        max_ahead: Duration::from_secs(86_400),
        max_behind: Duration::from_secs(315_360_000),
        ranges: Default::default(),
        max_engines: 1_000,
    };
    let arrival = ArrivalClock::new(Arc::new(SystemClock));
    let with_extra = |n| format!("{},\"oil\":{}.5,\"vibration\":0.0{}}}", reading(n).trim_end_matches('}'), n % 90, 1 + n % 9);
    let mut forms = [
        form("single", BodyKind::Json, 1, reading),
        form("array of 100", BodyKind::Json, 100, reading),
        form("array of 1000", BodyKind::Json, 1_000, reading),
        form("NDJSON, 1000 lines", BodyKind::Ndjson, 1_000, reading),
        form("array of 100, two further metrics", BodyKind::Json, 100, with_extra),
        form("array of 100, id and rpm only", BodyKind::Json, 100, bare),
    ];
    for _ in 0..rounds {
        for form in &mut forms {
            let started = Instant::now();
            let mut readings = 0u64;
            while started.elapsed() < TURN {
                for _ in 0..(2_000 / form.items).max(1) {
                    let parsed = parse_body(form.kind, form.body.as_bytes(), &ParseContext::new(&limits, &arrival));
                    readings += black_box(parsed).map_or(0, |parsed| u64::from(parsed.batch.len()));
                }
            }
            form.rates.push(readings as f64 / started.elapsed().as_secs_f64());
        }
    }
    println!("{:<36} {:>14} {:>10} {:>12}", "form (median of the rounds)", "readings/s", "MB/s", "bytes each");
    for form in &mut forms {
        form.rates.sort_by(f64::total_cmp);
        let median = form.rates[form.rates.len() / 2];
        let bytes_each = form.body.len() as f64 / f64::from(form.items);
        println!("{:<36} {median:>14.0} {:>10.0} {bytes_each:>12.0}", form.name, median * bytes_each / 1e6);
    }
}
