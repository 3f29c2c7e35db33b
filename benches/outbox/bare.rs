//! The least that any outbox with a history does, over the same stores: add rows in bulk, read those that are ready in their order, mark
//! them sent. No leases, no fencing, no order of lanes, no second worker, nothing in between. What the outbox costs beyond it is its price.

use std::{
    thread,
    time::{Duration, Instant},
};

use belayd::{
    on_backend,
    store::{Conn, Store, StoreResult, deliveries::NewDelivery},
};
use diesel::{
    QueryableByName, RunQueryDsl,
    connection::SimpleConnection,
    sql_query,
    sql_types::{Array, BigInt, Text},
};

use crate::{
    report::{Figure, plain},
    setup::{BULK, Bench, Database, delivery, own_cpu},
};

/// As `deliveries` has them: the number, the id, what is ready, what is settled.
const TABLE: &str = "CREATE TABLE bare (seq SERIAL, id TEXT NOT NULL UNIQUE, sink TEXT NOT NULL, lane TEXT NOT NULL, \
    subject TEXT NOT NULL, payload TEXT NOT NULL, recipient TEXT NOT NULL, state TEXT NOT NULL, attempt BIGINT NOT NULL, \
    created_at_us BIGINT NOT NULL, settled_at_us BIGINT); \
    CREATE INDEX bare_ready ON bare (sink, lane, seq) WHERE state = 'ready'; \
    CREATE INDEX bare_settled ON bare (settled_at_us) WHERE state = 'sent';";
#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

#[derive(QueryableByName)]
struct Ready {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Text)]
    lane: String,
    #[diesel(sql_type = Text)]
    payload: String,
}

/// Adds and drains as many as the outbox does.
pub fn bare(bench: &mut Bench, database: Database) -> Vec<Figure> {
    let place = bench.place(database);
    let (store, count) = (place.stores().0.clone(), bench.options.deliveries);
    let key = if database == Database::Sqlite { "INTEGER PRIMARY KEY" } else { "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY" };
    in_store(&store, |conn| Ok(on_backend!(conn, |c| c.batch_execute(&TABLE.replace("SERIAL", key)))?));
    let mut took = Duration::ZERO;
    for from in (0..count).step_by(BULK as usize) {
        let rows: Vec<NewDelivery> = (from..count.min(from + BULK)).map(|n| delivery(n, n % 10_000)).collect();
        let started = Instant::now();
        in_store(&store, |conn| conn.write(|conn| add(conn, &rows)));
        took += started.elapsed();
    }
    let enqueued = count as f64 / took.as_secs_f64();
    let (cpu, server, started) = (own_cpu(), bench.server_cpu(), Instant::now());
    // Workers have lanes of their own; SQLite has one writer.
    let parts: &[(&str, &str)] =
        if database == Database::Sqlite { &[("", "~")] } else { &[("", "to:engineer55"), ("to:engineer55", "~")] };
    thread::scope(|scope| {
        for (from, until) in parts {
            let store = store.clone();
            scope.spawn(move || {
                let mut after = Some(((*from).to_owned(), 0));
                while let Some(behind) = after {
                    after = in_store(&store, |conn| conn.write(|conn| send(conn, &behind, until)));
                }
            });
        }
    });
    let sent = in_store(&store, |conn| {
        let text = "SELECT count(*) AS n FROM bare WHERE state = 'sent'";
        Ok(on_backend!(conn, |c| sql_query(text).get_result::<Count>(c))?)
    });
    assert_eq!(sent.n.unsigned_abs(), count, "each of them");
    let drained = count as f64 / started.elapsed().as_secs_f64();
    let each = |used: Duration| used.as_secs_f64() * 1e6 / count as f64;
    vec![
        plain("rows added a second", enqueued),
        plain("rows read and marked a second", drained),
        plain("processor time of one here, us", each(own_cpu().saturating_sub(cpu))),
        plain("and in the server, us", each(bench.server_cpu().saturating_sub(server))),
    ]
}

fn in_store<T>(store: &Store, f: impl FnOnce(&mut Conn) -> StoreResult<T>) -> T {
    store.with(f).expect("the store works")
}

fn add(conn: &mut Conn, rows: &[NewDelivery]) -> StoreResult<()> {
    const COLUMNS: &str = "id, sink, lane, subject, payload, recipient, state, attempt, created_at_us";
    let column = |of: fn(&NewDelivery) -> &String| rows.iter().map(|row| of(row).clone()).collect::<Vec<_>>();
    match conn {
        Conn::Pg(c) => {
            sql_query(format!(
                "INSERT INTO bare ({COLUMNS}) SELECT unnest($1), unnest($2), unnest($3), unnest($4), unnest($5), unnest($6), 'ready', 0, 1"
            ))
            .bind::<Array<Text>, _>(column(|row| &row.id))
            .bind::<Array<Text>, _>(column(|row| &row.sink))
            .bind::<Array<Text>, _>(column(|row| &row.lane))
            .bind::<Array<Text>, _>(column(|row| &row.subject))
            .bind::<Array<Text>, _>(column(|row| &row.payload))
            .bind::<Array<Text>, _>(column(|row| &row.recipient))
            .execute(c)?;
        }
        Conn::Sqlite(c) => {
            let rows: Vec<_> = rows.iter().map(|r| [&r.id, &r.sink, &r.lane, &r.subject, &r.payload, &r.recipient]).collect();
            let field = |n: usize| format!("value ->> {n}");
            let fields: Vec<String> = (0..6).map(field).collect();
            sql_query(format!("INSERT INTO bare ({COLUMNS}) SELECT {}, 'ready', 0, 1 FROM json_each($1)", fields.join(", ")))
                .bind::<Text, _>(serde_json::json!(rows).to_string())
                .execute(c)?;
        }
    }
    Ok(())
}

/// The next thousand behind `after`, as the index has them; returns where they end, `None` behind the last.
fn send(conn: &mut Conn, after: &(String, i64), until: &str) -> StoreResult<Option<(String, i64)>> {
    let text = format!(
        "SELECT seq, id, lane, payload FROM bare WHERE sink = 'bench' AND state = 'ready' AND (lane, seq) > ($1, $2) AND lane < $3 \
         ORDER BY lane, seq LIMIT {BULK}"
    );
    let ready: Vec<Ready> =
        on_backend!(conn, |c| sql_query(text).bind::<Text, _>(&after.0).bind::<BigInt, _>(after.1).bind::<Text, _>(until).load(c))?;
    let Some(last) = ready.last() else { return Ok(None) };
    let end = (last.lane.clone(), last.seq);
    // A sink would look at them.
    assert!(ready.iter().all(|row| !row.id.is_empty() && !row.lane.is_empty() && !row.payload.is_empty()));
    let seqs: Vec<i64> = ready.iter().map(|row| row.seq).collect();
    let update = "UPDATE bare SET state = 'sent', attempt = attempt + 1, settled_at_us = 2 WHERE";
    let moved = match conn {
        Conn::Pg(c) => sql_query(format!("{update} seq = ANY($1) AND COALESCE(state, '') = 'ready'"))
            .bind::<Array<BigInt>, _>(&seqs)
            .execute(c)?,
        Conn::Sqlite(c) => sql_query(format!("{update} seq IN (SELECT value FROM json_each($1)) AND +state = 'ready'"))
            .bind::<Text, _>(serde_json::json!(seqs).to_string())
            .execute(c)?,
    };
    assert_eq!(moved, seqs.len(), "nobody else has them");
    Ok(Some(end))
}
