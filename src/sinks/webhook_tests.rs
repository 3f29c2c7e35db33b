//! The webhook sink against a real server and against sockets that misbehave.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::Mutex,
    time::{Duration, Instant},
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::sinks::Attachment;

fn letter() -> Letter {
    crate::sinks::doubles::letter(r#"{"title":"t"}"#)
}

fn sink(url: &str) -> WebhookSink {
    WebhookSink::new(&WebhookConfig {
        name: "hook".into(),
        url: url.into(),
        timeout: Duration::from_millis(400),
        headers: BTreeMap::from([("X-Key".to_owned(), "k".to_owned())]),
        allow_link_local: false,
        secret: None,
        settings: SinkSettings::DEFAULT,
    })
}

/// One request as the server saw it: headers in lower case, then the body.
type Seen = web::Data<Mutex<Vec<(BTreeMap<String, String>, String)>>>;

async fn answer(request: HttpRequest, body: String, path: web::Path<String>, seen: web::Data<Seen>) -> HttpResponse {
    let headers =
        request.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("").to_owned())).collect();
    seen.lock().expect("no panic").push((headers, body));
    match path.as_str() {
        "ok" => HttpResponse::Ok().finish(),
        "busy" => HttpResponse::TooManyRequests().insert_header(("Retry-After", "7")).finish(),
        "date" => HttpResponse::ServiceUnavailable()
            .insert_header(("Date", "Fri, 20 Nov 2026 18:00:00 GMT"))
            .insert_header(("Retry-After", "Fri, 20 Nov 2026 18:00:30 GMT"))
            .finish(),
        "broken" => HttpResponse::InternalServerError().finish(),
        "moved" => HttpResponse::Found().insert_header(("Location", "/ok")).finish(),
        "gone" => HttpResponse::Gone().finish(),
        _ => {
            tokio::time::sleep(Duration::from_secs(30)).await;
            HttpResponse::Ok().finish()
        }
    }
}

fn serve() -> (String, Seen) {
    let seen: Seen = web::Data::new(Mutex::default());
    let state = web::Data::new(seen.clone());
    let server = HttpServer::new(move || App::new().app_data(state.clone()).route("/{path}", web::post().to(answer)))
        .workers(1)
        .disable_signals()
        .shutdown_timeout(0)
        .bind(("127.0.0.1", 0))
        .expect("a free port");
    let url = format!("http://{}", server.addrs()[0]);
    actix_web::rt::spawn(server.run());
    (url, seen)
}

async fn class_of(url: &str) -> (ErrorClass, &'static str) {
    let error = sink(url).send(&letter()).await.expect_err("fails");
    assert!(!error.message.contains(url), "the URL may hold a secret: {}", error.message);
    (error.class, error.error_type)
}

#[actix_web::test]
async fn a_delivery_arrives_with_its_id_its_mark_and_the_configured_headers() {
    let (url, seen) = serve();
    sink(&format!("{url}/ok")).send(&letter()).await.expect("sent");
    let seen = seen.lock().expect("no panic");
    let (headers, body) = &seen[0];
    for (name, value) in [
        ("belayd-delivery-id", letter().id.as_str()),
        ("idempotency-key", letter().id.as_str()),
        ("belayd-possible-repeat", "true"),
        ("content-type", "application/json"),
        ("x-key", "k"),
    ] {
        assert_eq!(headers.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(body, r#"{"title":"t"}"#);
}

#[actix_web::test]
async fn every_answer_has_its_verdict() {
    let (url, seen) = serve();
    let after = |seconds| ErrorClass::Retry { after: Some(Duration::from_secs(seconds)) };
    for (path, expected) in [
        ("busy", (after(7), "status_429")),
        ("date", (after(30), "asked_to_wait")),
        ("broken", (ErrorClass::Retry { after: None }, "status_5xx")),
        ("gone", (ErrorClass::Reject, "status_4xx")),
        ("moved", (ErrorClass::Reject, "redirect")),
    ] {
        assert_eq!(class_of(&format!("{url}/{path}")).await, expected, "{path}");
    }
    assert_eq!(seen.lock().expect("no panic").len(), 5, "no redirect was followed");
}

#[actix_web::test]
async fn a_receiver_that_hangs_leaves_the_outcome_unknown_within_the_time_out() {
    let (url, _) = serve();
    let began = Instant::now();
    assert_eq!(class_of(&format!("{url}/hang")).await, (ErrorClass::Unknown, "timeout"));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[actix_web::test]
async fn a_refused_connection_is_as_good_as_not_tried() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    assert_eq!(class_of(&format!("http://{closed}/hook")).await, (ErrorClass::Retry { after: None }, "connect"));
}

#[actix_web::test]
async fn a_connection_cut_after_the_body_leaves_the_outcome_unknown() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let server = actix_web::rt::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let mut request = [0_u8; 4_096];
        let mut seen = Vec::new();
        while !seen.ends_with(br#"{"title":"t"}"#) {
            let count = socket.read(&mut request).await.expect("reads");
            seen.extend_from_slice(&request[..count]);
        }
        socket.write_all(b"HTTP/1.1 200 ").await.expect("writes");
        drop(socket);
    });
    assert_eq!(class_of(&format!("http://{addr}/hook")).await, (ErrorClass::Unknown, "broken"));
    server.await.expect("served");
}

#[actix_web::test]
async fn a_metadata_address_is_a_fault_of_the_configuration() {
    assert_eq!(class_of("http://169.254.169.254/latest").await, (ErrorClass::Fatal, "refused"));
}

#[test]
fn what_the_receiver_says_is_kept_in_one_line_and_bounded() {
    let answer = |status, body: String| Answer { status, headers: HeaderMap::new(), body: body.into() };
    let kept = judge(&answer(200, "{\"ticket\":\n 77}\u{7}".to_owned())).expect("taken").answer;
    assert!(kept.starts_with("HTTP 200 {\"ticket\": 77}") && !kept.contains(char::is_control), "{kept}");
    assert_eq!(judge(&answer(204, String::new())).expect("taken").answer, "HTTP 204");
    let refused = judge(&answer(400, "field level is unknown".to_owned())).expect_err("refused");
    assert_eq!(refused.message, "the receiver answered HTTP 400 field level is unknown");
    let long = judge(&answer(500, "x".repeat(9_000))).expect_err("refused").message;
    assert!(long.chars().count() < 260, "{long}");
    assert_eq!(
        judge(&answer(502, " <html>gone</html>".to_owned())).expect_err("refused").message,
        "the receiver answered HTTP 502"
    );
}

#[test]
fn a_signature_is_what_the_standard_says() {
    // The example of the specification's reference implementation.
    let signer = Signer::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a key");
    let mut headers = HeaderMap::new();
    let body = br#"{"test": 2432232314}"#;
    signer.sign(&mut headers, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body).expect("signed");
    assert_eq!(headers["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    assert_eq!(
        (&headers["webhook-id"], &headers["webhook-timestamp"]),
        (&"msg_p5jXN8AQM9LWM0D4loKWxJek".parse().expect("a header"), &"1614265330".parse().expect("a header"))
    );
}

#[test]
fn files_stand_in_the_json_whole_and_what_has_none_goes_as_it_is() {
    let named = r#"{"message":{"id":"m","attachments":[{"name":"a.txt","bytes":2},{"name":"b.bin","bytes":3}]}}"#;
    let mut letter = crate::sinks::doubles::letter(named);
    assert_eq!(body(&letter), named);
    let file = |name: &str, content: &[u8]| Attachment { name: name.into(), content_type: "a/b".into(), content: content.into() };
    letter.attachments = vec![file("a.txt", b"hi"), file("b.bin", &[0, 255, 10])];
    let sent: Json = serde_json::from_slice(&body(&letter)).expect("JSON");
    let files = &sent["message"]["attachments"];
    assert_eq!((&files[0]["base64"], &files[1]["base64"], &files[1]["name"]), (&"aGk=".into(), &"AP8K".into(), &"b.bin".into()));
}
