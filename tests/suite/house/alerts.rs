//! The daemon's own alerts: the table of the operations manual names every one that the code can raise, and no other.

use std::collections::BTreeSet;

use belayd::sinks::templates::korean;

use super::{files, root, shipped_code, text};

/// Words of the same form in those files that are no alerts.
const OTHERS: [&str; 5] = ["half-open", "redis-keeper", "redis-copier", "journal-begun-anew", "left-behind"];
/// An alert of one word.
const ONE_WORD: &str = "integrity";

/// Whether it has the form of an alert's name: `database-down`.
fn is_a_name(word: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    word == ONE_WORD || (word.contains('-') && word.split('-').all(part))
}

/// Every alert of the daemon's own that the code can raise.
fn raised() -> BTreeSet<String> {
    let mut raised = BTreeSet::new();
    for path in files("src", ".rs") {
        let code = shipped_code(&path);
        let names_some = path == root().join("src/sinks/mod.rs") || path.starts_with(root().join("src/monitor"));
        if names_some || code.contains("Transition::system(") {
            let words = code.split('"').skip(1).step_by(2);
            raised.extend(words.filter(|word| is_a_name(word) && !OTHERS.contains(word)).map(str::to_owned));
        }
    }
    assert!(raised.len() > 20, "the code was not understood: {raised:?}");
    raised
}

/// Texts of the code as one line each, whatever is filled in as `{}`.
fn with_holes(code: &str) -> String {
    let mut plain = String::with_capacity(code.len());
    let mut lines = code.lines().peekable();
    while let Some(line) = lines.next() {
        match line.strip_suffix('\\') {
            // The next line goes on with its first word.
            Some(begun) => {
                plain.push_str(begun);
                if let Some(next) = lines.peek_mut() {
                    *next = next.trim_start();
                }
            }
            None => {
                plain.push_str(line);
                plain.push('\n');
            }
        }
    }
    let mut told = String::with_capacity(plain.len());
    let plain = plain.replace("\\\"", "\"");
    let mut rest = plain.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        told.push_str(before);
        // A block or a value has blanks in it; a name and how it is written have none.
        let within = after.find(['{', '}', ' ', '"', '\n']).filter(|at| after.as_bytes()[*at] == b'}');
        match within {
            Some(at) if told.ends_with("{}") => rest = &after[at + 1..],
            Some(at) => {
                told.push_str("{}");
                rest = &after[at + 1..];
            }
            None => {
                told.push('{');
                rest = after;
            }
        }
    }
    told.push_str(rest);
    told
}

#[test]
fn every_alert_of_the_daemons_own_has_a_korean_name_and_every_korean_sentence_one_that_the_code_says() {
    let named: BTreeSet<String> = korean::NAMES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(raised(), named);
    let code: Vec<String> = files("src", ".rs")
        .iter()
        .filter(|path| !path.starts_with(root().join("src/sinks/templates")))
        .map(|path| with_holes(&shipped_code(path)))
        .collect();
    for (english, korean) in korean::SENTENCES.iter().chain(korean::FIGURES) {
        assert!(code.iter().any(|code| code.contains(english)), "nothing says {english:?} any more ({korean})");
    }
}

#[test]
fn every_alert_of_the_daemons_own_is_in_the_operations_manual() {
    let manual = text(&root().join("docs/OPERATIONS.md"));
    let table =
        manual.split("The daemon's own alerts, by name").nth(1).expect("the table").split("\n\n").nth(1).expect("its lines");
    let first_column = table.lines().skip(2).filter_map(|line| line.split('|').nth(1));
    let told: BTreeSet<String> = first_column.flat_map(|names| names.split('`').skip(1).step_by(2)).map(str::to_owned).collect();
    assert_eq!(raised(), told);
}
