//! What several tests need: the real daemon, real servers and a look past them, started and stopped by the test itself.

pub mod client;
pub mod daemon;
pub mod kafka;
pub mod mail;
pub mod needs;
pub mod ports;
pub mod postgres;
pub mod proxy;
pub mod reader;
pub mod redis;
pub mod rows;
pub mod scaled;
pub mod smtp_server;
pub mod web_receiver;

/// Says what is not tried here, and why, past the test harness, which would swallow the words of a test that passes.
pub fn left_out(what: &str) {
    use std::io::Write;
    // Nobody to tell where stderr is closed.
    let _ = writeln!(std::io::stderr(), "left out: {what}");
}

/// The tiers that this build serves.
#[allow(dead_code, reason = "not every test binary uses it")]
pub fn tiers() -> Vec<&'static str> {
    let serves = |tier: &&str| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = dir.path().join("belayd.toml");
        std::fs::write(&config, format!("[buffer]\ntier = \"{tier}\"\n")).expect("a file");
        let mut check = std::process::Command::new(daemon::Daemon::binary());
        let check = check.arg("check").arg("--config").arg(&config).current_dir(dir.path()).output().expect("it starts");
        check.status.success()
    };
    ["memory", "journal"].into_iter().filter(serves).collect()
}
