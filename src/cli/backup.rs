//! `belayd backup` and `belayd restore`: data directory and database together, in one file.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{GlobalArgs, complain, exit, print};
use crate::{
    backup::{self, Only, Outcome, Progress},
    clock::{Clock, SystemClock},
    config::{Config, units::format_size},
};

/// Arguments of `belayd backup`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "The daemon may run meanwhile. The file holds token hashes and everything that was read: keep it private.\n\n\
                        Example:\n  belayd backup /var/backups/belayd-$(date +%F).tar.gz"
)]
pub struct BackupArgs {
    /// The file to make; it must not exist
    pub file: PathBuf,
}

/// Arguments of `belayd restore`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Stop the daemon first. The whole file is held to its checksums before anything is changed.\n\n\
                        Examples:\n  belayd restore belayd-2026-11-20.tar.gz --check\n  belayd restore belayd-2026-11-20.tar.gz\n  \
                        belayd restore belayd-2026-11-20.tar.gz --replace")]
pub struct RestoreArgs {
    /// The file that `belayd backup` has made
    pub file: PathBuf,
    /// Replace what is there: files get another name, belayd's tables in PostgreSQL are dropped
    #[arg(long)]
    pub replace: bool,
    /// Put back one of the two only
    #[arg(long, value_name = "PART")]
    pub only: Option<Only>,
    /// Only say whether the file is whole, and change nothing
    #[arg(long, conflicts_with_all = ["replace", "only"])]
    pub check: bool,
}

/// Runs `belayd backup`.
pub fn execute(args: &BackupArgs, global: &GlobalArgs) -> ExitCode {
    run(global, |config, bar| {
        let made = backup::create(config, &args.file, SystemClock.now_us(), bar)?;
        let segments = if made.segments == 1 { "1 segment".to_owned() } else { format!("{} segments", made.segments) };
        // To three digits or so: nobody needs the byte.
        let size = if made.bytes > 1_000_000 { made.bytes / 100_000 * 100_000 } else { made.bytes };
        Ok(format!("{}: {}, with {segments} of the journal\n", args.file.display(), format_size(size)))
    })
}

/// Runs `belayd restore`.
pub fn execute_restore(args: &RestoreArgs, global: &GlobalArgs) -> ExitCode {
    run(global, |config, bar| {
        if args.check {
            let (at, version, backend) = backup::check(&args.file, bar)?;
            return Ok(format!("{}: whole; made at {at} by belayd {version}, from a store on {backend}\n", args.file.display()));
        }
        let done = backup::restore(config, &args.file, args.only, args.replace, SystemClock.now_us(), bar)?;
        let mut text = format!("restored as of {}, made by belayd {}\n", done.created_at, done.version);
        for path in done.aside {
            text.push_str(&format!("what was there is now {}\n", path.display()));
        }
        Ok(text)
    })
}

fn run(global: &GlobalArgs, work: impl FnOnce(&Config, &mut Bar) -> Outcome<String>) -> ExitCode {
    let loaded = match global.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let mut bar = Bar::new();
    let done = work(&loaded.config, &mut bar);
    bar.0.finish_and_clear();
    match done {
        Ok(text) => print(&text),
        Err(reason) => {
            complain(&reason);
            ExitCode::from(exit::FAILED)
        }
    }
}

/// Shown on a terminal, hidden otherwise.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        if !io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{msg:14} {bar:40} {bytes} of {total_bytes}, {elapsed}") {
            bar.set_style(style);
        }
        Self(bar)
    }
}

impl Progress for Bar {
    fn part(&mut self, what: &str, bytes: u64) {
        self.0.set_message(what.to_owned());
        self.0.set_position(0);
        self.0.set_length(bytes);
    }

    fn done(&mut self, bytes: u64) {
        self.0.inc(bytes);
    }
}
