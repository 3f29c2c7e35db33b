//! `belayd config`: the commented example, printed from the table of keys.

use std::process::ExitCode;

use super::print;
use crate::config::example;

/// Arguments of `belayd config`.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
#[command(after_help = "Example:\n  belayd config --default > belayd.toml")]
#[command(group(clap::ArgGroup::new("what").required(true)))]
pub struct ConfigArgs {
    /// Print every key with its default and its meaning
    #[arg(long, group = "what")]
    pub default: bool,
    /// Print the reference as Markdown (docs/CONFIGURATION.md is this)
    #[arg(long, group = "what")]
    pub reference: bool,
}

/// Runs the command.
pub fn execute(args: &ConfigArgs) -> ExitCode {
    print(&if args.reference { example::reference() } else { example::example() })
}
