//! Alerts: transitions become episodes, episodes become deliveries.
//!
//! In: [`Raise`](crate::protocol::Raise) and [`AcknowledgeAlert`](crate::protocol::AcknowledgeAlert). Out: episodes, their history,
//! rule state and deliveries in one transaction of the control store; then a wake-up of the outbox, and the [`AlertBoard`].
//! A panic of the actor loses nothing that was taken: what waits lives in the [`AlertDesk`]. A crash of the process loses what was
//! not committed, and nobody was told that it was.

mod actor;
mod board;
mod desk;
mod issue;
mod notice;
mod poison;
#[cfg(test)]
mod tests;

pub use self::{
    actor::AlertActor,
    board::AlertBoard,
    desk::{AlertDesk, AlertParts},
};
