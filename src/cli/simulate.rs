//! `belayd simulate`: engines that are polled, or that push; or the replay of a file.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::config::units::parse_duration;

/// The form of a file that is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ReplayFormat {
    /// Comma-separated, the first line names the columns
    Csv,
    /// One JSON reading a line
    Ndjson,
    /// NASA C-MAPSS text: unit, cycle, settings and sensors, separated by spaces
    Cmapss,
}

/// Arguments of `belayd simulate`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("way").args(["listen", "push"])),
    after_help = "Examples:\n  belayd simulate --engines 5 --listen 127.0.0.1:7071\n  \
                  belayd simulate --push http://127.0.0.1:7070/api/readings --token bly_...\n  \
                  belayd simulate --replay train_FD001.txt --format cmapss --push http://127.0.0.1:7070/api/readings --token bly_..."
)]
pub struct SimulateArgs {
    /// Engines to simulate
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub engines: u32,
    /// Readings of each engine a second
    #[arg(long, value_name = "HZ", default_value_t = 1.0)]
    pub rate: f64,
    /// The same seed gives the same readings; without it a random one, which is printed
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Serve readings to be polled here
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7071")]
    pub listen: SocketAddr,
    /// Push readings to this URL until they are acknowledged, instead of serving them
    #[arg(long, value_name = "URL")]
    pub push: Option<String>,
    /// Ingest token for --push; others on this host can see it, --token-file is better
    #[arg(long, value_name = "T", requires = "push", conflicts_with = "token_file")]
    pub token: Option<String>,
    /// File with the ingest token for --push
    #[arg(long, value_name = "FILE", requires = "push")]
    pub token_file: Option<PathBuf>,
    /// Replay this file instead of simulating
    #[arg(long, value_name = "FILE", requires = "format", conflicts_with_all = ["engines", "rate", "seed"])]
    pub replay: Option<PathBuf>,
    /// The form of the file
    #[arg(long, value_enum, requires = "replay")]
    pub format: Option<ReplayFormat>,
    /// How many times faster than the file's own times; 0: as fast as it is taken
    #[arg(long, value_name = "X", requires = "replay")]
    pub speed: Option<f64>,
    /// Time of the first reading, RFC 3339, for files without times
    #[arg(long, value_name = "TIME", requires = "replay")]
    pub start: Option<String>,
    /// From one reading of an engine to the next, for files without times
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration, requires = "replay")]
    pub step: Duration,
}
