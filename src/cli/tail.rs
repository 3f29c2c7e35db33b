//! `belayd tail`: the running daemon's latest log lines, over its control socket.

/// Arguments of `belayd tail`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "Example:\n  belayd tail -f --level warn --target belayd::outbox")]
pub struct TailArgs {
    /// Go on with what is logged from now on
    #[arg(short, long)]
    pub follow: bool,
    /// This level and above
    #[arg(long, value_name = "L", value_parser = ["error", "warn", "info", "debug", "trace"])]
    pub level: Option<String>,
    /// Only targets that begin with this
    #[arg(long, value_name = "T")]
    pub target: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}
