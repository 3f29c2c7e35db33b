//! What each group of a route has told one sink and recipient lately: by it the alert side spaces notices out and folds storms, and a
//! restart does not forget it.

use diesel::prelude::*;

use crate::{
    on_backend,
    store::{Conn, StoreResult, control_schema::alert_groups},
};

/// One group at one sink and recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The route, sink and recipient.
    pub channel: String,
    /// The values by which the route groups; empty for the channel as a whole.
    pub name: String,
    /// When it was told of last, microseconds since the epoch.
    pub last_at_us: i64,
    /// Since when `told` counts, microseconds since the epoch.
    pub window_from_us: i64,
    /// How many were told one by one since then.
    pub told: i64,
    /// Deliveries that were to be told one by one and may still be waiting.
    pub waiting: Vec<String>,
    /// The digest that is being filled, or was last.
    pub digest_id: Option<String>,
    /// When the last digest was or is due, microseconds since the epoch.
    pub digest_at_us: i64,
}

impl Group {
    /// One of which nothing has been told.
    pub fn new(channel: &str, name: &str) -> Self {
        Self {
            channel: channel.to_owned(),
            name: name.to_owned(),
            last_at_us: i64::MIN,
            window_from_us: i64::MIN,
            told: 0,
            waiting: Vec::new(),
            digest_id: None,
            digest_at_us: i64::MIN,
        }
    }
}

type Row = (String, String, i64, i64, i64, String, Option<String>, i64);

/// What cannot be read counts as nothing waiting: those are told one by one then.
fn read((channel, name, last_at_us, window_from_us, told, waiting, digest_id, digest_at_us): Row) -> Group {
    let waiting = serde_json::from_str(&waiting).unwrap_or_default();
    Group { channel, name, last_at_us, window_from_us, told, waiting, digest_id, digest_at_us }
}

/// Groups of which something was told later than now: the clock was set back. At most `limit`.
///
/// # Errors
/// Those of the control store.
pub fn ahead(conn: &mut Conn, now_us: i64, limit: i64) -> StoreResult<Vec<Group>> {
    let rows: Vec<Row> = alert_groups::table.filter(alert_groups::last_at_us.gt(now_us)).limit(limit).load(conn)?;
    Ok(rows.into_iter().map(read).collect())
}

/// One group; a new one where nothing is known of it.
///
/// # Errors
/// Those of the control store.
pub fn get(conn: &mut Conn, channel: &str, name: &str) -> StoreResult<Group> {
    let row: Option<Row> = alert_groups::table.find((channel, name)).first(conn).optional()?;
    Ok(row.map_or_else(|| Group::new(channel, name), read))
}

/// Writes one down.
///
/// # Errors
/// Those of the control store.
pub fn put(conn: &mut Conn, group: &Group) -> StoreResult<()> {
    // Texts: this cannot fail.
    let waiting = serde_json::to_string(&group.waiting).unwrap_or_else(|_| "[]".to_owned());
    let values = (
        alert_groups::last_at_us.eq(group.last_at_us),
        alert_groups::window_from_us.eq(group.window_from_us),
        alert_groups::told.eq(group.told),
        alert_groups::waiting.eq(waiting),
        alert_groups::digest_id.eq(group.digest_id.as_deref()),
        alert_groups::digest_at_us.eq(group.digest_at_us),
    );
    let row = (alert_groups::channel.eq(&group.channel), alert_groups::name.eq(&group.name), values.clone());
    on_backend!(conn, |c| diesel::insert_into(alert_groups::table)
        .values(row)
        .on_conflict((alert_groups::channel, alert_groups::name))
        .do_update()
        .set(values)
        .execute(c))?;
    Ok(())
}

/// Forgets groups of which nothing has been told since `before_us`, at most `limit`; returns how many. Whoever forgets too early lets a
/// notice be told alone.
///
/// # Errors
/// Those of the control store.
pub fn prune(conn: &mut Conn, before_us: i64, limit: u32) -> StoreResult<usize> {
    let old: Vec<(String, String)> = alert_groups::table
        .filter(alert_groups::last_at_us.lt(before_us))
        .filter(alert_groups::digest_at_us.lt(before_us))
        .limit(i64::from(limit))
        .select((alert_groups::channel, alert_groups::name))
        .load(conn)?;
    for (channel, name) in &old {
        diesel::delete(alert_groups::table.find((channel, name))).execute(conn)?;
    }
    Ok(old.len())
}
