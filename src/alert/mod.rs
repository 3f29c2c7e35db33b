//! Alerts: transitions become episodes, episodes become deliveries.
//!
//! In: [`Raise`](crate::protocol::Raise) and [`AcknowledgeAlert`](crate::protocol::AcknowledgeAlert). Out: episodes, their history,
//! rule state and deliveries in one transaction of the control store; then a wake-up of the outbox, and the [`AlertBoard`].
//! [`policy`] says whether an alert is told, [`routes`] to whom, [`teller`] alone or with others, [`round`] when again, [`fallback`] who is told instead.
//! A panic of the actor loses nothing that was taken: what waits lives in the [`AlertDesk`]. A crash of the process loses what was
//! not committed, and nobody was told that it was.

mod actor;
mod board;
mod desk;
mod fallback;
mod issue;
mod notice;
mod order;
mod poison;
mod policy;
mod round;
mod routes;
mod teller;
#[cfg(test)]
mod tests;

pub use self::{
    actor::AlertActor,
    board::{AlertBoard, AlertTally},
    desk::{AlertDesk, AlertParts, AwayFn},
};
