//! kill -9 at random moments, also while it starts, on both databases; the senders never stop.

use std::{thread, time::Duration};

use super::{
    database::Database,
    dice::Dice,
    part::{Campaign, Part},
    world::{Plan, World},
};
use crate::support::postgres::{Postgres, is_installed};

/// Cycles on one directory; then everything is compared and a new one is begun.
const HISTORY: u64 = 50;

/// Until the part is over: one directory after another.
pub fn run(campaign: &Campaign, part: &mut Part) {
    let postgres = is_installed().then(|| Postgres::start(&[]));
    if postgres.is_none() {
        part.left_out.push("PostgreSQL is not installed".into());
    }
    for history in 0.. {
        if !part.goes_on() {
            break;
        }
        let mut dice = part.dice(campaign, history);
        let mut plan = Plan::default();
        if let Some(server) = postgres.as_ref().filter(|_| history % 2 == 1) {
            let url = server.new_database(&format!("kill{history}"));
            plan.store_url.clone_from(&url);
            plan.database = Some(Database::Postgres(url));
        }
        part.attempt(&format!("history {history}"), |part| {
            let mut world = World::start(dice.next(), &plan);
            let result = cycles(&mut world, HISTORY, part, &mut dice);
            result.unwrap_or_else(|what| part.failed(format!("history {history}: {what}"), Some(&world)));
            Ok(())
        });
    }
}

/// One directory through some kills, and the comparison at the end.
///
/// # Errors
/// What was found, in words.
pub fn cycles(world: &mut World, count: u64, part: &mut Part, dice: &mut Dice) -> Result<(), String> {
    let load = world.load();
    for _ in 0..count {
        if !part.goes_on() {
            break;
        }
        thread::sleep(Duration::from_micros(dice.below(300_000)));
        world.daemon.kill();
        part.fault("kill -9 at work");
        while dice.one_in(6) {
            world.daemon.spawn();
            thread::sleep(Duration::from_micros(dice.below(150_000)));
            world.daemon.kill();
            part.fault("kill -9 while starting");
        }
        world.daemon.spawn();
        world.answers()?;
        part.recoveries.push(world.fresh()?);
    }
    load.stop();
    let verdict = world.verify_clean()?;
    part.compared(&verdict);
    Ok(())
}
