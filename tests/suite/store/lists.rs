//! No list of the delivery side, and nothing that looks at it from time to time, reads a whole table: the plans of the statements that are
//! really asked, over a million messages and deliveries, nearly all of them settled.

use std::sync::{Arc, Mutex};

use belayd::{
    domain::{
        alert::{AlertKind, AlertState, Level},
        delivery::DeliveryState,
        issue::IssueState,
        message::MessageStatus,
    },
    on_backend,
    store::{
        Backend, Conn, Store, StoreResult,
        alerts::{self, AlertFilter},
        deliveries::{self, FailureFilter},
        issues::{self, IssueFilter},
        messages::{self, ListFilter},
        silences,
    },
};
use diesel::{Connection, QueryableByName, RunQueryDsl, connection::InstrumentationEvent, sql_types::Text};

use super::{TestStore, on_both};

on_both!(every_list_of_messages_failures_and_issues_uses_an_index, a_narrow_filter_gives_short_pages_that_lose_nothing);

const ROWS: u64 = 1_000_000;
/// Rows of one statement: each stays far below the time that a statement has.
const SLICE: u64 = 100_000;

/// Most are settled, some stand in each other state; each message has one delivery, which bears its name.
const STATE: &str = "CASE WHEN n % 1000 = 1 THEN 'ready' WHEN n % 5000 = 2 THEN 'retry' WHEN n % 5000 = 3 THEN 'sending' \
                     WHEN n % 5000 = 4 THEN 'scheduled' WHEN n % 500 = 5 THEN 'dead' WHEN n % 1000 = 6 THEN 'uncertain' ELSE 'sent' END";

fn run(store: &Store, text: String) {
    store.with(|conn| Ok(on_backend!(conn, |c| diesel::sql_query(text).execute(c))?)).expect("runs");
}

/// Inserts `rows` rows of `values`, which are made of `n`.
fn fill(store: &Store, rows: u64, table: &str, columns: &str, values: &str) {
    for first in (1..=rows).step_by(SLICE as usize) {
        let last = rows.min(first + SLICE - 1);
        let numbers = match store.backend() {
            Backend::Postgres => format!("generate_series({first}, {last}) AS n"),
            Backend::Sqlite => {
                format!("(WITH RECURSIVE c(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM c WHERE n < {last}) SELECT n FROM c)")
            }
        };
        run(store, format!("INSERT INTO {table} ({columns}) SELECT {values} FROM {numbers}"));
    }
    run(store, format!("ANALYZE {table}"));
}

/// Of the same length for each number, so that their order is that of the numbers.
fn id(store: &Store, prefix: &str) -> String {
    match store.backend() {
        Backend::Postgres => format!("'{prefix}' || lpad(n::text, 8, '0')"),
        Backend::Sqlite => format!("printf('{prefix}%08d', n)"),
    }
}

fn fill_messages(store: &Store, rows: u64) {
    let (message, delivery) = (id(store, "m"), id(store, "d"));
    let via = "CASE WHEN n % 3 = 0 THEN 'log' ELSE 'hook' END";
    let columns = "id, via, subject, created_by, created_at_us, body";
    fill(store, rows, "messages", columns, &format!("{message}, {via}, 'subject ' || n, 'kim', n, 'body'"));
    let columns = "message_id, no, delivery_id, recipient, created_at_us";
    fill(store, rows, "message_deliveries", columns, &format!("{message}, 0, {delivery}, 'p' || (n % 50000), n"));
    let columns = "id, sink, lane, subject, payload, state, max_attempts, due_at_us, on_unknown, created_at_us, updated_at_us, \
                   settled_at_us, last_error_type";
    let values = format!(
        "{delivery}, {via}, 'lane' || (n % 5000), 's', '{{}}', {STATE}, 3, n, 'review', n, n, \
         CASE WHEN {STATE} = 'sent' THEN n END, CASE WHEN n % 2000 = 6 THEN 'timeout' WHEN {STATE} IN ('dead', 'uncertain') THEN 'http_500' END"
    );
    fill(store, rows, "deliveries", columns, &values);
}

/// The statements that `ask` runs, with their values in place.
fn asked(conn: &mut Conn, ask: impl FnOnce(&mut Conn) -> StoreResult<()>) -> Vec<String> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heard = seen.clone();
    conn.set_instrumentation(move |event: InstrumentationEvent<'_>| {
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            heard.lock().expect("no panic").push(query.to_string());
        }
    });
    let done = ask(conn);
    conn.set_instrumentation(|_: InstrumentationEvent<'_>| {});
    done.expect("it is answered");
    let seen = seen.lock().expect("no panic");
    seen.iter().filter(|text| text.contains("SELECT") || text.contains("UPDATE")).map(|text| with_values(text)).collect()
}

/// `… $1 … -- binds: ["a", 5]` with the values in place of the numbers; SQLite plans without them.
fn with_values(shown: &str) -> String {
    let (text, values) = shown.split_once(" -- binds: ").unwrap_or((shown, "[]"));
    if !text.contains('$') {
        return text.to_owned();
    }
    let values: Vec<serde_json::Value> = serde_json::from_str(values).unwrap_or_else(|_| panic!("values are read: {shown}"));
    let literal = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => format!("'{text}'"),
        serde_json::Value::Array(all) => {
            let all: Vec<&str> = all.iter().filter_map(serde_json::Value::as_str).collect();
            format!("'{{{}}}'", all.join(","))
        }
        other => other.to_string(),
    };
    let numbered = values.iter().enumerate().rev();
    numbered.fold(text.to_owned(), |text, (at, value)| text.replace(&format!("${}", at + 1), &literal(value)))
}

#[derive(QueryableByName)]
struct PgLine {
    #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
    text: String,
}

#[derive(QueryableByName)]
struct SqliteLine {
    #[diesel(sql_type = Text)]
    detail: String,
}

fn plan(conn: &mut Conn, text: &str) -> String {
    let lines: Vec<String> = match conn {
        Conn::Pg(c) => {
            let lines: Vec<PgLine> = diesel::sql_query(format!("EXPLAIN {text}")).load(c).expect("a plan");
            lines.into_iter().map(|line| line.text).collect()
        }
        Conn::Sqlite(c) => {
            let lines: Vec<SqliteLine> = diesel::sql_query(format!("EXPLAIN QUERY PLAN {text}")).load(c).expect("a plan");
            lines.into_iter().map(|line| line.detail).collect()
        }
    };
    lines.join("\n")
}

/// What may be walked through: a list that a statement brings along, and the claims (`c`), of which there are few, with what they hold (`h`).
const SMALL: [&str; 3] = ["json_each", "SCAN c", "SCAN h VIRTUAL TABLE"];
const LARGE: [&str; 5] = ["deliveries", "messages", "message_deliveries", "issues", "alerts"];

/// Nothing that `ask` runs walks a table; each of `indexes` (one of several that would do, by `|`) is used by something.
fn uses(store: &Store, name: &str, indexes: &[&str], ask: impl Fn(&mut Conn) -> StoreResult<()>) {
    store
        .with(|conn| {
            let texts = asked(conn, &ask);
            assert!(!texts.is_empty(), "{name} asks nothing");
            let plans: Vec<String> = texts.iter().map(|text| format!("{text}\n{}", plan(conn, text))).collect();
            for plan in &plans {
                let walks = |line: &&str| {
                    let line = line.trim();
                    LARGE.iter().any(|table| line.contains(&format!("Seq Scan on {table}")))
                        || (line.starts_with("SCAN") && !line.contains("USING") && !SMALL.iter().any(|small| line.contains(small)))
                };
                assert_eq!(plan.lines().find(walks), None, "{name}:\n{plan}");
            }
            let all = plans.join("\n");
            for wanted in indexes {
                assert!(wanted.split('|').any(|index| all.contains(index)), "{name} should use {wanted}:\n{all}");
            }
            Ok(())
        })
        .expect("a store");
}

fn every_list_of_messages_failures_and_issues_uses_an_index(store: &TestStore) {
    fill_messages(store, ROWS);
    let columns = "id, title, body, state, opened_by, created_at_us, updated_at_us, closed_at_us";
    let values = format!(
        "{}, 't', 'b', CASE WHEN n % 100 = 1 THEN 'OPEN' ELSE 'CLOSED' END, 'kim', n, n, CASE WHEN n % 100 <> 1 THEN n END",
        id(store, "i")
    );
    fill(store, ROWS / 5, "issues", columns, &values);

    let place = Some((500_000, "m00500000".to_owned()));
    let all = ListFilter::default();
    let lists = [
        ("messages", "messages_newest", all.clone()),
        ("messages behind a place", "messages_newest", ListFilter { before: place.clone(), ..all.clone() }),
        (
            "messages within a time",
            "messages_newest",
            ListFilter { from_us: Some(400_000), until_us: Some(400_100), ..all.clone() },
        ),
        (
            "messages by sink",
            "messages_via|messages_newest",
            ListFilter { via: Some("log".into()), before: place.clone(), ..all.clone() },
        ),
        ("messages to nobody's sink", "messages_via", ListFilter { via: Some("none".into()), ..all.clone() }),
        (
            "messages by recipient",
            "message_deliveries_recipient",
            ListFilter { to: Some("p5".into()), before: place, ..all.clone() },
        ),
        ("messages by text", "messages_newest", ListFilter { text: Some("nowhere".into()), ..all.clone() }),
        ("messages by status", "messages_newest", ListFilter { status: Some(MessageStatus::Cancelled), ..all }),
    ];
    for (name, index, filter) in lists {
        uses(store, name, &[index], |conn| messages::list(conn, &filter, 100).map(drop));
    }
    uses(store, "one message", &["messages"], |conn| messages::get(conn, "m00000007").map(drop));

    let any = FailureFilter::default();
    let failures = [
        ("failures", any.clone()),
        ("failures of a sink", FailureFilter { sink: Some("log".into()), ..any.clone() }),
        ("failures of no sink", FailureFilter { sink: Some("none".into()), ..any.clone() }),
        ("failures of a cause", FailureFilter { error_type: Some("timeout".into()), ..any.clone() }),
        ("failures of no cause", FailureFilter { error_type: Some("none".into()), ..any.clone() }),
        ("failures in a state", FailureFilter { state: Some(DeliveryState::Uncertain), ..any.clone() }),
        ("failures since", FailureFilter { since_us: Some(900_000), ..any }),
    ];
    for (name, filter) in failures {
        uses(store, name, &["deliveries_failed"], |conn| deliveries::failures_where(conn, &filter, 100, Some(800_000)).map(drop));
    }
    uses(store, "causes", &["deliveries_failed"], |conn| deliveries::causes(conn, 200).map(drop));
    let counted = ["deliveries_ready", "deliveries_taken", "deliveries_due", "deliveries_failed"];
    uses(store, "counts", &counted, |conn| deliveries::counts(conn).map(drop));
    uses(store, "untouched", &["deliveries_ready", "deliveries_taken"], |conn| {
        deliveries::untouched(conn, "hook", 5_000).map(drop)
    });

    let issues = [
        ("issues", "issues_pkey|sqlite_autoindex_issues_1", None),
        ("open issues", "issues_state", Some(IssueState::Open)),
        ("closed issues", "issues_state|issues_pkey", Some(IssueState::Closed)),
    ];
    for (name, index, state) in issues {
        let filter = IssueFilter { state, cursor: Some("i00100000".into()), limit: 100 };
        uses(store, name, &[index], |conn| issues::list(conn, &filter).map(drop));
    }
    uses(store, "issues that are over", &["issues_closed"], |conn| issues::prune(conn, -1, 500).map(drop));
}

/// Every message of a rare kind, over as many pages as it takes.
fn pages(store: &Store, filter: &ListFilter, limit: u32) -> (Vec<String>, usize) {
    let (mut filter, mut found, mut pages) = (filter.clone(), Vec::new(), 0);
    loop {
        let (items, next) = store.with(|conn| messages::list(conn, &filter, limit)).expect("a page");
        assert!(items.len() <= limit as usize);
        found.extend(items.into_iter().map(|item| item.head.id));
        pages += 1;
        filter.before = next;
        if filter.before.is_none() {
            return (found, pages);
        }
    }
}

fn a_narrow_filter_gives_short_pages_that_lose_nothing(store: &TestStore) {
    let rows = 3 * messages::STATUS_SCAN_MAX;
    fill_messages(store, rows);
    let all = ListFilter::default();
    let newest_first =
        |wanted: &dyn Fn(u64) -> bool| (1..=rows).rev().filter(|n| wanted(*n)).map(|n| format!("m{n:08}")).collect::<Vec<_>>();
    let (uncertain, looks) = pages(store, &ListFilter { status: Some(MessageStatus::Uncertain), ..all.clone() }, 50);
    assert_eq!(uncertain, newest_first(&|n| n % 1_000 == 6));
    assert!(looks > 1, "a page does not look at all of them");
    let (of_log, _) = pages(store, &ListFilter { via: Some("log".into()), ..all.clone() }, 700);
    assert_eq!(of_log, newest_first(&|n| n % 3 == 0));
    let both = ListFilter { via: Some("log".into()), text: Some("SUBJECT 59".into()), ..all.clone() };
    assert_eq!(pages(store, &both, 10).0, newest_first(&|n| n % 3 == 0 && n.to_string().starts_with("59")));
    assert_eq!(pages(store, &all, 999).0.len() as u64, rows);
}

/// The control store is SQLite always, which plans without a look at how much there is.
#[test]
fn every_list_of_alerts_uses_an_index() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open_control(&dir.path().join("control.db")).expect("a plain path");
    store.migrate().expect("migrations run");
    let rows = 12_000;
    let columns = "id, kind, name, subject, level, state, text, count, opened_at_us, updated_at_us, resolved_at_us, labels";
    let values = "printf('a%08d', n), 'rule', 'rule' || (n % 20), 'e' || n, CASE WHEN n = 7 THEN 'CRITICAL' ELSE 'WARNING' END, \
                  CASE WHEN n % 1000 = 1 THEN 'firing' ELSE 'resolved' END, 't', 1, n, n, CASE WHEN n % 1000 <> 1 THEN n END, \
                  CASE WHEN n = 9 THEN '{\"site\":\"north\"}' ELSE '{}' END";
    fill(&store, rows, "alerts", columns, values);
    let any = AlertFilter { before: Some((11_000, "a00011000".into())), ..AlertFilter::default() };
    let lists = [
        ("alerts", "alerts_newest", AlertFilter::default()),
        ("alerts behind a place", "alerts_newest", any.clone()),
        ("alerts of a level", "alerts_newest", AlertFilter { level: Some(Level::Critical), ..any.clone() }),
        ("alerts of a kind", "alerts_newest", AlertFilter { kind: Some(AlertKind::System), ..any.clone() }),
        ("alerts with a label", "alerts_newest", AlertFilter { label: Some(("site".into(), "north".into())), ..any.clone() }),
        ("alerts of a rule", "alerts_name", AlertFilter { name: Some("rule7".into()), ..any.clone() }),
        ("alerts of a subject", "alerts_subject", AlertFilter { subject: Some("e7".into()), ..any.clone() }),
        ("firing alerts", "alerts_unresolved", AlertFilter { state: Some(AlertState::Firing), ..any.clone() }),
        ("resolved alerts", "alerts_newest", AlertFilter { state: Some(AlertState::Resolved), ..any }),
    ];
    for (name, index, filter) in lists {
        uses(&store, name, &[index], |conn| alerts::list(conn, &filter, 100).map(drop));
        let sorts = store.with(|conn| {
            let texts = asked(conn, |conn| alerts::list(conn, &filter, 100).map(drop));
            Ok(texts.iter().any(|text| plan(conn, text).contains("TEMP B-TREE")))
        });
        assert_eq!(sorts, Ok(false), "{name}: the index gives the order");
    }
    uses(&store, "open alerts", &["alerts_unresolved|alerts_open"], |conn| alerts::open(conn).map(drop));
    uses(&store, "alerts nobody was told of", &["alerts_unresolved|alerts_open"], |conn| {
        alerts::looks::untold(conn, 1, 10).map(drop)
    });
    uses(&store, "another look at all", &["alerts_unresolved|alerts_open"], |conn| alerts::looks::all(conn, 1).map(drop));
    uses(&store, "alerts that are over", &["alerts_resolved"], |conn| alerts::prune(conn, -1, 10).map(drop));
    let copied = ["deliveries_ready", "deliveries_taken", "deliveries_failed"];
    uses(&store, "deliveries for a fallback", &copied, |conn| alerts::fallbacks::due(conn, "hook", 1, 1, 10).map(drop));
    uses(&store, "untouched", &["deliveries_ready", "deliveries_taken"], |conn| deliveries::untouched(conn, "hook", 1).map(drop));
    let place = Some((5, "s".to_owned()));
    uses(&store, "silences", &["silences_newest"], |conn| silences::list(conn, 10, place.clone()).map(drop));

    // What hardly any alert has is found over several short pages.
    let (mut filter, mut found, mut looks) =
        (AlertFilter { level: Some(Level::Critical), ..AlertFilter::default() }, Vec::new(), 0);
    loop {
        let (page, next) = store.with(|conn| alerts::list(conn, &filter, 10)).expect("a page");
        found.extend(page.into_iter().map(|alert| alert.id));
        looks += 1;
        filter.before = next;
        if filter.before.is_none() {
            break;
        }
    }
    assert_eq!((found, looks), (vec!["a00000007".to_owned()], 3));
}
