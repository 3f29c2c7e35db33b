//! The HTTP surface of the real daemon: who is let in, what bad requests get, sessions, live streams, metrics.

mod audit;
mod described;
mod metrics;
mod refused;
mod requests;
mod roles;
mod sessions;
mod stalled;
mod streams;
