//! The tests that use belayd from outside, in one binary: linking one is quick, linking twenty is not.

#![allow(unreachable_pub, reason = "a test binary has no readers")]

#[path = "../support/mod.rs"]
mod support;

mod cli;
mod conservation;
mod house;
#[cfg(feature = "fault-injection")]
mod kill_campaign;
mod outage;
mod page;
mod readings;
mod store;
#[cfg(feature = "fault-injection")]
mod watchdog;
mod web;
