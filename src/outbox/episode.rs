//! Alerts that several instances see: before a notice leaves, the shared store is asked whether another has told.
//!
//! In: a delivery of the control store about to be sent. Out: nothing (send it), or that it rests or waits. Where the shared store is
//! away, is SQLite (one instance) or does not answer at once, the notice is sent: a repeat beats silence.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::state::{CONTROL, Outbox};
use crate::{
    sinks,
    store::{
        Backend, Conn, StoreResult,
        deliveries::{DeliveryRow, Outcome, Settlement},
        episodes::{self, Place, Verdict},
    },
};

/// Longest wait for the shared store's answer: an alert is not held up for longer.
const ASK_MAX: Duration = Duration::from_secs(1);
/// From one question to the next.
const ASK_AGAIN_US: i64 = 2_000_000;
/// The daemon's own conditions that every instance sees alike; the others speak of one host or process.
const SHARED_CONDITIONS: [&str; 2] = ["system/integrity/", "system/instance-dead/"];

impl Outbox {
    /// What becomes of a delivery instead of being sent; `None` where it is to be sent.
    pub(super) async fn ask_others(&self, side: usize, row: &DeliveryRow) -> Option<Outcome> {
        let event = self.event_of(side, row)?;
        let verdict = match event.as_str() {
            // Of a repeat it is the instance that told the beginning.
            "firing" | "repeat" => self.ask(row, episodes::enter).await,
            "resolved" => self.ask(row, episodes::leave).await,
            _ => None,
        };
        match verdict? {
            Verdict::Tell => None,
            Verdict::Told => Some(Outcome::ToldByAnother),
            Verdict::Wait => Some(Outcome::Postponed {
                at_us: self.clock.now_us().saturating_add(ASK_AGAIN_US),
                attempts: row.attempt.unsigned_abs().saturating_sub(1),
            }),
        }
    }

    /// The receiver knows: the other instances let theirs rest.
    pub(super) async fn tell_others(&self, side: usize, row: &DeliveryRow) {
        if self.event_of(side, row).as_deref() == Some("firing") {
            self.ask(row, |conn, place, _| episodes::told(conn, place)).await;
        }
    }

    /// The end of an attempt that was not made.
    pub(super) fn end_untold(self: &Arc<Self>, at: usize, row: &DeliveryRow, outcome: Outcome) {
        let told = outcome == Outcome::ToldByAnother;
        let text = if told { "another instance has told of this alert" } else { "another instance is about to tell of this alert" };
        log::debug!(target: "belayd::outbox", deliveryId = row.id.as_str(), sink = row.sink.as_str(); "{text}");
        let error = Some(("told_by_another".to_owned(), text.to_owned()));
        self.ended(at, Settlement { held: row.held(), outcome, error, answer: None, made: None });
    }

    /// `firing`, `escalated` or `resolved`, where it is an alert that the other instances may see too and this sink is not this
    /// process's own.
    fn event_of(&self, side: usize, row: &DeliveryRow) -> Option<String> {
        let shared = row.lane.starts_with("rule/") || SHARED_CONDITIONS.iter().any(|prefix| row.lane.starts_with(prefix));
        let asked = shared && row.sink != sinks::log::NAME && self.sides[side].name == CONTROL;
        if !asked || self.stopping.load(Ordering::Acquire) {
            return None;
        }
        let payload: serde_json::Value = serde_json::from_str(&row.payload).ok()?;
        payload["event"].as_str().map(str::to_owned)
    }

    async fn ask<T, F>(&self, row: &DeliveryRow, question: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn, Place<'_>, i64) -> StoreResult<T> + Send + 'static,
    {
        let shared = self.sides.iter().find(|side| side.name != CONTROL)?;
        if shared.store.backend() != Backend::Postgres || !(shared.is_up)() {
            return None;
        }
        let (episode, sink, instance) = (row.lane.clone(), row.sink.clone(), self.worker.to_string());
        let now_us = self.clock.now_us();
        let asked =
            shared.store.call(move |conn| question(conn, Place { episode: &episode, sink: &sink, instance: &instance }, now_us));
        match tokio::time::timeout(ASK_MAX, asked).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                log::debug!(target: "belayd::outbox", deliveryId = row.id.as_str(), error:% = error; "the other instances were not asked; sent");
                None
            }
            Err(_) => {
                log::debug!(target: "belayd::outbox", deliveryId = row.id.as_str(); "the shared store did not answer in time; sent");
                None
            }
        }
    }
}
