//! The HTTP surface: readings in, answers, the admin routes, the page and its stream.
//!
//! In: requests over TCP, and over the control socket of the data directory. Out: orders to actors (never shared data), queries to
//! the stores, looks at the boards. A crash loses the requests in flight; their senders repeat them.

pub mod admin;
pub mod alerts;
pub mod audit;
pub mod auth;
mod bare;
pub mod body;
pub mod error;
pub mod gate;
pub mod health;
pub mod issues;
mod linger;
pub mod messages;
pub mod openapi;
pub mod peer;
pub mod push;
pub mod query;
pub mod quota;
pub mod request_id;
pub mod routes;
mod server;
pub mod session;
pub mod silences;
pub mod state;
pub mod stream;
#[cfg(test)]
pub(crate) mod testing;
pub mod ui;
pub mod wire;

pub use server::{Running, ServeError, serve};
pub use state::{AwaitRelay, Parts, WebState};
