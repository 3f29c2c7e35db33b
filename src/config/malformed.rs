//! Malformed configurations, each with the exact line that is told of it.

use super::{relations::needs_openssl, *};

/// What `text` is told, one fault a line.
fn told(text: &str) -> String {
    match parse(text) {
        Ok(config) => panic!("no fault in {text:?}: {config:?}"),
        Err(faults) => faults.to_string(),
    }
}

/// A configuration and what is told of it.
type Case = (&'static str, &'static str);

fn check(cases: &[Case]) {
    for (text, expected) in cases {
        assert_eq!(told(text), *expected, "in {text:?}");
    }
}

#[test]
fn unknown_keys_are_told_with_the_nearest_known_one() {
    check(&[
        ("[buffer]\n\nbatchrows = 1\n", "belayd.toml:3:1: buffer.batchrows: unknown key; did you mean \"batch_rows\"?"),
        ("[buffer]\nbatchRows = 1\n", "belayd.toml:2:1: buffer.batchRows: unknown key; did you mean \"batch_rows\"?"),
        ("[bufer]\nbatch_rows = 1\n", "belayd.toml:1:2: bufer: unknown key; did you mean \"buffer\"?"),
        ("colour = 3\n", "belayd.toml:1:1: colour: unknown key"),
        ("batch_rows = 3\n", "belayd.toml:1:1: batch_rows: unknown key; it belongs under [buffer]"),
        ("[store]\ndata_dir = \"x\"\n", "belayd.toml:2:1: store.data_dir: unknown key; it belongs under [server]"),
        ("[server.tls]\ncert = \"x\"\n", "belayd.toml:1:9: server.tls: unknown key; it belongs under [smtp]"),
        (
            "[[sources]]\nname = \"a\"\nurl = \"http://h\"\nintervall = \"1s\"\n",
            "belayd.toml:4:1: sources[0].intervall: unknown key; did you mean \"interval\"?",
        ),
    ]);
}

#[test]
fn what_this_build_cannot_serve_is_told_apart_from_what_is_unknown() {
    check(&[
        (
            "[buffer]\ntier = \"tripple\"\n",
            "belayd.toml:2:8: buffer.tier: unknown value \"tripple\", expected one of \"journal\", \"memory\", \"redis\", \"triple\"; did you mean \"triple\"?",
        ),
        (
            "[redis]\nurl = \"redis://h\"\ncluster = [\"redis://h\"]\n",
            "belayd.toml:3:11: redis.cluster: given beside \"url\"; keep one of them",
        ),
        (
            "[redis]\ntimeout = \"3s\"\n[buffer]\nack_timeout = \"3s\"\n",
            "belayd.toml:2:11: redis.timeout: 3s leaves no time for the journal's answer within buffer.ack_timeout (3s); lower it to half of that at most",
        ),
        (
            "[buffer]\njournal_bytes = \"1MB\"\n",
            "belayd.toml:2:17: buffer.journal_bytes: \"1MB\" is out of range: \"8MB\" to \"1TB\"",
        ),
        ("[buffer]\nstreams = 9\n", "belayd.toml:2:11: buffer.streams: 9 is out of range: 1 to 8"),
        (
            "[buffer]\ntier = \"disk\"\n",
            "belayd.toml:2:8: buffer.tier: unknown value \"disk\", expected one of \"journal\", \"memory\", \"redis\", \"triple\"",
        ),
        (
            "[buffer]\ntier = \"memroy\"\n",
            "belayd.toml:2:8: buffer.tier: unknown value \"memroy\", expected one of \"journal\", \"memory\", \"redis\", \"triple\"; did you mean \"memory\"?",
        ),
    ]);
}

#[test]
fn wrong_types_are_told_with_what_is_expected() {
    check(&[
        (
            "[buffer]\nbatch_rows = \"100\"\n",
            "belayd.toml:2:14: buffer.batch_rows: expected whole number, 1 to 100000, found text; write it without quotes",
        ),
        (
            "[buffer]\nflush_interval = 10\n",
            "belayd.toml:2:18: buffer.flush_interval: expected duration, \"1ms\" to \"1h\", found a whole number; did you mean \"10s\"?",
        ),
        (
            "[buffer]\nmemory_bytes = 200000\n",
            "belayd.toml:2:16: buffer.memory_bytes: expected size, \"100kB\" to \"100GB\", found a whole number; did you mean \"200000B\"?",
        ),
        ("[server]\nmetrics_open = 1\n", "belayd.toml:2:16: server.metrics_open: expected true or false, found a whole number"),
        (
            "[server]\nhosts = [\"a\", 1]\n",
            "belayd.toml:2:9: server.hosts: expected list of host names or addresses, without port, found a whole number",
        ),
        ("server = 1\n", "belayd.toml:1:10: server: expected one table, found a whole number; write [server]"),
        ("[sources]\nname = \"s\"\n", "belayd.toml:1:1: sources: expected a list of tables, found a table; write [[sources]]"),
        ("[[server]]\n", "belayd.toml:1:1: server: expected one table, found a list; write [server]"),
        ("rules = [1]\n", "belayd.toml:1:10: rules[0]: expected a table, found a whole number"),
        (
            "[log]\nlevel = 2026-01-01\n",
            "belayd.toml:2:9: log.level: expected error, warn, info, debug, trace or off, or directives such as \"info,belayd::outbox=debug\", found a date",
        ),
    ]);
}

#[test]
fn values_out_of_range_are_told_with_the_range() {
    check(&[
        ("[buffer]\nbatch_rows = 0\n", "belayd.toml:2:14: buffer.batch_rows: 0 is out of range: 1 to 100000"),
        ("[monitor]\ncpu_percent = 101\n", "belayd.toml:2:15: monitor.cpu_percent: 101 is out of range: 1 to 100"),
        ("[monitor]\ndisk_percent = nan\n", "belayd.toml:2:16: monitor.disk_percent: must be a finite number"),
        ("[buffer]\nack_timeout = \"1h\"\n", "belayd.toml:2:15: buffer.ack_timeout: \"1h\" is out of range: \"100ms\" to \"5m\""),
        (
            "[buffer]\nack_timeout = \"10 sec\"\n",
            "belayd.toml:2:15: buffer.ack_timeout: \"10 sec\" is not a duration; write a number and a unit (us, ms, s, m, h, d), \
             for example \"10s\" or \"1.5h\"",
        ),
        (
            "[buffer]\nmemory_bytes = \"10mb\"\n",
            "belayd.toml:2:16: buffer.memory_bytes: \"10mb\" is not a size; write a number and a unit (B, kB, MB, GB, TB, KiB, MiB, GiB), \
             for example \"10MB\"",
        ),
        (
            "[schedule]\ncleanup_at = \"25:00\"\n",
            "belayd.toml:2:14: schedule.cleanup_at: \"25:00\" is not a time of day; write HH:MM, for example \"03:00\"",
        ),
        (
            "[log]\nlevel = \"inof\"\n",
            "belayd.toml:2:9: log.level: unknown value \"inof\", expected one of \"error\", \"warn\", \"info\", \"debug\", \"trace\", \"off\"; did you mean \"info\"?",
        ),
        (
            "[readings]\nranges = { rpm = [10, 0] }\n",
            "belayd.toml:2:10: readings.ranges: rpm: the lowest value 10 is above the highest 0",
        ),
    ]);
}

#[test]
fn addresses_and_urls_are_told_without_their_secrets() {
    check(&[
        (
            "[server]\nlisten = \"localhost:7070\"\n",
            "belayd.toml:2:10: server.listen: \"localhost:7070\" is not ADDRESS:PORT; write an IP address and a port, \
             for example \"127.0.0.1:7070\" or \"[::1]:7070\"",
        ),
        (
            "[server]\nlisten = \"0.0.0.0:7070\"\n",
            "belayd.toml:2:10: server.listen: 0.0.0.0:7070 is beyond loopback, and tokens would cross the network in the clear; \
             add tls_cert and tls_key, or behind_proxy = [\"ADDRESS\"], or listen on 127.0.0.1",
        ),
        ("[server]\ntls_cert = \"c.pem\"\n", "belayd.toml:2:12: server.tls_cert: is given without tls_key; add tls_key"),
        (
            "[server]\nhosts = [\"belayd.local:7070\"]\n",
            "belayd.toml:2:9: server.hosts: \"belayd.local:7070\" has a port; did you mean \"belayd.local\"?",
        ),
        ("[server]\nhosts = []\n", "belayd.toml:2:9: server.hosts: is empty: nobody could reach belayd; name a host"),
        (
            "[server]\nbehind_proxy = [\"10.0.0.0/8\"]\n",
            "belayd.toml:2:16: server.behind_proxy: \"10.0.0.0/8\" is not an IP address; write for example \"10.0.0.1\"",
        ),
        (
            "[store]\nurl = \"mysql://root:hunter2@h/db\"\n",
            "belayd.toml:2:7: store.url: scheme \"mysql\" is not served; write sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE",
        ),
        (
            "[store]\nurl = \"postgres://h/db\"\nurl_file = \"secret\"\n",
            "belayd.toml:3:12: store.url_file: given beside \"url\"; keep one of them",
        ),
        (
            "[[sources]]\nname = \"a\"\nurl = \"ftp://me:hunter2@h\"\n",
            "belayd.toml:3:7: sources[0].url: scheme \"ftp\" is not served; write http:// or https://",
        ),
        (
            "[[webhooks]]\nname = \"w\"\nurl = \"http://h\"\nheaders = { \"a b\" = \"hunter2\" }\n",
            "belayd.toml:4:11: webhooks[0].headers: \"a b\" is not a header name",
        ),
    ]);
}

#[test]
fn relations_between_keys_are_told_at_the_key_to_change() {
    check(&[
        (
            "[kafka]\ntopic = \"other\"\n",
            "belayd.toml:1:1: kafka.brokers: is missing, and topic is given; add for example: brokers = \"127.0.0.1:9092\"",
        ),
        (
            "[kafka]\nbrokers = \"h:1\"\nsecurity = \"sasl_plaintext\"\nusername = \"u\"\n",
            "belayd.toml:3:12: kafka.security: sasl_plaintext needs a username and a password; add username and password_file",
        ),
        (
            "[kafka]\nbrokers = \"h:1\"\ntopic = \"a:b\"\n",
            "belayd.toml:3:9: kafka.topic: is not a name that Kafka takes; use letters, digits, '.', '_' and '-'",
        ),
        (
            "[kafka]\nbrokers = \"h:1, other\"\n",
            "belayd.toml:2:11: kafka.brokers: \"other\" has no port; write HOST:PORT, several separated by commas",
        ),
        (
            "[kafka]\nbrokers = \"h:0\"\n",
            "belayd.toml:2:11: kafka.brokers: \"0\" is not a port; write HOST:PORT, several separated by commas",
        ),
        (
            "[[webhooks]]\nname = \"kafka\"\nurl = \"http://h\"\n",
            "belayd.toml:2:8: webhooks[0].name: \"kafka\" is the name of belayd's own sink; choose another",
        ),
        (
            "[[rules]]\nname = \"r\"\nmetric = \"rpm\"\nop = \">\"\nthreshold = 100\nclear = 110\n",
            "belayd.toml:6:9: rules[0].clear: 110 lies above the threshold 100; with op = \">\" it must be 100 or lower",
        ),
        (
            "[[rules]]\nname = \"r\"\nmetric = \"rpm\"\nop = \"<\"\nthreshold = 100\nclear = 90\n",
            "belayd.toml:6:9: rules[0].clear: 90 lies below the threshold 100; with op = \"<\" it must be 100 or higher",
        ),
        (
            "[[rules]]\nname = \"r\"\nmetric = \"rpm\"\nop = \">\"\nthreshold = 1\n[[rules]]\nname = \"r\"\nmetric = \"rpm\"\nop = \">\"\nthreshold = 2\n",
            "belayd.toml:7:8: rules[1].name: \"r\" names another of [[rules]] already; give each a name of its own",
        ),
        (
            "[[rules]]\nname = \"r\"\nmetric = \"rpm\"\nop = \"=>\"\nthreshold = 1\n",
            "belayd.toml:4:6: rules[0].op: unknown value \"=>\", expected one of \">\", \">=\", \"<\", \"<=\"; did you mean \">=\"?",
        ),
        (
            "[[rules]]\nname = \"r\"\nmetric = \"rpm\"\nop = \">\"\n",
            "belayd.toml:1:1: rules[0].threshold: is missing; add for example: threshold = 350.0",
        ),
        ("[[sources]]\nname = \"a\"\n", "belayd.toml:1:1: sources[0].url: is missing; add url, url_file or url_credential"),
        (
            "[readings]\nmax_behind = \"60d\"\n[retention]\nreadings = \"30d\"\n",
            "belayd.toml:2:14: readings.max_behind: is beyond retention.readings (30d): such a reading would be deleted at once; \
             lower it, raise retention.readings, or leave it out",
        ),
        (
            "[[webhooks]]\nname = \"on-call\"\nurl = \"http://h\"\n[[routes]]\nsinks = [\"log\", \"oncall\"]\n",
            "belayd.toml:5:9: routes[0].sinks: there is no sink \"oncall\"; did you mean \"on-call\"?",
        ),
        ("[[routes]]\nsinks = \"mail\"\n", "belayd.toml:2:9: routes[0].sinks: there is no sink \"mail\"; known are: log"),
        (
            "[[webhooks]]\nname = \"log\"\nurl = \"http://h\"\n",
            "belayd.toml:2:8: webhooks[0].name: \"log\" is the name of belayd's own sink; choose another",
        ),
        (
            "[[routes]]\nlevel = \"CRITICAL\"\nlevels = [\"INFO\"]\nsinks = \"log\"\n",
            "belayd.toml:3:1: routes[0].levels: given twice, also as \"level\"; keep one of them",
        ),
        (
            "[[routes]]\nlevel = \"critical\"\nsinks = \"log\"\n",
            "belayd.toml:2:9: routes[0].level: unknown value \"critical\", expected one of \"INFO\", \"WARNING\", \"CRITICAL\"; did you mean \"CRITICAL\"?",
        ),
        (
            "[buffer]\nbatch_rows = 1000\nmemory_rows = 100\n",
            "belayd.toml:2:14: buffer.batch_rows: batch_rows exceeds memory_rows; lower batch_rows or raise memory_rows",
        ),
    ]);
}

#[test]
fn each_kind_of_rule_has_keys_of_its_own() {
    check(&[
        (
            "[[rules]]\nname = \"wear\"\nkind = \"anomalie\"\n",
            "belayd.toml:3:8: rules[0].kind: unknown value \"anomalie\", expected one of \"threshold\", \"anomaly\"; did you mean \"anomaly\"?",
        ),
        (
            "[[rules]]\nname = \"wear\"\nkind = \"anomaly\"\nthreshold = 3\n",
            "belayd.toml:4:13: rules[0].threshold: belongs to rules of kind \"threshold\"; remove it: an anomaly rule learns its limits from the engine itself, and sensitivity moves them",
        ),
        (
            "[[rules]]\nname = \"wear\"\nkind = \"anomaly\"\nfor = \"3s\"\n",
            "belayd.toml:4:7: rules[0].for: belongs to rules of kind \"threshold\"; remove it: an anomaly rule learns its limits from the engine itself, and sensitivity moves them",
        ),
        (
            "[[rules]]\nname = \"r\"\nmetric = \"rpm\"\nop = \">\"\nthreshold = 1\nsensitivity = 2\n",
            "belayd.toml:6:15: rules[0].sensitivity: belongs to rules of kind \"anomaly\"; remove it, or set kind = \"anomaly\"",
        ),
        (
            "[[rules]]\nname = \"wear\"\nkind = \"anomaly\"\nsensitivity = 0\n",
            "belayd.toml:4:15: rules[0].sensitivity: 0 is out of range: 0.2 to 5",
        ),
        (
            "[[rules]]\nname = \"wear\"\nkind = \"anomaly\"\nwarm_up = 5\n",
            "belayd.toml:4:11: rules[0].warm_up: 5 is out of range: 20 to 250",
        ),
    ]);
}

#[test]
fn broken_toml_is_told_with_its_place() {
    let lines = told("[buffer]\nbatch_rows = \n[store\n");
    let places: Vec<_> = lines.lines().map(|line| line.split(" not valid TOML: ").next().unwrap_or_default()).collect();
    assert_eq!(places, ["belayd.toml:2:14:", "belayd.toml:3:7:"], "{lines}");
    check(&[("[buffer]\nbatch_rows = 1\nbatch_rows = 2\n", "belayd.toml:3:1: not valid TOML: duplicate key")]);
}

#[test]
fn all_faults_are_told_at_once_in_the_order_in_which_they_stand() {
    let text = "[buffer]\nbatchrows = 1\ntier = \"threefold\"\n[smpt]\n[[rules]]\nname = \"r r\"\n";
    let lines: Vec<String> = told(text).lines().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" ")).collect();
    let expected = [
        "belayd.toml:2:1 buffer.batchrows",
        "belayd.toml:3:8 buffer.tier",
        "belayd.toml:4:2 smpt",
        "belayd.toml:5:1 rules[0].metric",
        "belayd.toml:5:1 rules[0].op",
        "belayd.toml:5:1 rules[0].threshold",
        "belayd.toml:6:8 rules[0].name",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_flood_of_faults_is_cut_and_quickly_told() {
    let text = "[buffer]\n".to_owned() + &(0..20_000).map(|n| format!("key{n} = 1\n")).collect::<String>();
    let lines = told(&text);
    assert_eq!(lines.lines().count(), 501);
    assert!(lines.ends_with("belayd.toml: and 19500 further faults"), "{}", &lines[lines.len() - 100..]);
}

mod any_text {
    use proptest::prelude::*;

    use super::*;

    /// Pieces of which some texts are nearly right: they get further than random bytes.
    fn piece() -> impl Strategy<Value = String> {
        let words = keys::SECTIONS.iter().flat_map(|section| section.keys.iter().map(|key| key.name).chain([section.name]));
        let words: Vec<&'static str> = words.chain(["redis", "value", "0", "after"]).collect();
        let values = [
            "1",
            "-1",
            "1e400",
            "\"10s\"",
            "\"\"",
            "[]",
            "{}",
            "[[1]]",
            "\"http://{after}\"",
            "nan",
            "99999999999999999999",
            "\"é\\u0000\"",
        ];
        prop_oneof![
            proptest::sample::select(words.clone()).prop_map(|word| format!("[{word}]\n")),
            proptest::sample::select(words.clone()).prop_map(|word| format!("[[{word}]]\n")),
            (proptest::sample::select(words), proptest::sample::select(values.to_vec()))
                .prop_map(|(key, value)| format!("{key} = {value}\n")),
            ".{0,12}",
        ]
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_told_but_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn nearly_right_texts_are_read_or_told_but_never_panic(pieces in proptest::collection::vec(piece(), 0..24)) {
            if let Err(faults) = parse(&pieces.concat()) {
                prop_assert!(!faults.0.is_empty());
                let _ = faults.to_string();
            }
        }
    }
}

#[test]
fn what_only_a_build_with_openssl_can_do_to_kafka_is_known() {
    for (security, mechanism, key) in [
        ("plaintext", "SCRAM-SHA-256", None),
        ("sasl_plaintext", "PLAIN", None),
        ("sasl_plaintext", "SCRAM-SHA-256", Some("mechanism")),
        ("ssl", "PLAIN", Some("security")),
        ("sasl_ssl", "SCRAM-SHA-512", Some("security")),
    ] {
        assert_eq!(needs_openssl(security, mechanism).map(|(key, _)| key), key, "{security} {mechanism}");
        let text = format!(
            "[kafka]\nbrokers = \"h:1\"\nsecurity = \"{security}\"\nusername = \"u\"\npassword = \"p\"\nmechanism = \"{mechanism}\"\n"
        );
        assert_eq!(parse(&text).is_ok(), key.is_none() || cfg!(feature = "kafka-tls"), "{security} {mechanism}");
    }
}

#[test]
fn sinks_are_held_to_what_they_need() {
    const SMTP: &str = "[smtp]\nhost = \"mail.example.org\"\nfrom = \"a@example.org\"\n";
    let with = |more: &str| told(&format!("{SMTP}{more}"));
    check(&[
        (
            "[smtp]\nto = \"a@b.c\"\n",
            "belayd.toml:1:1: smtp.host: is missing, and to is given; add for example: host = \"mail.example.org\"",
        ),
        (
            "[slack]\nper_minute = 7\n",
            "belayd.toml:1:1: slack.url: is missing, and per_minute is given; add for example: url_file = \"slack-url\"",
        ),
        (
            "[smtp]\nhost = \"h\"\n",
            "belayd.toml:1:1: smtp.from: is missing; add for example: from = \"belayd <belayd@example.org>\"",
        ),
        ("[smtp]\nhost = \"h:25\"\nfrom = \"a@b.c\"\n", "belayd.toml:2:8: smtp.host: \"h:25\" has a port; did you mean \"h\"?"),
        (
            "[smtp]\nhost = \"h\"\nfrom = \"a@b.c, hunter2@b.c\"\n",
            "belayd.toml:3:8: smtp.from: is not a mail address; write a@example.org or Name <a@example.org>",
        ),
        (
            "[[webhooks]]\nname = \"w\"\nurl = \"http://h\"\nsecret = \"whsec_hunter2!\"\n",
            "belayd.toml:4:10: webhooks[0].secret: is not base64 behind whsec_; make one with: echo whsec_$(head -c 24 /dev/urandom | base64)",
        ),
        (
            "[[webhooks]]\nname = \"w\"\nurl = \"http://h\"\nsecret = \"hunter2\"\n",
            "belayd.toml:4:10: webhooks[0].secret: is shorter than 16 bytes, which can be guessed; make one with: echo whsec_$(head -c 24 /dev/urandom | base64)",
        ),
        (
            "[[webhooks]]\nname = \"x\"\nurl = \"http://h\"\n[[bots]]\nname = \"x\"\nurl = \"http://h\"\n",
            "belayd.toml:5:8: bots[0].name: \"x\" names another sink already; give each a name of its own",
        ),
        (
            "[[bots]]\nname = \"smtp\"\nurl = \"http://h\"\n",
            "belayd.toml:2:8: bots[0].name: \"smtp\" is the name of belayd's own sink; choose another",
        ),
        (
            "[[routes]]\nsinks = \"smtp\"\n",
            "belayd.toml:2:9: routes[0].sinks: there is no sink \"smtp\"; switch it on: [smtp] with host = \"mail.example.org\"",
        ),
        (
            "[slack]\nurl = \"http://h\"\nfallback = \"slak\"\n",
            "belayd.toml:3:12: slack.fallback: there is no sink \"slak\"; did you mean \"slack\"?",
        ),
        (
            "[slack]\nurl = \"http://h\"\nfallback = \"slack\"\n",
            "belayd.toml:3:12: slack.fallback: goes round in a circle: slack, slack; let one of them end at \"log\", or nowhere",
        ),
        ("[templates]\nlang = \"de\"\n", "belayd.toml:2:8: templates.lang: unknown value \"de\", expected one of \"en\", \"ko\""),
    ]);
    assert_eq!(with("username = \"u\"\n"), "belayd.toml:4:12: smtp.username: is given without password; add password_file");
    assert_eq!(
        with("tls = \"none\"\nusername = \"u\"\npassword = \"hunter2\"\n"),
        "belayd.toml:4:7: smtp.tls: the password would cross the network in the clear; use starttls or tls, or sign in with no password"
    );
    assert_eq!(
        with("[[routes]]\nsinks = [\"log\", \"smtp\"]\n"),
        "belayd.toml:5:9: routes[0].sinks: names smtp, and nobody to write to; add for example to [smtp]: to = \"ops@example.org\""
    );
    let circle = "[slack]\nurl = \"http://h\"\nfallback = \"hook\"\n[[webhooks]]\nname = \"hook\"\nurl = \"http://h\"\nfallback = \"smtp\"\n";
    let told = with(&format!("fallback = \"slack\"\n{circle}"));
    assert_eq!(told.lines().count(), 3, "each of the circle is told: {told}");
    assert!(told.contains("goes round in a circle: smtp, slack, hook, smtp"), "{told}");
    assert!(parse(&format!("{SMTP}tls = \"none\"\n{}", circle.replace("\"smtp\"", "\"log\""))).is_ok());
}
