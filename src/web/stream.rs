//! Live streams (server-sent events): the state of everything once a second, and the tail of the log.
//!
//! A stream holds one of `server.max_streams` places, ends when its caller's token is revoked or the daemon stops, and sends a
//! comment now and then so that both sides notice a dead connection. A slow client holds back only itself: it gets the newest
//! state, not every one.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use actix_web::{HttpResponse, http::header::CONTENT_TYPE, web::Data};
use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, timeout},
};

use super::{
    auth::{Caller, Viewer},
    error::{ApiError, ErrorCode},
    state::WebState,
};
use crate::monitor::Stage;

/// From one comment to the next where nothing else is sent.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// From one look at token and stage to the next.
const LOOK: Duration = Duration::from_secs(1);

/// A place for a live stream, with what decides about its end.
pub struct Place {
    state: Data<WebState>,
    caller: Caller,
    last_sent: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Takes a place.
    ///
    /// # Errors
    /// 503 where all are taken.
    pub fn take(state: Data<WebState>, caller: Caller) -> Result<Self, ApiError> {
        let permit = state.streams.clone().try_acquire_owned();
        let permit = permit.map_err(|_| ApiError::new(ErrorCode::TooManyStreams, "every place for a live stream is taken"))?;
        Ok(Self { state, caller, last_sent: Instant::now(), _permit: permit })
    }

    /// Waits for the next piece of `source`, with heartbeats in between; `None` ends the stream.
    pub async fn next(&mut self, source: &mut impl Source) -> Option<Bytes> {
        loop {
            let piece = timeout(LOOK, source.next()).await;
            if !self.caller.still_holds(&self.state) || self.state.views.board.stage() == Stage::Stopping {
                return None;
            }
            let piece = match piece {
                Ok(piece) => piece?,
                Err(_) if self.last_sent.elapsed() >= HEARTBEAT => Bytes::from_static(b": still here\n\n"),
                Err(_) => continue,
            };
            self.last_sent = Instant::now();
            return Some(piece);
        }
    }
}

/// What a stream sends.
pub trait Source {
    /// The next piece; `None` when there will be no more. Must be safe to cancel.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>>;
}

impl Source for watch::Receiver<Arc<str>> {
    async fn next(&mut self) -> Option<Bytes> {
        self.changed().await.ok()?;
        let json = self.borrow_and_update().clone();
        Some(event("state", &json))
    }
}

/// One event; `data` must be one line.
pub fn event(name: &str, data: &str) -> Bytes {
    Bytes::from(["event: ", name, "\ndata: ", data, "\n\n"].concat())
}

/// The answer around a stream of events.
pub fn answer(events: impl futures_util::Stream<Item = Bytes> + 'static) -> HttpResponse {
    use futures_util::StreamExt;
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header(("X-Accel-Buffering", "no"))
        // The connection ends with the stream, so that every kind of client sees the end at once.
        .force_close()
        .streaming(events.map(Ok::<_, Infallible>))
}

/// `GET /api/state`: everything, once.
#[utoipa::path(get, path = "/api/state", tag = "page",
    responses((status = 200, description = "Everything at this moment, as the event `state` carries it", body = Object), super::openapi::Failure))]
pub async fn snapshot(_who: Viewer, state: Data<WebState>) -> HttpResponse {
    HttpResponse::Ok().json(state.views.snapshot())
}

/// `GET /api/stream`: event `state` with the snapshot, at once and then once a second.
///
/// # Errors
/// 401, 403; 503 where every place is taken.
#[utoipa::path(get, path = "/api/stream", tag = "page",
    responses((status = 200, description = "Server-sent events: `state` with everything, once a second", content_type = "text/event-stream"), super::openapi::Failure))]
pub async fn state(who: Viewer, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let place = Place::take(state.clone(), who.0)?;
    let snapshots = state.views.board.watch();
    let first: Arc<str> = serde_json::to_string(&state.views.snapshot())
        .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?
        .into();
    let events = futures_util::stream::unfold((place, snapshots, Some(first)), |(mut place, mut snapshots, first)| async move {
        let piece = match first {
            Some(json) => Some(event("state", &json)),
            None => place.next(&mut snapshots).await,
        };
        piece.map(|piece| (piece, (place, snapshots, None)))
    });
    Ok(answer(events))
}
