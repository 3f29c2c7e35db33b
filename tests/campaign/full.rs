//! A small file system that fills up: the data directory lies on a tmpfs of a few MB while the database takes nothing, then room comes
//! back by itself. Needs root, since only root may mount.

use std::{
    ffi::CString,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};

use super::{
    dice::Dice,
    part::{Campaign, Part},
    world::{Plan, World},
};

/// Times that one file system fills up.
const HISTORY: u64 = 5;

/// Until the part is over: one file system after another.
pub fn run(campaign: &Campaign, part: &mut Part) {
    // SAFETY: a plain question.
    if unsafe { libc::geteuid() } != 0 {
        part.left_out.push("only root may mount a small file system".into());
        return;
    }
    for history in 0.. {
        if !part.goes_on() {
            break;
        }
        let mut dice = part.dice(campaign, history);
        part.attempt(&format!("history {history}"), |part| {
            let mut world = World::start(dice.next(), &Plan { senders: 6, ..Plan::default() });
            world.daemon.stop();
            // The daemon itself needs 18 MB: the control store, whose log is written back at 16 MB, and two segments.
            let mount = match Mount::over(&world.daemon.dir().join("data"), 20 + dice.below(8)) {
                Ok(mount) => mount,
                Err(error) => {
                    part.left_out.push(format!("no small file system can be mounted here: {error}"));
                    part.done = part.wanted;
                    return Ok(());
                }
            };
            world.daemon.start_again();
            let result = fill(&mut world, &mount, part, &mut dice);
            match result.and_then(|()| world.verify_clean()) {
                Ok(verdict) => part.compared(&verdict),
                Err(what) => part.failed(what, Some(&world)),
            }
            // The daemon has to let go of the file system before it is taken away.
            if world.daemon.is_running() {
                world.daemon.kill();
            }
            drop(mount);
            Ok(())
        });
    }
}

fn fill(world: &mut World, mount: &Mount, part: &mut Part, dice: &mut Dice) -> Result<(), String> {
    let load = world.load();
    let ballast = mount.place.join("ballast");
    for _ in 0..HISTORY {
        if !part.goes_on() {
            break;
        }
        // Held, so that what is acknowledged piles up: a stranger takes most of the disk, the journal the rest.
        let hold = hold(&world.daemon.dir().join("belayd.db"))?;
        // It fails where the room ends; mostly a little is given back, for the journal to fill.
        let _ = fs::write(&ballast, vec![1; 32 << 20]);
        if let Ok(file) = fs::OpenOptions::new().write(true).open(&ballast) {
            let taken = file.metadata().map_or(0, |meta| meta.len());
            let _ = file.set_len(taken.saturating_sub(dice.below(3 << 20)));
        }
        thread::sleep(Duration::from_millis(500 + dice.below(1_500)));
        let room = world.daemon.get("/readyz");
        part.count(if room.status == 200 { "took readings all the time" } else { "full at the end" }, 1);
        if dice.one_in(3) {
            world.daemon.kill();
            world.daemon.spawn();
            part.count("daemon killed meanwhile", 1);
            thread::sleep(Duration::from_millis(dice.below(300)));
        }
        let _ = fs::remove_file(&ballast);
        drop(hold);
        part.fault("file systems filled up");
        if world.answers().is_err() && !world.daemon.is_running() {
            // It could not start without room, and says so; a supervisor such as systemd starts it again.
            world.daemon.spawn();
            world.answers()?;
            part.count("started again by its supervisor", 1);
        }
        part.recoveries.push(world.fresh()?);
    }
    load.stop();
    Ok(())
}

/// Keeps every writer out of a SQLite store until dropped.
///
/// # Errors
/// It cannot be locked.
pub fn hold(path: &Path) -> Result<SqliteConnection, String> {
    let mut conn = SqliteConnection::establish(&path.to_string_lossy()).map_err(|error| error.to_string())?;
    let locked = conn.batch_execute("PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE");
    locked.map_err(|error| format!("the store cannot be held: {error}"))?;
    Ok(conn)
}

/// A small file system, taken away when dropped.
struct Mount {
    place: PathBuf,
}

impl Mount {
    /// Mounts `megabytes` over a directory, which keeps its content.
    fn over(place: &Path, megabytes: u64) -> Result<Self, String> {
        let aside = place.with_extension("aside");
        let copy = |from: &Path, to: &Path| {
            let done = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status();
            done.map_err(|error| error.to_string())
                .and_then(|status| if status.success() { Ok(()) } else { Err("cp failed".into()) })
        };
        fs::create_dir(&aside).map_err(|error| error.to_string())?;
        copy(place, &aside)?;
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=0700"), "belayd-campaign"])
            .arg(place)
            .output()
            .map_err(|error| error.to_string())?;
        if !done.status.success() {
            return Err(String::from_utf8_lossy(&done.stderr).trim().to_owned());
        }
        let mount = Self { place: place.to_owned() };
        copy(&aside, place)?;
        Ok(mount)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Ok(path) = CString::new(self.place.as_os_str().as_bytes()) {
            // SAFETY: a path that ends; detached, it goes as soon as nobody uses it.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
    }
}
