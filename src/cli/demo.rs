//! `belayd demo`: the daemon with a simulator as source and a catcher as receiver, from nothing.

use std::{net::SocketAddr, path::PathBuf};

/// Arguments of `belayd demo`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Example:\n  belayd demo --listen 127.0.0.1:7070\n\nThe first line on stdout is the address to open in a browser."
)]
pub struct DemoArgs {
    /// Keep everything here; without it in a temporary directory that is removed at the end
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Listen here; loopback only
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7070")]
    pub listen: SocketAddr,
}
