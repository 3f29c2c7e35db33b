//! `[messages]` and `[limits]` as typed values; `keys/messages.rs` says what they mean.

use super::model::OnUnknown;

/// `[messages]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessagesConfig {
    /// What to do where the outcome of a delivery is unknown.
    pub on_unknown: OnUnknown,
}

/// `[limits]`; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Messages a minute by token.
    pub messages_per_minute: u32,
    /// Writes a minute by client address.
    pub requests_per_minute: u32,
}
