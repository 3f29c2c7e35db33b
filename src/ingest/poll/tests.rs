use std::{
    io::Write,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, web};
use uuid::Uuid;

use super::*;
use crate::{
    clock::SystemClock,
    domain::receipt::Receipt,
    protocol::{Accepted, Raise},
    supervise::Probe,
};

const SOON: Duration = Duration::from_secs(20);

/// Answers the nth request, counted from 0.
type Script = Arc<dyn Fn(usize, &HttpRequest) -> HttpResponse + Send + Sync>;

/// A source that answers by a script and remembers what it was asked.
struct Source {
    config: SourceConfig,
    asked: Arc<Mutex<Vec<String>>>,
    handle: ServerHandle,
}

impl Drop for Source {
    fn drop(&mut self) {
        actix_web::rt::spawn(self.handle.stop(false));
    }
}

fn source(name: &str, answer: impl Fn(usize, &HttpRequest) -> HttpResponse + Send + Sync + 'static) -> Source {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let script: Script = Arc::new(answer);
    let count = Arc::new(AtomicUsize::new(0));
    let seen = asked.clone();
    let server = HttpServer::new(move || {
        let (script, count, seen) = (script.clone(), count.clone(), seen.clone());
        App::new().default_service(web::to(move |request: HttpRequest| {
            let (script, count, seen) = (script.clone(), count.clone(), seen.clone());
            async move {
                let number = count.fetch_add(1, Ordering::SeqCst);
                seen.lock().expect("not poisoned").push(request.uri().to_string());
                if request.path() == "/slow" {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                }
                script(number, &request)
            }
        }))
    });
    let server = server.workers(1).shutdown_timeout(0).bind("127.0.0.1:0").expect("a port");
    let port = server.addrs()[0].port();
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    Source { config: config(name, &format!("http://127.0.0.1:{port}/engines?after={{after}}")), asked, handle }
}

fn config(name: &str, url: &str) -> SourceConfig {
    SourceConfig {
        name: name.to_owned(),
        url: url.to_owned(),
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(2),
        headers: [("X-Key".to_owned(), "secret".to_owned())].into(),
        ca: None,
        fields: Default::default(),
        allow_link_local: false,
        breaker: crate::domain::breaker::BreakerSettings::SOURCE,
    }
}

impl Source {
    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

struct Rig {
    context: PollContext,
    ingest: Probe<Ingest>,
    raised: Probe<Raise>,
}

fn rig() -> Rig {
    let (ingest, orders) = Courier::probe(16);
    let (alerts, raised) = Courier::probe(16);
    let readings = ReadingsConfig {
        max_ahead: Duration::from_secs(86_400),
        max_behind: Duration::from_secs(315_360_000),
        ranges: Default::default(),
        max_engines: 10,
    };
    let context = PollContext {
        readings: Arc::new(readings),
        arrival: Arc::new(ArrivalClock::new(Arc::new(SystemClock))),
        admission: Admission::new(1_000_000),
        ingest,
        ack: AckLevel::Memory,
        raise: Some(Raiser::start(alerts)),
        board: Arc::default(),
        on_parsed: None,
        metrics: None,
    };
    Rig { context, ingest: orders, raised }
}

impl Rig {
    fn poll(&self, source: &Source) -> Poller {
        Poller::spawn(source.config.clone(), self.context.clone())
    }

    /// The next order, answered with `outcome`; the engine ids in it.
    async fn answer(&mut self, outcome: Result<(), Refusal>) -> Vec<String> {
        let order = tokio::time::timeout(SOON, self.ingest.recv()).await.expect("an order in time").expect("an order");
        let accepted = Accepted {
            receipt: Receipt { stream: Uuid::nil(), first_seq: 1, last_seq: u64::from(order.batch.len()) },
            level: AckLevel::Memory,
            upgrade: None,
            alerts: None,
        };
        let engines = order.batch.iter().map(|reading| reading.engine_id.to_owned()).collect();
        order.reply.send(outcome.map(|()| accepted)).expect("the poller waits");
        engines
    }

    async fn transition(&mut self) -> Transition {
        let raise = tokio::time::timeout(SOON, self.raised.recv()).await.expect("a transition in time").expect("a transition");
        raise.committed.expect("the raiser waits").send(()).expect("and still does");
        raise.transitions.into_iter().next().expect("one")
    }

    async fn status(&self, name: &str, holds: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
        let deadline = Instant::now() + SOON;
        loop {
            let status = self.context.board.get(name);
            if let Some(status) = status.clone().filter(&holds) {
                return status;
            }
            assert!(Instant::now() < deadline, "the status stays {status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn reading(engine: usize) -> String {
    format!(r#"{{"engineId":"e{engine}","rpm":1}}"#)
}

fn paged(number: usize) -> HttpResponse {
    HttpResponse::Ok().insert_header(("x-next", (number + 1).to_string())).body(format!("[{}]", reading(number)))
}

#[actix_web::test]
async fn the_next_position_is_asked_for_once_the_buffer_has_taken_the_answer() {
    let mut rig = rig();
    let source = source("paged", |number, request| {
        assert!(request.headers().get("x-key").is_some_and(|key| key == "secret"));
        paged(number)
    });
    let poller = rig.poll(&source);
    for number in 0..3 {
        assert_eq!(rig.answer(Ok(())).await, [format!("e{number}")]);
    }
    let status = rig.status("paged", |status| status.polls >= 3).await;
    drop(poller);
    assert_eq!(source.asked()[..3], ["/engines?after=", "/engines?after=1", "/engines?after=2"]);
    assert_eq!((status.state, status.accepted, status.failures), (SourceState::Ok, 3, 0));
    assert!(status.last_ok_at_us.is_some());
}

#[actix_web::test]
async fn a_refused_answer_is_offered_again_and_asked_for_again() {
    let mut rig = rig();
    let mut source = source("refused", |_, _| paged(0));
    source.config.interval = Duration::from_millis(1_500);
    let poller = rig.poll(&source);
    assert_eq!(rig.answer(Err(Refusal::Full)).await, ["e0"]);
    assert_eq!(rig.answer(Err(Refusal::Full)).await, ["e0"], "the same batch within its turn");
    assert_eq!(source.asked().len(), 1);
    while source.asked().len() < 2 {
        rig.answer(Err(Refusal::Failed)).await;
    }
    let status = rig.status("refused", |status| status.failures > 0).await;
    assert_eq!(status.next, None);
    assert!(source.asked().iter().all(|url| url == "/engines?after="), "{:?}", source.asked());
    while rig.context.board.get("refused").is_some_and(|status| status.next.is_none()) {
        rig.answer(Ok(())).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(poller);
    assert_eq!(rig.context.admission.in_use(), 0, "every byte is given back");
}

#[actix_web::test]
async fn an_answer_that_is_cut_is_asked_for_again_and_nothing_is_lost() {
    let mut rig = rig();
    let source = source("cut", |number, _| match number {
        // Cut by the sender, cut on the way, cut within gzip: then whole.
        0 => HttpResponse::Ok().insert_header(("x-next", "9")).body(r#"[{"engineId":"e0","rpm":1},{"engi"#),
        1 => HttpResponse::Ok().insert_header(("x-next", "9")).streaming(futures_util::stream::iter([
            Ok(web::Bytes::from_static(b"[{\"engineId\":")),
            Err(std::io::Error::other("cut")),
        ])),
        2 => {
            HttpResponse::Ok().insert_header(("content-encoding", "gzip")).insert_header(("x-next", "9")).body(vec![0x1f, 0x8b, 8])
        }
        _ => paged(0),
    });
    let poller = rig.poll(&source);
    assert_eq!(rig.answer(Ok(())).await, ["e0"]);
    let status = rig.status("cut", |status| status.next.is_some()).await;
    drop(poller);
    assert!(source.asked()[..4].iter().all(|url| url == "/engines?after="), "{:?}", source.asked());
    assert_eq!((status.next.as_deref(), status.failures), (Some("1"), 3));
}

#[actix_web::test]
async fn a_slow_source_delays_no_other() {
    let mut rig = rig();
    let mut slow = source("slow", |_, _| HttpResponse::Ok().finish());
    slow.config.url = slow.config.url.replace("/engines", "/slow");
    slow.config.timeout = Duration::from_secs(60);
    let quick = source("quick", |number, _| paged(number));
    let pollers = [rig.poll(&slow), rig.poll(&quick)];
    let started = Instant::now();
    for _ in 0..20 {
        rig.answer(Ok(())).await;
    }
    assert!(started.elapsed() < Duration::from_secs(15), "20 turns of 20 ms took {:?}", started.elapsed());
    assert_eq!(rig.context.board.get("slow").map(|status| (status.polls, status.state)), Some((0, SourceState::Starting)));
    drop(pollers);
}

#[actix_web::test]
async fn an_answer_may_be_packed_and_written_in_any_of_the_forms() {
    let mut rig = rig();
    let source = source("forms", |number, _| match number {
        0 => {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(reading(0).as_bytes()).expect("memory takes all");
            let packed = packer.finish().expect("memory takes all");
            HttpResponse::Ok().content_type("application/json").insert_header(("content-encoding", "gzip")).body(packed)
        }
        1 => HttpResponse::Ok().content_type("application/x-ndjson").body(format!("{}\n{}\n", reading(1), reading(2))),
        2 => HttpResponse::Ok().content_type("application/json").body(format!("{}\n{}", reading(3), reading(4))),
        3 => HttpResponse::Ok().content_type("text/plain").body(format!(" [{}]", reading(5))),
        4 => HttpResponse::NoContent().finish(),
        5 => HttpResponse::Ok().body("[]"),
        _ => HttpResponse::Ok().body(reading(6)),
    });
    let poller = rig.poll(&source);
    let mut engines = Vec::new();
    while engines.len() < 7 {
        engines.extend(rig.answer(Ok(())).await);
    }
    drop(poller);
    assert_eq!(engines, (0..7).map(|number| format!("e{number}")).collect::<Vec<_>>());
    let status = rig.status("forms", |_| true).await;
    assert_eq!(status.failures, 0, "nothing new is no failure: {status:?}");
}

#[actix_web::test]
async fn a_source_that_fails_three_times_is_raised_once_and_ends_when_it_answers() {
    let mut rig = rig();
    let source = source("flaky", |number, _| match number {
        0..5 => HttpResponse::InternalServerError().finish(),
        _ => paged(number),
    });
    let poller = rig.poll(&source);
    let began = rig.transition().await;
    assert_eq!(
        (began.name.as_str(), began.subject.as_str(), began.firing, began.level),
        (SOURCE_FAILING, "flaky", true, Level::Warning)
    );
    assert_eq!(began.text, "Source flaky failed 3 times in a row: it answered 500.");
    rig.answer(Ok(())).await;
    let ended = rig.transition().await;
    assert!(!ended.firing);
    drop(poller);
    assert!(rig.raised.try_recv().is_none());
    let status = rig.status("flaky", |status| status.state == SourceState::Ok).await;
    assert_eq!((status.failures, status.consecutive, status.error), (5, 0, None));
}

#[actix_web::test]
async fn a_source_that_is_no_longer_configured_leaves_no_alert_behind() {
    let mut rig = rig();
    let source = source("gone", |_, _| HttpResponse::NotFound().finish());
    let poller = rig.poll(&source);
    assert!(rig.transition().await.firing);
    drop(poller);
    retire_missing(&rig.context, &[config("other", "http://127.0.0.1:1/")]);
    assert!(!rig.transition().await.firing);
    assert_eq!(rig.context.board.list(), []);
}

#[actix_web::test]
async fn redirects_and_forbidden_addresses_are_faults_that_name_themselves() {
    let mut rig = rig();
    let moved = source("moved", |_, _| HttpResponse::Found().insert_header(("location", "http://127.0.0.1:1/")).finish());
    let poller = rig.poll(&moved);
    let status = rig.status("moved", |status| status.failures > 0).await;
    assert_eq!(status.error.as_deref(), Some("it answered 302; redirects are not followed"));
    drop(poller);
    let poller = Poller::spawn(config("metadata", "http://169.254.169.254/?token=hush"), rig.context.clone());
    let error = rig.status("metadata", |status| status.failures > 0).await.error.expect("an error");
    assert!(error.contains("link-local") && !error.contains("hush"), "{error}");
    drop(poller);
    assert!(rig.ingest.try_recv().is_none());
}

#[actix_web::test]
async fn readings_refused_for_their_content_are_counted_and_not_asked_for_again() {
    let mut rig = rig();
    let counted = Arc::new(AtomicUsize::new(0));
    let count = counted.clone();
    rig.context.on_parsed = Some(Arc::new(move |name, parsed| {
        assert_eq!(name, "bad");
        count.fetch_add(parsed.rejected_total as usize, Ordering::SeqCst);
    }));
    let source = source("bad", |number, _| match number {
        0 => HttpResponse::Ok().insert_header(("x-next", "1")).body(r#"[{"rpm":1},{"engineId":"e"}]"#),
        _ => paged(1),
    });
    let poller = rig.poll(&source);
    let status = rig.status("bad", |status| status.polls > 0).await;
    assert_eq!((status.state, status.rejected, status.next.as_deref()), (SourceState::Failing, 2, Some("1")));
    assert!(status.error.is_some_and(|error| error.contains("missing_engine_id") || error.contains("engineId")));
    assert_eq!(rig.answer(Ok(())).await, ["e1"]);
    drop(poller);
    assert_eq!(counted.load(Ordering::SeqCst), 2);
    assert_eq!(source.asked()[1], "/engines?after=1");
}

#[test]
fn turns_stay_on_their_grid_and_missed_ones_are_left_out() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let interval = Duration::from_millis(100);
    assert_eq!(next_turn(start, at(0), interval), at(100));
    assert_eq!(next_turn(start, at(99), interval), at(100));
    assert_eq!(next_turn(start, at(100), interval), at(200));
    assert_eq!(next_turn(at(100), at(3_050), interval), at(3_100));
    assert_eq!(next_turn(at(100), start, Duration::ZERO), at(101));
}
