//! The lists that people look at, over a million rows: first pages, pages in the middle, each filter, and what counts from time to time.

use std::time::Instant;

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
    },
};
use diesel::RunQueryDsl;

use crate::{
    report::{
        Aim::{AtMost, None as NoAim},
        Figure, aimed, plain,
    },
    setup::{Bench, Database},
};

/// Rows of one statement.
const SLICE: u64 = 50_000;
/// How often each is asked.
const ASKS: u64 = 40;
/// What a page holds where nobody says how much.
const PAGE: u32 = 100;
/// The page's 95th percentile, ms.
const AIM_MS: f64 = 50.0;

/// Most are settled; 2 in a thousand are dead, 1 is uncertain.
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
    // What PostgreSQL does by itself before long: figures of the planner and of pages that all can see.
    run(store, format!("{} {table}", if store.backend() == Backend::Postgres { "VACUUM ANALYZE" } else { "ANALYZE" }));
}

/// Of the same length for each number, so that their order is that of the numbers.
fn id(store: &Store, prefix: &str) -> String {
    match store.backend() {
        Backend::Postgres => format!("'{prefix}' || lpad(n::text, 8, '0')"),
        Backend::Sqlite => format!("printf('{prefix}%08d', n)"),
    }
}

fn fill_store(store: &Store, rows: u64) {
    let (message, delivery) = (id(store, "m"), id(store, "d"));
    let via = "CASE WHEN n % 3 = 0 THEN 'mail' ELSE 'hook' END";
    let body = "The oil of this engine was last changed a year ago. Somebody should look at it today, and tell the others when it is done.";
    let columns = "id, via, subject, created_by, created_at_us, body";
    fill(store, rows, "messages", columns, &format!("{message}, {via}, 'Engine ' || n || ' wants oil', 'kim', n, '{body}'"));
    let columns = "message_id, no, delivery_id, recipient, created_at_us";
    fill(store, rows, "message_deliveries", columns, &format!("{message}, 0, {delivery}, 'engineer' || (n % 1000), n"));
    let columns = "id, sink, lane, subject, payload, state, max_attempts, due_at_us, on_unknown, created_at_us, updated_at_us, \
                   settled_at_us, last_error_type";
    let values = format!(
        "{delivery}, {via}, 'lane' || (n % 5000), 's', '{{\"body\":\"{body}\"}}', {STATE}, 30, n, 'review', n, n, \
         CASE WHEN {STATE} = 'sent' THEN n END, \
         CASE WHEN n % 2000 = 6 THEN 'timeout' WHEN {STATE} IN ('dead', 'uncertain') THEN 'http_500' END"
    );
    fill(store, rows, "deliveries", columns, &values);
    let columns = "id, title, body, state, opened_by, created_at_us, updated_at_us, closed_at_us";
    let state = "CASE WHEN n % 100 = 1 THEN 'OPEN' ELSE 'CLOSED' END";
    let values = format!("{}, 'Engine ' || n, '{body}', {state}, 'kim', n, n, CASE WHEN n % 100 <> 1 THEN n END", id(store, "i"));
    fill(store, rows, "issues", columns, &values);
}

/// Open ones must differ in name or subject: of those with every 2,000th number no two have the same.
fn fill_alerts(control: &Store, rows: u64) {
    let columns = "id, kind, name, subject, level, state, text, count, opened_at_us, updated_at_us, resolved_at_us, labels";
    let values = format!(
        "{}, 'rule', 'rule' || (n % 20), 'e' || (n % 7001), CASE WHEN n = 7 THEN 'CRITICAL' ELSE 'WARNING' END, \
         CASE WHEN n % 2000 = 1 AND n <= 20000 THEN 'firing' ELSE 'resolved' END, 'too hot', 1, n, n, n, '{{\"site\":\"north\"}}'",
        id(control, "a")
    );
    fill(control, rows, "alerts", columns, &values);
}

/// Asks for a list, with a number that differs from time to time.
type Query = Box<dyn Fn(&mut Conn, i64) -> StoreResult<()>>;
/// One list.
type Ask<'a> = (&'static str, bool, &'a Store, Query);

fn messages(filter: ListFilter) -> Query {
    Box::new(move |conn, at| {
        // Behind some place in the middle, unless it is a first page.
        let before = filter.before.is_some().then(|| (at, format!("m{at:08}")));
        messages::list(conn, &ListFilter { before, ..filter.clone() }, PAGE).map(drop)
    })
}

fn failures(filter: FailureFilter, in_the_middle: bool) -> Query {
    Box::new(move |conn, at| deliveries::failures_where(conn, &filter, PAGE, in_the_middle.then_some(at)).map(drop))
}

fn alerts(filter: AlertFilter) -> Query {
    Box::new(move |conn, at| {
        let before = filter.before.is_some().then(|| (at, format!("a{at:08}")));
        alerts::list(conn, &AlertFilter { before, ..filter.clone() }, PAGE).map(drop)
    })
}

fn issues(state: Option<IssueState>, in_the_middle: bool) -> Query {
    Box::new(move |conn, at| {
        let cursor = in_the_middle.then(|| format!("i{at:08}"));
        issues::list(conn, &IssueFilter { state, cursor, limit: PAGE }).map(drop)
    })
}

fn asks<'a>(store: &'a Store, control: &'a Store) -> Vec<Ask<'a>> {
    let (all, any, every) = (ListFilter::default(), FailureFilter::default(), AlertFilter::default());
    // Only that there is a place: which, says each question.
    let some = Some((0, String::new()));
    let via = |sink: &str| ListFilter { via: Some(sink.into()), ..ListFilter::default() };
    let status = |status| ListFilter { status: Some(status), ..ListFilter::default() };
    let text = |text: &str| ListFilter { text: Some(text.into()), ..ListFilter::default() };
    vec![
        ("messages", true, store, messages(all.clone())),
        ("messages, middle", true, store, messages(ListFilter { before: some.clone(), ..all.clone() })),
        ("messages by sink", true, store, messages(ListFilter { before: some.clone(), ..via("mail") })),
        ("messages by a sink that has none", true, store, messages(via("none"))),
        (
            "messages by recipient",
            true,
            store,
            messages(ListFilter { to: Some("engineer7".into()), before: some.clone(), ..all.clone() }),
        ),
        ("messages by recipient and sink", true, store, messages(ListFilter { to: Some("engineer7".into()), ..via("mail") })),
        ("messages by time", true, store, messages(ListFilter { from_us: Some(5_000), until_us: Some(6_000), ..all.clone() })),
        ("messages by text", true, store, messages(text("engine 77"))),
        ("messages by a text that is nowhere", true, store, messages(text("nowhere"))),
        ("messages sent", true, store, messages(ListFilter { before: some.clone(), ..status(MessageStatus::Sent) })),
        ("messages dead", true, store, messages(status(MessageStatus::Dead))),
        ("messages cancelled, of which there are none", true, store, messages(status(MessageStatus::Cancelled))),
        ("failures", true, store, failures(any.clone(), false)),
        ("failures, middle", true, store, failures(any.clone(), true)),
        ("failures of a sink", true, store, failures(FailureFilter { sink: Some("mail".into()), ..any.clone() }, true)),
        (
            "failures of a sink that has none",
            true,
            store,
            failures(FailureFilter { sink: Some("none".into()), ..any.clone() }, false),
        ),
        ("failures of a cause", true, store, failures(FailureFilter { error_type: Some("timeout".into()), ..any.clone() }, true)),
        ("failures uncertain", true, store, failures(FailureFilter { state: Some(DeliveryState::Uncertain), ..any.clone() }, true)),
        (
            "failures since, of which there are none",
            true,
            store,
            failures(FailureFilter { since_us: Some(i64::MAX), ..any }, false),
        ),
        ("causes of failures", true, store, Box::new(|conn, _| deliveries::causes(conn, 200).map(drop))),
        ("counts of what is not settled", false, store, Box::new(|conn, _| deliveries::counts(conn).map(drop))),
        ("issues", true, store, issues(None, false)),
        ("issues, middle", true, store, issues(None, true)),
        ("issues open", true, store, issues(Some(IssueState::Open), true)),
        ("alerts", true, control, alerts(every.clone())),
        ("alerts, middle", true, control, alerts(AlertFilter { before: some.clone(), ..every.clone() })),
        ("alerts firing", true, control, alerts(AlertFilter { state: Some(AlertState::Firing), ..every.clone() })),
        (
            "alerts of a subject",
            true,
            control,
            alerts(AlertFilter { subject: Some("e7".into()), before: some.clone(), ..every.clone() }),
        ),
        ("alerts of a rule", true, control, alerts(AlertFilter { name: Some("rule7".into()), before: some, ..every.clone() })),
        (
            "alerts critical, of which there is one",
            true,
            control,
            alerts(AlertFilter { level: Some(Level::Critical), ..every.clone() }),
        ),
        ("alerts of a kind that has none", true, control, alerts(AlertFilter { kind: Some(AlertKind::System), ..every.clone() })),
        (
            "alerts with a label that none has",
            true,
            control,
            alerts(AlertFilter { label: Some(("site".into(), "x".into())), ..every }),
        ),
        ("open alerts, all", false, control, Box::new(|conn, _| alerts::open(conn).map(drop))),
        ("alerts nobody was told of", false, control, Box::new(|conn, _| alerts::looks::untold(conn, i64::MAX, 100).map(drop))),
    ]
}

pub fn lists(bench: &mut Bench, database: Database) -> Vec<Figure> {
    let place = bench.place(database);
    let rows = bench.options.rows;
    let (store, control) = place.stores();
    fill_store(store, rows);
    fill_alerts(control, rows);
    let mut figures = Vec::new();
    for (name, is_page, store, ask) in asks(store, control) {
        let mut took: Vec<f64> = (0..ASKS)
            .map(|n| {
                // Over the whole table, and never twice the same.
                let at = (n * 7_919 + 1) % ASKS * (rows / ASKS) + rows / (2 * ASKS);
                let started = Instant::now();
                store.with(|conn| ask(conn, at.cast_signed())).expect("an answer");
                started.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        took.sort_by(f64::total_cmp);
        let at = |quantile: f64| took[((took.len() as f64 * quantile).ceil() as usize).clamp(1, took.len()) - 1];
        // The table is printed once; a name that stays is no loss.
        let named = |what: &str| -> &'static str { Box::leak(format!("{name}: {what}, ms").into_boxed_str()) };
        figures.push(plain(named("p50"), at(0.5)));
        figures.push(aimed(named("p95"), at(0.95), if is_page { AtMost(AIM_MS) } else { NoAim }));
    }
    figures
}
