//! Readings in the database: the hot path that stores them, and the queries that read them.
//!
//! In: numbered frames from the drain thread. Out: what became of each number, as counts in the ledger. A crash before the
//! commit leaves nothing behind and the frames come again; after it they come again too where the answer was lost, and are
//! recognised by the cursor.

mod buckets;
mod compare;
mod copy;
mod dead;
mod insert;
mod one;
mod query;
mod retention;
mod row;
mod settle;
mod task;

pub use buckets::{Bucket, BucketMetric, buckets};
pub use query::{ListFilter, PAGE_MAX, Page, latest_per_engine, list};
pub use retention::{count, prune, prune_in, size_bytes};
pub use row::StoredReading;
pub use settle::{Relaying, pass_over, store_for, store_frames};

use copy::copy_all;
pub(super) use {
    insert::insert_rows,
    one::{Fate, insert_one},
    row::{Payload, Row},
};
