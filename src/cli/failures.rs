//! `belayd failures`: readings and deliveries that wait for a person, over the daemon's control socket.

use clap::Subcommand;

/// Arguments of `belayd failures`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  belayd failures list --kind reading\n  belayd failures retry 17 --reason \"sensor replaced\"")]
pub struct FailuresArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: FailuresAction,
}

/// What to do with failures.
#[derive(Clone, Debug, Subcommand)]
pub enum FailuresAction {
    /// List them, newest first
    #[command(after_help = "Example:\n  belayd failures list --kind delivery --limit 20")]
    List {
        /// Readings or deliveries only
        #[arg(long, value_parser = ["reading", "delivery"])]
        kind: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one in full
    #[command(after_help = "Example:\n  belayd failures show 17")]
    Show {
        /// As listed
        id: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Try one again
    #[command(after_help = "Example:\n  belayd failures retry 17 --reason \"receiver is back\"")]
    Retry {
        /// As listed
        id: String,
        /// Why; goes to the audit
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Give one up for good
    #[command(after_help = "Example:\n  belayd failures discard 17 --reason \"test data\"")]
    Discard {
        /// As listed
        id: String,
        /// Why; goes to the audit
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}
