//! `simulate --listen`: a source to poll, at `/api/engines`.
//!
//! | request | answer |
//! |---|---|
//! | `GET /api/engines?after=CURSOR` | what comes after the cursor, and in `X-Next` the cursor for the next request; the same request gives the same readings again; without a value it starts with the oldest there are |
//! | `GET /api/engines` | of the model: the latest reading of each engine. Of a recording: the next rows; each is handed out once, so what is lost with a cut answer stays lost. Use the cursor |
//!
//! Answers are JSON arrays of at most 5,000 readings or 4 MB. A poller that is further behind than the window of the model (see
//! [`live`](super::live)) is told in `X-Missed` how many readings it did not get; a recording misses none.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use actix_web::{HttpResponse, http::header::HeaderName, web};
use bytes::Bytes;
use serde::Deserialize;

use super::{
    answer::{Answer, cursor_text, position_in},
    host::Host,
    live::LiveFeed,
    origin::{Notice, Origin},
    tape::Tape,
};

const X_NEXT: HeaderName = HeaderName::from_static("x-next");
const X_MISSED: HeaderName = HeaderName::from_static("x-missed");

/// Serves `origin` on `listen` until the host is stopped or dropped.
///
/// # Errors
/// Where the address cannot be bound.
pub fn start(origin: Origin, listen: SocketAddr, notice: Notice) -> io::Result<Host> {
    let source = Arc::new(Source { feed: Mutex::new(Feed::new(origin)), notice, failed: AtomicBool::new(false) });
    Host::start("simulator", listen, move |config| {
        config
            .app_data(web::Data::from(Arc::clone(&source)))
            .route("/api/engines", web::get().to(get))
            .default_service(web::to(|| async { HttpResponse::NotFound().body("belayd simulate serves GET /api/engines\n") }));
    })
}

/// The `[[sources]]` entry that polls a simulator at `addr` without losing a reading.
pub fn config_snippet(addr: SocketAddr) -> String {
    format!("[[sources]]\nname = \"simulator\"\nurl = \"http://{addr}/api/engines?after={{after}}\"\ninterval = \"1s\"\n")
}

struct Source {
    feed: Mutex<Feed>,
    notice: Notice,
    failed: AtomicBool,
}

enum Feed {
    Live { tag: u64, feed: Box<LiveFeed> },
    Tape(Box<Tapes>),
}

struct Tapes {
    tag: u64,
    with_cursor: Tape,
    without: Tape,
    without_position: u64,
    finished: bool,
}

struct Reply {
    body: Bytes,
    next: Option<String>,
    missed: u64,
    notice: Option<String>,
}

impl Feed {
    fn new(origin: Origin) -> Self {
        match origin {
            Origin::Model(options) => {
                // Two runs of the same seed at different times are different readings.
                Self::Live {
                    tag: options.seed.rotate_left(32) ^ options.start_us as u64,
                    feed: Box::new(LiveFeed::new(options, Instant::now())),
                }
            }
            Origin::Recording(recording, speed) => {
                let with_cursor = Tape::new(recording.clone(), speed);
                let tag = with_cursor.tag();
                let without = Tape::new(recording, speed);
                Self::Tape(Box::new(Tapes { tag, with_cursor, without, without_position: 0, finished: false }))
            }
        }
    }

    fn answer(&mut self, after: Option<&str>, now: Instant) -> Result<Reply, String> {
        match (self, after) {
            (Self::Live { feed, .. }, None) => Ok(Reply { body: feed.latest(now), next: None, missed: 0, notice: None }),
            (Self::Live { tag, feed }, Some(cursor)) => {
                let (Answer { next, body, .. }, missed) = feed.after(position_in(*tag, cursor), now);
                Ok(Reply { body, next: Some(cursor_text(*tag, next)), missed, notice: None })
            }
            (Self::Tape(tapes), None) => {
                let answer = tapes.without.after(tapes.without_position, now)?;
                tapes.without_position = answer.next;
                let notice = tapes.finish(answer.rows == 0 && tapes.without.is_finished(), answer.next);
                Ok(Reply { body: answer.body, next: None, missed: 0, notice })
            }
            (Self::Tape(tapes), Some(cursor)) => {
                let answer = tapes.with_cursor.after(position_in(tapes.tag, cursor).unwrap_or(0), now)?;
                // Asking beyond the last row says that the rows before were received.
                let notice = tapes.finish(answer.rows == 0 && tapes.with_cursor.is_finished(), answer.next);
                Ok(Reply { body: answer.body, next: Some(cursor_text(tapes.tag, answer.next)), missed: 0, notice })
            }
        }
    }
}

impl Tapes {
    fn finish(&mut self, is_finished: bool, rows: u64) -> Option<String> {
        (is_finished && !std::mem::replace(&mut self.finished, true))
            .then(|| format!("the recording is over: all {rows} readings were handed out; Ctrl-C ends the simulator"))
    }
}

#[derive(Deserialize)]
struct Query {
    after: Option<String>,
}

async fn get(source: web::Data<Source>, query: web::Query<Query>) -> HttpResponse {
    let shared = source.clone().into_inner();
    // Files are read and engines computed off the server's thread.
    let answered = web::block(move || {
        let mut feed = shared.feed.lock().unwrap_or_else(PoisonError::into_inner);
        feed.answer(query.after.as_deref(), Instant::now())
    })
    .await;
    match answered {
        Ok(Ok(reply)) => {
            if let Some(notice) = reply.notice {
                (source.notice)(&notice);
            }
            let mut response = HttpResponse::Ok();
            response.content_type("application/json");
            if let Some(next) = reply.next {
                response.insert_header((X_NEXT, next));
            }
            if reply.missed > 0 {
                response.insert_header((X_MISSED, reply.missed.to_string()));
            }
            response.body(reply.body)
        }
        Ok(Err(fault)) => {
            if !source.failed.swap(true, Ordering::Relaxed) {
                (source.notice)(&fault);
            }
            let body = serde_json::json!({ "error": { "code": "recording", "message": fault } });
            HttpResponse::InternalServerError().content_type("application/json").body(body.to_string())
        }
        Err(_) => HttpResponse::ServiceUnavailable().finish(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ingest::http_client::{ClientPolicy, GuardedClient};
    use crate::sim::{
        model::FleetOptions,
        pace::Speed,
        replay::{Format, Mapping, Recording},
    };

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    async fn poll(host: &Host, query: &str) -> (u16, Option<String>, serde_json::Value) {
        let url = format!("http://{}/api/engines{query}", host.addr());
        let client = GuardedClient::new(ClientPolicy::default());
        let answer = client.get(&url, Duration::from_secs(10), 1 << 20).await.expect("an answer");
        let next = answer.headers.get("x-next").and_then(|next| next.to_str().ok()).map(str::to_owned);
        (answer.status, next, serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    #[tokio::test]
    async fn the_model_is_served_in_both_forms() {
        let options = FleetOptions { engines: 4, rate_hz: 20.0, seed: 3, start_us: 1_700_000_000_000_000 };
        let host = start(Origin::Model(options), LOOPBACK, Arc::new(|_| {})).expect("it serves");
        let (status, next, latest) = poll(&host, "").await;
        assert_eq!((status, next, latest.as_array().map(Vec::len)), (200, None, Some(4)));
        let (_, next, first) = poll(&host, "?after=").await;
        let next = next.expect("a cursor");
        let (_, _, rest) = poll(&host, &format!("?after={next}")).await;
        let newest = first.as_array().and_then(|items| items.last()).map(|item| item["timestamp"].to_string());
        assert!(rest.as_array().is_some_and(|items| items.iter().all(|item| Some(item["timestamp"].to_string()) > newest)));
        host.stop();
    }

    #[tokio::test]
    async fn a_recording_with_a_fault_answers_500_and_tells_a_person_once() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "engineId,rpm\na,1\na,x\n").expect("written");
        let mapping = Mapping { start_us: 0, step_us: 1 };
        let recording = Recording { path: file.path().to_owned(), format: Format::Csv, mapping };
        let told = Arc::new(Mutex::new(Vec::new()));
        let teller = Arc::clone(&told);
        let notice: Notice = Arc::new(move |text| teller.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned()));
        let host = start(Origin::Recording(recording, Speed::Max), LOOPBACK, notice).expect("it serves");
        let (status, next, items) = poll(&host, "?after=").await;
        assert_eq!((status, items.as_array().map(Vec::len)), (200, Some(1)));
        let next = next.expect("a cursor");
        for _ in 0..2 {
            let (status, _, body) = poll(&host, &format!("?after={next}")).await;
            assert_eq!(status, 500);
            assert!(body["error"]["message"].as_str().is_some_and(|text| text.contains(":3: column 2 (rpm)")), "{body}");
        }
        assert_eq!(told.lock().unwrap_or_else(PoisonError::into_inner).len(), 1);
    }
}
