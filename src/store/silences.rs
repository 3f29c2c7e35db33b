//! Silences: which alerts are not told for a while, by whose word and why.
//!
//! In: the wishes of people, each with its audit row in one transaction. Out: those in force, and lists. A crash loses nothing that was
//! committed. Nothing is removed before its end has long passed: what held an alert back can be read later.

use diesel::prelude::*;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::{Conn, StoreError, StoreResult, control::corrupt, control_schema::silences};
use crate::domain::{silence::Matchers, time};

/// Most silences that are in force or to come. Each alert is compared with those in force.
pub const MOST: i64 = 1_000;

/// One silence, as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Silence {
    /// A UUID.
    pub id: String,
    /// Which alerts are meant.
    pub matchers: Matchers,
    /// From when, microseconds since the epoch (RFC 3339 in JSON).
    #[serde(rename = "startsAt", serialize_with = "rfc3339")]
    pub starts_at_us: i64,
    /// Until when.
    #[serde(rename = "endsAt", serialize_with = "rfc3339")]
    pub ends_at_us: i64,
    /// Why.
    pub reason: String,
    /// Who made it: the name of the token.
    pub created_by: String,
    /// When it was made.
    #[serde(rename = "createdAt", serialize_with = "rfc3339")]
    pub created_at_us: i64,
    /// When somebody ended it before its time.
    #[serde(rename = "expiredAt", serialize_with = "rfc3339_option")]
    pub expired_at_us: Option<i64>,
    /// Who did.
    pub expired_by: Option<String>,
}

fn rfc3339<S: Serializer>(at_us: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time::rfc3339_us(*at_us))
}

fn rfc3339_option<S: Serializer>(at_us: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    at_us.map(time::rfc3339_us).serialize(serializer)
}

impl Silence {
    /// `pending`, `active` or `expired`.
    pub fn state(&self, now_us: i64) -> &'static str {
        if self.expired_at_us.is_some() || self.ends_at_us <= now_us {
            "expired"
        } else if self.starts_at_us > now_us {
            "pending"
        } else {
            "active"
        }
    }
}

type Row = (String, String, i64, i64, String, String, i64, Option<i64>, Option<String>);

fn read(row: Row) -> StoreResult<Silence> {
    let (id, matchers, starts_at_us, ends_at_us, reason, created_by, created_at_us, expired_at_us, expired_by) = row;
    let matchers = serde_json::from_str(&matchers).map_err(|_| corrupt("silences.matchers", &matchers))?;
    Ok(Silence { id, matchers, starts_at_us, ends_at_us, reason, created_by, created_at_us, expired_at_us, expired_by })
}

/// A silence to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSilence {
    /// Which alerts are meant; checked.
    pub matchers: Matchers,
    /// From when, microseconds since the epoch.
    pub starts_at_us: i64,
    /// Until when; later than the start.
    pub ends_at_us: i64,
    /// Why.
    pub reason: String,
    /// Who makes it.
    pub by: String,
}

/// Makes one. Call it in the transaction of its audit row.
///
/// # Errors
/// `Conflict` where [`MOST`] are in force or to come; those of the control store.
pub fn create(conn: &mut Conn, new: &NewSilence, now_us: i64) -> StoreResult<Silence> {
    let live = silences::table.filter(silences::expired_at_us.is_null()).filter(silences::ends_at_us.gt(now_us));
    if live.count().get_result::<i64>(conn)? >= MOST {
        return Err(StoreError::conflict(format!("there are {MOST} silences already; end some, or let one with * mean several")));
    }
    let silence = Silence {
        id: Uuid::now_v7().to_string(),
        matchers: new.matchers.clone(),
        starts_at_us: new.starts_at_us,
        ends_at_us: new.ends_at_us,
        reason: new.reason.clone(),
        created_by: new.by.clone(),
        created_at_us: now_us,
        expired_at_us: None,
        expired_by: None,
    };
    let row = (
        silences::id.eq(&silence.id),
        // Words and texts: this cannot fail.
        silences::matchers.eq(serde_json::to_string(&silence.matchers).unwrap_or_else(|_| "{}".to_owned())),
        silences::starts_at_us.eq(silence.starts_at_us),
        silences::ends_at_us.eq(silence.ends_at_us),
        silences::reason.eq(&silence.reason),
        silences::created_by.eq(&silence.created_by),
        silences::created_at_us.eq(now_us),
    );
    diesel::insert_into(silences::table).values(row).execute(conn)?;
    Ok(silence)
}

/// Ends one before its time. Call it in the transaction of its audit row.
///
/// # Errors
/// `NotFound`; `Conflict` where it is over already, which stays as it is; those of the control store.
pub fn expire(conn: &mut Conn, id: &str, by: &str, now_us: i64) -> StoreResult<Silence> {
    let silence = get(conn, id)?;
    if silence.state(now_us) == "expired" {
        let since_us = silence.expired_at_us.unwrap_or(silence.ends_at_us);
        return Err(StoreError::conflict(format!("the silence is over since {}", time::rfc3339_us(since_us))));
    }
    diesel::update(silences::table.find(id))
        .set((silences::expired_at_us.eq(now_us), silences::expired_by.eq(by)))
        .execute(conn)?;
    Ok(Silence { expired_at_us: Some(now_us), expired_by: Some(by.to_owned()), ..silence })
}

/// One silence.
///
/// # Errors
/// `NotFound`; those of the control store.
pub fn get(conn: &mut Conn, id: &str) -> StoreResult<Silence> {
    let row: Option<Row> = silences::table.find(id).first(conn).optional()?;
    row.ok_or_else(|| StoreError::not_found(format!("there is no silence {id}"))).and_then(read)
}

/// Those in force now.
///
/// # Errors
/// Those of the control store.
pub fn active(conn: &mut Conn, now_us: i64) -> StoreResult<Vec<Silence>> {
    let rows: Vec<Row> = silences::table
        .filter(silences::expired_at_us.is_null())
        .filter(silences::ends_at_us.gt(now_us))
        .filter(silences::starts_at_us.le(now_us))
        .order(silences::ends_at_us.asc())
        .limit(MOST)
        .load(conn)?;
    rows.into_iter().map(read).collect()
}

/// At most `limit`, newest first; with `before`, those made before `(created_at_us, id)`.
///
/// # Errors
/// Those of the control store.
pub fn list(conn: &mut Conn, limit: u32, before: Option<(i64, String)>) -> StoreResult<Vec<Silence>> {
    let mut query = silences::table.into_boxed();
    if let Some((at_us, id)) = before {
        // The bound of the index's range; the place within one moment is told by the id.
        query = query.filter(silences::created_at_us.le(at_us));
        query = query.filter(silences::created_at_us.lt(at_us).or(silences::id.lt(id)));
    }
    let rows: Vec<Row> = query.order((silences::created_at_us.desc(), silences::id.desc())).limit(i64::from(limit)).load(conn)?;
    rows.into_iter().map(read).collect()
}

/// Drops at most `limit` that were over before `before_us`; returns how many.
///
/// # Errors
/// Those of the control store.
pub fn prune(conn: &mut Conn, before_us: i64, limit: u32) -> StoreResult<usize> {
    let old: Vec<String> =
        silences::table.filter(silences::ends_at_us.lt(before_us)).limit(i64::from(limit)).select(silences::id).load(conn)?;
    Ok(diesel::delete(silences::table.filter(silences::id.eq_any(&old))).execute(conn)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{StoreErrorKind, control::tests::scratch};

    fn new(name: &str, starts_at_us: i64, ends_at_us: i64) -> NewSilence {
        let matchers = Matchers { name: Some(name.into()), ..Matchers::default() };
        NewSilence { matchers, starts_at_us, ends_at_us, reason: "works".into(), by: "kim".into() }
    }

    #[test]
    fn a_silence_is_in_force_from_its_start_to_its_end_or_until_somebody_ends_it() {
        let (_dir, store) = scratch();
        store
            .with(|conn| {
                let a = create(conn, &new("a", 10, 20), 5)?;
                let b = create(conn, &new("b", 0, 30), 6)?;
                let names =
                    |list: Vec<Silence>| list.into_iter().map(|one| one.matchers.name.unwrap_or_default()).collect::<Vec<_>>();
                assert_eq!(names(active(conn, 9)?), ["b"]);
                assert_eq!(names(active(conn, 10)?), ["a", "b"]);
                assert_eq!(names(active(conn, 20)?), ["b"]);
                assert_eq!((a.state(9), a.state(10), a.state(20)), ("pending", "active", "expired"));
                let ended = expire(conn, &b.id, "lee", 15)?;
                assert_eq!((ended.state(16), ended.expired_by.as_deref()), ("expired", Some("lee")));
                for (id, since) in [(&b.id, 15), (&a.id, 20)] {
                    let again = expire(conn, id, "kim", 21).expect_err("it is over");
                    assert_eq!(again.kind, StoreErrorKind::Conflict);
                    assert!(again.message.contains(&time::rfc3339_us(since)), "{again}");
                }
                assert_eq!(get(conn, &b.id)?.expired_by.as_deref(), Some("lee"), "ended once");
                assert_eq!(names(active(conn, 16)?), ["a"]);
                assert_eq!(names(list(conn, 1, None)?), ["b"]);
                assert_eq!(names(list(conn, 9, Some((6, b.id.clone())))?), ["a"]);
                assert!(get(conn, "none").is_err() && expire(conn, "none", "kim", 1).is_err());
                assert_eq!((prune(conn, 21, 10)?, prune(conn, 31, 10)?), (1, 1));
                Ok(())
            })
            .expect("works");
    }

    #[test]
    fn there_are_at_most_so_many_and_those_that_are_over_do_not_count() {
        let (_dir, store) = scratch();
        store
            .with(|conn| {
                conn.write(|conn| {
                    for n in 0..MOST {
                        create(conn, &new("x", 0, 100 + n), 1)?;
                    }
                    assert!(create(conn, &new("y", 0, 9_999), 1).is_err());
                    create(conn, &new("y", 0, 9_999), 100).map(drop)
                })
            })
            .expect("works");
    }
}
