//! Mutants: daemons that are broken on purpose. A campaign that does not find each of them proves nothing.

use std::{path::PathBuf, time::Duration};

use super::{
    broker::Broker,
    kill, messages,
    part::{Campaign, Part},
    power, relay,
    world::{self, Plan, World},
};
use crate::support::postgres::{Postgres, is_installed};

/// Longest hunt for one mutant.
const HUNT: Duration = Duration::from_secs(90);

/// Most faults of a hunt by messages, in one history.
const MESSAGES_FAULTS: u64 = 20;

/// What proves that a daemon is broken, in the first line of a finding: a comparison that does not hold (with the database, with Kafka,
/// with what receivers heard), an account that does not, a process that ended by itself. Whatever else ends a hunt, a silence or a time
/// limit, a slow machine does to a daemon that is whole, and no mutant is caught by it.
const PROOFS: &[&str] =
    &[" given up; ", " never committed, ", " are wrong: ", "conservation is violated", world::ENDED_ITSELF, world::HAS_ENDED];

/// How a mutant is hunted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hunt {
    /// By power cuts.
    Power,
    /// By kill -9.
    Kill,
    /// By transactions that are rolled back, seen by a consumer of Kafka; only in the long round, or by its name.
    Rollback,
    /// By messages of three instances; only in the long round, or by its name. The database does the harm.
    Messages(messages::Harm),
}

impl Hunt {
    /// Whether it takes its time.
    fn is_long(self) -> bool {
        matches!(self, Self::Rollback | Self::Messages(_))
    }
}

struct Mutant {
    name: &'static str,
    hunt: Hunt,
    env: &'static [(&'static str, &'static str)],
    /// Needs a daemon with the feature `fault-injection`.
    inside: bool,
    /// Only the journal has it.
    journal: bool,
}

const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "syncs of files do nothing (layer, whole directory)",
        hunt: Hunt::Power,
        env: &[("CUT_LIE", "files"), ("CUT_LIE_ROOT", "{data}")],
        inside: false,
        journal: false,
    },
    Mutant {
        name: "syncs of the journal's files do nothing (layer)",
        hunt: Hunt::Power,
        env: &[("CUT_LIE", "files"), ("CUT_LIE_ROOT", "{data}/journal")],
        inside: false,
        journal: true,
    },
    Mutant {
        name: "syncs of directories do nothing (layer)",
        hunt: Hunt::Power,
        env: &[("CUT_LIE", "directories"), ("CUT_LIE_ROOT", "{data}")],
        inside: false,
        journal: true,
    },
    Mutant {
        name: "the journal does not sync (daemon)",
        hunt: Hunt::Power,
        env: &[("BELAYD_FAULT", "no-sync")],
        inside: true,
        journal: true,
    },
    Mutant {
        name: "the journal does not sync its directory (daemon)",
        hunt: Hunt::Power,
        env: &[("BELAYD_FAULT", "no-dir-sync")],
        inside: true,
        journal: true,
    },
    Mutant {
        name: "the cursor moves outside the transaction (daemon)",
        hunt: Hunt::Kill,
        env: &[("BELAYD_FAULT", "cursor-outside")],
        inside: true,
        journal: false,
    },
    Mutant {
        name: "one row of each transaction is dropped (daemon)",
        hunt: Hunt::Kill,
        env: &[("BELAYD_FAULT", "drop-row")],
        inside: true,
        journal: false,
    },
    Mutant {
        name: "readings are relayed before they are committed (daemon)",
        hunt: Hunt::Rollback,
        env: &[("BELAYD_FAULT", "relay-early")],
        inside: true,
        journal: false,
    },
    Mutant {
        name: "messages of which nobody knows are sent again (database)",
        hunt: Hunt::Messages(messages::Harm::SentAgain),
        env: &[],
        inside: false,
        journal: false,
    },
    Mutant {
        name: "messages of which nobody knows are called sent (database)",
        hunt: Hunt::Messages(messages::Harm::CalledSent),
        env: &[],
        inside: false,
        journal: false,
    },
];

/// Hunts each mutant until it is caught; one that gets away is a failure of the campaign.
pub fn run(campaign: &Campaign, part: &mut Part) {
    let shim = power::shim(part);
    let mut servers = None;
    let inside = cfg!(feature = "fault-injection") && std::env::var_os("BELAYD_TEST_BINARY").is_none();
    let named = std::env::args().skip_while(|arg| arg != "--mutant").nth(1);
    let takes_part = |mutant: &Mutant| match &named {
        Some(named) => mutant.name.contains(named.as_str()),
        None => campaign.long || !mutant.hunt.is_long(),
    };
    for (number, mutant) in MUTANTS.iter().enumerate().filter(|(_, mutant)| takes_part(mutant)) {
        if mutant.journal && super::tier().name != "journal" {
            part.left_out.push(format!("{}: only the journal has it", mutant.name));
        } else if mutant.inside && !inside {
            part.left_out.push(format!("{}: the daemon is built without fault-injection", mutant.name));
        } else if mutant.hunt == Hunt::Power && shim.is_none() {
            part.left_out.push(format!("{}: no layer", mutant.name));
        } else if matches!(mutant.hunt, Hunt::Messages(_)) && !is_installed() {
            part.left_out.push(format!("{}: PostgreSQL is not installed", mutant.name));
        } else {
            let relays = mutant.hunt == Hunt::Rollback;
            if relays && servers.is_none() {
                servers = relay::servers(part);
            }
            if relays && servers.is_none() {
                part.left_out.push(format!("{}: no Kafka", mutant.name));
                continue;
            }
            hunt(campaign, part, number as u64, mutant, (shim.as_ref(), servers.as_ref()));
        }
    }
}

fn hunt(
    campaign: &Campaign,
    part: &mut Part,
    number: u64,
    mutant: &Mutant,
    (shim, servers): (Option<&PathBuf>, Option<&(Broker, Postgres)>),
) {
    let most = if matches!(mutant.hunt, Hunt::Messages(_)) { MESSAGES_FAULTS } else { 1_000 };
    let mut trial = part.trial(most, HUNT);
    let mut nothing_proved = Vec::new();
    for history in 0.. {
        if !trial.goes_on() || !trial.failures.is_empty() {
            break;
        }
        let mut dice = part.dice(campaign, number << 16 | history);
        let env = mutant.env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let plan = Plan { env, ..Plan::default() };
        let name = format!("mutant{number}_{history}");
        trial.attempt(mutant.name, |trial| match (mutant.hunt, shim, servers) {
            (Hunt::Power, Some(shim), _) => power::history_of(shim, None, mutant.env, 8, trial, &mut dice).1,
            (Hunt::Rollback, _, Some((broker, server))) => relay::refusals((broker, server), &name, 2, plan, trial, &mut dice),
            (Hunt::Messages(harm), ..) => messages::history(trial, &mut dice, 1, Some(harm)),
            _ => kill::cycles(&mut World::start(dice.next(), &plan), 10, trial, &mut dice),
        });
        let (proofs, others) = std::mem::take(&mut trial.failures).into_iter().partition(|how| proves(how));
        trial.failures = proofs;
        let others: Vec<String> = others;
        nothing_proved.extend(others.iter().map(|how| without_name(mutant, how)));
    }
    if let Some(how) = nothing_proved.first() {
        let text = format!("{}: {} histories ended otherwise, which proves nothing: {how}", mutant.name, nothing_proved.len());
        println!("{text}");
        part.notes.push(text);
    }
    match trial.failures.first() {
        // A layer that does not see all that is done finds fault with everybody.
        Some(how) if how.contains(power::BLIND) => part.failed(format!("{}: nothing is proved, {}", mutant.name, short(how)), None),
        Some(how) => {
            part.fault("mutants caught");
            let how = without_name(mutant, how);
            part.notes.push(format!("{}: caught after {} faults: {how}", mutant.name, trial.done));
        }
        None if super::INTERRUPTED.load(std::sync::atomic::Ordering::Relaxed) => {
            part.left_out.push(format!("{}: the campaign was ended early", mutant.name));
        }
        None => part.failed(format!("{}: NOT caught by {} faults", mutant.name, trial.done), None),
    }
}

/// See [`PROOFS`]. A layer that does not see all proves that nothing can be proved with it: that ends the hunt as well.
fn proves(how: &str) -> bool {
    let first = how.lines().next().unwrap_or_default();
    first.contains(power::BLIND) || PROOFS.iter().any(|proof| first.contains(proof))
}

/// A finding in short, without the name that the trial gave it.
fn without_name(mutant: &Mutant, how: &str) -> String {
    short(how.strip_prefix(mutant.name).unwrap_or(how).trim_start_matches(": "))
}

/// Enough of a finding to see what it is.
fn short(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().chars().take(200).collect()
}
