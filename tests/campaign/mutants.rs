//! Mutants: daemons that are broken on purpose. A campaign that does not find each of them proves nothing.

use std::{path::PathBuf, time::Duration};

use super::{
    kill,
    part::{Campaign, Part},
    power,
    world::{Plan, World},
};

/// Longest hunt for one mutant.
const HUNT: Duration = Duration::from_secs(90);

/// How a mutant is hunted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hunt {
    /// By power cuts.
    Power,
    /// By kill -9.
    Kill,
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
];

/// Hunts each mutant until it is caught; one that gets away is a failure of the campaign.
pub fn run(campaign: &Campaign, part: &mut Part) {
    let shim = power::shim(part);
    let inside = cfg!(feature = "fault-injection") && std::env::var_os("BELAYD_TEST_BINARY").is_none();
    for (number, mutant) in MUTANTS.iter().enumerate() {
        if mutant.journal && super::tier().name != "journal" {
            part.left_out.push(format!("{}: only the journal has it", mutant.name));
        } else if mutant.inside && !inside {
            part.left_out.push(format!("{}: the daemon is built without fault-injection", mutant.name));
        } else if mutant.hunt == Hunt::Power && shim.is_none() {
            part.left_out.push(format!("{}: no layer", mutant.name));
        } else {
            hunt(campaign, part, number as u64, mutant, shim.as_ref());
        }
    }
}

fn hunt(campaign: &Campaign, part: &mut Part, number: u64, mutant: &Mutant, shim: Option<&PathBuf>) {
    let mut trial = part.trial(1_000, HUNT);
    for history in 0.. {
        if !trial.goes_on() || !trial.failures.is_empty() {
            break;
        }
        let mut dice = part.dice(campaign, number << 16 | history);
        trial.attempt(mutant.name, |trial| match (mutant.hunt, shim) {
            (Hunt::Power, Some(shim)) => power::history_of(shim, None, mutant.env, 8, trial, &mut dice).1,
            _ => {
                let env = mutant.env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
                let mut world = World::start(dice.next(), &Plan { env, ..Plan::default() });
                kill::cycles(&mut world, 10, trial, &mut dice)
            }
        });
    }
    match trial.failures.first() {
        // A layer that does not see all that is done finds fault with everybody.
        Some(how) if how.contains(power::BLIND) => part.failed(format!("{}: nothing is proved, {}", mutant.name, short(how)), None),
        Some(how) => {
            part.fault("mutants caught");
            let how = short(how.strip_prefix(mutant.name).unwrap_or(how).trim_start_matches(": "));
            part.notes.push(format!("{}: caught after {} faults: {how}", mutant.name, trial.done));
        }
        None if super::INTERRUPTED.load(std::sync::atomic::Ordering::Relaxed) => {
            part.left_out.push(format!("{}: the campaign was ended early", mutant.name));
        }
        None => part.failed(format!("{}: NOT caught by {} faults", mutant.name, trial.done), None),
    }
}

/// Enough of a finding to see what it is.
fn short(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().chars().take(200).collect()
}
