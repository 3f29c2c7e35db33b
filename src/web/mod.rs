//! The HTTP surface: readings in, answers, the admin routes, the page and its stream.
//!
//! In: requests over TCP, and over the control socket of the data directory. Out: orders to actors (never shared data), queries to
//! the stores, looks at the boards. A crash loses the requests in flight; their senders repeat them.

pub mod body;
pub mod error;
pub mod gate;
pub mod peer;
pub mod request_id;
pub mod routes;
mod server;
pub mod state;
#[cfg(test)]
pub(crate) mod testing;
pub mod ui;

pub use server::{Running, ServeError, serve};
pub use state::{Parts, WebState};
