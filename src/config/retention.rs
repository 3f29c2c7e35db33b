//! `[retention]` as typed values.

use std::time::Duration;

/// `[retention]`
#[derive(Clone, Debug, PartialEq)]
pub struct RetentionConfig {
    /// Readings, by their observation time.
    pub readings: Duration,
    /// Settled deliveries.
    pub deliveries: Duration,
    /// Idempotency keys of messages.
    pub idempotency_keys: Duration,
    /// Ledger rows.
    pub ledger: Duration,
    /// Resolved alerts and their history.
    pub alerts: Duration,
    /// Audit rows.
    pub audit: Duration,
    /// Closed issues.
    pub issues: Duration,
}
