//! Whether one row is at fault, or the database. Only a row that the database refuses for what it says is dead; anything else
//! comes again, so that an outage never fills the dead letters.

use diesel::{
    connection::SimpleConnection,
    prelude::*,
    sql_types::{Bool, Text},
};

use super::{Row, row::Payload};
use crate::store::{
    Backend, Conn, StoreError, StoreErrorKind, StoreResult,
    error::{blames_row, is_triggers_own},
};

/// Inserts the rows of the setting `belayd.probe` one by one, undoes them, and leaves there which were refused and why: place,
/// SQLSTATE, message. diesel does not hand out SQLSTATE; the server's own language does. A cancelled statement is no row's fault and
/// is not caught. Each row is read within its own block: a text that PostgreSQL cannot hold fails there and not all of them.
const PROBE: &str = "DO $probe$
DECLARE
    item json;
    place int := 0;
    refused jsonb := '[]';
BEGIN
    BEGIN
        FOR item IN SELECT json_array_elements(current_setting('belayd.probe')::json) LOOP
            BEGIN
                INSERT INTO readings (engine_id, observed_at_us, status, temperature, rpm, pressure, fuel_flow, extra,
                                      stream_no, seq, created_at_us)
                SELECT item->>'engineId', (item->>'observedAtUs')::bigint, item->>'status', (item->>'temperature')::float8,
                       (item->>'rpm')::float8, (item->>'pressure')::float8, (item->>'fuelFlow')::float8, item->>'extra', 0, 0, 0
                ON CONFLICT (engine_id, observed_at_us) DO NOTHING;
            EXCEPTION WHEN OTHERS THEN
                refused := refused || jsonb_build_array(jsonb_build_array(place, SQLSTATE, SQLERRM));
            END;
            place := place + 1;
        END LOOP;
        RAISE EXCEPTION USING ERRCODE = 'BLYOK';
    EXCEPTION WHEN SQLSTATE 'BLYOK' THEN
        NULL;
    END;
    PERFORM set_config('belayd.probe', refused::text, true);
END $probe$";

#[derive(QueryableByName)]
struct Said {
    #[diesel(sql_type = Text)]
    said: String,
}

/// Which of `rows` PostgreSQL refuses, by place, and what it says of each. Three statements whatever their number.
///
/// # Errors
/// Those of the database.
pub(super) fn probe(conn: &mut Conn, rows: &[Row<'_>]) -> StoreResult<Vec<(usize, StoreError)>> {
    let Conn::Pg(pg) = conn else { return Err(StoreError::other("only PostgreSQL is asked so")) };
    let texts: Vec<String> = rows.iter().map(|row| Payload::new(&row.reading, row.created_at_us).text()).collect();
    let payload = format!("[{}]", texts.join(","));
    diesel::select(set_config("belayd.probe", payload, true)).execute(pg)?;
    pg.batch_execute(PROBE)?;
    let Said { said } = diesel::sql_query("SELECT current_setting('belayd.probe') AS said").get_result(pg)?;
    let refused: Vec<(usize, String, String)> = serde_json::from_str(&said)
        .map_err(|_| StoreError::new(StoreErrorKind::Other, "the server's word on refused rows is garbled"))?;
    Ok(refused
        .into_iter()
        .filter(|(place, ..)| *place < rows.len())
        .map(|(place, code, message)| (place, StoreError::from_code(&code, message)))
        .collect())
}

/// The failure where it speaks of the row.
///
/// # Errors
/// The failure itself where it does not.
pub(super) fn judged(error: StoreError) -> StoreResult<StoreError> {
    if error.code.as_deref().is_some_and(blames_row) { Ok(error) } else { Err(error) }
}

/// The failure with its code, where it can only be the words of a SQLite trigger.
pub(super) fn triggers_words(backend: Backend, error: &StoreError) -> Option<StoreError> {
    let own = backend == Backend::Sqlite && error.code.is_none() && is_triggers_own(&error.message);
    own.then(|| StoreError::from_code("SQLITE_CONSTRAINT_TRIGGER", error.message.clone()))
}

diesel::define_sql_function! {
    /// PostgreSQL's `set_config(name, value, is_local)`.
    fn set_config(name: Text, value: Text, is_local: Bool) -> Text;
}
