//! The house rules, kept by a test: who may import whom, how long a file may be, whose licences are allowed, and that what
//! the documentation promises is held to the code by somebody.

mod alerts;
mod licences;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Which stage may use which. A stage is a folder or a file directly below `src`.
///
/// The stages that are actors (ingest, buffer, alert, outbox, schedule, monitor) do not know each other: they hold a recipient
/// that `daemon` gave them. Only `monitor` may look at the others' views, because looking is its duty and it commands nobody.
const MAY_USE: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("clock", &[]),
    ("folders", &[]),
    ("systemd", &[]),
    ("config", &["domain"]),
    // Messages carry a batch's room in the byte budget, which belongs to the way in.
    ("protocol", &["config", "domain", "ingest"]),
    ("logging", &["clock", "config", "supervise"]),
    ("supervise", &["config", "protocol", "systemd"]),
    ("event", &["buffer", "domain"]),
    // Frames are what the drain hands to the store.
    ("store", &["buffer", "clock", "config", "domain", "folders"]),
    ("sinks", &["config", "domain", "ingest"]),
    ("ingest", &["clock", "config", "domain", "event", "protocol", "supervise"]),
    ("buffer", &["clock", "config", "domain", "event", "protocol", "supervise"]),
    ("alert", &["clock", "config", "domain", "event", "protocol", "sinks", "store", "supervise"]),
    ("outbox", &["clock", "config", "domain", "event", "protocol", "sinks", "store", "supervise"]),
    ("schedule", &["clock", "config", "domain", "event", "protocol", "store", "supervise"]),
    (
        "monitor",
        &["alert", "buffer", "clock", "config", "domain", "event", "ingest", "outbox", "protocol", "store", "supervise", "systemd"],
    ),
    (
        "web",
        &[
            "buffer",
            "clock",
            "config",
            "domain",
            "event",
            "ingest",
            "logging",
            "monitor",
            "protocol",
            "schedule",
            "sinks",
            "store",
            "supervise",
        ],
    ),
    // The simulator sends with the same guarded client as everything else.
    ("sim", &["domain", "ingest"]),
    // The daemon ends with the exit codes of the command line.
    (
        "daemon",
        &[
            "alert",
            "buffer",
            "cli",
            "clock",
            "config",
            "domain",
            "event",
            "folders",
            "ingest",
            "logging",
            "monitor",
            "outbox",
            "protocol",
            "schedule",
            "sinks",
            "store",
            "supervise",
            "systemd",
            "web",
        ],
    ),
    // A backup reads what the others keep, and a restore holds the directory's lock.
    ("backup", &["buffer", "config", "daemon", "domain", "folders", "store"]),
    ("cli", &["backup", "buffer", "clock", "config", "daemon", "domain", "ingest", "logging", "monitor", "sim", "sinks", "store"]),
];

/// Nobody reads a longer file to its end.
const FILE_MAX_LINES: usize = 450;
/// Where to look again whether one file became two.
const FILE_AIM_LINES: usize = 300;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `dir` whose name ends so, in order.
fn files(dir: &str, end: &str) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![root().join(dir)]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(end) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The code of a file without comments and without its test module: what the shipped binary is made of.
fn shipped_code(path: &Path) -> String {
    let relative = path.strip_prefix(root()).unwrap_or(path);
    if relative.iter().any(|part| part.to_string_lossy().trim_end_matches(".rs") == "tests") {
        return String::new();
    }
    let text = text(path);
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The first names behind every `crate::`, those of a braced list included.
fn used_stages(code: &str) -> BTreeSet<String> {
    let ident = |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut used = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        let rest = &code[at + found.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            used.insert(ident(rest));
            continue;
        };
        let (mut depth, mut start) = (0i32, true);
        for (index, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && !c.is_whitespace() => {
                    used.insert(ident(&list[index..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    used.retain(|name| !name.is_empty());
    used
}

#[test]
fn the_parser_of_imports_sees_lists_paths_and_nested_lists() {
    let code = "use crate::{a::{x, y}, b, c::z};\nuse crate::d;\nfn f() { crate::e::g(); }";
    assert_eq!(used_stages(code).into_iter().collect::<Vec<_>>(), ["a", "b", "c", "d", "e"]);
}

#[test]
fn stages_use_only_what_they_may() {
    let may: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for path in files("src", ".rs") {
        let relative = path.strip_prefix(root().join("src")).expect("a source file").to_owned();
        let stage = relative.iter().next().expect("a name").to_string_lossy().trim_end_matches(".rs").to_owned();
        if matches!(stage.as_str(), "lib" | "main") {
            continue;
        }
        let Some(allowed) = may.get(stage.as_str()) else {
            wrong.push(format!("{}: the stage {stage} is not in the table of this test", relative.display()));
            continue;
        };
        for used in used_stages(&shipped_code(&path)) {
            // Macros of a stage are found at the root of the crate; their names are no stages.
            if used != stage && may.contains_key(used.as_str()) && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{}: {stage} must not use {used}", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_store_knows_the_database() {
    let wrong: Vec<_> = files("src", ".rs")
        .into_iter()
        .filter(|path| !path.starts_with(root().join("src/store")))
        .filter(|path| {
            let code = shipped_code(path);
            ["diesel::", "diesel_migrations", "libsqlite3_sys", "pq_sys"].iter().any(|name| code.contains(name))
        })
        .collect();
    assert!(wrong.is_empty(), "diesel belongs to src/store: {wrong:?}");
}

#[test]
fn files_stay_short_enough_to_be_read() {
    let mut long: Vec<(usize, PathBuf)> = ["src", "tests", "benches"]
        .iter()
        .flat_map(|dir| files(dir, ".rs"))
        .map(|path| (text(&path).lines().count(), path))
        .filter(|(lines, _)| *lines > FILE_AIM_LINES)
        .collect();
    long.sort();
    for (lines, path) in &long {
        eprintln!("{lines} lines, look again: {}", path.strip_prefix(root()).unwrap_or(path).display());
    }
    long.retain(|(lines, _)| *lines > FILE_MAX_LINES);
    assert!(long.is_empty(), "longer than {FILE_MAX_LINES} lines: {long:?}");
}

#[test]
fn migrations_are_twins() {
    let names = |backend: &str| -> BTreeSet<String> {
        let folder = root().join("migrations").join(backend);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    };
    let (sqlite, postgres) = (names("sqlite"), names("postgres"));
    assert!(!sqlite.is_empty());
    assert_eq!(sqlite, postgres);
    for backend in ["sqlite", "postgres", "control"] {
        for name in names(backend) {
            for half in ["up.sql", "down.sql"] {
                let file = root().join("migrations").join(backend).join(&name).join(half);
                assert!(file.is_file(), "{} is missing: every step can be undone", file.display());
            }
        }
    }
}

#[test]
fn what_the_documentation_lists_is_compared_with_the_code_by_a_test() {
    // Each document with the words by which its test can be found.
    for (document, test) in [("docs/CONFIGURATION.md", "CONFIGURATION.md"), ("docs/METRICS.md", "METRICS.md")] {
        assert!(root().join(document).is_file(), "{document} is missing");
        let held = ["src", "tests"].iter().flat_map(|dir| files(dir, ".rs")).any(|path| {
            !path.ends_with("house/mod.rs")
                && text(&path).lines().any(|line| line.contains(test) && !line.trim_start().starts_with("//"))
        });
        assert!(held, "no test reads {document}");
    }
    let openapi = files("src/web", ".rs").into_iter().chain(files("tests", ".rs")).any(|path| {
        let text = text(&path);
        text.contains("#[test]") && text.contains("openapi") && text.contains("ROUTES")
    });
    assert!(openapi, "no test compares the OpenAPI document with the routes");
}

#[test]
fn nothing_names_the_place_where_it_was_made() {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let Some(listed) = listed.ok().filter(|output| output.status.success()) else {
        crate::support::left_out("the tree is no git checkout");
        return;
    };
    // Put together here, so that this file does not name them either.
    let places: Vec<String> = ["home", "root", "work", "Users"].iter().map(|place| format!("/{place}/")).collect();
    let mut wrong = Vec::new();
    for name in String::from_utf8_lossy(&listed.stdout).split('\0').filter(|name| !name.is_empty()) {
        // Pictures are no text; what was deleted and not yet committed is not there.
        let Ok(text) = fs::read_to_string(root().join(name)) else { continue };
        for (number, line) in text.lines().enumerate() {
            let absolute = |place: &String| line.match_indices(place.as_str()).any(|(at, _)| starts_a_path(line, at));
            if places.iter().any(absolute) {
                wrong.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "a path of one machine:\n{}", wrong.join("\n"));
}

/// Whether the slash at `at` begins an absolute path: what stands before it belongs to no path or URL.
fn starts_a_path(line: &str, at: usize) -> bool {
    line[..at]
        .chars()
        .next_back()
        .is_none_or(|before| !before.is_alphanumeric() && !matches!(before, '/' | '.' | '-' | '_' | '}' | ')' | '*' | '$' | '~'))
}
