//! An order that the control store refuses for ever must not hold those behind it: its transitions are tried one by one, and those that
//! are refused while another goes through are set aside, with a log line, a count and an alert of their own.
//!
//! In: one order that failed alone. Out: what became of it, or the failure, where the store refuses everything: then nothing is set
//! aside and all of it waits. A crash loses nothing here: it is one transaction.

use super::{
    order::{Done, Order, take_over},
    teller::Teller,
};
use crate::{
    config::Config,
    domain::alert::{Level, Transition},
    store::{Conn, StoreError, StoreResult},
};

/// The condition that alerts were set aside; its subject is the control store.
const ALERT_REFUSED: &str = "alert-refused";

/// Carries out what can be carried out.
///
/// # Errors
/// Those of the store, where it is the store and not the order; nothing was committed then.
pub(super) fn carry_out(conn: &mut Conn, order: &Order, config: &Config, now_us: i64) -> StoreResult<Done> {
    let Order::Transitions(transitions) = order else {
        // A person's wish is answered with the failure and waits for nothing.
        return Err(StoreError::other("the control store refuses this acknowledgement"));
    };
    conn.write(|conn| {
        let mut done = Done::default();
        for transition in transitions {
            match tried(conn, transition, config, now_us) {
                Ok(more) => {
                    done.add(more);
                }
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => done.set_aside.push((transition.clone(), error)),
            }
        }
        let Some((first, error)) = done.set_aside.first() else { return Ok(done) };
        // Where even this is refused it is the store, and everything waits.
        let told = tried(conn, &notice(first, error, done.set_aside.len(), now_us), config, now_us)?;
        done.add(told);
        Ok(done)
    })
}

fn tried(conn: &mut Conn, transition: &Transition, config: &Config, now_us: i64) -> StoreResult<Done> {
    conn.savepoint(|conn| {
        let mut done = Done::default();
        let mut telling = Teller::new(conn, config, now_us)?;
        take_over(conn, &mut telling, transition, &mut done)?;
        telling.finish(conn)?;
        (done.deliveries, done.outcomes) = (telling.deliveries, telling.outcomes);
        Ok(done)
    })
}

fn notice(first: &Transition, error: &StoreError, count: usize, now_us: i64) -> Transition {
    let (name, subject, told) = (&first.name, &first.subject, &first.text);
    let text = if first.firing {
        format!(
            "the control store refused {count} alerts for ever and they were set aside; the first: {name} of {subject} began ({told}); {error}"
        )
    } else {
        format!(
            "the control store refused {count} alerts for ever and they were set aside; the first: {name} of {subject} is over ({told}); {error}"
        )
    };
    Transition::system((ALERT_REFUSED, "control store"), first.level.max(Level::Warning), true, text, now_us)
}
