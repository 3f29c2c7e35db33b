//! The relay under faults: Kafka goes away, the network to it turns bad, transactions of the database are rolled back at random.
//!
//! In both an independent consumer of committed records counts in the end: every stored reading is in Kafka once, and nothing that is not
//! in the database. `kafka`: the broker killed, stopped, frozen, behind a bad network; the daemon killed and halted beside it or alone. A
//! repeat is allowed after faults of the broker alone, and below one in 10,000. `rollback`: PostgreSQL refuses commits for a while; the
//! consumer looks each record up the moment it sees it, so that what was relayed before its commit is found out.

use std::{thread, time::Duration};

use super::{
    broker::{self, Broker, Consumer},
    database::Database,
    dice::Dice,
    outage::{self, histories},
    part::{Campaign, Part},
    world::{Plan, Tier, World},
};
use crate::support::{
    postgres::{Postgres, is_installed},
    proxy::Mood,
    redis::{self, Redis},
    rows,
};

/// Faults on one directory.
const HISTORY: u64 = 6;
/// Pause of a sender: the faults are to hit a steady stream that a busy machine relays too, not to find out how much fits through.
pub const PAUSE: Duration = Duration::from_millis(100);

/// Both servers, where they are there; what is missing is said in the report.
pub fn servers(part: &mut Part) -> Option<(Broker, Postgres)> {
    if !is_installed() {
        part.left_out.push("PostgreSQL is not installed".into());
        return None;
    }
    Some((Broker::start(part)?, Postgres::start(&[])))
}

/// A daemon that stores in a new database and relays to a new topic, both called `name`, and the consumer of that topic.
pub fn lay_out(
    (broker, server): (&Broker, &Postgres),
    name: &str,
    plan: Plan,
    live: bool,
    dice: &mut Dice,
) -> Result<(World, Consumer), String> {
    let database = Database::Postgres(server.new_database(name));
    let Database::Postgres(url) = &database else { return Err("a server was asked for".into()) };
    let more = format!("{}{}", plan.more, broker.config(name));
    let plan = Plan { store_url: url.clone(), database: Some(database.clone()), more, fresh: "relay", pause: PAUSE, ..plan };
    let world = World::start(dice.next(), &plan);
    let consumer = Consumer::start(&broker.kafka.brokers(), name, live.then_some(database))?;
    Ok((world, consumer))
}

/// The end of a history with a relay: the usual comparison, and Kafka's.
pub fn end(
    part: &mut Part,
    mut world: World,
    consumer: Consumer,
    may_repeat: bool,
    result: Result<(), String>,
) -> Result<(), String> {
    let compared = result.and_then(|()| {
        let verdict = world.verify_clean()?;
        Ok((verdict, broker::compare(consumer, &world.database, may_repeat)?))
    });
    match compared {
        Ok((verdict, relayed)) => {
            part.compared(&verdict);
            counted(part, &relayed);
        }
        Err(what) => part.failed(what, Some(&world)),
    }
    Ok(())
}

/// Adds what Kafka holds to the report.
pub fn counted(part: &mut Part, relayed: &broker::Relayed) {
    part.count("records in Kafka", relayed.records);
    part.count("repeats in Kafka", relayed.repeats);
}

/// Kafka goes away.
pub fn kafka(campaign: &Campaign, part: &mut Part) {
    let Some((mut broker, server)) = servers(part) else { return };
    histories(campaign, part, |part, dice, history| {
        // Every third history leaves the broker alone: then there must be no repeat at all.
        let steady = history % 3 == 2;
        // And every second one is of tier triple.
        let redis = (history % 2 == 1 && redis::is_installed()).then(|| Redis::start(&["--appendfsync always"]));
        let plan = redis.as_ref().map_or_else(Plan::default, |redis| Plan {
            tier: Some(Tier::TRIPLE),
            more: format!("[redis]\nurl = \"{}\"\n", redis.url()),
            ..Plan::default()
        });
        let (mut world, consumer) = lay_out((&broker, &server), &format!("kafka{history}"), plan, false, dice)?;
        let load = world.load();
        let mut act = || {
            for _ in 0..HISTORY {
                if !part.goes_on() {
                    break;
                }
                thread::sleep(Duration::from_millis(dice.below(600)));
                let what = if steady || dice.one_in(4) {
                    trouble(&mut world, dice)
                } else {
                    let what = bad(&mut broker, dice);
                    // Now and then longer than a transaction lives.
                    thread::sleep(Duration::from_millis(if dice.one_in(12) { 12_000 } else { dice.below(2_000) }));
                    if dice.one_in(4) {
                        trouble(&mut world, dice);
                        part.count("daemon killed or halted meanwhile", 1);
                    }
                    good(&mut broker);
                    what
                };
                part.fault(what);
                world.answers()?;
                part.recoveries.push(world.fresh()?);
            }
            Ok(())
        };
        let result: Result<(), String> = act();
        load.stop();
        good(&mut broker);
        end(part, world, consumer, !steady, result)
    });
}

/// The daemon is killed, or halted and goes on.
pub fn trouble(world: &mut World, dice: &mut Dice) -> &'static str {
    if dice.one_in(2) {
        world.daemon.kill();
        world.daemon.spawn();
        return "belayd killed";
    }
    world.daemon.signal(libc::SIGSTOP);
    // Now and then longer than a lease, and than a transaction of Kafka lives.
    thread::sleep(Duration::from_millis(if dice.one_in(5) { 12_000 } else { 20 + dice.below(1_500) }));
    world.daemon.signal(libc::SIGCONT);
    "belayd halted"
}

/// Something happens to the broker or on the way to it.
fn bad(broker: &mut Broker, dice: &mut Dice) -> &'static str {
    match dice.below(7) {
        0 | 1 => {
            broker.kafka.kill();
            "Kafka killed"
        }
        2 => {
            broker.kafka.freeze(true);
            "Kafka frozen"
        }
        3 => {
            broker.kafka.stop();
            "Kafka restarted"
        }
        4 => {
            broker.proxy.set(Mood::Delay(Duration::from_millis(50 + dice.below(400))));
            "Kafka slowed"
        }
        5 => {
            broker.proxy.set(Mood::Throttle(5_000 + dice.below(100_000)));
            "Kafka slowed"
        }
        _ => {
            outage::part(&broker.proxy, dice);
            "Kafka partitioned"
        }
    }
}

/// Everything is well again.
fn good(broker: &mut Broker) {
    broker.proxy.set(Mood::Good);
    broker.proxy.cut();
    broker.kafka.freeze(false);
    if !broker.kafka.is_running() {
        broker.kafka.restart();
    }
}

/// Every drain's transaction ends with a row of the ledger; this refuses its commit by chance, as late as can be.
const REFUSAL: &str = "
    CREATE TABLE campaign_chance (chance float NOT NULL);
    INSERT INTO campaign_chance VALUES (0);
    CREATE SEQUENCE campaign_refused;
    CREATE FUNCTION campaign_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF random() < (SELECT chance FROM campaign_chance) THEN
                PERFORM nextval('campaign_refused');
                RAISE EXCEPTION 'rolled back on purpose' USING ERRCODE = 'serialization_failure';
            END IF;
            RETURN NULL;
        END $$;
    CREATE CONSTRAINT TRIGGER campaign_refuse AFTER INSERT ON batches DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION campaign_refuse();
";

/// Commits of the database are refused at random.
pub fn rollback(campaign: &Campaign, part: &mut Part) {
    let Some((broker, server)) = servers(part) else { return };
    histories(campaign, part, |part, dice, history| {
        refusals((&broker, &server), &format!("rollback{history}"), HISTORY, Plan::default(), part, dice)
    });
}

/// One directory through some times of refused commits, and the comparison at the end.
///
/// # Errors
/// What was found, in words.
pub fn refusals(
    servers: (&Broker, &Postgres),
    name: &str,
    count: u64,
    plan: Plan,
    part: &mut Part,
    dice: &mut Dice,
) -> Result<(), String> {
    let (mut world, consumer) = lay_out(servers, name, plan, true, dice)?;
    let url = servers.1.url(name);
    REFUSAL.split_inclusive(";\n").fold(String::new(), |mut statement, piece| {
        statement.push_str(piece);
        // A function's body has semicolons of its own; it stands between two signs.
        if statement.matches("$$").count() == 1 {
            return statement;
        }
        rows::execute(&url, &statement);
        String::new()
    });
    let load = world.load();
    let mut act = || {
        for _ in 0..count {
            if !part.goes_on() {
                break;
            }
            thread::sleep(Duration::from_millis(dice.below(300)));
            // Now and then every commit, for longer than the relay rests between two looks by itself.
            let (chance, length) =
                if dice.one_in(3) { (100, 2_500 + dice.below(1_500)) } else { (20 + dice.below(70), 300 + dice.below(1_200)) };
            rows::execute(&url, &format!("UPDATE campaign_chance SET chance = {chance} / 100.0"));
            thread::sleep(Duration::from_millis(length));
            if dice.one_in(3) {
                world.daemon.kill();
                world.daemon.spawn();
                part.count("daemon killed meanwhile", 1);
            }
            rows::execute(&url, "UPDATE campaign_chance SET chance = 0");
            part.fault("times of refused commits");
            world.answers()?;
            part.recoveries.push(world.fresh()?);
        }
        Ok(())
    };
    let result: Result<(), String> = act();
    load.stop();
    let refused = world.database.look()?.number("SELECT last_value AS n FROM campaign_refused")?;
    part.count("transactions rolled back", refused.unsigned_abs());
    end(part, world, consumer, false, result)
}
