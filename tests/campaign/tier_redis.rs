//! Tiers redis and triple in turn: Redis is killed, stopped, frozen, slowed or cut off and comes back, while the daemon is killed or halted now
//! and then.
//!
//! Redis syncs before it answers (`appendfsync always`), so nothing that was acknowledged may be lost; meanwhile readings go to the journal
//! and nothing may be stored twice. Where Kafka can be had, readings are relayed too and counted there.

use std::{thread, time::Duration};

use super::{
    broker::Broker,
    database::Database,
    dice::Dice,
    outage::{self, histories},
    part::{Campaign, Part},
    relay,
    world::{Plan, Tier, World},
};
use crate::support::{
    postgres::{Postgres, is_installed},
    proxy::{Mood, Proxy},
    redis::{self, Redis},
};

/// Faults on one directory.
const HISTORY: u64 = 8;

/// Until the part is over: one directory after another.
pub fn run(campaign: &Campaign, part: &mut Part) {
    if !redis::is_installed() {
        part.left_out.push("redis-server is not installed (tests/run installs it)".into());
        return;
    }
    if !is_installed() {
        part.left_out.push("PostgreSQL is not installed".into());
        return;
    }
    let server = Postgres::start(&[]);
    let broker = Broker::start(part);
    histories(campaign, part, |part, dice, history| {
        let mut redis = Redis::start(&["--appendfsync always"]);
        let proxy = Proxy::start(&format!("127.0.0.1:{}", redis.port()));
        let plan = Plan {
            tier: Some(if history % 2 == 0 { Tier::REDIS } else { Tier::TRIPLE }),
            more: format!("[redis]\nurl = \"redis://{}\"\ntimeout = \"500ms\"\n", proxy.address),
            pause: relay::PAUSE,
            ..Plan::default()
        };
        let name = format!("redis{history}");
        let (mut world, consumer) = match &broker {
            Some(broker) => {
                let (world, consumer) = relay::lay_out((broker, &server), &name, plan, false, dice)?;
                (world, Some(consumer))
            }
            None => {
                let url = server.new_database(&name);
                let plan = Plan { store_url: url.clone(), database: Some(Database::Postgres(url)), ..plan };
                (World::start(dice.next(), &plan), None)
            }
        };
        world.uses_redis()?;
        let load = world.load();
        let mut act = || {
            for _ in 0..HISTORY {
                if !part.goes_on() {
                    break;
                }
                thread::sleep(Duration::from_millis(dice.below(600)));
                let what = bad(&mut redis, &proxy, dice);
                thread::sleep(Duration::from_millis(if dice.one_in(12) { 12_000 } else { dice.below(1_500) }));
                if dice.one_in(4) {
                    relay::trouble(&mut world, dice);
                    part.count("daemon killed or halted meanwhile", 1);
                }
                proxy.set(Mood::Good);
                proxy.cut();
                redis.freeze(false);
                if !redis.is_running() {
                    redis.restart();
                }
                part.fault(what);
                world.answers()?;
                part.recoveries.push(world.fresh()?);
                // Without this most faults would hit a Redis that is not used.
                world.uses_redis()?;
            }
            Ok(())
        };
        let result: Result<(), String> = act();
        load.stop();
        match consumer {
            Some(consumer) => relay::end(part, world, consumer, false, result),
            None => outage::end(part, world, result),
        }
    });
}

fn bad(redis: &mut Redis, proxy: &Proxy, dice: &mut Dice) -> &'static str {
    match dice.below(7) {
        0 | 1 => {
            redis.kill();
            "Redis killed"
        }
        2 => {
            redis.freeze(true);
            "Redis frozen"
        }
        3 => {
            redis.stop();
            "Redis restarted"
        }
        4 => {
            proxy.set(Mood::Delay(Duration::from_millis(20 + dice.below(800))));
            "Redis slowed"
        }
        5 => {
            proxy.set(Mood::Throttle(2_000 + dice.below(50_000)));
            "Redis slowed"
        }
        _ => {
            outage::part(proxy, dice);
            "Redis partitioned"
        }
    }
}
