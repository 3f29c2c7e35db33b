//! The duties, one file each, and what some of them share.

pub(super) mod cleanup;
mod comparison;
pub(super) mod history;
pub(super) mod integrity;
pub(super) mod journal;
pub(super) mod redis;
pub(super) mod retention;
pub(super) mod slices;
pub(super) mod statistics;
pub(super) mod token_use;
