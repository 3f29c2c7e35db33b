//! What several tests need: the real daemon, real servers and a look past them, started and stopped by the test itself.

pub mod client;
pub mod daemon;
pub mod postgres;
pub mod rows;
