//! Whose licences are allowed among the dependencies. The same list stands in `deny.toml`.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use super::root;

/// Licences that a user of the binary can live with; what an expression offers besides does not matter.
const PERMISSIVE: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "PostgreSQL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "blessing",
];
/// Weak copyleft that stays in test binaries and is never shipped.
const TESTS_ONLY: &[&str] = &["MPL-2.0"];

#[test]
fn every_dependency_has_a_permissive_licence() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let shipped = shipped_packages(&metadata);
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for package in metadata["packages"].as_array().expect("packages") {
        let id = package["id"].as_str().expect("an id");
        let licence = package["license"].as_str().unwrap_or("none");
        let resolved = metadata["resolve"]["nodes"].as_array().expect("nodes").iter().any(|node| node["id"] == id);
        if !resolved {
            continue;
        }
        seen += 1;
        let allowed = |name: &str| PERMISSIVE.contains(&name) || (TESTS_ONLY.contains(&name) && !shipped.contains(id));
        if !permits(licence, &allowed) {
            wrong.push(format!("{} {}: {licence}", package["name"], package["version"]));
        }
    }
    assert!(seen > 100, "only {seen} packages were looked at");
    assert!(wrong.is_empty(), "not permissive:\n{}", wrong.join("\n"));
}

/// Everything that is reached from belayd without a dev-dependency.
fn shipped_packages(metadata: &serde_json::Value) -> BTreeSet<String> {
    let nodes: BTreeMap<&str, &serde_json::Value> = metadata["resolve"]["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .map(|node| (node["id"].as_str().expect("an id"), node))
        .collect();
    let mut open = vec![metadata["resolve"]["root"].as_str().expect("a root").to_owned()];
    let mut shipped = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !shipped.insert(id.clone()) {
            continue;
        }
        for dependency in nodes[id.as_str()]["deps"].as_array().expect("deps") {
            let kinds = dependency["dep_kinds"].as_array().expect("kinds");
            if kinds.iter().any(|kind| kind["kind"] != "dev") {
                open.push(dependency["pkg"].as_str().expect("an id").to_owned());
            }
        }
    }
    shipped
}

/// An SPDX expression, or the older form with slashes, against a list: one of each `OR`, all of each `AND`.
fn permits(expression: &str, allowed: &impl Fn(&str) -> bool) -> bool {
    let expression = expression.replace('/', " OR ");
    let groups = split_outside(&expression, " AND ");
    if groups.len() > 1 {
        return groups.iter().all(|part| permits(part, allowed));
    }
    let choices = split_outside(&expression, " OR ");
    if choices.len() > 1 {
        return choices.iter().any(|part| permits(part, allowed));
    }
    let one = expression.trim();
    if let Some(inner) = one.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        return permits(inner, allowed);
    }
    // An exception only ever permits more.
    allowed(one.split(" WITH ").next().unwrap_or(one).trim())
}

/// Splits at `word` where no parenthesis is open.
fn split_outside<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    for (at, _) in text.match_indices(word) {
        let before = &text[..at];
        if before.matches('(').count() == before.matches(')').count() {
            parts.push(&text[start..at]);
            start = at + word.len();
        }
    }
    parts.push(&text[start..]);
    parts
}

#[test]
fn licence_expressions_are_read_as_they_are_meant() {
    let allowed = |name: &str| PERMISSIVE.contains(&name);
    for good in ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR GPL-2.0) AND Unicode-3.0", "Apache-2.0 WITH LLVM-exception"] {
        assert!(permits(good, &allowed), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-2.0", "(MIT OR Apache-2.0) AND MPL-2.0", "none", ""] {
        assert!(!permits(bad, &allowed), "{bad}");
    }
}
