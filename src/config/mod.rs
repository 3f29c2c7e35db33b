//! Configuration: one table of keys (`keys.rs`), typed values (`model.rs`), and the way from text to them (`load.rs`).

pub mod model;

pub use model::*;
