//! The tests that use belayd from outside, in one binary: linking one is quick, linking twenty is not.

#![allow(unreachable_pub, reason = "a test binary has no readers")]

#[path = "../support/mod.rs"]
mod support;

mod alerts;
mod backup;
mod breakers;
mod causes;
mod cli;
mod conservation;
mod dead_letters;
mod house;
mod instances;
mod integrity;
mod issues;
mod journal_compared;
mod journal_gone;
#[cfg(feature = "fault-injection")]
mod kill_campaign;
mod left_open;
mod messages;
mod network;
mod outage;
mod outage_kinds;
mod page;
mod readings;
mod recovery;
mod redis;
mod relay;
mod restored;
mod retention;
mod scale_out;
mod simulate;
mod sinks;
mod store;
mod takeover;
mod triple;
#[cfg(feature = "fault-injection")]
mod watchdog;
mod web;

/// Plain `cargo test` works anywhere; this says what it does not try.
#[cfg(not(feature = "fault-injection"))]
#[test]
fn what_needs_faults_on_purpose_is_left_out() {
    support::left_out(
        "killed, hung and blocked actors, the watchdog and the dropped row, because the feature fault-injection is off (tests/run turns it on)",
    );
}
