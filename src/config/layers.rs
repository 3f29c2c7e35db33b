//! Tests of where values come from: file, environment, flags, files with secrets, and what paths count from.

use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;

fn options(dir: &Path, env: &[(&str, &str)], set: &[&str]) -> LoadOptions {
    LoadOptions {
        search: vec!["belayd.toml".into()],
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        set: set.iter().map(|one| (*one).to_owned()).collect(),
        working_dir: dir.to_owned(),
        ..LoadOptions::default()
    }
}

fn dir(text: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("belayd.toml"), text).expect("a file");
    dir
}

fn told(options: &LoadOptions) -> String {
    load(options).expect_err("faults").to_string()
}

#[test]
fn the_environment_goes_over_the_file_and_flags_over_both() {
    let dir = dir("[buffer]\nbatch_rows = 1\nmemory_rows = 1000\nack_timeout = \"1s\"\n");
    let env = [
        ("BELAYD__BUFFER__BATCH_ROWS", "2"),
        ("BELAYD__BUFFER__MEMORY_ROWS", "2000"),
        ("BELAYD__SERVER__HOSTS", "a, b"),
        ("PATH", "/"),
    ];
    let config = load(&options(dir.path(), &env, &["buffer.batch_rows=3"])).expect("no fault").config;
    assert_eq!((config.buffer.batch_rows, config.buffer.memory_rows), (3, 2000));
    assert_eq!(config.buffer.ack_timeout.as_secs(), 1);
    assert_eq!(config.server.hosts, ["a", "b"]);
}

#[test]
fn entries_of_lists_are_named_by_index() {
    let dir = dir("[[sources]]\nname = \"a\"\nurl = \"http://a\"\nheaders = { Authorization = \"x\" }\n");
    let env = [
        ("BELAYD__SOURCES__0__INTERVAL", "2s"),
        ("BELAYD__SOURCES__0__HEADERS__AUTHORIZATION", "Bearer y"),
        ("BELAYD__SOURCES__1__NAME", "b"),
        ("BELAYD__SOURCES__1__URL", "http://b"),
        ("BELAYD__READINGS__RANGES__RPM", "[0, 9000]"),
    ];
    let config = load(&options(dir.path(), &env, &["sources[1].timeout=3s"])).expect("no fault").config;
    assert_eq!(config.sources[0].interval.as_secs(), 2);
    assert_eq!(config.sources[0].headers["authorization"], "Bearer y");
    assert_eq!((config.sources[1].name.as_str(), config.sources[1].timeout.as_secs()), ("b", 3));
    assert_eq!(config.readings.ranges["rpm"], (0.0, 9000.0));
}

#[test]
fn faults_in_environment_and_flags_name_them_and_hide_values() {
    let dir = dir("");
    for (env, expected) in [
        (
            ("BELAYD__BUFFER__BATCHROWS", "1"),
            "BELAYD__BUFFER__BATCHROWS: buffer.batchrows: unknown key; did you mean \"batch_rows\"?",
        ),
        (
            ("BELAYD__BUFFER__BATCH_ROWS", "x"),
            "BELAYD__BUFFER__BATCH_ROWS: buffer.batch_rows: expected whole number, 1 to 100000, found text",
        ),
        (("BELAYD__SMTP__PORT", "x"), "BELAYD__SMTP__PORT: smtp.port: expected whole number, 1 to 65535, found text"),
        (("BELAYD__BUFFER", "x"), "BELAYD__BUFFER: buffer: names a section; name one of its keys"),
        (
            ("BELAYD__SOURCES__URL", "http://h"),
            "BELAYD__SOURCES__URL: sources.url: needs an index, counted from 0; write BELAYD__SOURCES__0__NAME or sources.0.name",
        ),
        (
            ("BELAYD__SOURCES__7__URL", "http://h"),
            "BELAYD__SOURCES__7__URL: sources.7.url: there are 0 entries, the next index is 0",
        ),
        (
            ("BELAYD__READINGS__RANGES", "{"),
            "BELAYD__READINGS__RANGES: readings.ranges: is not valid TOML; write it as in the file, on one line",
        ),
        (
            ("BELAYD__LOG__LEVEL__X", "info"),
            "BELAYD__LOG__LEVEL__X: log.level.x: names something within a key that holds one value; name level alone",
        ),
    ] {
        assert_eq!(told(&options(dir.path(), &[env], &[])), expected);
    }
    assert_eq!(
        told(&options(dir.path(), &[], &["buffer.batch_rows"])),
        "--set buffer.batch_rows: has no value; write --set section.key=value"
    );
    let faults = told(&options(dir.path(), &[], &["store.url=mysql://hunter2@h"]));
    assert!(faults.starts_with("--set store.url: store.url: scheme \"mysql\"") && !faults.contains("hunter2"), "{faults}");
}

#[test]
fn paths_count_from_the_file_and_from_the_working_directory_outside_it() {
    let dir = dir("");
    let elsewhere = dir.path().join("etc");
    fs::create_dir(&elsewhere).expect("a directory");
    fs::write(elsewhere.join("b.toml"), "[store]\nurl = \"sqlite://data/b.db\"\n[log]\nfile = \"b.log\"\n").expect("a file");
    let mut options = options(dir.path(), &[("BELAYD__LOG__FILE", "env.log")], &[]);
    options.file = Some("etc/b.toml".into());
    let config = load(&options).expect("no fault").config;
    assert_eq!(config.store.url, format!("sqlite://{}", elsewhere.join("data/b.db").display()));
    assert_eq!(config.server.data_dir, elsewhere.join("belayd-data"));
    assert_eq!(config.log.file, Some(dir.path().join("env.log")));
}

#[test]
fn the_database_lies_in_the_data_directory_unless_the_file_says_otherwise() {
    assert_eq!(Config::default().store.url, "sqlite://belayd-data/belayd.db");
    assert_eq!(
        parse("[server]\ndata_dir = \"/var/lib/belayd\"\n").expect("no fault").store.url,
        "sqlite:///var/lib/belayd/belayd.db"
    );
}

#[test]
fn timestamps_reach_as_far_back_as_readings_are_kept() {
    let config = parse("[retention]\nreadings = \"30d\"\n").expect("no fault");
    assert_eq!(config.readings.max_behind, config.retention.readings);
}

#[test]
fn a_secret_comes_from_a_file_or_a_credential() {
    let dir = dir("[store]\nurl_file = \"store\"\n[[webhooks]]\nname = \"w\"\nurl_credential = \"hook\"\n");
    fs::write(dir.path().join("store"), "postgres://u:p@h/db\n").expect("a file");
    fs::create_dir(dir.path().join("credentials")).expect("a directory");
    fs::write(dir.path().join("credentials/hook"), "https://h/x").expect("a file");
    let mut options = options(dir.path(), &[], &[]);
    options.credentials_dir = Some(dir.path().join("credentials"));
    let config = load(&options).expect("no fault").config;
    assert_eq!(config.store.url, "postgres://u:p@h/db");
    assert_eq!(config.webhooks[0].url, "https://h/x");
    options.credentials_dir = None;
    assert!(
        told(&options)
            .contains("belayd.toml:5:18: webhooks[0].url_credential: there are no credentials here; start it under systemd")
    );
    options.env =
        vec![("BELAYD__STORE__URL".into(), "sqlite://x.db".into()), ("BELAYD__WEBHOOKS__0__URL".into(), "http://h".into())];
    let config = load(&options).expect("the environment replaces the other ways").config;
    assert_eq!(config.webhooks[0].url, "http://h");
}

#[test]
fn a_bad_secret_is_told_without_showing_it() {
    let dir = dir("[store]\nurl_file = \"store\"\n");
    assert!(told(&options(dir.path(), &[], &[])).starts_with("belayd.toml:2:12: store.url_file: there is no file "));
    fs::write(dir.path().join("store"), "mysql://hunter2\n").expect("a file");
    let faults = told(&options(dir.path(), &[], &[]));
    assert!(faults.contains("scheme \"mysql\" is not served") && !faults.contains("hunter2"), "{faults}");
}

#[test]
fn a_file_that_was_asked_for_must_be_there_and_one_that_is_looked_for_need_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = options(dir.path(), &[], &[]);
    assert_eq!(load(&options).expect("defaults").file, None);
    options.file = Some("absent.toml".into());
    assert!(told(&options).starts_with("absent.toml: cannot read the configuration: No such file"));
}

#[test]
fn the_journal_has_as_many_streams_as_the_database_takes_at_once() {
    let streams = |text: &str| parse(text).expect("no fault").buffer.streams;
    assert_eq!(streams(""), 1);
    assert_eq!(streams("[store]\nurl = \"postgres://h/db\"\n"), 2);
    assert_eq!(streams("[store]\nurl = \"postgres://h/db\"\n[buffer]\nstreams = 1\n"), 1);
    assert_eq!(streams("[buffer]\nstreams = 3\n"), 3);
}

#[test]
fn default_rules_hold_only_where_no_rule_is_given() {
    let names = |text: &str| parse(text).expect("no fault").rules.into_iter().map(|rule| rule.name).collect::<Vec<_>>();
    assert_eq!(names(""), ["overheat", "overspeed"]);
    assert_eq!(names("rules = []"), [""; 0]);
    let mixed = parse(
        "[[rules]]\nname = \"wear\"\nkind = \"anomaly\"\nmetrics = [\"rpm\", \"fuelFlow\"]\n[[rules]]\nname = \"r\"\nmetric = \"rpm\"\nop = \"<\"\n\
         threshold = 1\n[[rules]]\nname = \"egt\"\nkind = \"anomaly\"\nmetric = \"temperature\"\nsensitivity = 2\nlevel = \"INFO\"\n",
    )
    .expect("no fault");
    let metrics: Vec<_> =
        mixed.anomaly_rules.iter().map(|rule| (rule.name.as_str(), rule.metrics.join(" "), rule.sensitivity)).collect();
    assert_eq!(metrics, [("wear", "fuel_flow rpm".to_owned(), 1.0), ("egt", "temperature".to_owned(), 2.0)]);
    assert_eq!((mixed.rules.len(), mixed.anomaly_rules[0].warm_up), (1, 50));
    assert_eq!(names("[[rules]]\nname = \"r\"\nmetric = \"fuelFlow\"\nop = \"<\"\nthreshold = 1\n"), ["r"]);
}

#[test]
fn without_routes_everything_goes_to_the_log_and_every_webhook() {
    let config = parse("[[webhooks]]\nname = \"w\"\nurl = \"http://h\"\n").expect("no fault");
    assert_eq!(config.routes.len(), 1);
    assert_eq!(config.routes[0].sinks, ["log", "w"]);
}

#[test]
fn what_is_probably_not_meant_is_noted() {
    let dir = dir(
        "[[rules]]\nname = \"r\"\nmetric = \"temprature\"\nop = \">\"\nthreshold = 1\n[[webhooks]]\nname = \"w\"\nurl = \"http://h\"\n\
         [[routes]]\nsinks = \"log\"\n[buffer]\ntier = \"memory\"\nstreams = 2\n",
    );
    let notes = load(&options(dir.path(), &[], &[])).expect("no fault").notes;
    assert_eq!(
        notes,
        [
            "buffer.streams means nothing with buffer.tier = \"memory\"",
            "rule \"r\" watches the extra metric \"temprature\"; did you mean \"temperature\"?",
            "webhook \"w\" is named by no route: no alert goes there"
        ]
    );
}
