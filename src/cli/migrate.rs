//! `belayd migrate`: the schema of the store.

use clap::Subcommand;

/// Arguments of `belayd migrate`.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(after_help = "Example:\n  belayd migrate status")]
pub struct MigrateArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: MigrateAction,
}

/// What to do with the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum MigrateAction {
    /// List what has run and what has not
    #[command(after_help = "Example:\n  belayd migrate status --config /etc/belayd/belayd.toml")]
    Status,
    /// Run what has not (the daemon does so at start)
    #[command(after_help = "Example:\n  belayd migrate run")]
    Run,
    /// Take back the newest one, with its data; stop the daemon first
    #[command(after_help = "Example:\n  belayd migrate revert")]
    Revert,
}
