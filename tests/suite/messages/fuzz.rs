//! The description of the interface against the daemon: schemathesis makes requests of it, right and wrong ones, one following from the
//! other, and finds no 500 and no answer that the description does not have.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use super::ready;
use crate::support::{daemon::Setup, left_out, needs};

/// Seed and number of requests are fixed, so that a finding comes again.
const SEED: &str = "20261121";
const EXAMPLES: &str = "12";

/// The program, in a venv that `tests/run` has made; in CI it must be there.
fn program() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let named = std::env::var_os("BELAYD_TEST_SCHEMATHESIS").map(PathBuf::from);
    let found = named.or_else(|| Some(cache?.join("belayd-tests/fuzz/bin/schemathesis"))).filter(|path| path.is_file());
    if !needs::met(found.is_some(), "schemathesis is not installed (tests/run installs it)") {
        left_out("the fuzzer of the HTTP interface, because schemathesis is not installed (tests/run installs it)");
    }
    found
}

#[test]
fn requests_made_of_the_description_find_no_500_and_no_answer_that_it_does_not_have() {
    let Some(program) = program() else { return };
    // Streams have no end; a sign-out would end the session, a token that is revoked the whole run, and who is restarted is rightly away for a
    // moment. These have tests of their own.
    let setup = Setup::with("[limits]\nmessages_per_minute = 0\nrequests_per_minute = 0\n[supervision]\nmax_restarts = 10000\n");
    let daemon = ready(&setup);
    let output: Output = Command::new(program)
        .arg("run")
        .arg(format!("http://{}/api/openapi.json", daemon.address))
        .args(["--header", &format!("Authorization: Bearer {}", daemon.token)])
        .args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance"])
        .args(["--exclude-path", "/api/stream", "--exclude-path", "/admin/logs", "--exclude-path", "/logout"])
        .args(["--exclude-path", "/admin/tokens/{id}", "--exclude-path", "/admin/actors/{name}/restart"])
        .current_dir(daemon.dir())
        .args(["--max-examples", EXAMPLES, "--seed", SEED, "--workers", "1", "--no-color"])
        .output()
        .expect("it starts");
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let tail: Vec<&str> = told.lines().rev().take(200).collect();
    assert!(output.status.success(), "{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
    assert_eq!(daemon.get("/healthz").status, 200);
    let log = daemon.log();
    let wrong: Vec<&str> = log.lines().filter(|line| line.contains("level=error target=belayd")).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
