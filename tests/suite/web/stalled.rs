//! Clients that do not read what is sent to them: they lose their connection, and what they held is free again.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::FromRawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::support::daemon::{Daemon, Setup};

/// A connection whose receive buffer is as small as the kernel makes one, so that a server soon finds no more room in it.
fn narrow(daemon: &Daemon) -> TcpStream {
    let SocketAddr::V4(address) = daemon.address.parse().expect("an address") else { unreachable!("tests listen on 127.0.0.1") };
    // SAFETY: plain system calls with values of just the sizes named; the descriptor is owned by the stream from then on.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0);
        let stream = TcpStream::from_raw_fd(fd);
        let bytes: libc::c_int = 4096;
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, (&raw const bytes).cast(), 4);
        let target = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: address.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
            sin_zero: [0; 8],
        };
        assert_eq!(libc::connect(fd, (&raw const target).cast(), size_of::<libc::sockaddr_in>() as u32), 0);
        stream
    }
}

/// Asks for a stream, reads its status line and nothing more.
fn open(mut socket: impl Read + Write, token: &str, path: &str) -> (String, impl Read + Write) {
    write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n").expect("sent");
    let mut status = [0; 12];
    socket.read_exact(&mut status).expect("a status line");
    (String::from_utf8_lossy(&status).into_owned(), socket)
}

/// As many alerts as can be are told one by one: the log of them is what fills a reader's buffers here.
const ONE_BY_ONE: &str = "[[routes]]\nsinks = [\"log\"]\ngroup_max = 100\ngroup_interval = \"100ms\"\ngroup_wait = \"0\"\n";

/// A push that breaks a rule for each of 150 engines of its own.
fn many_alerts(push: usize) -> String {
    let engines = push * 150..(push + 1) * 150;
    let readings: Vec<_> = engines.map(|n| format!(r#"{{"engineId":"engine-{n:05}","temperature":400}}"#)).collect();
    format!("[{}]", readings.join(","))
}

/// Whether the daemon has an open socket to this client; what the kernel still has to send for a closed one does not count.
fn holds(daemon: &Daemon, client: u16) -> bool {
    let server: u16 = daemon.address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", daemon.pid())).expect("the kernel's table");
    table.lines().skip(1).any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is = |field: usize, port: u16| fields[field].ends_with(&format!(":{port:04X}"));
        is(1, server) && is(2, client) && fields[9] != "0"
    })
}

fn port(socket: &TcpStream) -> u16 {
    socket.local_addr().expect("an address").port()
}

/// How the connection ended, as the client finds out when it looks at last.
fn ending(mut socket: impl Read) -> Result<usize, ErrorKind> {
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).map_err(|error| error.kind())
}

/// A client that reads little and never closes: what the daemon sends fits into its buffers, so the stream ends as it should.
#[test]
fn a_client_that_never_closes_does_not_keep_its_connection_past_its_token() {
    let daemon = Setup { server: "client_timeout = \"5m\"".into(), ..Setup::default() }.start();
    let brief = daemon.create_token("brief", "viewer");
    let socket = TcpStream::connect(&daemon.address).expect("it listens");
    let client = port(&socket);
    let (status, _socket) = open(socket, &brief, "/api/stream");
    assert_eq!(status, "HTTP/1.1 200");
    assert_eq!(daemon.request("DELETE", "/admin/tokens/brief", &[], "").status, 200);
    daemon.wait_for("closed", Duration::from_secs(60), |daemon| !holds(daemon, client));
}

/// Pushes alerts until 1,000 of them are in the log: some hundred KB, far more than the buffers between the daemon and its reader hold.
fn flood(daemon: &Daemon, push: impl Fn(&str)) {
    let mut pushes = 0;
    daemon.wait_for("told", Duration::from_secs(60), |daemon| {
        push(&many_alerts(pushes));
        pushes += 1;
        daemon.log().matches("delivery sent").count() >= 1_000
    });
}

fn place_is_free(daemon: &Daemon) -> bool {
    let mut socket = TcpStream::connect(&daemon.address).expect("it listens");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
    let (status, _) = open(&mut socket, &daemon.token, "/api/stream");
    status.ends_with("200")
}

#[test]
fn a_client_that_does_not_read_loses_its_stream_with_its_token() {
    // Only the end of the token can end it within the test.
    let setup = Setup { server: "max_streams = 1\nclient_timeout = \"5m\"".into(), ..Setup::with(ONE_BY_ONE) };
    let daemon = setup.start();
    let brief = daemon.create_token("brief", "operator");
    let socket = narrow(&daemon);
    let client = port(&socket);
    let (status, socket) = open(socket, &brief, "/admin/logs");
    assert!(holds(&daemon, client));
    assert_eq!(status, "HTTP/1.1 200");
    flood(&daemon, |body| assert_eq!(daemon.post("/api/readings", body).status, 202));
    assert!(!place_is_free(&daemon), "it holds the only place");

    assert_eq!(daemon.request("DELETE", "/admin/tokens/brief", &[], "").status, 200);
    daemon.wait_for("a free place", Duration::from_secs(60), place_is_free);
    daemon.wait_for("closed", Duration::from_secs(60), |daemon| !holds(daemon, client));
    assert_eq!(ending(socket), Err(ErrorKind::ConnectionReset), "what was left is not sent any more");
    assert!(daemon.log().contains("a live stream is not read"), "{}", daemon.log());
}

#[test]
fn a_client_that_does_not_read_is_cut_off_after_the_time_out() {
    let daemon = Setup { server: "max_streams = 1\nclient_timeout = \"2s\"".into(), ..Setup::with(ONE_BY_ONE) }.start();
    let began = Instant::now();
    let (status, socket) = open(narrow(&daemon), &daemon.token, "/admin/logs");
    assert_eq!(status, "HTTP/1.1 200");
    flood(&daemon, |body| assert_eq!(daemon.post("/api/readings", body).status, 202));
    daemon.wait_for("a free place", Duration::from_secs(60), place_is_free);
    assert!(began.elapsed() > Duration::from_secs(2), "not before its time: {:?}", began.elapsed());
    assert!(matches!(ending(socket), Err(ErrorKind::ConnectionReset)));
}

#[test]
fn the_same_holds_over_tls() {
    let cert = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let files = tempfile::tempdir().expect("a temporary directory");
    let (cert_path, key_path) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    std::fs::write(&cert_path, cert.cert.pem()).expect("written");
    std::fs::write(&key_path, cert.signing_key.serialize_pem()).expect("written");
    let server = format!("max_streams = 1\nclient_timeout = \"5m\"\ntls_cert = {cert_path:?}\ntls_key = {key_path:?}");
    let daemon = Setup { server, ..Setup::with(ONE_BY_ONE) }.start_unready();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.cert.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let connect = |socket: TcpStream| {
        let name = "localhost".try_into().expect("a name");
        rustls::StreamOwned::new(rustls::ClientConnection::new(config.clone(), name).expect("a client"), socket)
    };
    let dial = || TcpStream::connect(&daemon.address).expect("it listens");
    let ask = |method: &str, path: &str, body: &str| {
        let mut tls = connect(dial());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            daemon.token,
            body.len()
        );
        tls.write_all(head.as_bytes()).expect("sent");
        let mut answer = [0; 12];
        tls.read_exact(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    };
    daemon.wait_for("listening", Duration::from_secs(60), |daemon| TcpStream::connect(&daemon.address).is_ok());
    let brief = daemon.create_token("brief", "operator");
    let (status, _socket) = open(connect(narrow(&daemon)), &brief, "/admin/logs");
    assert_eq!(status, "HTTP/1.1 200");
    flood(&daemon, |body| assert_eq!(ask("POST", "/api/readings", body), "HTTP/1.1 202"));
    assert_eq!(ask("GET", "/api/stream", ""), "HTTP/1.1 503", "it holds the only place");
    assert_eq!(ask("DELETE", "/admin/tokens/brief", ""), "HTTP/1.1 200");
    daemon.wait_for("a free place", Duration::from_secs(60), |_| ask("GET", "/api/stream", "") == "HTTP/1.1 200");
    assert!(daemon.log().contains("a live stream is not read"), "{}", daemon.log());

    // What is no request is told so within TLS, too.
    let mut tls = connect(dial());
    tls.write_all(b"nonsense\r\n\r\n").expect("sent");
    let mut answer = String::new();
    let _ = tls.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(r#""code":"bad_request""#), "{answer}");
}
