//! The dead-man's switch against a real receiver.

use super::{LIMIT, Receiver};
use crate::support::daemon::Setup;

#[test]
fn the_ping_goes_out_while_all_is_well_and_its_failure_is_told_and_its_return_too() {
    let outside = Receiver::start(200);
    let more = format!("[deadman]\nurl = \"{}ping/secret\"\ninterval = \"100ms\"\n", outside.url);
    let daemon = Setup::with(&more).start();
    daemon.wait_for("pinged", LIMIT, |_| outside.all().len() >= 2);
    daemon.wait_for("counted", LIMIT, |daemon| daemon.metric("belayd_deadman_pings_total{outcome=\"sent\"}") >= 2.0);
    let state = |daemon: &crate::support::daemon::Daemon| {
        let listed = daemon.get("/api/alerts?name=deadman-failed").json();
        listed["items"][0]["state"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(state(&daemon), "", "all is well");
    outside.says(500);
    daemon.wait_for("told", LIMIT, |daemon| state(daemon) == "firing");
    assert!(daemon.metric("belayd_deadman_pings_total{outcome=\"failed\"}") >= 2.0);
    outside.says(200);
    daemon.wait_for("over", LIMIT, |daemon| state(daemon) == "resolved");
    let shown = daemon.get("/admin/config").body;
    assert!(!shown.contains("secret") && !daemon.log().contains("ping/secret"), "the address is a secret");
}
