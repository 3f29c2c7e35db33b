//! The way in: readings are parsed, checked and handed to the buffer.

pub mod admission;
pub mod engines;
