//! Starts each measurement as a process of its own, in turn, and prints the medians.

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Duration};

use crate::{MEDIA, Options, disk};

/// Readings of one push.
const PUSHES: [usize; 3] = [1, 100, 1_000];
/// What cannot be opened again, because it keeps nothing.
const BOUNDS: [&str; 2] = ["none", "bare"];

/// The values of one measurement by their names, for each round.
type Rounds = Vec<BTreeMap<String, f64>>;

pub(crate) fn run(options: &Options) {
    let dir = tempfile::Builder::new().prefix("media-").tempdir_in(&options.dir).expect("a temporary directory");
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| only == name);
    let media: Vec<&str> = MEDIA.iter().map(|(name, _)| *name).filter(|name| wanted(name)).collect();
    let mut loads: BTreeMap<(usize, &str), Rounds> = BTreeMap::new();
    let mut reopens: BTreeMap<&str, Rounds> = BTreeMap::new();
    let mut disk = Vec::new();
    let mut cold = true;
    for round in 0..options.rounds {
        disk.push(disk::fdatasync(dir.path(), Duration::from_secs(2)).expect("the disk syncs"));
        for push in PUSHES {
            for name in &media {
                let place = fresh(dir.path());
                let seconds = options.seconds.to_string();
                let values = measure(&["load", name, &push.to_string(), &seconds, &place]);
                loads.entry((push, name)).or_default().push(values);
            }
        }
        for name in media.iter().filter(|name| !BOUNDS.contains(name)) {
            let place = fresh(dir.path());
            // It ends itself by SIGKILL, as a crash would.
            let _ = part(&["fill", name, &options.backlog_mb.to_string(), &place]);
            cold &= disk::drop_caches();
            reopens.entry(name).or_default().push(measure(&["reopen", name, &place]));
        }
        eprintln!("round {} of {} done", round + 1, options.rounds);
    }
    print_disk(&mut disk);
    for push in PUSHES {
        println!("\n{} waiters, pushes of {push}:\n", crate::WAITERS);
        println!(
            "| medium | ack p50 | ack p99 | readings/s | commits/s | bytes written per reading | CPU per reading | private memory |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        for name in &media {
            let rounds = &loads[&(push, *name)];
            let value = |key: &str| median(rounds, key);
            println!(
                "| {name} | {:.2} ms | {:.2} ms | {} | {} | {:.0} | {:.2} us | {:.1} MB |",
                value("p50_us") / 1e3,
                value("p99_us") / 1e3,
                thousands(value("readings_per_s")),
                thousands(value("commits_per_s")),
                value("written_per_reading"),
                value("cpu_us_per_reading"),
                value("private_mb"),
            );
        }
    }
    let cache = if cold { "cold" } else { "warm (only root can empty it)" };
    println!("\nOpened again after SIGKILL with {} MB, cache {cache}:\n", options.backlog_mb);
    println!("| medium | open | to the first durable commit |\n|---|---|---|");
    for (name, rounds) in &reopens {
        println!("| {name} | {:.0} ms | {:.0} ms |", median(rounds, "open_ms"), median(rounds, "durable_ms"));
    }
}

/// An empty directory; the one before is gone.
fn fresh(dir: &Path) -> String {
    let place = dir.join("medium");
    let _ = fs::remove_dir_all(&place);
    fs::create_dir(&place).expect("a directory");
    place.to_str().expect("a path of text").to_owned()
}

fn part(args: &[&str]) -> (bool, String) {
    let program = std::env::current_exe().expect("the path of this program");
    let output = Command::new(program).args(args).output().expect("this program runs again");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
}

fn measure(args: &[&str]) -> BTreeMap<String, f64> {
    let (success, text) = part(args);
    assert!(success, "{args:?}: {text}");
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), value.parse().ok()?)))
        .collect()
}

fn median(rounds: &Rounds, key: &str) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(|values| values[key]).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print_disk(times: &mut [(Duration, Duration)]) {
    times.sort();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("unknown processor");
    let (p50, p99) = times[times.len() / 2];
    println!("machine: {cores} cores, {model}; fdatasync of 4 KiB appended p50 {p50:?}, p99 {p99:?}");
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
