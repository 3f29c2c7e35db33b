//! The duties, one file each.

pub(super) mod cleanup;
pub(super) mod history;
pub(super) mod integrity;
pub(super) mod redis;
pub(super) mod retention;
pub(super) mod slices;
pub(super) mod statistics;
pub(super) mod token_use;
