//! The wall clock is put forward and back by an hour while the daemon runs; now and then it is killed and started in the other time.

use std::{os::unix::fs::FileExt, thread, time::Duration};

use super::{
    part::{Campaign, Part},
    power::compile,
    world::{Plan, World},
};

/// Steps on one directory.
const HISTORY: u64 = 12;
const HOUR: i64 = 3_600;

/// Until the part is over: one directory after another.
pub fn run(campaign: &Campaign, part: &mut Part) {
    let Some(shim) = compile("tests/campaign/clock.c", part) else { return };
    for history in 0.. {
        if !part.goes_on() {
            break;
        }
        let mut dice = part.dice(campaign, history);
        part.attempt(&format!("history {history}"), |part| {
            let file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
            // In place: the daemon has it mapped, and a file that is cut short for a moment would end it.
            let set = |offset: i64| file.as_file().write_all_at(&offset.to_le_bytes(), 0).map_err(|error| error.to_string());
            set(0)?;
            let env = vec![
                ("LD_PRELOAD".into(), shim.to_string_lossy().into_owned()),
                ("CLOCK_FILE".into(), file.path().to_string_lossy().into_owned()),
            ];
            let mut world = World::start(dice.next(), &Plan { env, ..Plan::default() });
            let load = world.load();
            let mut act = || {
                for _ in 0..HISTORY {
                    if !part.goes_on() {
                        break;
                    }
                    thread::sleep(Duration::from_millis(dice.below(300)));
                    let (offset, kind) =
                        [(HOUR, "an hour forward"), (-HOUR, "an hour back"), (0, "right again")][dice.below(3) as usize];
                    set(offset)?;
                    part.fault(kind);
                    if dice.one_in(3) {
                        world.daemon.kill();
                        world.daemon.spawn();
                        world.answers()?;
                        part.count("daemon killed meanwhile", 1);
                    }
                    part.recoveries.push(world.fresh()?);
                }
                set(0)
            };
            let result: Result<(), String> = act();
            load.stop();
            match result.and_then(|()| world.verify_clean()) {
                Ok(verdict) => part.compared(&verdict),
                Err(what) => part.failed(what, Some(&world)),
            }
            Ok(())
        });
    }
}
