//! Damage: between an end and a start a byte of the journal is flipped, or a segment is cut short. The daemon opens, says what it gave
//! up, and goes on.
//!
//! One directory is made with a journal of more than 1 MB that waits for the database; each trial begins with a copy of it.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::{
    compare::{Numbers, compare},
    dice::Dice,
    full::hold,
    part::{Campaign, Part},
    world::{Plan, World},
};

/// Trials on copies of one directory; then a new one is made.
const HISTORY: u64 = 100;
/// Readings that wait in the journal.
const BACKLOG: u64 = 20_000;
/// One damaged place may cost one frame: what the journal writes as one.
const FRAME_MAX: u64 = 4_096;

/// Until the part is over: one directory after another.
pub fn run(campaign: &Campaign, part: &mut Part) {
    if super::tier().name != "journal" {
        part.left_out.push("tier memory has no journal to damage".into());
        return;
    }
    for history in 0.. {
        if !part.goes_on() {
            break;
        }
        let mut dice = part.dice(campaign, history);
        part.attempt(&format!("history {history}"), |part| {
            let mut world = World::start(dice.next(), &Plan { senders: 6, ..Plan::default() });
            let image = backlog(&mut world)?;
            for trial in 0..HISTORY {
                if !part.goes_on() {
                    break;
                }
                restore(&mut world, &image)?;
                let (what, place) = harm(&world.daemon.dir().join("data/journal"), &mut dice)?;
                if let Err(found) = one(&mut world, what, part) {
                    part.failed(format!("history {history}, trial {trial}, {what} {place}: {found}"), Some(&world));
                }
                if world.daemon.is_running() {
                    world.daemon.kill();
                }
                part.fault(what);
            }
            let _ = fs::remove_dir_all(image);
            Ok(())
        });
    }
}

/// Makes readings wait, ends the daemon and copies what it leaves.
fn backlog(world: &mut World) -> Result<PathBuf, String> {
    world.fresh()?;
    let hold = hold(&world.daemon.dir().join("belayd.db"))?;
    let load = world.load();
    let until = Instant::now() + Duration::from_secs(30);
    while world.oracle.acknowledged.load(std::sync::atomic::Ordering::Relaxed) < BACKLOG {
        if Instant::now() > until {
            return Err("the journal takes nothing while the database is held".into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    world.daemon.kill();
    load.stop();
    drop(hold);
    let image = world.daemon.dir().join("image");
    fs::create_dir(&image).map_err(|error| error.to_string())?;
    for name in ["data", "belayd.db", "belayd.db-wal", "belayd.db-shm"] {
        let from = world.daemon.dir().join(name);
        if from.exists() {
            copy(&from, &image)?;
        }
    }
    world.oracle.keep_fresh();
    Ok(image)
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let done = Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).status();
    done.map_err(|error| error.to_string()).and_then(|status| if status.success() { Ok(()) } else { Err("cp failed".into()) })
}

fn restore(world: &mut World, image: &Path) -> Result<(), String> {
    let dir = world.daemon.dir().to_owned();
    let _ = fs::remove_dir_all(dir.join("data"));
    for name in ["belayd.db", "belayd.db-wal", "belayd.db-shm"] {
        let _ = fs::remove_file(dir.join(name));
    }
    for entry in fs::read_dir(image).map_err(|error| error.to_string())?.flatten() {
        copy(&entry.path(), &dir)?;
    }
    world.oracle.forget_fresh();
    Ok(())
}

/// Flips one byte where there is something, or cuts a segment short.
fn harm(journal: &Path, dice: &mut Dice) -> Result<(&'static str, String), String> {
    let mut segments: Vec<PathBuf> =
        fs::read_dir(journal).map_err(|error| error.to_string())?.flatten().map(|e| e.path()).collect();
    segments.retain(|path| path.extension().is_some_and(|end| end == "seg"));
    segments.sort();
    let path = segments.get(dice.below(segments.len() as u64) as usize).ok_or("there is no segment")?;
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    let file = fs::OpenOptions::new().write(true).open(path).map_err(|error| error.to_string())?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if dice.one_in(3) {
        let length = dice.below(bytes.len() as u64 + 1);
        file.set_len(length).map_err(|error| error.to_string())?;
        let what = if Some(path) == segments.last() { "last segment cut short" } else { "older segment cut short" };
        return Ok((what, format!("{name} to {length} of {} ({used} used)", bytes.len())));
    }
    let at = dice.below(used as u64);
    let mask = if dice.one_in(2) { 1 << dice.below(8) } else { 1 + dice.below(255) } as u8;
    let byte = bytes.get(at as usize).ok_or("an empty segment")? ^ mask;
    file.write_all_at(&[byte], at).map_err(|error| error.to_string())?;
    Ok(("bytes flipped", format!("{name} at {at} of {used} by {mask:#x}")))
}

/// It opens, fresh readings pass, all is settled; what is missing was announced.
fn one(world: &mut World, what: &str, part: &mut Part) -> Result<(), String> {
    world.daemon.spawn();
    world.answers()?;
    part.recoveries.push(world.fresh()?);
    world.settled()?;
    let verdict = compare(&world.oracle, &world.database, Numbers::MayChange)?;
    part.count("readings given up and announced", world.announced);
    part.count("readings compared", verdict.stored);
    if verdict.wrong > 0 || verdict.twice > 0 {
        return Err(format!("{verdict}"));
    }
    let small = what == "bytes flipped";
    if what != "last segment cut short" && (verdict.missing > world.announced || (small && world.announced > FRAME_MAX)) {
        return Err(format!("{} missing, {} announced: {verdict}", verdict.missing, world.announced));
    }
    // Nobody can know what stood behind a tail that was cut off after a kill; that something may have is told.
    let uncounted = verdict.missing.saturating_sub(world.announced);
    let told = world.daemon.metric("belayd_journal_lost_ends") > 0.0;
    if uncounted > 0 && !told {
        return Err(format!("{uncounted} missing behind a cut, and nothing is said of a lost end"));
    }
    part.count("lost ends told", u64::from(told));
    part.count("missing behind a cut that is told and cannot be counted", uncounted);
    Ok(())
}
