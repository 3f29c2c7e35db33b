//! The report of a campaign as a page for people: what was done to the daemon, how often, on which machine, and what came of it.

use std::{fmt::Write, fs, process::Command, time::Duration};

use super::{part::Part, support::daemon::Daemon, tier};

/// What stands above the table.
#[derive(Debug)]
pub struct Head {
    /// Everything random follows from it.
    pub seed: u64,
    /// The command that does it again.
    pub command: String,
    /// The disk's p50 and p99 for 4 KiB made durable.
    pub disk: (Duration, Duration),
    /// The processor's name.
    pub processor: String,
    /// Which code it was, where that can be told.
    pub commit: Option<String>,
}

/// The commit of the working copy that this was built from, and whether anything in it was changed since. None outside of one.
pub fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = git(&["status", "--porcelain"]).is_some_and(|changes| !changes.is_empty());
    Some(if changed { format!("{commit}, with changes") } else { commit })
}

/// The page.
pub fn markdown(head: &Head, parts: &[Part]) -> String {
    let mut text = String::new();
    // Writing into memory cannot fail.
    let _ = write(&mut text, head, parts);
    text
}

fn write(text: &mut String, head: &Head, parts: &[Part]) -> std::fmt::Result {
    let failures: usize = parts.iter().map(|part| part.failures.len()).sum();
    let sum = |what: &str| parts.iter().filter_map(|part| part.counts.get(what)).sum::<u64>();
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    writeln!(text, "# What the campaign found\n")?;
    writeln!(
        text,
        "`tests/campaign` commits faults on the real daemon while senders push. An oracle outside writes down what was sent and what was\n\
         acknowledged, and compares it with the database: nothing acknowledged is missing, nothing is there twice or with other values, the\n\
         daemon's own account holds. After a fault 20 fresh readings must pass; but not within a start that is itself killed, and within\n\
         some 40 % of the lives between two power cuts only. Where readings are relayed, an independent consumer of committed\n\
         records (Python) counts too: each stored reading is in Kafka once, and nothing that is not in the database. This page is\n\
         written by its long round.\n"
    )?;
    writeln!(text, "- **{failures} failures**, {} comparisons with the database", sum("comparisons"))?;
    writeln!(text, "- {}, tier {}, seed {}", chrono::Utc::now().format("%Y-%m-%d %H:%M UTC"), tier().name, head.seed)?;
    writeln!(text, "- command: `{}`", head.command)?;
    writeln!(text, "- machine: {}, {} cores, Linux {}", head.processor, cores(), kernel())?;
    let (p50, p99) = head.disk;
    writeln!(text, "- the disk's own fdatasync of 4 KiB: p50 {:.2} ms, p99 {:.2} ms", ms(p50), ms(p99))?;
    let build = if Daemon::binary().contains("/release/") { "release" } else { "debug" };
    let commit = head.commit.as_deref().unwrap_or("not told");
    writeln!(text, "- the daemon: a {build} build; the working copy when this was written: {commit}\n")?;
    for part in parts {
        writeln!(text, "- **{}**: {}", part.name, part.about)?;
    }
    writeln!(text, "\n| part | faults | fresh readings pass again, p50 / p99 | took | failures |\n|---|---|---|---|---|")?;
    for part in parts {
        let mut times = part.recoveries.clone();
        times.sort();
        let recovery = if times.is_empty() {
            "-".into()
        } else {
            format!("{:.0} / {:.0} ms", ms(times[times.len() / 2]), ms(times[times.len() * 99 / 100]))
        };
        let (took, found) = (part.took.as_secs(), part.failures.len());
        writeln!(text, "| {} | {} of {} | {recovery} | {took} s | {found} |", part.name, part.done, part.wanted)?;
    }
    writeln!(text, "\n| part | what | how many |\n|---|---|---|")?;
    for part in parts {
        for (what, count) in &part.counts {
            writeln!(text, "| {} | {what} | {count} |", part.name)?;
        }
    }
    let list = |text: &mut String, title: &str, lines: Vec<String>| {
        if lines.is_empty() { Ok(()) } else { writeln!(text, "\n{title}\n\n{}", lines.join("\n")) }
    };
    let each = |of: fn(&Part) -> &Vec<String>| -> Vec<String> {
        parts.iter().flat_map(|part| of(part).iter().map(move |line| format!("- {}: {line}", part.name))).collect()
    };
    list(text, "Daemons that are broken on purpose:", each(|part| &part.notes))?;
    list(text, "Left out:", each(|part| &part.left_out))?;
    list(text, "Found:", each(|part| &part.failures))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}
