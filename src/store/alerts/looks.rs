//! When to look at an alert again, and what holds one back: a silence, or a CRITICAL of the same subject.

use diesel::{
    prelude::*,
    sql_types::{Bool, Nullable, Text},
};

use super::AlertRow;
use crate::{
    domain::alert::{Alert, AlertKind},
    store::{Conn, StoreResult, control_schema::alerts},
};

/// A firing alert whose turn it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    /// The alert.
    pub alert: Alert,
    /// What has held it back so far.
    pub withheld: Option<String>,
}

/// Sets why an alert was not told and when to look at it again; `None` for neither.
///
/// # Errors
/// Those of the control store.
pub fn set(conn: &mut Conn, alert_id: &str, withheld: Option<&str>, look_at_us: Option<i64>) -> StoreResult<()> {
    diesel::update(alerts::table.filter(alerts::id.eq(alert_id)))
        .set((alerts::withheld.eq(withheld), alerts::look_at_us.eq(look_at_us)))
        .execute(conn)?;
    Ok(())
}

/// Firing alerts whose time to be looked at has come, the oldest time first; at most `limit`.
///
/// # Errors
/// Those of the control store.
pub fn due(conn: &mut Conn, now_us: i64, limit: i64) -> StoreResult<Vec<Due>> {
    let rows: Vec<(AlertRow, Option<String>)> = alerts::table
        .filter(diesel::dsl::sql::<Bool>("state = 'firing' AND look_at_us IS NOT NULL"))
        .filter(alerts::look_at_us.le(now_us))
        .order(alerts::look_at_us.asc())
        .limit(limit)
        .select((AlertRow::as_select(), alerts::withheld))
        .load(conn)?;
    rows.into_iter().map(|(row, withheld)| Ok(Due { alert: row.read()?, withheld })).collect()
}

/// Whether the time of any has come.
///
/// # Errors
/// Those of the control store.
pub fn any_due(conn: &mut Conn, now_us: i64) -> StoreResult<bool> {
    let query = alerts::table
        .filter(diesel::dsl::sql::<Bool>("state = 'firing' AND look_at_us IS NOT NULL"))
        .filter(alerts::look_at_us.le(now_us));
    Ok(query.select(alerts::id).limit(1).first::<String>(conn).optional()?.is_some())
}

/// The open CRITICAL of this kind and subject, where there is one beside `not`.
///
/// # Errors
/// Those of the control store.
pub fn critical_of(conn: &mut Conn, kind: AlertKind, subject: &str, not: &str) -> StoreResult<Option<String>> {
    let found = alerts::table
        .filter(diesel::dsl::sql::<Bool>("state <> 'resolved' AND level = 'CRITICAL'"))
        .filter(alerts::subject.eq(subject))
        .filter(alerts::kind.eq(kind.as_str()))
        .filter(alerts::id.ne(not))
        .order(alerts::opened_at_us.asc())
        .select(alerts::id)
        .first(conn)
        .optional()?;
    Ok(found)
}

/// A CRITICAL of this kind and subject is over: what it held back is looked at now. Returns how many alerts that are.
///
/// # Errors
/// Those of the control store.
pub fn release(conn: &mut Conn, kind: AlertKind, subject: &str, now_us: i64) -> StoreResult<usize> {
    let held = alerts::table
        .filter(diesel::dsl::sql::<Bool>("state = 'firing' AND withheld IS NOT NULL"))
        .filter(alerts::subject.eq(subject))
        .filter(alerts::kind.eq(kind.as_str()))
        .filter(alerts::withheld.eq("inhibited"));
    Ok(diesel::update(held).set(alerts::look_at_us.eq(now_us)).execute(conn)?)
}

/// A silence is over before its time: what silences hold back is looked at now. Returns how many alerts that are.
///
/// # Errors
/// Those of the control store.
pub fn release_silenced(conn: &mut Conn, now_us: i64) -> StoreResult<usize> {
    let held = alerts::table
        .filter(diesel::dsl::sql::<Bool>("state = 'firing' AND withheld IS NOT NULL"))
        .filter(alerts::withheld.eq("silenced"));
    Ok(diesel::update(held).set(alerts::look_at_us.eq(now_us)).execute(conn)?)
}

/// Has every firing alert looked at now: the routes may have changed.
///
/// # Errors
/// Those of the control store.
pub fn all(conn: &mut Conn, now_us: i64) -> StoreResult<usize> {
    let firing = alerts::table.filter(diesel::dsl::sql::<Bool>("state <> 'resolved' AND state = 'firing'"));
    Ok(diesel::update(firing).set(alerts::look_at_us.eq(now_us)).execute(conn)?)
}

/// Firing alerts about which nothing was ever decided, or whose newest delivery to somebody is not there although it was made after
/// `since_us` and so is too young to have been deleted by age: a fault, whatever the cause. At most `limit`.
///
/// # Errors
/// Those of the control store.
pub fn untold(conn: &mut Conn, since_us: i64, limit: i64) -> StoreResult<Vec<(Alert, Option<Lost>)>> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        id: String,
        #[diesel(sql_type = Nullable<Text>)]
        sink: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        recipient: Option<String>,
    }
    // One that was told once and whose delivery vanished: the newest word to each receiver counts.
    let text = "SELECT a.id AS id, NULL AS sink, NULL AS recipient FROM alerts AS a WHERE a.state <> 'resolved' AND a.state = 'firing' \
                AND NOT EXISTS (SELECT 1 FROM alert_notices AS n WHERE n.alert_id = a.id) \
                UNION ALL SELECT a.id, n.sink, n.recipient FROM alerts AS a JOIN alert_notices AS n ON n.alert_id = a.id \
                WHERE a.state <> 'resolved' AND a.state = 'firing' AND n.event <> 'resolved' AND n.delivery_id IS NOT NULL AND n.at_us >= $1 \
                AND NOT EXISTS (SELECT 1 FROM deliveries AS d WHERE d.id = n.delivery_id) \
                AND NOT EXISTS (SELECT 1 FROM alert_notices AS later WHERE later.alert_id = n.alert_id AND later.sink = n.sink \
                AND later.recipient = n.recipient AND later.id > n.id) LIMIT $2";
    let rows: Vec<Row> = diesel::sql_query(text)
        .bind::<diesel::sql_types::BigInt, _>(since_us)
        .bind::<diesel::sql_types::BigInt, _>(limit)
        .load(conn)?;
    rows.into_iter()
        .map(|row| {
            let lost = row.sink.zip(row.recipient).map(|(sink, recipient)| Lost { sink, recipient });
            Ok((super::get(conn, &row.id)?, lost))
        })
        .collect()
}

/// To whom a delivery vanished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The sink.
    pub sink: String,
    /// To whom at that sink.
    pub recipient: String,
}
