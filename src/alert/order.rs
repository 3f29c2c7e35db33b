//! One order on the desk, and what the transaction makes of it.
//!
//! In: transitions, a person's wish, a round. Out: alerts as they are now, deliveries, counts. A crash loses nothing that was committed:
//! all orders of a group are one transaction.

use super::{
    issue, policy,
    round::{self, Surroundings},
    routes,
    teller::{Outcomes, Teller},
};
use crate::{
    config::Config,
    domain::alert::{Alert, Transition},
    protocol::AcknowledgeError,
    store::{
        Conn, StoreError, StoreResult,
        alerts::{self, Acknowledged},
        audit::{self, AuditEntry},
        deliveries, rule_state,
    },
};

/// What is to be committed.
pub(super) enum Order {
    Transitions(Vec<Transition>),
    Acknowledge {
        id: String,
        by: String,
        reason: Option<String>,
    },
    /// Look at what is due.
    Round(Surroundings),
    /// The routes may have changed: look at everything that fires.
    Rerouted,
}

/// What a transaction made of one order.
#[derive(Default)]
pub(super) struct Done {
    pub(super) alerts: Vec<Alert>,
    pub(super) deliveries: usize,
    pub(super) outcomes: Outcomes,
    /// What a round found.
    pub(super) found: round::Found,
    pub(super) acknowledged: Option<Result<Alert, AcknowledgeError>>,
    /// Transitions that the control store refuses while it takes others.
    pub(super) set_aside: Vec<(Transition, StoreError)>,
}

impl Done {
    /// Takes in what another part of the same order brought.
    pub(super) fn add(&mut self, more: Self) {
        self.alerts.extend(more.alerts);
        self.deliveries += more.deliveries;
        for (outcome, count) in more.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
    }
}

/// Carries out every order in one transaction.
///
/// # Errors
/// Those of the control store; nothing was committed then.
pub(super) fn carry_out_all(
    conn: &mut Conn,
    orders: &[std::sync::Arc<Order>],
    config: &Config,
    now_us: i64,
) -> StoreResult<Vec<Done>> {
    conn.write(|conn| {
        let mut telling = Teller::new(conn, config, now_us)?;
        let done: StoreResult<Vec<Done>> = orders.iter().map(|order| carry_out(conn, &mut telling, order)).collect();
        let mut done = done?;
        telling.finish(conn)?;
        if let Some(last) = done.last_mut() {
            (last.deliveries, last.outcomes) = (telling.deliveries, telling.outcomes);
        }
        Ok(done)
    })
}

fn carry_out(conn: &mut Conn, telling: &mut Teller<'_>, order: &Order) -> StoreResult<Done> {
    match order {
        Order::Transitions(transitions) => {
            let mut done = Done::default();
            for transition in transitions {
                take_over(conn, telling, transition, &mut done)?;
            }
            Ok(done)
        }
        Order::Acknowledge { id, by, reason } => acknowledge(conn, telling, id, by, reason.as_deref()),
        Order::Round(around) => Ok(Done { found: round::carry_out(conn, telling, around)?, ..Done::default() }),
        Order::Rerouted => {
            alerts::looks::all(conn, telling.now_us)?;
            Ok(Done::default())
        }
    }
}

pub(super) fn take_over(conn: &mut Conn, telling: &mut Teller<'_>, transition: &Transition, done: &mut Done) -> StoreResult<()> {
    let now_us = telling.now_us;
    rule_state::follow(conn, transition, now_us)?;
    let labels = routes::labels_of(telling.config, transition);
    let Some((alert, change)) = alerts::take_over(conn, transition, &labels, now_us)? else { return Ok(()) };
    // It could have been told since belayd got to know: the outbox measures the latency from there.
    policy::follow(conn, telling, &alert, change, transition.arrived_at_us.min(now_us))?;
    if let Some(delivery) = issue::delivery(&alert, change, now_us) {
        deliveries::enqueue(conn, &[delivery], now_us)?;
        telling.deliveries += 1;
    }
    done.alerts.push(alert);
    Ok(())
}

fn acknowledge(conn: &mut Conn, telling: &mut Teller<'_>, id: &str, by: &str, reason: Option<&str>) -> StoreResult<Done> {
    let now_us = telling.now_us;
    let outcome = match alerts::acknowledge(conn, id, by, reason, now_us)? {
        Acknowledged::Yes(alert) => {
            if alert.acknowledged_at_us == Some(now_us) {
                policy::acknowledged(conn, telling, &alert, by)?;
            }
            Ok(*alert)
        }
        Acknowledged::Resolved => Err(AcknowledgeError::Resolved),
        Acknowledged::NotFound => Err(AcknowledgeError::NotFound),
    };
    let word = match &outcome {
        Ok(_) => "ok",
        Err(AcknowledgeError::Resolved) => "conflict",
        Err(_) => "not_found",
    };
    let entry = AuditEntry {
        at_us: now_us,
        actor: by.to_owned(),
        action: "alert.acknowledge".to_owned(),
        subject: id.to_owned(),
        reason: reason.map(str::to_owned),
        outcome: word.to_owned(),
    };
    audit::record(conn, &entry)?;
    let alerts = outcome.iter().cloned().collect();
    Ok(Done { alerts, acknowledged: Some(outcome), ..Done::default() })
}
