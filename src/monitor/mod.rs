//! What belayd sees of its host and of itself.
//!
//! In: the figures of /proc, and the shared boards of every stage. Out: the snapshot that the page shows, readiness, system alerts
//! with hysteresis, and the figures that metrics take at a scrape. A crash loses nothing: everything is looked at again.

mod actor;
mod board;
mod conditions;
mod filling;
mod host;
mod instances;
mod recovery;
mod snapshot;
mod views;

pub use actor::{MonitorActor, MonitorParts, RaiseFn};
pub use board::{Board, Readiness, Stage};
pub use conditions::{Condition, Conditions};
pub use filling::Filling;
pub use host::{HostFigures, HostProbe, ProcessFigures, Usage, disk_of};
pub use instances::{InstanceBoard, InstanceView};
pub use recovery::{Recovery, RecoveryView};
pub use snapshot::*;
pub use views::{ALERTS_SHOWN, FullIn, Look, Measured, Views, instance};
