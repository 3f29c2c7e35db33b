//! `belayd status`: what the running daemon says of itself, over its control socket.

/// Arguments of `belayd status`.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
#[command(after_help = "Example:\n  belayd status --json")]
pub struct StatusArgs {
    /// As one JSON object
    #[arg(long)]
    pub json: bool,
}
