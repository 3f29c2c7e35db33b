//! The database goes away and comes back; the network on either side of the daemon turns bad; the daemon itself is halted.
//!
//! `postgres`: killed, crashed, stopped or frozen, and started again. `network`: a proxy between senders and daemon and one between
//! daemon and database cut, delay, half-close, throttle and swallow. `pause`: SIGSTOP and SIGCONT. Now and then the daemon is killed in
//! the middle of it.

use std::{sync::atomic::Ordering, thread, time::Duration};

use super::{
    database::Database,
    dice::Dice,
    part::{Campaign, Part},
    world::{Plan, World},
};
use crate::support::{
    postgres::{Postgres, is_installed},
    proxy::{Mood, Proxy},
};

/// Faults on one directory.
const HISTORY: u64 = 12;

/// The database goes away.
pub fn postgres(campaign: &Campaign, part: &mut Part) {
    if !is_installed() {
        part.left_out.push("PostgreSQL is not installed".into());
        return;
    }
    let mut server = Postgres::start(&[]);
    histories(campaign, part, |part, dice, history| {
        let url = server.new_database(&format!("outage{history}"));
        let plan = Plan { store_url: url.clone(), database: Some(Database::Postgres(url)), ..Plan::default() };
        let mut world = World::start(dice.next(), &plan);
        let load = world.load();
        let mut act = || {
            for _ in 0..HISTORY {
                if !part.goes_on() {
                    break;
                }
                thread::sleep(Duration::from_millis(dice.below(400)));
                // Now and then twice 6 s: longer than a silent database is taken for a slow one.
                let away = Duration::from_millis(if dice.one_in(25) { 6_000 } else { dice.below(1_200) });
                let kind = dice.below(4);
                match kind {
                    0 => server.kill(),
                    1 => server.crash(),
                    2 => server.stop(),
                    _ => server.freeze(true),
                }
                // What was committed just before is still on its way to the senders.
                thread::sleep(Duration::from_millis(100));
                let before = world.oracle.acknowledged.load(Ordering::Relaxed);
                thread::sleep(away);
                if dice.one_in(4) {
                    world.daemon.kill();
                    world.daemon.spawn();
                    part.count("daemon killed meanwhile", 1);
                }
                thread::sleep(away);
                let after = world.oracle.acknowledged.load(Ordering::Relaxed);
                part.count("acknowledged while it was away", after - before);
                if kind == 3 {
                    server.freeze(false)
                } else {
                    server.restart()
                }
                part.fault(["PostgreSQL killed", "PostgreSQL crashed", "PostgreSQL stopped", "PostgreSQL frozen"][kind as usize]);
                world.answers()?;
                part.recoveries.push(world.fresh()?);
            }
            Ok(())
        };
        let result: Result<(), String> = act();
        load.stop();
        end(part, world, result)
    });
}

/// The network turns bad.
pub fn network(campaign: &Campaign, part: &mut Part) {
    let server = is_installed().then(|| Postgres::start(&[]));
    if server.is_none() {
        part.left_out.push("the network between daemon and database, because PostgreSQL is not installed".into());
    }
    histories(campaign, part, |part, dice, history| {
        let mut plan = Plan { senders: 6, ..Plan::default() };
        let mut behind = None;
        if let Some(server) = &server {
            let url = server.new_database(&format!("network{history}"));
            let proxy = Proxy::start(&format!("127.0.0.1:{}", server.port()));
            plan.store_url = url.replace(&format!("127.0.0.1:{}", server.port()), &proxy.address);
            plan.database = Some(Database::Postgres(url));
            behind = Some(proxy);
        }
        let mut world = World::start(dice.next(), &plan);
        let before = Proxy::start(&world.target.address);
        let direct = world.target.clone();
        world.target.address.clone_from(&before.address);
        let load = world.load();
        let mut act = || {
            for _ in 0..HISTORY {
                if !part.goes_on() {
                    break;
                }
                thread::sleep(Duration::from_millis(dice.below(200)));
                let behind = behind.as_ref().filter(|_| dice.one_in(2));
                let proxy = behind.unwrap_or(&before);
                let length = Duration::from_millis(100 + dice.below(700));
                let what = worsen(proxy, dice);
                thread::sleep(length);
                if dice.one_in(6) {
                    world.daemon.kill();
                    world.daemon.spawn();
                    part.count("daemon killed meanwhile", 1);
                }
                proxy.set(Mood::Good);
                // What hangs half-closed or swallowed is not what is tried; it ends by the next fault or by its own time-out.
                if dice.one_in(2) {
                    proxy.cut();
                }
                part.fault(what);
                part.count(if behind.is_some() { "towards the database" } else { "towards the senders" }, 1);
                world.answers()?;
                part.recoveries.push(world.fresh()?);
            }
            Ok(())
        };
        let result: Result<(), String> = act();
        load.stop();
        world.target = direct;
        end(part, world, result)
    });
}

fn worsen(proxy: &Proxy, dice: &mut Dice) -> &'static str {
    let (mood, what) = match dice.below(7) {
        0 => {
            proxy.cut();
            return "connections cut";
        }
        1 => (Mood::Refuse, "connections cut and refused"),
        2 => (Mood::Delay(Duration::from_millis(20 + dice.below(300))), "delayed"),
        3 => (Mood::Throttle(2_000 + dice.below(50_000)), "throttled"),
        4 => (Mood::Swallow, "swallowed"),
        5 => (Mood::HalfCloseThere, "half-closed towards the server"),
        _ => (Mood::HalfCloseBack, "half-closed towards the client"),
    };
    proxy.set(mood);
    what
}

/// The daemon is halted and goes on.
pub fn pause(campaign: &Campaign, part: &mut Part) {
    histories(campaign, part, |part, dice, _| {
        let mut world = World::start(dice.next(), &Plan::default());
        let load = world.load();
        let mut act = || {
            for _ in 0..HISTORY {
                if !part.goes_on() {
                    break;
                }
                thread::sleep(Duration::from_millis(dice.below(200)));
                world.daemon.signal(libc::SIGSTOP);
                // Now and then longer than the senders wait for an answer.
                let length = if dice.one_in(8) { 4_500 } else { 20 + dice.below(800) };
                thread::sleep(Duration::from_millis(length));
                world.daemon.signal(libc::SIGCONT);
                part.fault("SIGSTOP and SIGCONT");
                part.recoveries.push(world.fresh()?);
            }
            Ok(())
        };
        let result: Result<(), String> = act();
        load.stop();
        end(part, world, result)
    });
}

/// A network that is cut off in one way or another.
pub fn part(proxy: &Proxy, dice: &mut Dice) {
    match dice.below(5) {
        0 => proxy.cut(),
        1 => proxy.set(Mood::Refuse),
        2 => proxy.set(Mood::HalfCloseThere),
        3 => proxy.set(Mood::HalfCloseBack),
        _ => proxy.set(Mood::Swallow),
    }
}

/// One history after another until the part is over.
pub fn histories(campaign: &Campaign, part: &mut Part, mut act: impl FnMut(&mut Part, &mut Dice, u64) -> Result<(), String>) {
    for history in 0.. {
        if !part.goes_on() {
            break;
        }
        let mut dice = part.dice(campaign, history);
        part.attempt(&format!("history {history}"), |part| act(part, &mut dice, history));
    }
}

/// The comparison at the end of a history.
pub fn end(part: &mut Part, mut world: World, result: Result<(), String>) -> Result<(), String> {
    match result.and_then(|()| world.verify_clean()) {
        Ok(verdict) => part.compared(&verdict),
        Err(what) => part.failed(what, Some(&world)),
    }
    Ok(())
}
