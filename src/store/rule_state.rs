//! Rule state: what each rule knows of each engine, so that a restart neither forgets an alarm nor raises it twice.
//!
//! `Firing` and `Clear` are written only in the transaction of the alert that they opened or closed: saved earlier, a crash in
//! between would leave a rule that believes its alarm is out while nobody was told. Only pending phases are saved on their own.

use diesel::prelude::*;

use super::{Conn, StoreResult, control::corrupt, control_schema::rule_state};
use crate::{
    domain::{
        alert::{AlertKind, Transition},
        rule::Phase,
    },
    on_backend,
};

/// The phase of one rule for one engine.
#[derive(Clone, Debug, PartialEq)]
pub struct PhaseRow {
    /// The rule's name.
    pub rule: String,
    /// The engine's id.
    pub engine_id: String,
    /// Never `Clear`: that is the absence of a row.
    pub phase: Phase,
}

/// Every phase that was saved.
///
/// # Errors
/// Those of the control store; a row that cannot be read is `Corrupt`.
pub fn load_all(conn: &mut Conn) -> StoreResult<Vec<PhaseRow>> {
    let rows: Vec<(String, String, String)> =
        rule_state::table.select((rule_state::rule, rule_state::engine_id, rule_state::phase)).load(conn)?;
    rows.into_iter()
        .map(|(rule, engine_id, phase)| {
            let phase = serde_json::from_str(&phase).map_err(|_| corrupt("rule_state.phase", &phase))?;
            Ok(PhaseRow { rule, engine_id, phase })
        })
        .collect()
}

/// Writes the phase that a transition stands for. Part of the transaction that commits the transition.
///
/// # Errors
/// Those of the control store.
pub fn follow(conn: &mut Conn, transition: &Transition, now_us: i64) -> StoreResult<()> {
    if transition.kind != AlertKind::Rule {
        return Ok(());
    }
    if transition.firing {
        let phase = Phase::Firing { last_breach_us: transition.observed_at_us };
        return upsert(conn, &transition.name, &transition.subject, &phase, now_us);
    }
    let row = rule_state::table.filter(rule_state::rule.eq(&transition.name)).filter(rule_state::engine_id.eq(&transition.subject));
    diesel::delete(row).execute(conn)?;
    Ok(())
}

fn upsert(conn: &mut Conn, rule: &str, engine_id: &str, phase: &Phase, now_us: i64) -> StoreResult<()> {
    let phase = encode(phase);
    let row = (
        rule_state::rule.eq(rule),
        rule_state::engine_id.eq(engine_id),
        rule_state::phase.eq(&phase),
        rule_state::updated_at_us.eq(now_us),
    );
    let update = (rule_state::phase.eq(&phase), rule_state::updated_at_us.eq(now_us));
    on_backend!(conn, |c| diesel::insert_into(rule_state::table)
        .values(row)
        .on_conflict((rule_state::rule, rule_state::engine_id))
        .do_update()
        .set(update)
        .execute(c))?;
    Ok(())
}

/// Replaces the saved pending phases by those among `rows`; every other phase is left to [`follow`].
///
/// # Errors
/// Those of the control store; nothing has changed then.
pub fn save_pending(conn: &mut Conn, rows: &[PhaseRow], now_us: i64) -> StoreResult<()> {
    conn.write(|conn| {
        diesel::delete(rule_state::table.filter(rule_state::phase.like(r#"{"phase":"pending"%"#))).execute(conn)?;
        for row in rows.iter().filter(|row| matches!(row.phase, Phase::Pending { .. })) {
            let values = (
                rule_state::rule.eq(&row.rule),
                rule_state::engine_id.eq(&row.engine_id),
                rule_state::phase.eq(encode(&row.phase)),
                rule_state::updated_at_us.eq(now_us),
            );
            // A row that is there still says firing: the end of that alert is on its way and will remove it.
            on_backend!(conn, |c| diesel::insert_into(rule_state::table).values(values).on_conflict_do_nothing().execute(c))?;
        }
        Ok(())
    })
}

fn encode(phase: &Phase) -> String {
    // Three plain variants of integers: this cannot fail.
    serde_json::to_string(phase).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::alert::Level, store::control::tests::scratch};

    fn transition(engine: &str, firing: bool) -> Transition {
        Transition {
            kind: AlertKind::Rule,
            name: "overheat".into(),
            subject: engine.into(),
            level: Level::Critical,
            firing,
            observed_at_us: 42,
            arrived_at_us: 43,
            value: Some(351.0),
            threshold: Some(350.0),
            text: "too hot".into(),
        }
    }

    fn row(engine: &str, phase: Phase) -> PhaseRow {
        PhaseRow { rule: "overheat".into(), engine_id: engine.into(), phase }
    }

    #[test]
    fn a_phase_follows_its_transition() {
        let (_dir, store) = scratch();
        store
            .with(|conn| {
                follow(conn, &transition("e1", true), 1)?;
                follow(conn, &transition("e2", true), 1)?;
                follow(conn, &transition("e1", false), 2)?;
                assert_eq!(load_all(conn)?, [row("e2", Phase::Firing { last_breach_us: 42 })]);
                Ok(())
            })
            .expect("works");
    }

    #[test]
    fn pending_phases_are_replaced_and_firing_ones_left_alone() {
        let (_dir, store) = scratch();
        store
            .with(|conn| {
                follow(conn, &transition("e1", true), 1)?;
                let pending = Phase::Pending { since_us: 9 };
                save_pending(conn, &[row("e1", pending), row("e2", pending), row("e3", Phase::Firing { last_breach_us: 1 })], 2)?;
                assert_eq!(load_all(conn)?, [row("e1", Phase::Firing { last_breach_us: 42 }), row("e2", pending)]);
                save_pending(conn, &[], 3)?;
                assert_eq!(load_all(conn)?, [row("e1", Phase::Firing { last_breach_us: 42 })]);
                Ok(())
            })
            .expect("works");
    }
}
