//! Live streams (server-sent events): the state of everything once a second, and the tail of the log.
//!
//! A stream holds one of `server.max_streams` places, ends when its caller's token is revoked or the daemon stops, and sends a
//! comment now and then so that both sides notice a dead connection. A slow client holds back only itself: it gets the newest
//! state, not every one. A client that does not read is not asked whether it wants more, so its stream cannot end by itself: a guard
//! beside the stream ends the connection then, 2 s after the token's end, or when nothing was asked for within `server.client_timeout`.

use std::{cell::Cell, convert::Infallible, future::Future, rc::Rc, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Version, header::CONTENT_TYPE},
    web::Data,
};
use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    auth::{Caller, Viewer},
    error::{ApiError, ErrorCode},
    openapi::{Failure, StateAnswer},
    peer,
    state::WebState,
    wire::Cutter,
};
use crate::monitor::Stage;

/// From one comment to the next where nothing else is sent.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// From one look at token and stage to the next.
const LOOK: Duration = Duration::from_secs(1);

/// How long a stream that must end gets to do so by itself.
const GRACE: Duration = Duration::from_secs(2);

/// What the kernel may keep for a client that lags behind; it takes twice as much for its own account.
const BACKLOG_BYTES: usize = 64 * 1024;

/// A place for a live stream, with what decides about its end.
pub struct Place {
    pass: Rc<Pass>,
    last_sent: Instant,
    guard: JoinHandle<()>,
    /// HTTP/2: the connection carries other answers as well.
    shares_connection: bool,
    _permit: OwnedSemaphorePermit,
}

/// What stream and guard both look at.
struct Pass {
    state: Data<WebState>,
    caller: Caller,
    /// When the last piece was handed over, until the next is asked for.
    handed_over: Cell<Option<Instant>>,
}

impl Pass {
    fn holds(&self) -> bool {
        self.caller.still_holds(&self.state) && self.state.views.board.stage() != Stage::Stopping
    }
}

impl Place {
    /// Takes a place for the answer to `request`.
    ///
    /// # Errors
    /// 503 where all are taken.
    pub fn take(request: &HttpRequest, state: Data<WebState>, caller: Caller) -> Result<Self, ApiError> {
        let permit = state.streams.clone().try_acquire_owned();
        let permit = permit.map_err(|_| ApiError::new(ErrorCode::TooManyStreams, "every place for a live stream is taken"))?;
        // The owner of the data directory may look at a tail for as long as they like.
        let patience = (!peer::is_control(request)).then(|| state.config.load().server.client_timeout);
        let pass = Rc::new(Pass { state, caller, handed_over: Cell::new(None) });
        let shares_connection = request.version() == Version::HTTP_2;
        let cutter = peer::cutter(request);
        if !shares_connection {
            // A slow client shall get the newest state, not minutes of old ones that the kernel keeps for it.
            cutter.bound_backlog(BACKLOG_BYTES);
        }
        let guard = actix_web::rt::spawn(guard(pass.clone(), cutter, patience));
        Ok(Self { pass, last_sent: Instant::now(), guard, shares_connection, _permit: permit })
    }

    /// Waits for the next piece of `source`, with heartbeats in between; `None` ends the stream.
    pub async fn next(&mut self, source: &mut impl Source) -> Option<Bytes> {
        self.pass.handed_over.set(None);
        loop {
            let piece = timeout(LOOK, source.next()).await;
            if !self.pass.holds() {
                return None;
            }
            let piece = match piece {
                Ok(piece) => piece?,
                Err(_) if self.last_sent.elapsed() >= HEARTBEAT => Bytes::from_static(b": still here\n\n"),
                Err(_) => continue,
            };
            self.last_sent = Instant::now();
            self.pass.handed_over.set(Some(self.last_sent));
            return Some(piece);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A stream that was ended leaves its guard behind: the client may not take the end of it, or never close its side.
        if self.shares_connection || self.pass.holds() {
            self.guard.abort();
        }
    }
}

/// Runs beside a stream until its place is given back, and ends the connection of one that cannot end by itself.
async fn guard(pass: Rc<Pass>, cutter: Cutter, patience: Option<Duration>) {
    let is_stuck = || {
        let waits = pass.handed_over.get().map(|since| since.elapsed());
        matches!((waits, patience), (Some(waits), Some(patience)) if waits >= patience)
    };
    while pass.holds() && !is_stuck() {
        sleep(LOOK).await;
    }
    if !pass.holds() {
        sleep(GRACE).await;
    }
    if cutter.cut() {
        log::info!(target: "belayd::web", who = pass.caller.name(), ended = !pass.holds(); "a live stream is not read: its connection is cut off");
    }
}

/// What a stream sends.
pub trait Source {
    /// The next piece; `None` when there will be no more. Must be safe to cancel.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>>;
}

/// The state at once, then each new one.
struct States {
    first: Option<Arc<str>>,
    later: watch::Receiver<Arc<str>>,
}

impl Source for States {
    async fn next(&mut self) -> Option<Bytes> {
        let json = match self.first.take() {
            Some(first) => first,
            None => {
                self.later.changed().await.ok()?;
                self.later.borrow_and_update().clone()
            }
        };
        Some(event("state", &json))
    }
}

/// One event; `data` must be one line.
pub fn event(name: &str, data: &str) -> Bytes {
    Bytes::from(["event: ", name, "\ndata: ", data, "\n\n"].concat())
}

/// The answer that sends what `source` gives for as long as `place` holds.
pub fn answer(place: Place, source: impl Source + 'static) -> HttpResponse {
    use futures_util::StreamExt;
    let events = futures_util::stream::unfold((place, source), |(mut place, mut source)| async move {
        let piece = place.next(&mut source).await?;
        Some((piece, (place, source)))
    });
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header(("X-Accel-Buffering", "no"))
        // The connection ends with the stream, so that every kind of client sees the end at once.
        .force_close()
        .streaming(events.map(Ok::<_, Infallible>))
}

/// `GET /api/state`: everything, once.
#[utoipa::path(get, path = "/api/state", tag = "page",
    responses((status = 200, description = "Everything at this moment, as the event `state` carries it", body = StateAnswer), Failure))]
pub async fn snapshot(_who: Viewer, state: Data<WebState>) -> HttpResponse {
    HttpResponse::Ok().json(state.views.snapshot())
}

/// `GET /api/stream`: event `state` with the snapshot, at once and then once a second.
///
/// # Errors
/// 401, 403; 503 where every place is taken.
#[utoipa::path(get, path = "/api/stream", tag = "page",
    responses((status = 200, description = "Server-sent events: `state` with everything, once a second", content_type = "text/event-stream"), Failure))]
pub async fn state(who: Viewer, request: HttpRequest, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let place = Place::take(&request, state.clone(), who.0)?;
    let later = state.views.board.watch();
    let first = serde_json::to_string(&state.views.snapshot())
        .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?
        .into();
    Ok(answer(place, States { first: Some(first), later }))
}
