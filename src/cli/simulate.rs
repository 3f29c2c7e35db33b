//! `belayd simulate`: engines that are polled, or that push; or the replay of a file.

use std::{
    fs,
    io::{self, IsTerminal},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, SecondsFormat, Utc};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use url::Url;

use super::{complain, exit, print};
use crate::{
    config::units::parse_duration,
    sim::{
        model::{ENGINES_MAX, FleetOptions},
        origin::{Notice, Origin},
        pace::Speed,
        push::{self, Progress, PushOptions, Stop},
        replay::{Format, Mapping, Recording, time_from_text},
        serve,
    },
};

/// Requests in flight at once; engines are spread over them.
const LANES: usize = 4;

/// Arguments of `belayd simulate`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("way").args(["listen", "push"])),
    after_help = "Examples:\n  belayd simulate --engines 5 --listen 127.0.0.1:7071\n  \
                  belayd simulate --engines 100 --rate 10 --push http://127.0.0.1:7070 --token bly_...\n  \
                  belayd simulate --replay train_FD001.txt --format cmapss --push http://127.0.0.1:7070 --token bly_...\n\n\
                  Exit code 1 if a reading was rejected or not delivered."
)]
pub struct SimulateArgs {
    /// Engines to simulate
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(ENGINES_MAX)))]
    pub engines: u32,
    /// Readings of each engine a second
    #[arg(long, value_name = "HZ", default_value_t = 1.0, value_parser = parse_rate)]
    pub rate: f64,
    /// The same seed gives the same readings; without it a random one, which is printed
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Serve readings to be polled here
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7071")]
    pub listen: SocketAddr,
    /// Push readings to this URL (http://127.0.0.1:7070) until they are acknowledged, instead of serving them; without a path it is
    /// /api/readings
    #[arg(long, value_name = "URL")]
    pub push: Option<Url>,
    /// Ingest token for --push; others on this host can see it, --token-file is better
    #[arg(long, value_name = "T", requires = "push", conflicts_with = "token_file")]
    pub token: Option<String>,
    /// File with the ingest token for --push
    #[arg(long, value_name = "FILE", requires = "push")]
    pub token_file: Option<PathBuf>,
    /// Most readings in one push
    #[arg(long, value_name = "N", requires = "push", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub batch: u64,
    /// Replay this file instead of simulating; --format says what it is
    #[arg(long, value_name = "FILE", requires = "format", conflicts_with_all = ["engines", "rate", "seed"])]
    pub replay: Option<PathBuf>,
    /// The form of the file
    #[arg(long, value_enum, requires = "replay")]
    pub format: Option<Format>,
    /// How many times faster than the file's own times; 0 or max: as fast as it is taken
    #[arg(long, value_name = "X", requires = "replay", default_value = "max")]
    pub speed: Speed,
    /// Time of the first reading, RFC 3339, for files without times; without it now
    #[arg(long, value_name = "TIME", requires = "replay", value_parser = parse_start)]
    pub start: Option<i64>,
    /// From one reading to the next, for files without times
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_step, requires = "replay")]
    pub step: Duration,
}

/// Runs the command until its file ends, or for ever.
pub fn execute(args: &SimulateArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    let origin = origin(args);
    runtime.block_on(async {
        match &args.push {
            Some(url) => push(args, url.clone(), origin).await,
            None => listen(args, origin).await,
        }
    })
}

fn fail(text: &str) -> ExitCode {
    complain(&format!("belayd simulate: {text}"));
    ExitCode::from(exit::FAILED)
}

/// The model or the file; says what a person needs in order to get the same again.
fn origin(args: &SimulateArgs) -> Origin {
    let now_us = Utc::now().timestamp() * 1_000_000;
    let (Some(path), Some(format)) = (&args.replay, args.format) else {
        let seed = args.seed.unwrap_or_else(rand::random);
        complain(&format!("simulating {} engines, {} readings a second each, --seed {seed}", args.engines, args.rate));
        return Origin::Model(FleetOptions { engines: args.engines, rate_hz: args.rate, seed, start_us: now_us });
    };
    // Found from any directory, and named in full in every message.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
    let start_us = args.start.unwrap_or_else(|| {
        if format == Format::Cmapss {
            let start = DateTime::from_timestamp_micros(now_us).map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true));
            complain(&format!(
                "the file has no times: it begins now; to repeat this run without storing anything twice add --start {}",
                start.unwrap_or_default()
            ));
        }
        now_us
    });
    // A step beyond 100 years cannot be written, so it fits.
    let step_us = i64::try_from(args.step.as_micros()).unwrap_or(i64::MAX);
    Origin::Recording(Recording { path, format, mapping: Mapping { start_us, step_us } }, args.speed)
}

async fn listen(args: &SimulateArgs, origin: Origin) -> ExitCode {
    if let Origin::Recording(recording, _) = &origin
        && let Err(error) = recording.open()
    {
        return fail(&format!("{}: {error}", recording.path.display()));
    }
    let notice: Notice = Arc::new(|text| complain(&format!("belayd simulate: {text}")));
    let host = match serve::start(origin, args.listen, notice) {
        Ok(host) => host,
        Err(error) => return fail(&format!("cannot listen on {}: {error}; name another address with --listen", args.listen)),
    };
    let printed =
        print(&format!("serving http://{}/api/engines; for belayd.toml:\n\n{}", host.addr(), serve::config_snippet(host.addr())));
    ended_by_signal().await;
    host.stop();
    printed
}

async fn push(args: &SimulateArgs, url: Url, origin: Origin) -> ExitCode {
    let token = match &args.token_file {
        None => args.token.clone(),
        Some(file) => match fs::read_to_string(file) {
            Ok(token) => Some(token.trim().to_owned()),
            Err(error) => return fail(&format!("{}: {error}", file.display())),
        },
    };
    let bar = progress_bar(&origin);
    let (for_notice, for_progress) = (bar.clone(), bar.clone());
    let notice: Notice = Arc::new(move |text| for_notice.suspend(|| complain(&format!("belayd simulate: {text}"))));
    let progress: Progress = Arc::new(move |rows, bytes| {
        for_progress.set_position(bytes);
        for_progress.set_message(format!("{rows} readings"));
    });
    let options = PushOptions { url, token, lanes: LANES, batch_rows: args.batch, notice, progress };
    let stop = Stop::default();
    let ends = stop.clone();
    let watch = tokio::spawn(async move {
        ended_by_signal().await;
        ends.set();
    });
    let summary = push::run(origin, options, stop).await;
    watch.abort();
    bar.finish_and_clear();
    let printed = print(&summary.to_string());
    if let Some(fault) = &summary.fault {
        complain(&format!("belayd simulate: {fault}"));
    }
    if summary.is_clean() { printed } else { ExitCode::from(exit::FAILED) }
}

/// Shown for a file on a terminal, hidden otherwise.
fn progress_bar(origin: &Origin) -> ProgressBar {
    let Origin::Recording(recording, _) = origin else { return ProgressBar::hidden() };
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(fs::metadata(&recording.path).map_or(0, |meta| meta.len()));
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent}% of {total_bytes}, {msg}, {elapsed}") {
        bar.set_style(style);
    }
    bar
}

/// Waits for SIGINT or SIGTERM.
async fn ended_by_signal() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        // Without a handler the signal ends the process by itself.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.001..=100_000.0).contains(&rate) { Ok(rate) } else { Err("give a number from 0.001 to 100000".to_owned()) }
}

fn parse_start(text: &str) -> Result<i64, String> {
    time_from_text(text).ok_or_else(|| "write a time as 2026-01-31T08:00:00Z".to_owned())
}

fn parse_step(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("the step must be above 0".to_owned()),
        step => Ok(step),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn parse(line: &str) -> Result<SimulateArgs, clap::Error> {
        Line::try_parse_from(std::iter::once("simulate").chain(line.split_whitespace())).map(|line| line.args)
    }

    #[test]
    fn the_documented_forms_are_understood() {
        for line in [
            "",
            "--engines 5 --rate 2.5 --seed 7 --listen 127.0.0.1:0",
            "--push http://127.0.0.1:7070 --token T",
            "--replay f --format cmapss --start 2026-01-01T00:00:00Z --step 500ms --speed 0 --listen 127.0.0.1:0",
            "--replay f --format csv --speed max --push http://h/ --token-file t",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for line in [
            "--listen 127.0.0.1:0 --push http://h",
            "--token T",
            "--replay f",
            "--format csv",
            "--replay f --format csv --engines 3",
            "--replay f --format csv --step 0",
            "--replay f --format csv --start soon",
            "--engines 0",
            "--engines 10001",
            "--rate -1",
            "--push here",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
