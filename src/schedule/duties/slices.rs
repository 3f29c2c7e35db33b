//! Dropping rows in slices: short transactions, with pauses in which readings and alerts are written.

use std::time::Duration;

use crate::{
    schedule::DutyContext,
    store::{Conn, Store, StoreResult},
};

/// Rows of one transaction: some ten milliseconds of a small disk.
pub(super) const SLICE_ROWS: u32 = 2_000;
/// Most slices in one run; what is left goes in the next, and the backlog shows in the log.
const SLICES_MAX: u32 = 5_000;
/// Pause between slices.
const PAUSE: Duration = Duration::from_millis(20);

/// Calls `drop_slice(conn, limit)` until it finds fewer rows than a slice; returns how many were dropped.
pub(super) async fn drop_all<F>(context: &DutyContext, store: &Store, drop_slice: F) -> StoreResult<u64>
where
    F: Fn(&mut Conn, u32) -> StoreResult<u64> + Clone + Send + 'static,
{
    let mut dropped = 0;
    for _ in 0..SLICES_MAX {
        let drop_slice = drop_slice.clone();
        let count = context.call(store, move |conn| drop_slice(conn, SLICE_ROWS)).await?;
        dropped += count;
        if count < u64::from(SLICE_ROWS) || context.is_stopping() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(dropped)
}
