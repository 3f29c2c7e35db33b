//! Duties that are done once for all instances: under a lease, by whoever did it last or, where that one is gone, by another.
//!
//! In: a duty whose turn has come here. Out: its run, or that another instance has done or is doing it. A crash leaves a lease that runs
//! out; an instance that was paused finds at its next slice that the lease is another's, and nothing of that slice is written.

use std::sync::atomic::Ordering;

use super::{
    Duty,
    desk::{GRACE_US, ScheduleDesk, Turn, run_caught},
};
use crate::store::{
    StoreErrorKind, StoreResult,
    leases::{self, Lease, RENEW_EVERY, TTL},
    shared_duties::{self, SharedRun},
};

impl ScheduleDesk {
    /// Runs `duty` if no other instance has or does; `asked` by a person, it runs also where it is not due.
    pub(super) async fn run_shared(&self, duty: &dyn Duty, asked: bool, began_us: i64) -> Turn {
        let (name, parts) = (duty.name(), self.parts());
        let owner = parts.instance.clone();
        let taken = parts
            .store
            .call(move |conn| Ok((leases::take(conn, &format!("duty/{name}"), &owner, TTL)?, shared_duties::last(conn, name)?)))
            .await;
        let (lease, last) = match taken {
            Ok((Some(lease), last)) => (lease, last),
            Ok((None, _)) => return Turn::Busy,
            Err(error) => return Turn::Ran(Err(error)),
        };
        if let Some(last) = last.filter(|last| !asked && !self.is_due(duty, last)) {
            self.release(lease).await;
            return Turn::Elsewhere(last);
        }
        let turn = self.run_under(duty, &lease, began_us).await;
        self.release(lease).await;
        turn
    }

    fn is_due(&self, duty: &dyn Duty, last: &SharedRun) -> bool {
        let parts = self.parts();
        let (now_us, config) = (parts.clock.now_us(), parts.config.load());
        let grace_us = if last.instance == parts.instance { 0 } else { GRACE_US };
        duty.rhythm(&config).due_us(Some(last.last_run_at_us), now_us).saturating_add(grace_us) <= now_us
    }

    async fn run_under(&self, duty: &dyn Duty, lease: &Lease, began_us: i64) -> Turn {
        let context = self.context(Some(lease.clone()));
        let mut run = std::pin::pin!(run_caught(duty, &context));
        let result = loop {
            tokio::select! {
                result = &mut run => break result,
                () = tokio::time::sleep(RENEW_EVERY) => {
                    // Where the store does not answer the lease may run out; the next slice finds out.
                    if self.renew(lease).await == Ok(false) {
                        context.lost.store(true, Ordering::Release);
                    }
                }
            }
        };
        let report = match result {
            Ok(report) => report,
            Err(error) if error.kind == StoreErrorKind::Moved => return lost(duty.name()),
            Err(error) => return Turn::Ran(Err(error)),
        };
        let ran = SharedRun {
            instance: lease.owner.clone(),
            last_run_at_us: began_us,
            outcome: report.to_string(),
            result: report.result.clone(),
        };
        let (lease, name) = (lease.clone(), duty.name());
        match self.parts().store.call(move |conn| shared_duties::record(conn, &lease, name, &ran)).await {
            Ok(()) => Turn::Ran(Ok(report)),
            Err(error) if error.kind == StoreErrorKind::Moved => lost(name),
            Err(error) => Turn::Ran(Err(error)),
        }
    }

    async fn renew(&self, lease: &Lease) -> StoreResult<bool> {
        let lease = lease.clone();
        self.parts().store.call(move |conn| leases::renew(conn, &lease, TTL)).await
    }

    async fn release(&self, lease: Lease) {
        if let Err(error) = self.parts().store.call(move |conn| leases::release(conn, &lease)).await {
            log::debug!(target: "belayd::schedule", error:% = error; "a lease was not given back; it runs out");
        }
    }
}

fn lost(name: &str) -> Turn {
    log::warn!(target: "belayd::schedule", duty = name; "another instance has taken this duty over; what was done after that was undone");
    Turn::Busy
}
