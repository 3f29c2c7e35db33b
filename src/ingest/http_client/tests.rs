use actix_web::{App, HttpResponse, HttpServer, web};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn client() -> GuardedClient {
    GuardedClient::new(ClientPolicy::default())
}

/// A server that answers every connection with `answer` and closes it.
async fn raw_server(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    actix_web::rt::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer).await;
        }
    });
    url
}

async fn kind(url: &str, max_bytes: usize) -> FailureKind {
    client().get(url, SECOND, max_bytes).await.expect_err("no whole answer").kind
}

#[actix_web::test]
async fn an_answer_comes_back_with_status_headers_and_body() {
    let server = HttpServer::new(|| {
        let echo = |request: actix_web::HttpRequest, body: Bytes| async move {
            let token = request.headers().get("x-token").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
            HttpResponse::Accepted().insert_header(("x-token", token)).body(body)
        };
        App::new().route("/", web::post().to(echo))
    });
    let server = server.workers(1).bind("127.0.0.1:0").expect("a port");
    let url = format!("http://localhost:{}/", server.addrs()[0].port());
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    let policy = ClientPolicy { headers: [("X-Token".to_owned(), "secret".to_owned())].into(), ..ClientPolicy::default() };
    let client = GuardedClient::new(policy);
    let answer = client.post(&url, Bytes::from_static(b"hello"), &HeaderMap::new(), SECOND, 4).await.expect("an answer");
    assert_eq!((answer.status, &answer.body[..]), (202, &b"hell"[..]));
    assert_eq!(answer.headers.get("x-token"), Some(&HeaderValue::from_static("secret")));
    assert!(!format!("{client:?}").contains("secret"));
    handle.stop(false).await;
}

#[actix_web::test]
async fn a_redirect_is_returned_and_not_followed() {
    let url = raw_server(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n").await;
    let answer = client().get(&url, SECOND, 100).await.expect("an answer");
    assert_eq!(answer.status, 302);
}

#[actix_web::test]
async fn an_answer_that_is_cut_is_told_from_one_that_is_too_large() {
    let cut = raw_server(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await;
    assert_eq!(kind(&cut, 100).await, FailureKind::Broken);
    assert_eq!(kind(&cut, 9).await, FailureKind::TooLarge, "by its announcement");
    let chunked = raw_server(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    assert_eq!(kind(&chunked, 100).await, FailureKind::Broken);
    assert_eq!(kind(&chunked, 4).await, FailureKind::TooLarge, "by its length");
    assert_eq!(kind(&raw_server(b"no HTTP at all").await, 100).await, FailureKind::Broken);
}

#[actix_web::test]
async fn silence_ends_with_the_timeout_and_a_closed_port_at_once() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", silent.local_addr().expect("bound"));
    let error = client().get(&url, Duration::from_millis(50), 100).await.expect_err("silence");
    assert_eq!(error.kind, FailureKind::Timeout);
    drop(silent);
    let error = client().get(&url, SECOND, 100).await.expect_err("closed");
    assert_eq!(error.kind, FailureKind::Connect);
    assert!(!error.message.contains("127.0.0.1"), "no address in {error}");
}

#[actix_web::test]
async fn forbidden_addresses_and_schemes_are_refused_without_a_connection() {
    for url in ["http://169.254.169.254/latest/meta-data/", "https://[fe80::1]/", "http://0.0.0.0/", "ftp://127.0.0.1/", "nonsense"]
    {
        assert_eq!(kind(url, 100).await, FailureKind::Refused, "{url}");
    }
    let policy = ClientPolicy { headers: [("bad name".to_owned(), String::new())].into(), ..ClientPolicy::default() };
    let error = GuardedClient::new(policy).get("http://127.0.0.1:1/", SECOND, 1).await.expect_err("a bad header");
    assert_eq!(error.kind, FailureKind::Refused);
}

#[actix_web::test]
async fn a_ca_file_that_cannot_be_used_says_so() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    for (path, part) in [(file.path().to_owned(), "no certificate"), ("missing.pem".into(), "missing.pem")] {
        let client = GuardedClient::new(ClientPolicy { ca: Some(path), ..ClientPolicy::default() });
        let error = client.get("https://127.0.0.1:1/", SECOND, 1).await.expect_err("a bad CA");
        assert_eq!(error.kind, FailureKind::Refused);
        assert!(error.message.contains(part), "{error}");
    }
}

#[actix_web::test]
async fn a_further_authority_is_trusted_where_it_is_named_and_only_there() {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], key.signing_key.serialize_der().try_into().expect("a key"))
        .expect("a pair");
    let server = HttpServer::new(|| App::new().default_service(web::to(|| async { HttpResponse::Ok().body("hello") })));
    let server = server.workers(1).bind_rustls_0_23("127.0.0.1:0", tls).expect("a port");
    let url = format!("https://localhost:{}/", server.addrs()[0].port());
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), key.cert.pem()).expect("written");
    let trusting = GuardedClient::new(ClientPolicy { ca: Some(file.path().to_owned()), ..ClientPolicy::default() });
    let answer = trusting.get(&url, 10 * SECOND, 100).await.expect("an answer");
    assert_eq!(&answer.body[..], b"hello");
    let error = client().get(&url, 10 * SECOND, 100).await.expect_err("not trusted");
    assert_eq!(error.kind, FailureKind::Connect);
    assert!(error.message.contains("certificate"), "{error}");
    handle.stop(false).await;
}
