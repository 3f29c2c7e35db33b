//! Power cuts: the daemon runs over a layer that writes down what it does to its directory; it is killed, and the directory becomes what
//! a disk would have that lost everything not yet synced. Journal, control store and SQLite store lie under it; every second history
//! stores in PostgreSQL instead, which the cut does not reach.

mod disk;

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

pub use disk::BLIND;
use disk::Disk;

use super::{
    database::Database,
    dice::Dice,
    part::{Campaign, Part},
    world::{ENDED_ITSELF, Plan, World, tail},
};
use crate::support::postgres::{Postgres, is_installed};

/// Cuts on one directory.
const HISTORY: u64 = 20;
/// Longest life of a daemon between two cuts.
const LIFE_MS: u64 = 400;

/// Until the part is over: one directory after another.
pub fn run(campaign: &Campaign, part: &mut Part) {
    let Some(shim) = shim(part) else { return };
    let server = is_installed().then(|| Postgres::start(&[]));
    if server.is_none() {
        part.left_out.push("a store that a cut does not reach, because PostgreSQL is not installed".into());
    }
    for history in 0.. {
        if !part.goes_on() {
            break;
        }
        let mut dice = part.dice(campaign, history);
        part.attempt(&format!("history {history}"), |part| {
            let url = server.as_ref().filter(|_| history % 2 == 1).map(|server| server.new_database(&format!("power{history}")));
            let (world, result) = history_of(&shim, url, &[], HISTORY, part, &mut dice);
            result.unwrap_or_else(|what| part.failed(format!("history {history}: {what}"), Some(&world)));
            Ok(())
        });
    }
}

/// One directory through some cuts, and the comparison at the end. Without the URL of a database the store is a file in the directory.
pub fn history_of(
    shim: &Path,
    url: Option<String>,
    env: &[(&str, &str)],
    cuts: u64,
    part: &mut Part,
    dice: &mut Dice,
) -> (World, Result<(), String>) {
    let store_url = url.clone().unwrap_or_else(|| "sqlite://data/belayd.db".into());
    let mut world = World::start(dice.next(), &Plan { store_url, ..Plan::default() });
    world.database = url.map_or_else(|| Database::Sqlite(world.daemon.dir().join("data/belayd.db")), Database::Postgres);
    // What the first start without the layer has made counts as durable.
    world.daemon.stop();
    let data = world.daemon.dir().join("data");
    let log = world.daemon.dir().join("changes");
    for (name, value) in env {
        let value = value.replace("{data}", &data.to_string_lossy());
        world.daemon.set_env(name, &value);
    }
    world.daemon.set_env("LD_PRELOAD", &shim.to_string_lossy());
    world.daemon.set_env("CUT_ROOT", &data.to_string_lossy());
    world.daemon.set_env("CUT_LOG", &log.to_string_lossy());
    let result = cycles(&mut world, &data, &log, cuts, part, dice);
    (world, result)
}

fn cycles(world: &mut World, data: &Path, log: &Path, cuts: u64, part: &mut Part, dice: &mut Dice) -> Result<(), String> {
    let load = world.load();
    for _ in 0..cuts {
        if !part.goes_on() {
            break;
        }
        let mut disk = Disk::read(data).map_err(|error| format!("the directory cannot be read: {error}"))?;
        let _ = fs::remove_file(log);
        // Sometimes a process is killed first and another goes on with what the page cache still holds: only then comes the cut.
        while dice.one_in(4) {
            let between = life(world, part, dice)?;
            disk.play(&fs::read(log).unwrap_or_default())?;
            let _ = fs::remove_file(log);
            if !between {
                disk.catch_up()?;
            }
            part.count("killed and started again before the cut", 1);
        }
        let ended_itself = life(world, part, dice)?;
        // A process that was killed in its first milliseconds has not even begun its log.
        let changes = fs::read(log).unwrap_or_default();
        let played = disk.play(&changes)?;
        if ended_itself {
            // Between two changes, so that the directory must hold what the log says.
            disk.check()?;
            part.count("directories equal to their log", 1);
        }
        let (unsynced, unnamed) = disk.cut(dice).map_err(|error| format!("the directory cannot be rebuilt: {error}"))?;
        part.fault(if ended_itself { "cuts after a number of changes" } else { "cuts at a moment" });
        part.count("changes written down", played as u64);
        part.count("changes not yet durable at a cut", unsynced as u64);
        part.count("names not yet durable at a cut", unnamed as u64);
    }
    world.daemon.set_env("LD_PRELOAD", "");
    world.daemon.spawn();
    world.answers()?;
    world.fresh()?;
    load.stop();
    let verdict = world.verify_clean()?;
    part.compared(&verdict);
    Ok(())
}

/// One life of the daemon, from its start to SIGKILL. Returns whether the layer ended it between two changes.
fn life(world: &mut World, part: &mut Part, dice: &mut Dice) -> Result<bool, String> {
    // Half of the ends come at a moment, half after a number of changes. Any order of magnitude is as likely: a start makes hundreds of
    // changes, an idle moment a few.
    let counted = dice.one_in(2);
    let most = 16 << dice.below(8);
    let at = if counted { (1 + dice.below(most)).to_string() } else { String::new() };
    world.daemon.set_env("CUT_AT", &at);
    world.daemon.spawn();
    part.recoveries.extend(live(world, counted, dice)?);
    let ended_itself = !world.daemon.is_running();
    if !ended_itself {
        world.daemon.signal(libc::SIGKILL);
    }
    let status = world.daemon.wait(Duration::from_secs(10));
    if status.signal() != Some(libc::SIGKILL) {
        return Err(format!("{ENDED_ITSELF} with {status}; its log:\n{}", tail(&world.daemon.log())));
    }
    Ok(ended_itself)
}

/// Lets it live for a while; mostly until fresh readings have passed. Ends early where the layer ends it.
fn live(world: &mut World, counted: bool, dice: &mut Dice) -> Result<Option<Duration>, String> {
    let started = Instant::now();
    let until = started + Duration::from_millis(dice.below(LIFE_MS));
    if !counted && !dice.one_in(5) {
        world.answers()?;
        return world.fresh().map(Some);
    }
    // It may end at any point here, also before it answers, but only by the signal.
    while Instant::now() < until {
        if !world.daemon.is_running() {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(None)
}

/// Compiles the layer; says what is left out without it.
pub fn shim(part: &mut Part) -> Option<PathBuf> {
    compile("tests/campaign/power/shim.c", part)
}

/// Compiles a layer of one file with the machine's C compiler.
pub fn compile(source: &str, part: &mut Part) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let name = source.file_stem()?.to_string_lossy().into_owned();
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.so", std::process::id()));
    let output = Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&place).arg(&source).arg("-ldl").output();
    match output {
        Ok(output) if output.status.success() => Some(place),
        Ok(output) => {
            part.failed(format!("{}: {}", source.display(), tail(&String::from_utf8_lossy(&output.stderr))), None);
            None
        }
        Err(error) => {
            part.left_out.push(format!("a C compiler (cc) is missing: {error}"));
            None
        }
    }
}
