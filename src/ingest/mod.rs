//! The way in: readings are parsed, checked and handed to the buffer.

pub mod actor;
pub mod address;
pub mod admission;
pub mod board;
pub mod engines;
mod fetch;
pub mod gzip;
pub mod http_client;
mod json;
pub mod limits;
mod ndjson;
pub mod pace;
pub mod parse;
pub mod poll;
pub mod raiser;
pub mod reason;
pub mod timestamp;
