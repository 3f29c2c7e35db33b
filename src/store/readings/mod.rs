//! Readings in the database: the hot path that stores them, and the queries that read them.
//!
//! In: numbered frames from the drain thread. Out: what became of each number, as counts in the ledger. A crash before the
//! commit leaves nothing behind and the frames come again; after it they come again too where the answer was lost, and are
//! recognised by the cursor.

mod compare;
mod dead;
mod insert;
mod one;
mod query;
mod row;
mod settle;

pub use query::{Bucket, BucketMetric, ListFilter, PAGE_MAX, Page, buckets, count, latest_per_engine, list, prune, size_bytes};
pub use row::StoredReading;
pub use settle::store_frames;

use insert::insert_rows;
pub(super) use {
    one::{Fate, insert_one},
    row::{Payload, Row},
};
