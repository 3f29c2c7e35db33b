//! `belayd run`: the daemon, as systemd starts it.

use std::{net::SocketAddr, path::PathBuf};

/// Arguments of `belayd run`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "Example:\n  belayd run --config /etc/belayd/belayd.toml")]
pub struct RunArgs {
    /// Listen here instead of at server.listen
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Keep state here instead of in server.data_dir
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}
