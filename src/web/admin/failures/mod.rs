//! What could not be stored or sent and waits for a person: look, try again, give up, mark as sent.
//!
//! In: readings from the store, deliveries from both stores. Out: one list, its causes; decisions with a reason, each written to the audit
//! (`decide`, `many`). While the database is away the control store's deliveries can still be decided.

pub mod decide;
pub mod edit;
pub mod many;
mod view;

use actix_web::{
    HttpResponse,
    web::{Data, Path},
};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use self::view::{cause_view, delivery_view, reading_view};
use crate::{
    domain::delivery::DeliveryState,
    store::{
        Store, StoreErrorKind,
        deliveries::{self, Cause, DeliveryRow, FailureFilter},
        failures::{self, FailureFilter as ReadingFilter, FailureState, ReadingFailure},
        relay,
    },
    web::{
        auth::Operator,
        body::Query,
        error::ApiError,
        openapi::{Causes, Failure, FailureInFull, Failures},
        query::{List, moment, page_size},
        state::WebState,
    },
};

/// Groups that the causes of one place are told in.
const CAUSES_MAX: u32 = 200;
/// Longest name of a sink or of a kind of failure, in characters.
const WORD_MAX_CHARS: usize = 64;

/// What a failure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A reading that was not stored.
    Reading,
    /// A delivery that was not sent, or of which nobody knows.
    Delivery,
}

/// Parameters of `GET /admin/failures`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FailuresQuery {
    /// reading or delivery; without it both
    kind: Option<Kind>,
    /// Only deliveries to this sink
    sink: Option<String>,
    /// Only deliveries that failed so; the word is their errorCode
    error_type: Option<String>,
    /// dead or uncertain: only deliveries that stand so
    state: Option<String>,
    /// Only deliveries that failed at or after this time, RFC 3339
    since: Option<String>,
    /// 1 to 1000
    limit: Option<u32>,
    /// `nextCursor` of the page before
    cursor: Option<String>,
}

/// Which failures are meant, by the words of a query or a body.
#[derive(Clone, Debug, Default)]
struct Wanted {
    kind: Option<Kind>,
    deliveries: FailureFilter,
}

impl Wanted {
    /// Checks the words. Whoever asks for something that only deliveries have means deliveries; `wrong` makes the failure of a name and a
    /// reason.
    fn new(
        kind: Option<Kind>,
        (sink, error_type): (Option<String>, Option<String>),
        state: Option<&str>,
        since: Option<&str>,
        wrong: impl Fn(&str, String) -> ApiError,
    ) -> Result<Self, ApiError> {
        for (name, value) in [("sink", &sink), ("errorType", &error_type)] {
            if value.as_deref().is_some_and(|text| text.is_empty() || text.chars().count() > WORD_MAX_CHARS || text.contains('\0'))
            {
                return Err(wrong(name, format!("1 to {WORD_MAX_CHARS} characters, none of them NUL")));
            }
        }
        let state = match state {
            None => None,
            Some(word) => match word.parse() {
                Ok(state) if DeliveryState::FAILED.contains(&state) => Some(state),
                _ => return Err(wrong("state", "dead or uncertain".to_owned())),
            },
        };
        let since_us =
            moment("since", since).map_err(|_| wrong("since", "not an RFC 3339 time such as 2026-01-31T12:00:00Z".to_owned()))?;
        let deliveries = FailureFilter { sink, error_type, state, since_us };
        let narrow = deliveries != FailureFilter::default();
        if narrow && kind == Some(Kind::Reading) {
            return Err(wrong("kind", "sink, errorType, state and since select deliveries, not readings".to_owned()));
        }
        Ok(Self { kind: if narrow { Some(Kind::Delivery) } else { kind }, deliveries })
    }
}

/// A sink that nobody knows is a slip of the pen and no empty list. Known are those of the configuration, and what is not there any more
/// as long as something that failed at it waits; `wrong` makes the failure of a name and a reason.
async fn check_sink(state: &WebState, wanted: &Wanted, wrong: impl Fn(&str, String) -> ApiError) -> Result<(), ApiError> {
    let Some(sink) = &wanted.deliveries.sink else { return Ok(()) };
    let known = {
        let config = state.config.load();
        let relay = config.kafka.as_ref().map(|_| relay::SINK.to_owned());
        config.sinks().into_iter().map(|sink| sink.name.to_owned()).chain(relay).collect::<Vec<_>>()
    };
    if known.contains(sink) {
        return Ok(());
    }
    for shelf in Shelf::of(Some(Kind::Delivery)) {
        let filter = FailureFilter { sink: Some(sink.clone()), ..FailureFilter::default() };
        match shelf.store(state).call(move |conn| deliveries::failures_where(conn, &filter, 1, None)).await {
            Ok(rows) if rows.is_empty() => {}
            // Something waits, or a store is away and cannot say: whoever asks it next tells that.
            _ => return Ok(()),
        }
    }
    Err(wrong("sink", format!("no sink has this name; there are {}", known.join(", "))))
}

/// The list runs through three places, one after the other; the cursor names the place and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shelf {
    Control,
    Readings,
    Store,
}

impl Shelf {
    fn word(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Readings => "readings",
            Self::Store => "store",
        }
    }

    /// The places of a kind, in their order.
    fn of(kind: Option<Kind>) -> &'static [Shelf] {
        match kind {
            Some(Kind::Reading) => &[Self::Readings],
            Some(Kind::Delivery) => &[Self::Control, Self::Store],
            None => &[Self::Control, Self::Readings, Self::Store],
        }
    }

    /// The store of a place that holds deliveries.
    fn store(self, state: &WebState) -> &Store {
        if self == Self::Control { &state.control } else { &state.store }
    }

    /// Items after `cursor`, and the cursor for the rest of this place.
    async fn page(
        self,
        state: &WebState,
        filter: &FailureFilter,
        limit: u32,
        cursor: Option<String>,
    ) -> Result<(Vec<Value>, Option<String>), ApiError> {
        if self == Self::Readings {
            let cursor =
                cursor.map(|id| uuid::Uuid::parse_str(&id).map(|id| id.to_string())).transpose().map_err(|_| bad_cursor())?;
            let filter = ReadingFilter { kind: None, state: Some(FailureState::Open), cursor, limit };
            let page = state.store.call(move |conn| failures::list(conn, &filter)).await?;
            return Ok((page.items.iter().map(reading_view).collect(), page.next_cursor));
        }
        let before = cursor.map(|cursor| cursor.parse::<i64>()).transpose().map_err(|_| bad_cursor())?;
        let filter = filter.clone();
        let rows = self.store(state).call(move |conn| deliveries::failures_where(conn, &filter, limit, before)).await?;
        let next = rows.last().filter(|_| rows.len() == limit as usize).map(|last| last.seq.to_string());
        Ok((rows.iter().map(|row| delivery_view(row, self.word())).collect(), next))
    }
}

fn bad_cursor() -> ApiError {
    ApiError::query("cursor", "does not belong to this list; start again without it")
}

/// `GET /admin/failures`: newest first within each place.
///
/// # Errors
/// 400 for parameters that mean nothing, with the sinks that there are for one that is none; 503 where a place does not answer.
#[utoipa::path(get, path = "/admin/failures", tag = "failures", params(FailuresQuery),
    responses((status = 200, description = "Readings and deliveries that wait for a person", body = Failures), Failure))]
pub async fn list(_who: Operator, query: Query<FailuresQuery>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let FailuresQuery { kind, sink, error_type, state: stands, since, limit, cursor } = query.0;
    let limit = page_size(limit)?;
    let wrong = |name: &str, reason: String| ApiError::query(name, reason);
    let wanted = Wanted::new(kind, (sink, error_type), stands.as_deref(), since.as_deref(), wrong)?;
    check_sink(&state, &wanted, wrong).await?;
    let shelves = Shelf::of(wanted.kind);
    let (first, mut cursor) = match &cursor {
        None => (0, None),
        Some(cursor) => {
            let (word, rest) = cursor.split_once(':').ok_or_else(bad_cursor)?;
            let place = shelves.iter().position(|shelf| shelf.word() == word).ok_or_else(bad_cursor)?;
            (place, (!rest.is_empty()).then(|| rest.to_owned()))
        }
    };
    let mut items = Vec::new();
    for (at, shelf) in shelves.iter().enumerate().skip(first) {
        let room = limit - items.len() as u32;
        let (found, next) = match shelf.page(&state, &wanted.deliveries, room, cursor.take()).await {
            // What waits in the control store can be decided while the database is away.
            Err(error) if error.status.as_u16() == 503 && !items.is_empty() => {
                return Ok(HttpResponse::Ok().json(List { items, next_cursor: Some(format!("{}:", shelf.word())) }));
            }
            other => other?,
        };
        items.extend(found);
        let next = next.map(|next| format!("{}:{next}", shelf.word()));
        let following = || shelves.get(at + 1).map(|shelf| format!("{}:", shelf.word()));
        if next.is_some() || items.len() as u32 >= limit {
            return Ok(HttpResponse::Ok().json(List { items, next_cursor: next.or_else(following) }));
        }
    }
    Ok(HttpResponse::Ok().json(List { items, next_cursor: None }))
}

/// `GET /admin/failures/causes`: deliveries that wait for a person by sink, kind of failure and state, the most first.
///
/// # Errors
/// 503 where the control store does not answer; while the database is away it is named as such.
#[utoipa::path(get, path = "/admin/failures/causes", tag = "failures",
    responses((status = 200, description = "Groups with their number, first and last time, and newest delivery", body = Causes), Failure))]
pub async fn causes(_who: Operator, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let (mut groups, mut away): (Vec<(Cause, Vec<&str>)>, _) = (Vec::new(), Vec::new());
    for shelf in Shelf::of(Some(Kind::Delivery)) {
        match shelf.store(&state).call(|conn| deliveries::causes(conn, CAUSES_MAX)).await {
            Ok(causes) => causes.into_iter().for_each(|cause| gather(&mut groups, cause, shelf.word())),
            Err(error) if *shelf == Shelf::Store && error.kind == StoreErrorKind::Unavailable => away.push(shelf.word()),
            Err(error) => return Err(error.into()),
        }
    }
    groups.sort_by_key(|(cause, _)| std::cmp::Reverse(cause.count));
    let items: Vec<Value> = groups.iter().map(|(cause, stores)| cause_view(cause, stores)).collect();
    Ok(HttpResponse::Ok().json(json!({"items": items, "nextCursor": null, "away": away})))
}

/// Adds what one store tells of a cause to what another has told of the same: for whoever decides it is one.
fn gather(groups: &mut Vec<(Cause, Vec<&'static str>)>, cause: Cause, store: &'static str) {
    let same = |known: &Cause| (&known.sink, &known.error_type, known.state) == (&cause.sink, &cause.error_type, cause.state);
    let Some((known, stores)) = groups.iter_mut().find(|(known, _)| same(known)) else {
        groups.push((cause, vec![store]));
        return;
    };
    stores.push(store);
    known.count += cause.count;
    known.oldest_at_us = known.oldest_at_us.min(cause.oldest_at_us);
    if cause.newest_at_us > known.newest_at_us {
        (known.newest_at_us, known.sample) = (cause.newest_at_us, cause.sample);
    }
}

/// Where one failure was found.
enum Found {
    Reading(Box<ReadingFailure>),
    Delivery(Box<DeliveryRow>, Shelf),
}

async fn find(state: &WebState, id: &str) -> Result<Found, ApiError> {
    // An id that can be none is not asked for: a database would refuse some texts in words of its own.
    let id = uuid::Uuid::parse_str(id).map_err(|_| ApiError::not_found("failure", id))?.to_string();
    let wanted = id.clone();
    if let Some(row) = state.control.call(move |conn| deliveries::get(conn, &wanted)).await? {
        return Ok(Found::Delivery(Box::new(row), Shelf::Control));
    }
    let wanted = id.clone();
    let (reading, delivery) = state
        .store
        .call(move |conn| {
            let reading = match failures::get(conn, &wanted) {
                Err(error) if error.kind == StoreErrorKind::NotFound => None,
                other => Some(other?),
            };
            Ok((reading, deliveries::get(conn, &wanted)?))
        })
        .await?;
    match (reading, delivery) {
        (Some(reading), _) => Ok(Found::Reading(Box::new(reading))),
        (None, Some(row)) => Ok(Found::Delivery(Box::new(row), Shelf::Store)),
        (None, None) => Err(ApiError::not_found("failure", id)),
    }
}

/// `GET /admin/failures/{id}`: one in full, with the evidence.
///
/// # Errors
/// 404 for an id that is unknown.
#[utoipa::path(get, path = "/admin/failures/{id}", tag = "failures", params(("id" = String, Path, description = "As listed")),
    responses((status = 200, description = "One failure in full", body = FailureInFull), Failure))]
pub async fn show(_who: Operator, id: Path<String>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let view = match find(&state, &id).await? {
        Found::Reading(failure) => reading_view(&failure),
        Found::Delivery(row, shelf) => {
            let id = row.id.clone();
            let attempts = shelf.store(&state).call(move |conn| deliveries::attempts(conn, &id)).await?;
            view::evidence(&row, shelf.word(), &attempts)
        }
    };
    Ok(HttpResponse::Ok().json(view))
}
