//! TLS to a real PostgreSQL with a certificate of a CA made here. Only in builds that can: `cargo test --features
//! fault-injection,postgres-tls --test suite store::tls`.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use belayd::store::{Conn, Store, StoreError, StoreErrorKind, StoreResult};
use diesel::{QueryableByName, RunQueryDsl, sql_types::Bool};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::config;
use crate::support::postgres::{self, Postgres};

#[derive(QueryableByName)]
struct Encrypted {
    #[diesel(sql_type = Bool)]
    ssl: bool,
}

struct Secured {
    server: Postgres,
    files: tempfile::TempDir,
}

impl Secured {
    /// A server that takes TLS connections only, with a certificate for `localhost`.
    fn start() -> Option<Self> {
        postgres::shared_url()?;
        if !postgres::is_installed() {
            crate::support::left_out("TLS to PostgreSQL, because its binaries are not installed");
            return None;
        }
        let files = tempfile::Builder::new().prefix("belayd-tls-").tempdir_in("/tmp").expect("a temporary directory");
        let (ca, issuer) = authority("the right CA");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["localhost".to_owned()]).expect("names");
        let cert = params.signed_by(&key, &issuer).expect("a certificate");
        let (other, _) = authority("another CA");
        for (name, text) in [("server.pem", cert.pem()), ("server.key", key.serialize_pem()), ("ca.pem", ca), ("other.pem", other)]
        {
            let path = files.path().join(name);
            fs::write(&path, text).expect("written");
            // PostgreSQL refuses a key that others can read.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permitted");
            postgres::give(&path);
        }
        postgres::give(files.path());
        let path = |name: &str| files.path().join(name).display().to_string();
        let (cert, key) = (format!("ssl_cert_file={}", path("server.pem")), format!("ssl_key_file={}", path("server.key")));
        let server = Postgres::start(&["ssl=on", &cert, &key]);
        Some(Self { server, files })
    }

    fn url(&self, parameters: &str) -> String {
        format!("postgres://belayd@localhost:{}/postgres?{parameters}", self.server.port())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }
}

fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let cert = params.self_signed(&key).expect("a certificate");
    (cert.pem(), Issuer::new(params, key))
}

/// Whether the connection that the URL gives is encrypted, as the server sees it.
fn is_encrypted(url: &str) -> StoreResult<bool> {
    let store = Store::open(&config(url))?;
    store.with(|conn| {
        let Conn::Pg(pg) = conn else { unreachable!("this test opens PostgreSQL") };
        let rows: Vec<Encrypted> = diesel::sql_query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").load(pg)?;
        Ok(rows.iter().any(|row| row.ssl))
    })
}

fn refusal(url: &str) -> StoreError {
    is_encrypted(url).expect_err("refused")
}

#[test]
fn what_is_demanded_of_the_connection_is_kept() {
    let Some(secured) = Secured::start() else { return };
    let with_root = |mode: &str, root: &str| secured.url(&format!("sslmode={mode}&sslrootcert={}", secured.file(root).display()));
    assert!(!is_encrypted(&secured.url("sslmode=disable")).expect("plain"), "the server can tell the difference");
    assert!(is_encrypted(&secured.url("sslmode=require")).expect("encrypted"));
    assert!(is_encrypted(&with_root("verify-ca", "ca.pem")).expect("verified"));
    assert!(is_encrypted(&with_root("verify-full", "ca.pem")).expect("verified"));

    let wrong = refusal(&with_root("verify-full", "other.pem"));
    assert_eq!(wrong.kind, StoreErrorKind::Unavailable, "{wrong}");
    assert!(wrong.message.contains("certificate verify failed"), "{wrong}");
    let absent = refusal(&with_root("verify-full", "none.pem"));
    assert!(absent.message.contains("none.pem") && absent.message.contains("does not exist"), "{absent}");
    let name = refusal(&with_root("verify-full", "ca.pem").replace("@localhost:", "@127.0.0.1:"));
    assert!(name.message.contains("does not match host name"), "{name}");
}

#[test]
fn a_server_without_tls_is_refused_where_tls_is_demanded() {
    if postgres::shared_url().is_none() || !postgres::is_installed() {
        return;
    }
    let server = Postgres::start(&[]);
    let error = refusal(&format!("{}?sslmode=require", server.url("postgres")));
    assert!(error.message.contains("does not support SSL"), "{error}");
}

#[test]
fn the_whole_daemon_runs_over_it() {
    let Some(secured) = Secured::start() else { return };
    let url = secured.url(&format!("sslmode=verify-full&sslrootcert={}", secured.file("ca.pem").display()));
    let daemon = crate::support::daemon::Setup::default().store(&url).start();
    assert_eq!(daemon.post("/api/readings?ack=store", r#"{"engineId":"e","rpm":1}"#).status, 202);
    assert_eq!(daemon.drained(), 1);
    let told = daemon.command(&["check", "--connect"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("store: OK") && told.contains("sslmode=verify-full"), "{told}");
}
