//! What several tests need: the real daemon, real servers and a look past them, started and stopped by the test itself.

pub mod client;
pub mod daemon;
pub mod postgres;
pub mod rows;

/// Says what is not tried here, and why, past the test harness, which would swallow the words of a test that passes.
pub fn left_out(what: &str) {
    use std::io::Write;
    // Nobody to tell where stderr is closed.
    let _ = writeln!(std::io::stderr(), "left out: {what}");
}
