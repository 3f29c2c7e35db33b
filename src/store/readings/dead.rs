//! Whether one row is at fault, or the database. Only a row that the database refuses for what it says is dead; anything else
//! comes again, so that an outage never fills the dead letters.

use diesel::{
    connection::SimpleConnection,
    prelude::*,
    sql_types::{Bool, Text},
};

use super::{Row, row::Payload};
use crate::store::{Conn, StoreError, StoreErrorKind, StoreResult};

/// Classes of SQLSTATE that blame the row: data exceptions, integrity constraints, program limits (a value too large for an
/// index), and a trigger's own exception.
const ROW_CLASSES: [&str; 4] = ["22", "23", "54", "P0001"];
/// What [`PROBE`] reports where the row was taken this time.
const TAKEN: &str = "BLYOK";

/// Inserts the row of the setting `belayd.probe`, undoes it, and leaves there what the database said. diesel does not hand out
/// SQLSTATE; the server's own language does.
const PROBE: &str = "DO $probe$
DECLARE row jsonb;
BEGIN
    row := current_setting('belayd.probe')::jsonb;
    INSERT INTO readings (engine_id, observed_at_us, status, temperature, rpm, pressure, fuel_flow, extra,
                          stream_no, seq, created_at_us)
    SELECT row->>'engineId', (row->>'observedAtUs')::bigint, row->>'status', (row->>'temperature')::float8,
           (row->>'rpm')::float8, (row->>'pressure')::float8, (row->>'fuelFlow')::float8, row->>'extra', 0, 0, 0
    ON CONFLICT (engine_id, observed_at_us) DO NOTHING;
    RAISE EXCEPTION USING ERRCODE = 'BLYOK';
EXCEPTION WHEN OTHERS THEN
    PERFORM set_config('belayd.probe', SQLSTATE || ' ' || SQLERRM, true);
END $probe$";

#[derive(QueryableByName)]
struct Said {
    #[diesel(sql_type = Text)]
    said: String,
}

/// The failure with the database's own code where the row is at fault.
///
/// # Errors
/// The failure itself, or the database's better word for it, where the row is not at fault.
pub(super) fn verdict(conn: &mut Conn, row: &Row<'_>, error: StoreError) -> StoreResult<StoreError> {
    let Conn::Pg(pg) = conn else {
        let blamed = matches!(error.kind, StoreErrorKind::Invalid | StoreErrorKind::Conflict) && error.code.is_some();
        return if blamed { Ok(error) } else { Err(error) };
    };
    let payload = Payload::new(&row.reading, row.created_at_us).text();
    diesel::select(set_config("belayd.probe", payload, true)).execute(pg)?;
    pg.batch_execute(PROBE)?;
    let Said { said } = diesel::sql_query("SELECT current_setting('belayd.probe') AS said").get_result(pg)?;
    let (code, message) = said.split_once(' ').unwrap_or((&said, ""));
    if code == TAKEN {
        return Err(StoreError::from_code("40001", "a reading that was refused is taken now"));
    }
    let found = StoreError::from_code(code, message);
    if ROW_CLASSES.iter().any(|class| code.starts_with(class)) { Ok(found) } else { Err(found) }
}

diesel::define_sql_function! {
    /// PostgreSQL's `set_config(name, value, is_local)`.
    fn set_config(name: Text, value: Text, is_local: Bool) -> Text;
}
