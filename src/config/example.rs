//! What is printed from the table of keys: the commented example and the reference.

use std::fmt::Write;

use super::keys::{Absent, Key, NOT_SERVED, SECTIONS, Section};

/// The commented example. Loading it gives exactly the defaults.
pub fn example() -> String {
    let mut text = String::from(
        "# belayd.toml: every key with its default. A key that is left out means the same.\n\
         # Paths are relative to this file. BELAYD__SECTION__KEY in the environment goes over it.\n",
    );
    for section in SECTIONS {
        let _ = write!(text, "\n{}", comment(section.doc));
        if section.is_list() {
            list(&mut text, section);
        } else {
            let _ = writeln!(text, "[{}]", section.name);
            section.keys.iter().for_each(|key| keyed(&mut text, key, false));
        }
    }
    text
}

/// Lines of at most about 110 characters, each a comment.
fn comment(doc: &str) -> String {
    let mut text = String::new();
    let mut line = String::new();
    for word in doc.split(' ') {
        if !line.is_empty() && line.len() + word.len() > 108 {
            let _ = writeln!(text, "#{line}");
            line.clear();
        }
        let _ = write!(line, " {word}");
    }
    let _ = writeln!(text, "#{line}");
    text
}

fn keyed(text: &mut String, key: &Key, commented: bool) {
    text.push_str(&comment(key.doc));
    let _ = match key.absent {
        Absent::Is(value) if !commented => writeln!(text, "{} = {value}", key.name),
        Absent::Is(value) | Absent::Example(value) | Absent::Fault(value) => writeln!(text, "# {} = {value}", key.name),
    };
}

/// A list of tables: the entries that hold by default, or else one entry, commented out.
fn list(text: &mut String, section: &Section) {
    if section.default_entries.is_empty() {
        let _ = writeln!(text, "# [[{}]]", section.name);
        section.keys.iter().for_each(|key| keyed(text, key, true));
        return;
    }
    for key in section.keys {
        text.push_str(&comment(&format!("{}: {}", key.name, key.doc)));
    }
    text.push_str(section.default_entries);
}

/// The reference in Markdown: `docs/CONFIGURATION.md`.
pub fn reference() -> String {
    let mut text = String::from(INTRODUCTION);
    for section in SECTIONS {
        let (open, close) = if section.is_list() { ("[[", "]]") } else { ("[", "]") };
        let _ = write!(text, "\n## `{open}{}{close}`\n\n{}\n", section.name, section.doc);
        if section.is_list() {
            let _ = writeln!(text, "\nAt most {} entries.", section.most);
        }
        if !section.default_entries.is_empty() {
            let _ = write!(text, "\n```toml\n{}```\n", section.default_entries);
        }
        text.push_str("\n| key | value | default | reload | |\n|---|---|---|---|---|\n");
        section.keys.iter().for_each(|key| row(&mut text, key));
    }
    text.push_str("\n## Known, and not available in this build\n\n");
    for (path, reason) in NOT_SERVED {
        let _ = writeln!(text, "- `{path}`: {reason}");
    }
    text
}

const INTRODUCTION: &str = "# Configuration

<!-- Printed by `belayd config --reference > docs/CONFIGURATION.md`; a test compares the two. -->

belayd needs no configuration. What it reads, later over earlier:

1. the file: `--config FILE`, else `./belayd.toml`, else `/etc/belayd/belayd.toml`, else nothing;
2. the environment: `BELAYD__SECTION__KEY`, for example `BELAYD__BUFFER__BATCH_ROWS=500`; entries of lists by index
   (`BELAYD__SOURCES__0__URL`), names within tables after the key (`BELAYD__SOURCES__0__HEADERS__AUTHORIZATION`); lists as `a,b` or as
   in the file, tables as in the file on one line;
3. flags: `--set section.key=value` (`--set sources.0.interval=2s`), and the flags of a command.

`belayd check` tells every fault at once, with file, line, column, key and what to do; so does every other command, with exit code 78. An
unknown key is a fault, in the file and in the environment. `belayd config --default` prints all of this as a commented file.

Relative paths in the file, and defaults, count from the directory of the file; without a file, in the environment and in flags they count
from the working directory. The same holds for `sqlite://PATH`.

Durations are a number and a unit: `us`, `ms`, `s`, `m`, `h`, `d` (`\"1.5h\"`). Sizes too: `B`, `kB`, `MB`, `GB`, `TB` (powers of 1000),
`KiB`, `MiB`, `GiB` (powers of 1024).

A URL that holds a secret, a password, a webhook's secret or a bot's token can stand in a file of its own (`url_file`, `password_file` and so
on) or in a systemd credential (`url_credential`, `password_credential`) instead. URLs are never shown with user, password or query, those of
chats, webhooks, bots and the ping of `[deadman]` never with their path, headers never with their values, passwords, secrets and tokens never.

**reload**: `yes` is applied by SIGHUP (`systemctl reload belayd`) while running. Where a key with `no` has changed too, nothing is applied,
the reason is logged, and the old configuration stays.
";

fn row(text: &mut String, key: &Key) {
    let alias = key.alias.map_or_else(String::new, |alias| format!(", `{alias}`"));
    let default = match key.absent {
        Absent::Is(value) => format!("`{value}`"),
        Absent::Example(value) => format!("none; for example `{value}`"),
        Absent::Fault(value) => format!("**required**; for example `{value}`"),
    };
    let reload = if key.live { "yes" } else { "no" };
    let kind = key.kind.describe();
    let cells = [format!("`{}`{alias}", key.name), kind, default, reload.to_owned(), key.doc.to_owned()];
    let _ = writeln!(text, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        Config,
        keys::Kind,
        parse,
        units::{parse_duration, parse_size},
    };

    #[test]
    fn the_example_gives_exactly_the_defaults() {
        let example = example();
        let config = parse(&example).unwrap_or_else(|faults| panic!("{faults}\n{example}"));
        assert_eq!(config, Config::default());
    }

    #[test]
    fn the_example_names_every_key() {
        let example = example();
        for section in SECTIONS {
            let header = if section.is_list() { format!("[[{}]]\n", section.name) } else { format!("[{}]\n", section.name) };
            let part = example.split(&header).nth(1).unwrap_or_else(|| panic!("{header} is missing"));
            for key in section.keys {
                let named = part.contains(&format!("{} = ", key.name)) || example.contains(&format!("# {}: ", key.name));
                assert!(named, "{}.{}", section.name, key.name);
            }
        }
    }

    #[test]
    fn every_example_value_is_of_its_kind() {
        // Taking the comment signs away makes every example value count; only what excludes each other is left out.
        let is_key =
            |text: &str| text.split_once(" = ").is_some_and(|(name, _)| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        let text: String = example()
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|rest| is_key(rest) || rest.starts_with("[[")).unwrap_or(line))
            .filter(|line| {
                !["url_", "password_", "secret_", "token_", "cluster = ", "recipients = "]
                    .iter()
                    .any(|begin| line.starts_with(begin))
                    && !line.contains('…')
            })
            .map(|line| format!("{line}\n"))
            .collect();
        parse(&text).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
    }

    #[test]
    fn the_committed_reference_is_the_printed_one() {
        let committed = include_str!("../../docs/CONFIGURATION.md");
        assert!(committed == reference(), "run: cargo run -- config --reference > docs/CONFIGURATION.md");
    }

    #[test]
    fn no_bound_and_no_default_of_the_table_is_malformed() {
        for section in SECTIONS {
            for key in section.keys {
                if let Kind::Duration(min, max) = key.kind {
                    let bounds = (parse_duration(min), parse_duration(max));
                    assert!(matches!(bounds, (Ok(min), Ok(max)) if min <= max), "{}.{}", section.name, key.name);
                }
                if let Kind::Size(min, max) = key.kind {
                    let bounds = (parse_size(min), parse_size(max));
                    assert!(matches!(bounds, (Ok(min), Ok(max)) if min <= max), "{}.{}", section.name, key.name);
                }
            }
        }
    }
}
