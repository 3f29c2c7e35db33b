//! The store: the only place that speaks SQL.
//!
//! In: settled facts from the drain thread, queries from HTTP handlers, duties and the outbox. Out: rows and counts. A crash
//! loses what was not committed, which nobody was told about; everything committed is synced.
//!
//! One [`Store`] type serves both databases (SQLite, PostgreSQL) and both stores (the shared one by URL, the control store in the
//! data directory). Functions take `&mut Conn`, so that a caller can put several into one [`Conn::write`] transaction.
//!
//! Three rungs, lowest that works: plain diesel on the [`Conn`] enum; [`on_backend!`](crate::on_backend), the same diesel text
//! checked once for each database; a real `match` for the few statements that differ.

pub mod alerts;
pub mod audit;
pub mod backend;
pub mod checkpointer;
pub mod conn;
pub mod control;
pub mod control_schema;
pub mod deliveries;
pub mod episodes;
pub mod error;
pub mod failures;
pub mod instances;
pub mod integrity;
pub mod issues;
pub mod leases;
pub mod ledger;
pub mod listen;
pub mod messages;
pub mod migrate;
pub mod partitions;
mod place;
pub mod pool;
mod prepared;
pub mod readings;
pub mod relay;
pub mod rule_baselines;
pub mod rule_state;
pub mod schema;
pub mod sessions;
pub mod shared_duties;
pub mod silences;
pub mod snapshot;
mod socket;
pub mod tokens;
mod turn;
pub mod url;
pub mod usage;
mod watch;

pub use backend::Backend;
pub use conn::Conn;
pub use error::{StoreError, StoreErrorKind, StoreResult};
pub use pool::{Store, Writer};
