//! Three instances as `examples/scale-out/run` starts them, by its own templates, of tiers redis and triple in turn: one is killed or halted for longer than its lease,
//! now and then while Redis or Kafka is killed or frozen too. Whatever dies is started again by the script.
//!
//! Senders go on at another instance when one does not answer. At the end every acknowledged reading is in PostgreSQL once, and every
//! stored one once in Kafka.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    broker::{self, Consumer},
    compare::{Numbers, compare},
    database::Database,
    dice::Dice,
    oracle::Oracle,
    outage::histories,
    part::{Campaign, Part},
    relay,
    sender::{Load, Target, fresh},
};
use crate::support::{
    client::Client,
    scaled::{Scaled, is_possible},
};

/// Faults on one set-up.
const HISTORY: u64 = 8;
/// Longest wait for readings to pass, or all to be there again: Kafka's own start is part of it.
const AGAIN: Duration = Duration::from_secs(120);

/// Where the senders go.
fn target(scaled: &Scaled) -> Target {
    let (address, token) = scaled.instance(0, "ingest");
    Target { address, token, others: vec![scaled.instance(1, "ingest"), scaled.instance(2, "ingest")], level: "journal" }
}

/// All three are ready and hold nothing any more, and their accounts add up.
fn settled(scaled: &Scaled) -> Result<(), String> {
    let until = Instant::now() + AGAIN;
    let mut last = String::new();
    for n in 0..3 {
        let (address, token) = scaled.instance(n, "admin");
        loop {
            let (ready, buffer) = (get(&address, &token, "/readyz"), get(&address, &token, "/admin/buffer"));
            if ready["checks"]["conservation"] == "failed" {
                return Err(format!("conservation is violated: {buffer} {ready}"));
            }
            if ready["state"] == "ready" && buffer["total"]["buffered"] == 0 {
                let lost: u64 = ["quarantined", "lost"].iter().filter_map(|part| buffer["total"][part].as_u64()).sum();
                if lost > 0 {
                    return Err(format!("instance {n} says that {lost} readings are lost: {buffer}"));
                }
                break;
            }
            if Instant::now() > until {
                return Err(format!("instance {n} is not drained and ready within {AGAIN:?}: {buffer} {ready} {last}"));
            }
            last = scaled.log();
            thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}

fn get(address: &str, token: &str, path: &str) -> Value {
    Client::new(address, token).get(path).json()
}

/// Until the part is over: one set-up after another.
pub fn run(campaign: &Campaign, part: &mut Part) {
    if !is_possible() {
        part.left_out.push("PostgreSQL, Redis or Kafka is missing (tests/run gets them)".into());
        return;
    }
    if !broker::is_there(part) {
        return;
    }
    histories(campaign, part, |part, dice, nth| {
        let scaled = Scaled::start(if nth % 2 == 0 { "redis" } else { "triple" })?;
        if let Err(what) = history(&scaled, part, dice) {
            part.failed(format!("{what}\nkept: {}", scaled.keep().display()), None);
        }
        Ok(())
    });
}

fn history(scaled: &Scaled, part: &mut Part, dice: &mut Dice) -> Result<(), String> {
    let target = target(scaled);
    let oracle = Arc::new(Oracle::new(dice.next(), 7, &scaled.dir().join("oracle")));
    let database = Database::Postgres(scaled.text("/postgres/url"));
    let load = Load::start(&oracle, &target, relay::PAUSE);
    let mut may_repeat = false;
    for _ in 0..HISTORY {
        if !part.goes_on() {
            break;
        }
        thread::sleep(Duration::from_millis(dice.below(1_000)));
        let instance = format!("/instances/{}/pid", dice.below(3));
        let beside = if dice.one_in(3) { Some(beside(scaled, part, dice, &mut may_repeat)?) } else { None };
        if dice.one_in(2) {
            scaled.signal(&instance, libc::SIGKILL)?;
            part.fault("an instance killed");
        } else {
            scaled.signal(&instance, libc::SIGSTOP)?;
            // Longer than every lease, most often.
            thread::sleep(Duration::from_millis(if dice.one_in(4) { dice.below(9_000) } else { 12_000 }));
            scaled.signal(&instance, libc::SIGCONT)?;
            part.fault("an instance halted");
        }
        if let Some(frozen) = beside.flatten() {
            thread::sleep(Duration::from_millis(dice.below(2_000)));
            scaled.signal(frozen, libc::SIGCONT)?;
        }
        part.recoveries.push(fresh(&oracle, &target, "relay", AGAIN).map_err(|error| format!("{error}\n{}", scaled.log()))?);
    }
    load.stop();
    settled(scaled)?;
    let verdict = compare(&oracle, &database, Numbers::MayChange)?;
    let refusals = oracle.refusals.lock().map(|refusals| refusals.clone()).unwrap_or_default();
    if !verdict.is_clean() || !refusals.is_empty() {
        return Err(format!("{verdict}; answers that no sender should get: {}", refusals.join("; ")));
    }
    let consumer = Consumer::start(&scaled.text("/kafka/brokers"), "engine", None)?;
    let relayed = broker::compare(consumer, &database, may_repeat)?;
    part.compared(&verdict);
    relay::counted(part, &relayed);
    Ok(())
}

/// Something happens to Redis or Kafka at the same time. Returns what was frozen.
fn beside(scaled: &Scaled, part: &mut Part, dice: &mut Dice, may_repeat: &mut bool) -> Result<Option<&'static str>, String> {
    let (path, killed, frozen) = if dice.one_in(2) {
        ("/redis/pid", "Redis killed beside", "Redis frozen beside")
    } else {
        *may_repeat = true;
        ("/kafka/pid", "Kafka killed beside", "Kafka frozen beside")
    };
    if dice.one_in(2) {
        scaled.signal(path, libc::SIGKILL)?;
        part.count(killed, 1);
        return Ok(None);
    }
    scaled.signal(path, libc::SIGSTOP)?;
    part.count(frozen, 1);
    Ok(Some(path))
}
