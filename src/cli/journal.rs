//! `belayd journal`: what the journal on disk holds, and whether all of it is whole. It reads the files itself and changes nothing, so
//! it works with a running daemon, without one, and on the disk of a dead host.

use std::{fmt::Write, io, path::Path, process::ExitCode};

use clap::Subcommand;
use serde_json::{Value, json};

use super::{GlobalArgs, complain, exit, print};
use crate::{
    buffer::journal::verify::{Report, look},
    config::units::format_size,
};

/// Arguments of `belayd journal`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  belayd journal verify")]
pub struct JournalArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: JournalAction,
}

/// What to do with the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum JournalAction {
    /// Read every frame and hold it to its checksum; ends with 1 where something is damaged
    #[command(
        after_help = "It changes nothing; the daemon sets damage aside by itself when it comes to it, and goes on with the rest.\n\n\
                            Examples:\n  belayd journal verify\n  belayd journal verify --set server.data_dir=/mnt/dead-host/var/lib/belayd"
    )]
    Verify {
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Say what there is, from the headers and the newest segment alone
    #[command(after_help = "Example:\n  belayd journal stat --json")]
    Stat {
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
pub fn execute(args: &JournalArgs, global: &GlobalArgs) -> ExitCode {
    let loaded = match global.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let dir = loaded.config.server.data_dir.join("journal");
    let (JournalAction::Verify { json } | JournalAction::Stat { json }) = args.action;
    let verify = matches!(args.action, JournalAction::Verify { .. });
    match look(&dir, verify) {
        Ok(report) => {
            let bound = loaded.config.buffer.journal_bytes;
            let files = bytes_on_disk(&dir);
            let text =
                if json { format!("{:#}\n", as_json(&report, files, bound)) } else { render(&dir, &report, files, bound, verify) };
            let printed = print(&text);
            if report.damage.is_empty() { printed } else { ExitCode::from(exit::FAILED) }
        }
        Err(error) => {
            complain(&match error.kind() {
                io::ErrorKind::NotFound => format!(
                    "there is no journal in {}: is server.data_dir right, and has a daemon run there with buffer.tier = \"journal\"?",
                    loaded.config.server.data_dir.display()
                ),
                io::ErrorKind::PermissionDenied => {
                    format!("{}: {error}; run it as root or as belayd's user", dir.display())
                }
                _ => format!("{}: {error}", dir.display()),
            });
            ExitCode::from(exit::FAILED)
        }
    }
}

fn bytes_on_disk(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|file| file.metadata().ok());
    files.filter(|file| file.is_file()).map(|file| file.len()).sum()
}

fn render(dir: &Path, report: &Report, files: u64, bound: u64, verified: bool) -> String {
    let mut text = String::new();
    // Writing into memory cannot fail.
    let mut line = |name: &str, what: String| {
        let _ = writeln!(text, "{name:<12} {what}");
    };
    line("journal", dir.display().to_string());
    line("size", format!("{} of {} in {} segments", rounded(files), format_size(bound), report.segments.len()));
    for (number, lane) in report.lanes.iter().enumerate() {
        let voided = if lane.voided > 0 { format!(", {} given up", lane.voided) } else { String::new() };
        line(
            &format!("lane {number}"),
            format!("stream {}, next number {}, {} accepted{voided}", lane.stream, lane.next_seq(), lane.accepted),
        );
    }
    if verified {
        let sum = |field: fn(&crate::buffer::journal::verify::Segment) -> u64| report.segments.iter().map(field).sum::<u64>();
        line("frames", format!("{} whole, with {} readings", sum(|segment| segment.frames), sum(|segment| segment.readings)));
    }
    if report.torn_bytes > 0 {
        line("cut short", format!("{} bytes at the end: normal after a crash, nobody was told of them", report.torn_bytes));
    }
    for (lane, stream, last) in &report.lost_ends {
        line(
            "LOST END",
            format!(
                "lane {lane}: behind number {last} of stream {stream} the journal was cut off or damaged; how many readings stood there is not known"
            ),
        );
    }
    if report.quarantine.0 > 0 {
        line("quarantine", format!("{} files, {}, set aside earlier", report.quarantine.0, rounded(report.quarantine.1)));
    }
    for damage in &report.damage {
        let readings = damage.readings.map_or_else(String::new, |(lane, first, last)| {
            format!(", with readings at positions {first} to {last} of lane {lane}")
        });
        line(
            "DAMAGED",
            format!("segment {}, offset {}, {} bytes: {}{readings}", damage.segment, damage.offset, damage.bytes, damage.what),
        );
    }
    if report.damage.is_empty() {
        line(
            "verdict",
            if verified { "whole" } else { "nothing is wrong with headers and end; `belayd journal verify` reads the rest" }.into(),
        );
    } else {
        line("verdict", "DAMAGED: the daemon skips and sets aside these places by itself; copy the directory if you want to look at them, and look at the disk".into());
    }
    text
}

fn rounded(bytes: u64) -> String {
    format_size(if bytes >= 1_000_000 { bytes / 100_000 * 100_000 } else { bytes })
}

fn as_json(report: &Report, files: u64, bound: u64) -> Value {
    let lanes = report
        .lanes
        .iter()
        .map(|lane| json!({"stream": lane.stream, "nextSeq": lane.next_seq(), "accepted": lane.accepted, "void": lane.voided}));
    let segments = report.segments.iter().map(|segment| {
        json!({"number": segment.number, "frames": segment.frames, "readings": segment.readings, "damaged": segment.damaged})
    });
    let lost_ends =
        report.lost_ends.iter().map(|(lane, stream, last)| json!({"lane": lane, "stream": stream, "lastKnownSeq": last}));
    let damage = report.damage.iter().map(|damage| {
        let readings =
            damage.readings.map(|(lane, first, last)| json!({"lane": lane, "firstPosition": first, "lastPosition": last}));
        json!({"segment": damage.segment, "offset": damage.offset, "bytes": damage.bytes, "what": damage.what,
            "readings": readings, "quarantineFile": damage.quarantine_file})
    });
    json!({
        "whole": report.damage.is_empty(),
        "bytes": files,
        "boundBytes": bound,
        "tornBytes": report.torn_bytes,
        "quarantine": {"files": report.quarantine.0, "bytes": report.quarantine.1},
        "lanes": lanes.collect::<Vec<_>>(),
        "lostEnds": lost_ends.collect::<Vec<_>>(),
        "segments": segments.collect::<Vec<_>>(),
        "damage": damage.collect::<Vec<_>>(),
    })
}
