//! belayd: the daemon that a small team trusts with what must not be lost.
//!
//! ```text
//!  sources  ->  IngestActor  ->  BatchBufferActor  ->  store  ->  OutboxActor  ->  sinks
//!  (poll, push)   rules |          memory             (SQL)       claim, lanes     log, webhook
//!                       v                                ^
//!                  AlertActor -> control store -----------'       ScheduleActor: periodic duties
//!  MonitorActor looks at all of them; it commands nobody.
//! ```
//! Arrows only go right. A folder is a stage; a file is a noun.

pub mod alert;
pub mod backup;
pub mod buffer;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod domain;
pub mod event;
pub mod folders;
pub mod ingest;
pub mod logging;
pub mod monitor;
pub mod outbox;
pub mod protocol;
pub mod schedule;
pub mod sim;
pub mod sinks;
pub mod store;
pub mod supervise;
pub mod systemd;
pub mod web;
