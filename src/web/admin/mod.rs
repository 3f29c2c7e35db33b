//! What people look at and do to the daemon itself: `/admin/…`. Looking takes the role operator, doing admin, except where a
//! person decides about failures. Every action is written to the audit.

pub mod actors;
pub mod duties;
pub mod failures;
pub mod logs;
pub mod look;
pub mod sinks;
pub mod tokens;

use serde::Deserialize;
use utoipa::ToSchema;

/// Body of an action that may say why.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReasonBody {
    /// Why, for the audit
    pub reason: Option<String>,
}
