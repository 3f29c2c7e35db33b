//! What several tests need: real servers, started and stopped by the test itself.

pub mod postgres;
