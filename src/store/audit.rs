//! Audit: who did what, when, why, and how it ended. Rows are added and dropped by age; of what is written down before it is done,
//! the outcome follows, and nothing else is ever changed.

use diesel::prelude::*;
use serde::{Serialize, Serializer};

use super::{Conn, StoreResult, control_schema::audit};
use crate::domain::time;

/// One act of a person or of the daemon on a person's behalf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// When, microseconds since the epoch.
    pub at_us: i64,
    /// The token's name, or `control-socket` for the owner of the data directory.
    pub actor: String,
    /// Verb and noun: `token.create`, `alert.acknowledge`, `delivery.retry`.
    pub action: String,
    /// What it was done to: an id or a name, never a secret.
    pub subject: String,
    /// Why, in the person's words.
    pub reason: Option<String>,
    /// `ok`, or the code of the refusal; [`BEGUN`] until that is known.
    pub outcome: String,
}

/// The outcome of what was written down before it was done. It stays where a crash came between: then it may have been done.
pub const BEGUN: &str = "begun";

/// An entry as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable, Serialize)]
#[diesel(table_name = audit)]
#[serde(rename_all = "camelCase")]
pub struct AuditRow {
    /// Rises with time; the cursor of the list.
    pub id: i64,
    /// When.
    #[serde(rename = "at", serialize_with = "rfc3339")]
    pub at_us: i64,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// To what.
    pub subject: String,
    /// Why.
    pub reason: Option<String>,
    /// How it ended.
    pub outcome: String,
}

fn rfc3339<S: Serializer>(at_us: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time::rfc3339_us(*at_us))
}

/// Adds one entry. Call it in the transaction of the act itself where there is one.
///
/// # Errors
/// Those of the control store.
pub fn record(conn: &mut Conn, entry: &AuditEntry) -> StoreResult<()> {
    diesel::insert_into(audit::table)
        .values((
            audit::at_us.eq(entry.at_us),
            audit::actor.eq(&entry.actor),
            audit::action.eq(&entry.action),
            audit::subject.eq(&entry.subject),
            audit::reason.eq(&entry.reason),
            audit::outcome.eq(&entry.outcome),
        ))
        .execute(conn)?;
    Ok(())
}

/// Adds an entry for what is about to be done, and returns its id for [`conclude`].
///
/// # Errors
/// Those of the control store; then it must not be done.
pub fn begin(conn: &mut Conn, entry: &AuditEntry) -> StoreResult<i64> {
    conn.write(|conn| {
        record(conn, &AuditEntry { outcome: BEGUN.to_owned(), ..entry.clone() })?;
        Ok(audit::table.select(audit::id).order(audit::id.desc()).first(conn)?)
    })
}

/// Says how it ended.
///
/// # Errors
/// Those of the control store.
pub fn conclude(conn: &mut Conn, id: i64, outcome: &str) -> StoreResult<()> {
    diesel::update(audit::table.filter(audit::id.eq(id)).filter(audit::outcome.eq(BEGUN)))
        .set(audit::outcome.eq(outcome))
        .execute(conn)?;
    Ok(())
}

/// At most `limit` entries, newest first, older than the one with the id `before` where given.
///
/// # Errors
/// Those of the control store.
pub fn list(conn: &mut Conn, limit: u32, before: Option<i64>) -> StoreResult<Vec<AuditRow>> {
    let rows = audit::table
        .filter(audit::id.lt(before.unwrap_or(i64::MAX)))
        .order(audit::id.desc())
        .limit(i64::from(limit))
        .select(AuditRow::as_select())
        .load(conn)?;
    Ok(rows)
}

/// Drops at most `limit` entries from before `before_us`; returns how many.
///
/// # Errors
/// Those of the control store.
pub fn prune(conn: &mut Conn, before_us: i64, limit: u32) -> StoreResult<usize> {
    let newest: Option<i64> = audit::table
        .filter(audit::at_us.lt(before_us))
        .order(audit::id.asc())
        .limit(i64::from(limit))
        .select(audit::id)
        .load::<i64>(conn)?
        .pop();
    let Some(newest) = newest else { return Ok(0) };
    Ok(diesel::delete(audit::table.filter(audit::id.le(newest)).filter(audit::at_us.lt(before_us))).execute(conn)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::control::tests::scratch;

    fn entry(at_us: i64) -> AuditEntry {
        AuditEntry {
            at_us,
            actor: "kim".into(),
            action: "token.create".into(),
            subject: "pump-house".into(),
            reason: Some("new sender".into()),
            outcome: "ok".into(),
        }
    }

    #[test]
    fn entries_are_listed_newest_first_and_dropped_oldest_first() {
        let (_dir, store) = scratch();
        store
            .with(|conn| {
                for at_us in 1..=5 {
                    record(conn, &entry(at_us))?;
                }
                let page = list(conn, 2, None)?;
                assert_eq!(page.iter().map(|row| row.at_us).collect::<Vec<_>>(), [5, 4]);
                let next = list(conn, 2, Some(page[1].id))?;
                assert_eq!(next.iter().map(|row| row.at_us).collect::<Vec<_>>(), [3, 2]);
                assert_eq!((prune(conn, 4, 2)?, prune(conn, 4, 2)?, prune(conn, 4, 2)?), (2, 1, 0));
                assert_eq!(list(conn, 10, None)?.len(), 2);
                Ok(())
            })
            .expect("works");
    }
}
