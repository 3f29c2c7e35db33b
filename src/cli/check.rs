//! `belayd check`: every fault of the configuration at once, before anything starts. In: the configuration as `belayd run` would
//! read it. Out: faults on stderr and code 78; or what was read on stdout and 0. It changes nothing.

use std::process::ExitCode;

use super::{GlobalArgs, complain, exit, print};
use crate::config::{Config, Loaded, redact_url};

mod connect;

/// Arguments of `belayd check`.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
#[command(after_help = "Example:\n  belayd check --config /etc/belayd/belayd.toml --connect")]
pub struct CheckArgs {
    /// Also try the store, the sources and the webhooks (connections only: nothing is sent or changed)
    #[arg(long)]
    pub connect: bool,
}

/// Runs the command.
pub fn execute(args: &CheckArgs, global: &GlobalArgs) -> ExitCode {
    let loaded = match global.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    loaded.notes.iter().for_each(|note| complain(&format!("note: {note}")));
    let said = print(&summary(&loaded));
    if !args.connect {
        return said;
    }
    let trials = connect::try_all(&loaded.config);
    let report: String = trials.iter().map(|trial| format!("{trial}\n")).collect();
    let failed = trials.iter().any(|trial| trial.outcome.is_err());
    let said = print(&report);
    if failed { ExitCode::from(exit::FAILED) } else { said }
}

/// What was read, without secrets.
fn summary(loaded: &Loaded) -> String {
    let Config { server, store, sources, rules, webhooks, routes, .. } = &loaded.config;
    let file = loaded.file.as_ref().map_or_else(|| "no file, defaults".to_owned(), |file| file.display().to_string());
    format!(
        "OK: {file}\n  listens on {}, keeps its data in {}\n  stores in {}\n  {}, {}, {}, {}\n",
        server.listen,
        server.data_dir.display(),
        redact_url(&store.url, false),
        counted(sources.len(), "source"),
        counted(rules.len(), "rule"),
        counted(webhooks.len(), "webhook"),
        counted(routes.len(), "route"),
    )
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
