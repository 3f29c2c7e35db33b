//! The daemon's own alerts: the table of the operations manual names every one that the code can raise, and no other.

use std::collections::BTreeSet;

use super::{files, root, shipped_code, text};

/// Words of the same form in those files that are no alerts.
const OTHERS: [&str; 3] = ["half-open", "redis-keeper", "redis-copier"];
/// An alert of one word.
const ONE_WORD: &str = "integrity";

/// Whether it has the form of an alert's name: `database-down`.
fn is_a_name(word: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    word == ONE_WORD || (word.contains('-') && word.split('-').all(part))
}

#[test]
fn every_alert_of_the_daemons_own_is_in_the_operations_manual() {
    let mut raised = BTreeSet::new();
    for path in files("src", ".rs") {
        let code = shipped_code(&path);
        let names_some = path == root().join("src/sinks/mod.rs") || path.starts_with(root().join("src/monitor"));
        if names_some || code.contains("AlertKind::System") {
            let words = code.split('"').skip(1).step_by(2);
            raised.extend(words.filter(|word| is_a_name(word) && !OTHERS.contains(word)).map(str::to_owned));
        }
    }
    assert!(raised.len() > 20, "the code was not understood: {raised:?}");
    let manual = text(&root().join("docs/OPERATIONS.md"));
    let table =
        manual.split("The daemon's own alerts, by name").nth(1).expect("the table").split("\n\n").nth(1).expect("its lines");
    let first_column = table.lines().skip(2).filter_map(|line| line.split('|').nth(1));
    let told: BTreeSet<String> = first_column.flat_map(|names| names.split('`').skip(1).step_by(2)).map(str::to_owned).collect();
    assert_eq!(raised, told);
}
