//! Readings that the database refused, on the page: found by their cause, seen with the database's own word, stored by a retry once the cause
//! is gone, or given up.

use std::time::Duration;

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};
use serde_json::json;

use super::work::{Desk, HOSTILE};
use crate::support::rows;

/// Runs SQL past the daemon.
fn alter(desk: &Desk, sql: &str) {
    let file = desk.daemon.dir().join("belayd.db");
    let mut conn = SqliteConnection::establish(file.to_str().expect("a plain path")).expect("the database");
    conn.batch_execute("PRAGMA busy_timeout = 10000").expect("patient");
    conn.batch_execute(sql).expect("plain SQL");
}

#[tokio::test]
async fn a_reading_that_the_database_refused_is_stored_by_a_retry_once_the_cause_is_gone_or_given_up() {
    let Some(desk) = Desk::set().await else { return };
    desk.daemon.wait_for("migrated", Duration::from_secs(10), |daemon| daemon.get("/readyz").json()["state"] == "ready");
    let words = HOSTILE.replace('\'', "''");
    alter(
        &desk,
        &format!(
            "CREATE TRIGGER unwanted BEFORE INSERT ON readings WHEN new.rpm = 666 BEGIN SELECT RAISE(ABORT, 'no {words}'); END"
        ),
    );
    // Beside one that is taken: where a trigger refuses all that comes, the database is at fault.
    let reading = |engine: &str, rpm: i64| json!({"engineId": engine, "timestamp": 1_700_000_000_000_i64, "rpm": rpm});
    let readings = json!([reading("refused-0", 666), reading("taken", 1), reading("refused-1", 666)]);
    assert_eq!(desk.daemon.post("/api/readings?ack=store", &readings.to_string()).status, 202);
    desk.daemon.wait_for("two dead letters", Duration::from_secs(30), |daemon| daemon.metric("belayd_readings_dead") == 2.0);
    let items = desk.daemon.get("/admin/failures?kind=reading").json()["items"].clone();
    let id = |engine: &str| {
        let all = items.as_array().expect("a list");
        all.iter().find(|one| one["engineId"] == engine).expect("listed")["id"].as_str().expect("an id").to_owned()
    };
    let (kept, given_up) = (id("refused-0"), id("refused-1"));

    desk.open("/failures").await;
    desk.until("document.querySelector('#list-items .many')?.textContent === '2'").await;
    desk.browser.js("document.querySelector('#list-items a').click()").await;
    desk.until("document.querySelectorAll('#entry-body .items a').length === 2").await;
    desk.browser.js(&format!("document.querySelector('#entry-body a[href=\"#{kept}\"]').click()")).await;
    desk.until("document.querySelector('#entry-body h2')?.textContent.includes('refused-0')").await;
    let shown = desk.browser.js("return document.getElementById('entry-body').innerText").await;
    let shown = shown.as_str().unwrap_or_default().to_owned();
    assert!(shown.contains(HOSTILE) && shown.contains("SQLITE_CONSTRAINT_TRIGGER") && shown.contains("666"), "{shown}");

    // While the cause is there it fails again, and says so.
    desk.push("#entry", "Retry").await;
    desk.answer(&[("reason", "too early")]).await;
    assert!(desk.result().await.contains("again"), "{}", desk.text("#done-text").await);
    let row = "SELECT COUNT(*) AS n FROM readings WHERE engine_id = 'refused-0' AND rpm = 666";
    let file = desk.daemon.dir().join("belayd.db");
    assert_eq!(rows::number(&file, row), 0);
    alter(&desk, "DROP TRIGGER unwanted");
    desk.push("#entry", "Retry").await;
    desk.answer(&[("reason", "the rule is gone")]).await;
    desk.until("document.querySelector('#list-items .many')?.textContent === '1'").await;
    assert_eq!(rows::number(&file, row), 1, "stored, once");

    desk.open(&format!("/failures#{given_up}")).await;
    desk.push("#entry", "Discard").await;
    desk.answer(&[("reason", "test data")]).await;
    assert!(desk.result().await.contains("discarded"), "{}", desk.text("#done-text").await);
    desk.until("document.querySelectorAll('#list-items a').length === 0").await;
    desk.daemon.wait_for("decided", Duration::from_secs(10), |daemon| daemon.metric("belayd_readings_dead") == 0.0);
    let audit = desk.daemon.get("/admin/audit").json().to_string();
    assert!(["too early", "the rule is gone", "test data"].iter().all(|reason| audit.contains(reason)), "{audit}");
    desk.clear(&[]).await;
}
