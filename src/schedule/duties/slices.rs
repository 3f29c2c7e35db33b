//! Dropping rows in slices: short transactions, with pauses in which readings and alerts are written.

use std::time::{Duration, Instant};

use crate::{
    schedule::DutyContext,
    store::{Conn, Store, StoreResult},
};

/// Most rows of one transaction: some ten milliseconds of a small disk.
pub(super) const SLICE_ROWS: u32 = 2_000;
/// Fewest rows of one transaction: a sync is paid for each.
const SLICE_ROWS_MIN: u32 = 50;
/// How long a transaction may take before the next one is half as large. Whoever writes to SQLite waits for it.
const SLICE_TIME: Duration = Duration::from_millis(50);
/// Most slices in one run; what is left goes in the next, and the backlog shows in the log.
const SLICES_MAX: u32 = 5_000;
/// Pause between slices. It is as long as the slice before it where that took longer: at most half of the time goes into dropping.
const PAUSE: Duration = Duration::from_millis(20);

/// How many rows to drop next, after `rows` took `took`.
fn next_rows(rows: u32, took: Duration) -> u32 {
    if took > SLICE_TIME { (rows / 2).max(SLICE_ROWS_MIN) } else { rows.saturating_mul(2).min(SLICE_ROWS) }
}

/// Calls `drop_slice(conn, limit)` until it finds fewer rows than that; returns how many were dropped.
pub(super) async fn drop_all<F>(context: &DutyContext, store: &Store, drop_slice: F) -> StoreResult<u64>
where
    F: Fn(&mut Conn, u32) -> StoreResult<u64> + Clone + Send + 'static,
{
    let (mut dropped, mut rows) = (0, SLICE_ROWS);
    for _ in 0..SLICES_MAX {
        let drop_slice = drop_slice.clone();
        let began = Instant::now();
        let count = context.call(store, move |conn| drop_slice(conn, rows)).await?;
        let took = began.elapsed();
        dropped += count;
        if count < u64::from(rows) || context.is_stopping() {
            break;
        }
        rows = next_rows(rows, took);
        tokio::time::sleep(PAUSE.max(took)).await;
    }
    Ok(dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_become_small_on_a_slow_disk_and_large_again() {
        let mut rows = SLICE_ROWS;
        for _ in 0..20 {
            rows = next_rows(rows, SLICE_TIME * 2);
        }
        assert_eq!(rows, SLICE_ROWS_MIN);
        for _ in 0..20 {
            rows = next_rows(rows, SLICE_TIME / 2);
        }
        assert_eq!(rows, SLICE_ROWS);
    }
}
