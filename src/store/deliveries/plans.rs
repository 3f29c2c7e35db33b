//! How the database would run each statement of the outbox, for the test that no statement reads the whole table. Test builds only.

use std::time::Duration;

use diesel::{prelude::*, sql_types::Text};

use super::{
    claim::{self, Claim},
    forward, people,
    row::COLUMNS,
    settle, vanished,
};
use crate::{
    domain::delivery::Event,
    store::{Conn, StoreResult},
};

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

/// The plan of each statement, by name.
///
/// # Errors
/// Those of the store.
pub fn plans(conn: &mut Conn) -> StoreResult<Vec<(&'static str, String)>> {
    let is_pg = matches!(conn, Conn::Pg(_));
    let claim =
        |limit, per_lane, after| Claim { sink: "hook", worker: "w", limit, per_lane, after, lease: Duration::ZERO, now_us: 1 };
    let of_claim = |claim: &Claim<'_>| if is_pg { claim::claim_sql(claim) } else { claim::places_sql(claim) };
    let [ready, held, taken, scheduled, failed] = people::counts_sql(is_pg);
    let row = |condition: &str| format!("SELECT {COLUMNS} FROM deliveries WHERE {condition}");
    let bound = |text: String, values: &[&str]| {
        let numbered = values.iter().enumerate().rev();
        numbered.fold(text, |text, (at, value)| text.replace(&format!("${}", at + 1), value))
    };
    let list = if is_pg { "ARRAY['hook', 'log']" } else { "'[\"hook\",\"log\"]'" };
    let mut statements = vec![
        ("claim", bound(of_claim(&claim(1_000, 250, None)), &["'hook'", "''", "1000", "250", "1000"])),
        ("claim behind a lane", bound(of_claim(&claim(4, 1, Some("lane5"))), &["'hook'", "'lane5'", "16", "1", "4"])),
        ("ready sinks", bound(claim::ready_sql(is_pg), &[list])),
        ("promote", bound(claim::promote_sql(is_pg), &["500", "500"])),
        ("next due", claim::next_due_sql()),
        ("still held", bound(vanished::held_sql(is_pg), &[if is_pg { "ARRAY[1, 2, 3]::bigint[]" } else { "'[1,2,3]'" }])),
        ("failures", bound(people::failures_sql(), &["1000000000", "100"])),
        ("one", row("id = 'd1'")),
        ("count ready", ready),
        ("count held", held),
        ("count taken", taken),
        ("count scheduled", scheduled),
        ("count failed", failed),
        ("waiting sinks", bound(forward::waiting_sql(is_pg), &[list])),
        ("bring forward", bound(forward::forward_sql(is_pg), &["500", "500", "'hook'"])),
        ("bring one forward", bound(forward::forward_one_sql(), &["500", "500", "'hook'"])),
        ("prune", bound(people::prunable_sql(), &["500", "2000"])),
    ];
    if is_pg {
        let numbers = "ARRAY[1, 1, 1]::bigint[]";
        let arrays = ["1", "ARRAY[1, 2, 3]::bigint[]", numbers, numbers, "ARRAY['a', 'b', NULL]::text[]"];
        statements.push(("settle", bound(settle::move_sql(Event::SentOk, true), &arrays)));
    }
    let mut plans = Vec::new();
    for (name, text) in statements {
        let lines: Vec<String> = match conn {
            Conn::Pg(c) => {
                let lines: Vec<PgLine> = diesel::sql_query(format!("EXPLAIN {text}")).load(c)?;
                lines.into_iter().map(|line| line.text).collect()
            }
            Conn::Sqlite(c) => {
                let lines: Vec<SqliteLine> = diesel::sql_query(format!("EXPLAIN QUERY PLAN {text}")).load(c)?;
                lines.into_iter().map(|line| line.detail).collect()
            }
        };
        plans.push((name, lines.join("\n")));
    }
    Ok(plans)
}
