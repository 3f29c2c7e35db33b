//! What anomaly rules have learned of each engine, so that a restart does not take a worn engine for the normal one.
//!
//! A baseline is written once, when it has been learned, and again only when it was learned anew. A crash in between costs the
//! learning of the last seconds, which begins again. Bounded: beyond `keep` rows the oldest go.

use diesel::prelude::*;

use super::{Conn, StoreResult, control_schema::rule_baselines};
use crate::{domain::anomaly::Baseline, on_backend};

/// What was learned of one engine under one rule.
#[derive(Clone, Debug, PartialEq)]
pub struct BaselineRow {
    /// The rule's name.
    pub rule: String,
    /// The engine's id.
    pub engine_id: String,
    /// What was learned.
    pub baseline: Baseline,
}

/// The newest baselines, at most `limit`. One that this build cannot read is left out: it is learned anew.
///
/// # Errors
/// Those of the control store.
pub fn load(conn: &mut Conn, limit: usize) -> StoreResult<Vec<BaselineRow>> {
    let rows: Vec<(String, String, String)> = rule_baselines::table
        .select((rule_baselines::rule, rule_baselines::engine_id, rule_baselines::baseline))
        .order((rule_baselines::updated_at_us.desc(), rule_baselines::rule, rule_baselines::engine_id))
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .load(conn)?;
    let read = |(rule, engine_id, text): (String, String, String)| {
        Some(BaselineRow { rule, engine_id, baseline: serde_json::from_str(&text).ok()? })
    };
    Ok(rows.into_iter().filter_map(read).collect())
}

/// Writes baselines and lets the oldest beyond `keep` go.
///
/// # Errors
/// Those of the control store; nothing has changed then.
pub fn save(conn: &mut Conn, rows: &[BaselineRow], keep: usize, now_us: i64) -> StoreResult<()> {
    conn.write(|conn| {
        for row in rows {
            // Finite numbers and plain names: this cannot fail.
            let text = serde_json::to_string(&row.baseline).unwrap_or_default();
            let values = (
                rule_baselines::rule.eq(&row.rule),
                rule_baselines::engine_id.eq(&row.engine_id),
                rule_baselines::baseline.eq(&text),
                rule_baselines::updated_at_us.eq(now_us),
            );
            let update = (rule_baselines::baseline.eq(&text), rule_baselines::updated_at_us.eq(now_us));
            on_backend!(conn, |c| diesel::insert_into(rule_baselines::table)
                .values(values)
                .on_conflict((rule_baselines::rule, rule_baselines::engine_id))
                .do_update()
                .set(update)
                .execute(c))?;
        }
        let oldest_kept: Option<i64> = rule_baselines::table
            .select(rule_baselines::updated_at_us)
            .order(rule_baselines::updated_at_us.desc())
            .offset(i64::try_from(keep).unwrap_or(i64::MAX))
            .first(conn)
            .optional()?;
        if let Some(at_us) = oldest_kept {
            // Those written together go together; never the ones just written.
            let old = rule_baselines::table
                .filter(rule_baselines::updated_at_us.le(at_us))
                .filter(rule_baselines::updated_at_us.lt(now_us));
            diesel::delete(old).execute(conn)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{
            alert::Level,
            anomaly::{AnomalyRule, Detector, Names},
            reading::ReadingRef,
        },
        store::control::tests::scratch,
    };

    fn learned() -> Baseline {
        let (level, labels) = (Level::Warning, Default::default());
        let rule = AnomalyRule { name: "wear".into(), metrics: Vec::new(), sensitivity: 1.0, warm_up: 20, level, labels };
        let (mut detector, mut names) = (Detector::default(), Names::default());
        for at in 0..20_i64 {
            let reading = ReadingRef {
                engine_id: "e",
                observed_at_us: at,
                status: None,
                temperature: Some(0.1 + (at * at % 7) as f64),
                rpm: Some(at as f64 * 1.1),
                pressure: None,
                fuel_flow: None,
                extra: Some(r#"{"oil":1.5}"#),
            };
            detector.observe(&rule, &mut names, &reading, at);
        }
        detector.take_learned().expect("learned").clone()
    }

    fn row(engine_id: &str) -> BaselineRow {
        BaselineRow { rule: "wear".into(), engine_id: engine_id.into(), baseline: learned() }
    }

    #[test]
    fn a_baseline_comes_back_as_it_was_and_one_that_cannot_be_read_is_left_out() {
        let (_dir, store) = scratch();
        store
            .with(|conn| {
                save(conn, &[row("e1"), row("e2")], 10, 1)?;
                save(conn, &[row("e1")], 10, 2)?;
                assert_eq!(load(conn, 10)?, [row("e1"), row("e2")]);
                let spoil = diesel::update(rule_baselines::table.filter(rule_baselines::engine_id.eq("e1")));
                spoil.set(rule_baselines::baseline.eq("{")).execute(conn)?;
                assert_eq!(load(conn, 10)?, [row("e2")]);
                Ok(())
            })
            .expect("works");
    }

    #[test]
    fn the_oldest_baselines_go_beyond_the_bound() {
        let (_dir, store) = scratch();
        store
            .with(|conn| {
                for at in 0..9 {
                    save(conn, &[row(&format!("e{at}"))], 4, at)?;
                }
                let kept: Vec<String> = load(conn, 99)?.into_iter().map(|row| row.engine_id).collect();
                assert_eq!(kept, ["e8", "e7", "e6", "e5"]);
                Ok(())
            })
            .expect("works");
    }
}
