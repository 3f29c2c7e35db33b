//! `belayd check`: every fault of the configuration at once, before anything starts. In: the configuration as `belayd run` would
//! read it. Out: faults on stderr and code 78; or what was read on stdout and 0. It changes nothing.

use std::{fs, path::Path, process::ExitCode};

use super::{GlobalArgs, complain, exit, print};
use crate::{
    config::{Config, Loaded, Tier, redact_url, units::format_size},
    monitor::{Usage, disk_of},
    sinks::templates::{BUILT_IN, Templates},
};

mod connect;

/// Arguments of `belayd check`.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
#[command(after_help = "Example:\n  belayd check --config /etc/belayd/belayd.toml --connect")]
pub struct CheckArgs {
    /// Also try the store, the sources and the sinks (connections only: nothing is sent or changed)
    #[arg(long)]
    pub connect: bool,
    /// Show every part of the built-in texts as well (plain text, HTML, chats), not only their subjects
    #[arg(long)]
    pub verbose: bool,
}

/// Runs the command.
pub fn execute(args: &CheckArgs, global: &GlobalArgs) -> ExitCode {
    let loaded = match global.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let texts = match Templates::load(&loaded.config.templates) {
        Ok(texts) => texts,
        Err(faults) => {
            complain(&faults.to_string());
            return ExitCode::from(exit::CONFIG);
        }
    };
    loaded.notes.iter().cloned().chain(room_for_journal(&loaded.config)).for_each(|note| complain(&format!("note: {note}")));
    let said = print(&format!("{}{}", summary(&loaded), samples(&texts, args.verbose)));
    if !args.connect {
        return said;
    }
    let trials = connect::try_all(&loaded.config);
    let report: String = trials.iter().map(|trial| format!("{trial}\n")).collect();
    let failed = trials.iter().any(|trial| trial.outcome.is_err());
    let said = print(&report);
    if failed { ExitCode::from(exit::FAILED) } else { said }
}

/// What was read, without secrets.
fn summary(loaded: &Loaded) -> String {
    let Config { server, store, sources, rules, anomaly_rules, routes, .. } = &loaded.config;
    let sinks = loaded.config.sinks();
    let file = loaded.file.as_ref().map_or_else(|| "no file, defaults".to_owned(), |file| file.display().to_string());
    format!(
        "OK: {file}\n  listens on {}, keeps its data in {}\n  stores in {}\n  {}, {}, {}, {}\n",
        server.listen,
        server.data_dir.display(),
        redact_url(&store.url, false),
        counted(sources.len(), "source"),
        counted(rules.len() + anomaly_rules.len(), "rule"),
        counted(sinks.len(), "sink"),
        counted(routes.len(), "route"),
    )
}

/// What texts come out as, each under its name and where it is from: those of the user's own in every part, and of the built-in ones the
/// subjects, or every part where `all` is wanted.
fn samples(texts: &Templates, all: bool) -> String {
    let mut said = String::new();
    for sample in texts.samples().iter().filter(|sample| all || sample.source != BUILT_IN || sample.name.ends_with(".subject")) {
        if said.is_empty() {
            said.push_str(if all {
                "  every text, on made-up content:\n"
            } else {
                "  texts of your own and built-in subjects, on made-up content (--verbose shows every part):\n"
            });
        }
        let text = sample.text.lines().map(|line| format!("      {line}").trim_end().to_owned() + "\n");
        said.push_str(&format!("    {} ({})\n{}", sample.name, sample.source, text.collect::<String>()));
    }
    said
}

/// Whether the disk can take the journal up to its bound; what it takes already counts as room.
fn room_for_journal(config: &Config) -> Option<String> {
    let (dir, bound) = (&config.server.data_dir, config.buffer.journal_bytes);
    let nearest =
        dir.ancestors().map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir }).find(|dir| dir.exists())?;
    let Usage { used_bytes, total_bytes } = disk_of(nearest);
    let room = total_bytes - used_bytes + allocated(&dir.join("journal"));
    // Zeros mean that the disk cannot be asked.
    if config.buffer.tier == Tier::Memory || total_bytes == 0 || room >= bound {
        return None;
    }
    let (bound, room, dir) = (format_size(bound), format_size(room / 1_000_000 * 1_000_000), dir.display());
    Some(format!(
        "buffer.journal_bytes is {bound}, and the disk of {dir} has room for {room}: senders get 507 once it is full; lower it or make room"
    ))
}

/// Bytes of the files in a directory; 0 where it cannot be read.
fn allocated(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    files.filter_map(|file| file.metadata().ok()).filter(fs::Metadata::is_file).map(|file| file.len()).sum()
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::parse,
        sinks::{content::Event, templates::Part},
    };

    #[test]
    fn of_the_built_in_texts_only_the_subjects_are_shown_unless_all_are_asked_for() {
        let mut templates = parse("").expect("no fault").templates;
        let built_in = Templates::load(&templates).expect("whole");
        let said = samples(&built_in, false);
        assert!(said.contains("firing.subject (built in)") && !said.contains("firing.text"), "{said}");
        let all = samples(&built_in, true);
        for event in Event::ALL {
            for part in Part::ALL {
                let name = format!("    {}.{} (built in)\n      ", event.as_str(), part.as_str());
                let shown = all.split_once(&name).and_then(|(_, rest)| rest.lines().next());
                assert!(shown.is_some_and(|line| !line.trim().is_empty()), "{name}: {all}");
            }
        }
        assert!(all.contains("temperature 361.5 &gt; 350 &amp; rising"), "the HTML is escaped: {all}");
        templates.files.insert("firing.subject.jinja".to_owned(), "mine: {{ name }}".to_owned());
        templates.files.insert("digest.html.jinja".to_owned(), "<b>{{ count }}</b>".to_owned());
        let said = samples(&Templates::load(&templates).expect("whole"), false);
        assert!(!said.contains("firing.subject (built in)"), "{said}");
        assert!(said.contains("firing.subject (firing.subject.jinja)") && said.contains("mine: "), "{said}");
        assert!(said.contains("digest.html (digest.html.jinja)\n      <b>52</b>"), "every part of one's own: {said}");
    }

    #[test]
    fn a_journal_larger_than_the_disk_is_noted_and_what_it_takes_already_counts_as_room() {
        let dir = tempfile::tempdir().expect("a directory");
        let with = |bound: u64| {
            let mut config = parse(&format!("[server]\ndata_dir = \"{}/absent\"\n", dir.path().display())).expect("no fault");
            config.buffer.tier = Tier::Journal;
            config.buffer.journal_bytes = bound;
            config
        };
        assert_eq!(room_for_journal(&with(8_000_000)), None);
        let note = room_for_journal(&with(1_000_000_000_000_000)).expect("no disk is that large");
        assert!(note.starts_with("buffer.journal_bytes is 1000TB") && note.contains("lower it or make room"), "{note}");
        assert_eq!(room_for_journal(&Config { buffer: parse("").expect("no fault").buffer, ..with(0) }), None);
        assert_eq!(allocated(dir.path()), 0);
        fs::write(dir.path().join("0000000001.seg"), [0; 10]).expect("a file");
        assert_eq!(allocated(dir.path()), 10);
    }
}
