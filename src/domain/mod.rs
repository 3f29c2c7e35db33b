//! The words of the trade, as plain values: what a reading, a rule, an alert, a delivery *is*, and which moves are legal.
//!
//! Nothing here reads a clock, touches a disk or awaits. Everything else depends on this folder; it depends on nothing.

pub mod ack;
pub mod address;
pub mod alert;
pub mod anomaly;
pub mod batch;
pub mod breaker;
pub mod channel;
pub mod delivery;
pub mod issue;
pub mod message;
pub mod quota;
pub mod reading;
pub mod receipt;
pub mod role;
pub mod rule;
pub mod silence;
pub mod time;
