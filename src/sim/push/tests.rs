//! The pusher against a receiver that misbehaves in every way it must cope with.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;

use super::*;
use crate::sim::{
    host::Host,
    model::FleetOptions,
    pace::Speed,
    replay::{Format, Mapping, Recording},
};

/// What a receiver has seen, and how it answers the nth request.
struct Receiver {
    bodies: Mutex<Vec<Bytes>>,
    requests: AtomicU32,
    answer: fn(u32, u64) -> HttpResponse,
}

fn taken(rows: u64) -> HttpResponse {
    HttpResponse::Accepted().body(format!("{{\"accepted\":{rows},\"rejected\":[]}}"))
}

fn receive(answer: fn(u32, u64) -> HttpResponse) -> (Host, Arc<Receiver>) {
    let receiver = Arc::new(Receiver { bodies: Mutex::default(), requests: AtomicU32::new(0), answer });
    let shared = Arc::clone(&receiver);
    let host = Host::start("receiver", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), move |config| {
        config.app_data(web::Data::from(Arc::clone(&shared))).app_data(web::PayloadConfig::new(8 << 20)).route(
            "/api/readings",
            web::post().to(|request: HttpRequest, body: Bytes, receiver: web::Data<Receiver>| async move {
                assert!(request.headers().get("authorization").is_some_and(|value| value == "Bearer T"));
                let rows = items(&body).len() as u64;
                let n = receiver.requests.fetch_add(1, Ordering::SeqCst);
                receiver.bodies.lock().unwrap_or_else(PoisonError::into_inner).push(body);
                (receiver.answer)(n, rows)
            }),
        );
    });
    (host.expect("it listens"), receiver)
}

fn items(body: &[u8]) -> Vec<serde_json::Value> {
    serde_json::from_slice(body).expect("an array")
}

fn options(host: &Host, lanes: usize) -> PushOptions {
    let url = format!("http://{}", host.addr()).parse().expect("a URL");
    PushOptions { url, token: Some("T".into()), lanes, batch_rows: 50, notice: Arc::new(|_| {}), progress: Arc::new(|_, _| {}) }
}

fn recording(rows: u32) -> (tempfile::NamedTempFile, Origin) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let lines: String = (0..rows).map(|row| format!("e{},{row}\n", row % 13)).collect();
    std::fs::write(file.path(), format!("engineId,rpm\n{lines}")).expect("written");
    let mapping = Mapping { start_us: 1_700_000_000_000_000, step_us: 1_000_000 };
    let recording = Recording { path: file.path().to_owned(), format: Format::Csv, mapping };
    (file, Origin::Recording(recording, Speed::Max))
}

#[tokio::test]
async fn every_row_arrives_once_and_each_engine_in_its_order() {
    let (host, receiver) = receive(|_, rows| taken(rows));
    let (_file, origin) = recording(2_000);
    let summary = run(origin, options(&host, 4), Stop::default()).await;
    assert!(summary.is_clean(), "{summary:?}");
    assert_eq!((summary.made, summary.accepted, summary.retries), (2_000, 2_000, 0));
    let mut last: HashMap<String, f64> = HashMap::new();
    let bodies = receiver.bodies.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut seen = 0;
    for item in bodies.iter().flat_map(|body| items(body)) {
        let engine = item["engineId"].as_str().expect("an engine").to_owned();
        let rpm = item["rpm"].as_f64().expect("a number");
        assert!(last.insert(engine, rpm).is_none_or(|before| before < rpm));
        seen += 1;
    }
    assert_eq!(seen, 2_000);
}

#[tokio::test]
async fn what_is_not_acknowledged_is_sent_again_byte_for_byte() {
    let (host, receiver) = receive(|n, rows| match n {
        0 => HttpResponse::ServiceUnavailable().insert_header(("Retry-After", "0")).finish(),
        1 => HttpResponse::TooManyRequests().insert_header(("Retry-After", "0")).finish(),
        2 => HttpResponse::BadGateway().finish(),
        _ => taken(rows),
    });
    let (_file, origin) = recording(50);
    let summary = run(origin, options(&host, 1), Stop::default()).await;
    assert!(summary.is_clean(), "{summary:?}");
    assert_eq!((summary.retries, summary.repeated), (3, 50));
    let bodies = receiver.bodies.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(bodies.len(), 4);
    assert!(bodies.iter().all(|body| *body == bodies[0]));
}

#[tokio::test]
async fn a_refusal_ends_the_run_with_the_daemons_own_words() {
    let (host, receiver) = receive(|_, _| {
        HttpResponse::Forbidden()
            .body(r#"{"error":{"code":"forbidden","message":"this token may not push","hint":"use an ingest token"}}"#)
    });
    let (_file, origin) = recording(10_000);
    let summary = run(origin, options(&host, 1), Stop::default()).await;
    assert!(!summary.is_clean());
    assert!(summary.fault.as_ref().is_some_and(|fault| fault.contains("use an ingest token")), "{summary:?}");
    assert_eq!((summary.accepted, summary.undelivered()), (0, summary.made));
    assert_eq!(receiver.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn refused_readings_are_counted_with_their_reasons() {
    let (host, _receiver) = receive(|_, rows| {
        HttpResponse::Accepted()
            .body(format!(r#"{{"accepted":{},"rejected":[{{"index":3,"code":"out_of_range","message":"rpm"}}]}}"#, rows - 1))
    });
    let (_file, origin) = recording(100);
    let summary = run(origin, options(&host, 1), Stop::default()).await;
    assert_eq!((summary.accepted, summary.rejected, summary.undelivered()), (98, 2, 0));
    assert!(!summary.is_clean() && summary.reasons[0].contains("out_of_range"));
}

#[tokio::test]
async fn rows_before_a_bad_line_are_sent_and_the_line_is_named() {
    let (host, _receiver) = receive(|_, rows| taken(rows));
    let (file, origin) = recording(70);
    let mut text = std::fs::read_to_string(file.path()).expect("text");
    text.push_str("e1,broken\n");
    std::fs::write(file.path(), text).expect("written");
    let summary = run(origin, options(&host, 2), Stop::default()).await;
    assert_eq!((summary.accepted, summary.undelivered()), (70, 0));
    assert!(summary.fault.is_some_and(|fault| fault.contains(":72: column 2 (rpm)")));
}

#[tokio::test]
async fn a_model_that_is_stopped_has_delivered_all_it_made() {
    let (host, _receiver) = receive(|_, rows| taken(rows));
    let stop = Stop::default();
    let fleet = FleetOptions { engines: 10, rate_hz: 100.0, seed: 1, start_us: 1_700_000_000_000_000 };
    let running = run(Origin::Model(fleet), options(&host, 2), stop.clone());
    let (summary, ()) = tokio::join!(running, async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        stop.set();
    });
    assert!(summary.is_clean() && summary.accepted >= 100, "{summary:?}");
}

#[tokio::test]
async fn an_unreachable_daemon_leaves_everything_undelivered_when_the_run_is_ended() {
    let (host, _receiver) = receive(|_, rows| taken(rows));
    let options = options(&host, 1);
    host.stop();
    let (_file, origin) = recording(10);
    let stop = Stop::default();
    let (summary, ()) = tokio::join!(run(origin, options, stop.clone()), async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        stop.set();
    });
    assert_eq!((summary.accepted, summary.undelivered()), (0, 10));
    assert!(summary.fault.is_some());
}
