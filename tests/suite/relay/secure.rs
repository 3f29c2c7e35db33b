//! TLS and signing in at a real broker: by PLAIN and SCRAM, in the clear and over TLS, and by a certificate. A wrong password, an
//! authority that signed nothing and a certificate for another name are told with what to do, and are tried again seldom.

use std::{fmt::Write, fs, net::IpAddr, time::Duration};

use belayd::{
    config::parse,
    sinks::{ErrorClass, SendError, kafka::Link},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::{backlog, body, push, relayed};
use crate::support::{
    daemon::{Daemon, Setup},
    kafka::Kafka,
    ports,
    reader::Reader,
};

const PASSWORD: &str = "long-and-right";

/// A broker with a listener for each way in, and the files that its clients need.
struct Secured {
    kafka: Kafka,
    files: tempfile::TempDir,
    /// Signed in over TLS, signed in in the clear, by a certificate, TLS with a certificate for another host.
    ports: [u16; 4],
}

fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let cert = params.self_signed(&key).expect("a certificate");
    (cert.pem(), Issuer::new(params, key))
}

/// A certificate for `name` and its key.
fn certificate(name: &str, issuer: &Issuer<'static, KeyPair>) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, name);
    assert_eq!(name.parse::<IpAddr>().is_ok(), matches!(params.subject_alt_names[0], rcgen::SanType::IpAddress(_)));
    (params.signed_by(&key, issuer).expect("a certificate").pem(), key.serialize_pem())
}

impl Secured {
    fn start() -> Option<Self> {
        let files = tempfile::Builder::new().prefix("belayd-tls-").tempdir().expect("a temporary directory");
        let (ca, issuer) = authority("the right authority");
        let (other, _) = authority("another authority");
        let (server, server_key) = certificate("127.0.0.1", &issuer);
        let (elsewhere, elsewhere_key) = certificate("kafka.example.org", &issuer);
        let (client, client_key) = certificate("belayd", &issuer);
        for (name, text) in [
            ("ca.pem", ca),
            ("other.pem", other),
            ("server.pem", server_key + &server),
            ("elsewhere.pem", elsewhere_key + &elsewhere),
            ("client.pem", client),
            ("client.key", client_key),
        ] {
            fs::write(files.path().join(name), text).expect("written");
        }
        let path = |name: &str| files.path().join(name).display().to_string();
        let ports = [(); 4].map(|()| ports::free());
        let names = ["SIGNED", "CLEAR", "SHOWN", "ELSEWHERE"];
        let listeners = names.iter().zip(ports).fold(String::new(), |mut all, (name, port)| {
            let _ = write!(all, ",{name}://127.0.0.1:{port}");
            all
        });
        let plain = format!("org.apache.kafka.common.security.plain.PlainLoginModule required user_belayd=\"{PASSWORD}\";");
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        let mut settings = vec![
            format!("listeners=PLAINTEXT://127.0.0.1:{{port}},CONTROLLER://127.0.0.1:{{controller}}{listeners}"),
            format!("advertised.listeners=PLAINTEXT://127.0.0.1:{{port}}{listeners}"),
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SIGNED:SASL_SSL,CLEAR:SASL_PLAINTEXT,SHOWN:SSL,\
             ELSEWHERE:SSL"
                .to_owned(),
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512".to_owned(),
            "listener.name.shown.ssl.client.auth=required".to_owned(),
            "listener.name.shown.ssl.truststore.type=PEM".to_owned(),
            format!("listener.name.shown.ssl.truststore.location={}", path("ca.pem")),
        ];
        for (listener, file) in [("signed", "server.pem"), ("shown", "server.pem"), ("elsewhere", "elsewhere.pem")] {
            settings.push(format!("listener.name.{listener}.ssl.keystore.type=PEM"));
            settings.push(format!("listener.name.{listener}.ssl.keystore.location={}", path(file)));
        }
        for listener in ["signed", "clear"] {
            settings.push(format!("listener.name.{listener}.plain.sasl.jaas.config={plain}"));
            settings.push(format!("listener.name.{listener}.scram-sha-512.sasl.jaas.config={scram}"));
        }
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let user = format!("SCRAM-SHA-512=[name=belayd,password={PASSWORD}]");
        let kafka = Kafka::start_formatted(&settings, &["--add-scram", &user])?;
        kafka.create_topic("engine", 3);
        Some(Self { kafka, files, ports })
    }

    /// `[kafka]` for the listener; `{dir}` in `more` is the folder of files.
    fn section(&self, listener: usize, more: &str) -> String {
        let more = more.replace("{dir}", &self.files.path().display().to_string());
        format!("[kafka]\nbrokers = \"127.0.0.1:{}\"\ntimeout = \"5s\"\n{more}\n", self.ports[listener])
    }

    /// Sends one record.
    fn send(&self, listener: usize, more: &str) -> Result<(), SendError> {
        let config = parse(&self.section(listener, more)).expect("no fault").kafka.expect("a relay");
        let mut link = Link::open(&config, &format!("lane-{}", uuid::Uuid::new_v4()))?;
        link.transact("mark", 1, |outgoing| outgoing.send(0, "e", b"{}", &[("stream", b"s"), ("seq", b"1"), ("deliveryId", b"d")]))
    }
}

fn signed(security: &str, mechanism: &str, password: &str) -> String {
    format!(
        "security = \"{security}\"\nmechanism = \"{mechanism}\"\nusername = \"belayd\"\npassword = \"{password}\"\nca = \"{{dir}}/ca.pem\""
    )
}

#[test]
fn every_way_in_is_taken_with_the_right_papers_and_told_with_the_wrong_ones() {
    let Some(secured) = Secured::start() else { return };
    let reader = Reader::start(&secured.kafka.client(), "engine");
    let shown = "security = \"ssl\"\nca = \"{dir}/ca.pem\"\ncert = \"{dir}/client.pem\"\nkey = \"{dir}/client.key\"";
    let right = [
        (0, signed("sasl_ssl", "PLAIN", PASSWORD)),
        (0, signed("sasl_ssl", "SCRAM-SHA-512", PASSWORD)),
        (1, signed("sasl_plaintext", "PLAIN", PASSWORD)),
        (1, signed("sasl_plaintext", "SCRAM-SHA-512", PASSWORD)),
        (2, shown.to_owned()),
    ];
    for (listener, more) in &right {
        secured.send(*listener, more).unwrap_or_else(|error| panic!("{more}: {error}"));
    }
    reader.wait_for(right.len(), Duration::from_secs(60));

    for (listener, more, error_type, said) in [
        (0, signed("sasl_ssl", "PLAIN", "wrong"), "sign_in", "kafka.password"),
        (0, signed("sasl_ssl", "SCRAM-SHA-512", "wrong"), "sign_in", "kafka.password"),
        (0, signed("sasl_ssl", "SCRAM-SHA-256", PASSWORD), "sign_in", "kafka.mechanism"),
        (1, signed("sasl_plaintext", "PLAIN", "wrong"), "sign_in", "kafka.password"),
        (0, signed("sasl_ssl", "PLAIN", PASSWORD).replace("ca.pem", "other.pem"), "tls", "kafka.ca"),
        // The system's authorities have not signed it either.
        (0, signed("sasl_ssl", "PLAIN", PASSWORD).replace("ca = \"{dir}/ca.pem\"", ""), "tls", "kafka.ca"),
        (2, "security = \"ssl\"\nca = \"{dir}/ca.pem\"".to_owned(), "tls", "kafka.cert"),
        (3, "security = \"ssl\"\nca = \"{dir}/ca.pem\"".to_owned(), "tls", "kafka.ca"),
    ] {
        let error = secured.send(listener, &more).expect_err(&more);
        assert_eq!((error.class, error.error_type), (ErrorClass::Fatal, error_type), "{more}: {error}");
        assert!(error.message.contains(said) && !error.message.contains(PASSWORD), "{more}: {error}");
    }
    assert_eq!(reader.count(), right.len());
}

#[test]
fn a_daemon_with_a_wrong_password_says_so_keeps_its_readings_and_sends_them_with_the_right_one() {
    let Some(secured) = Secured::start() else { return };
    let reader = Reader::start(&secured.kafka.client(), "engine");
    let more = "security = \"sasl_ssl\"\nmechanism = \"SCRAM-SHA-512\"\nusername = \"belayd\"\npassword_file = \"{dir}/password\"\n\
                ca = \"{dir}/ca.pem\"\n[buffer]\nflush_interval = \"50ms\"";
    let password = secured.files.path().join("password");
    fs::write(&password, "quite-wrong\n").expect("written");
    let mut daemon: Daemon = Setup::with(&secured.section(0, more)).start();
    assert_eq!(push(&daemon, &body(0, 100, 5), "?ack=store")["ack"], "store");
    let told = |daemon: &Daemon| {
        let alerts = daemon.get("/api/alerts").json();
        alerts["items"].as_array().into_iter().flatten().any(|alert| {
            alert["name"] == "sink-down"
                && alert["subject"] == "kafka"
                && alert["text"].as_str().is_some_and(|text| text.contains("kafka.password"))
        })
    };
    daemon.wait_for("told", Duration::from_secs(60), told);
    assert!(daemon.metric("belayd_circuit_state{party=\"kafka\"}") > 0.0);
    let failures = |daemon: &Daemon| daemon.metric("belayd_send_failures_total{sink=\"kafka\",type=\"sign_in\"}");
    assert!(failures(&daemon) >= 1.0);
    let check = daemon.command(&["check", "--connect"]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(!check.status.success() && said.contains("kafka: ") && said.contains("kafka.password"), "{said}");
    // What a person must change is tried again every 30 s, and by one stream at a time: a broker that counts failures locks nobody out.
    let (before, since) = (failures(&daemon), std::time::Instant::now());
    std::thread::sleep(Duration::from_secs(5));
    let most = since.elapsed().as_secs() / 30 + 1;
    assert!(failures(&daemon) - before <= most as f64, "{} more after {:?}", failures(&daemon) - before, since.elapsed());
    assert!(backlog(&daemon) > 0);
    assert_eq!(reader.count(), 0);

    fs::write(&password, format!("{PASSWORD}\n")).expect("written");
    let check = daemon.command(&["check", "--connect"]);
    assert!(String::from_utf8_lossy(&check.stdout).contains("kafka: OK, topic \"engine\" has 3 partitions"), "{check:?}");
    daemon.stop();
    daemon.start_again();
    relayed(&daemon);
    reader.wait_for(100, Duration::from_secs(60));
    assert!(reader.by_number().values().all(|count| *count == 1));
    for secret in [PASSWORD, "quite-wrong"] {
        assert!(!daemon.log().contains(secret), "a password stands in the log");
    }
}
