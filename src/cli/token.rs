//! `belayd token`: tokens for people and senders, over the daemon's control socket, or on the control store while it does not run.

use std::time::Duration;

use clap::Subcommand;

use crate::config::units::parse_duration;

/// Arguments of `belayd token`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  belayd token create plant-7 --role ingest --expires 365d")]
pub struct TokenArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: TokenAction,
}

/// What to do with tokens.
#[derive(Clone, Debug, Subcommand)]
pub enum TokenAction {
    /// Make one, and print it alone on stdout; it is shown this once
    #[command(after_help = "Example:\n  belayd token create plant-7 --role ingest --expires 365d")]
    Create {
        /// Its name, for lists, audit and revoking
        name: String,
        /// What its bearer may do
        #[arg(long, value_parser = ["viewer", "operator", "admin", "ingest"])]
        role: String,
        /// It ends after this; without it never
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        expires: Option<Duration>,
    },
    /// List them, without their secrets
    #[command(after_help = "Example:\n  belayd token list --json")]
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// End one at once
    #[command(after_help = "Example:\n  belayd token revoke plant-7")]
    Revoke {
        /// Its name
        name: String,
    },
}
