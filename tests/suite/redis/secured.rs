//! A Redis over TLS, and one that asks for a name: what belayd says where either is wrong, and the rights that it needs.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::*;
use crate::support::ports;

/// The rights in docs/TIERS.md.
const RIGHTS: &str = "~belayd:* +ping +info +config|get +memory|usage +cluster|slots +asking +multi +exec +wait +watch +unwatch +hset +hdel \
                      +hgetall +unlink +xadd +xack +xautoclaim +xgroup +xinfo +xpending +xrange +xreadgroup +xrevrange +xtrim";

/// A configuration with another way to reach Redis.
fn by(url: &str) -> Setup {
    let mut setup = setup(&format!("url = \"{url}\"\n"));
    // Nothing here is about a Redis that is slow.
    setup.more = setup.more.replace("timeout = \"500ms\"", "timeout = \"4s\"");
    setup
}

fn cause(daemon: &Daemon) -> String {
    account(daemon)["redis"]["cause"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn redis_is_used_over_tls_by_a_user_with_the_documented_rights_and_faults_are_told() {
    if !redis::is_installed() {
        return;
    }
    let documented = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/TIERS.md")).expect("the page is there");
    assert!(documented.contains(RIGHTS), "docs/TIERS.md has other rights");
    let files = tempfile::Builder::new().prefix("belayd-tls-").tempdir().expect("a temporary directory");
    let path = |name: &str| files.path().join(name).display().to_string();
    let authority = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "an authority");
    fs::write(path("ca.pem"), params.self_signed(&authority).expect("a certificate").pem()).expect("written");
    let issuer = Issuer::new(params, authority);
    let key = KeyPair::generate().expect("a key");
    let cert = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name").signed_by(&key, &issuer).expect("a certificate");
    fs::write(path("redis.pem"), cert.pem()).expect("written");
    fs::write(path("redis.key"), key.serialize_pem()).expect("written");

    let port = ports::free();
    let server = Redis::start(&[
        "--appendfsync always",
        &format!(
            "--tls-port {port} --tls-cert-file {} --tls-key-file {} --tls-auth-clients no",
            path("redis.pem"),
            path("redis.key")
        ),
        &format!("--tls-ca-cert-file {}", path("ca.pem")),
        &format!("--user belayd on >long-and-right {RIGHTS}"),
    ]);
    let trusting = |user: &str| by(&format!("rediss://{user}@127.0.0.1:{port}")).env("SSL_CERT_FILE", &path("ca.pem"));
    let mut daemon = trusting("belayd:long-and-right").start();
    wait_up(&daemon);
    let client = Client::new(&daemon.address, &daemon.token);
    assert_eq!(client.post("/api/readings", &reading(1)).json()["ack"], "redis");
    assert_eq!(daemon.drained(), 1);
    assert_eq!(account(&daemon)["redis"]["facts"]["appendFsync"], "always", "CONFIG GET is allowed");
    // What an earlier life left is found and kept by the same rights.
    daemon.kill();
    daemon.start_again();
    wait_up(&daemon);
    let client = Client::new(&daemon.address, &daemon.token);
    assert_eq!(client.post("/api/readings?ack=store", &reading(2)).json()["ack"], "store");
    assert!(server.ask::<Vec<::redis::Value>>(&["ACL", "LOG"]).is_empty(), "{:?}", server.ask::<::redis::Value>(&["ACL", "LOG"]));

    for (setup, said) in [
        (trusting("belayd:wrong"), "AuthenticationFailed"),
        (by(&format!("rediss://belayd:long-and-right@127.0.0.1:{port}")), "UnknownIssuer"),
    ] {
        let daemon = setup.start();
        daemon.wait_for("told", Duration::from_secs(60), |daemon| cause(daemon).contains(said));
        let client = Client::new(&daemon.address, &daemon.token);
        assert_eq!(client.post("/api/readings", &reading(1)).json()["ack"], "journal");
        // The command is not told by its environment whom to trust.
        let check = daemon.command(&["check", "--connect"]);
        let words = String::from_utf8_lossy(&check.stdout).into_owned();
        assert!(
            !check.status.success() && words.contains("redis: FAILED, 127.0.0.1:") && words.contains("UnknownIssuer"),
            "{words}"
        );
        assert!(!daemon.log().contains("long-and-right"));
    }
}
