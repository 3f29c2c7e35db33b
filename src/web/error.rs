//! Errors over HTTP: one table of codes, one form of body.
//!
//! In: an [`ApiError`] from a handler or an extractor. Out: `{"error": {"code", "message", "hint", "requestId", "details"}}`. The
//! gate ([`super::gate`]) writes the body, because only it knows the request; what actix refuses by itself passes it too. What can
//! be wrong with a body stands in the table of [`crate::ingest::reason`], which this one continues; a test holds them apart.

use std::{borrow::Cow, fmt, ops::Deref};

use actix_web::{
    HttpResponse, ResponseError,
    http::{Method, StatusCode},
};
use serde_json::{Value, json};

use crate::{
    ingest::reason::{BodyError, Reason},
    protocol::Refusal,
    store::{StoreError, StoreErrorKind},
};

/// Most faults of one body that are listed one by one.
const MAX_DETAILS: usize = 100;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $status:literal, $hint:literal;)*) => {
        /// Every code that an answer can carry. Codes are part of the interface: they are added, never changed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $variant,)* }

        impl ErrorCode {
            /// The table.
            pub const ALL: &[ErrorCode] = &[$(Self::$variant,)*];

            /// The word in the body.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The HTTP status.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// What to do, where the error says nothing better.
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$variant => $hint,)* }
            }
        }
    };
}

error_codes! {
    /// The request cannot be understood.
    BadRequest = "bad_request", 400, "Compare the request with GET /api/docs.";
    /// The Host header is missing or malformed.
    BadHost = "bad_host", 400, "Send one Host header.";
    /// A field has a value that it cannot have.
    InvalidField = "invalid_field", 400, "Compare the field with GET /api/docs.";
    /// A query parameter is unknown or has a value that it cannot have.
    InvalidQuery = "invalid_query", 400, "Compare the parameters with GET /api/docs.";
    /// The buffer's tier does not reach the level.
    AckLevelUnavailable = "ack_level_unavailable", 400, "GET /admin/buffer names the tier; leave ack out for the tier's own level.";
    /// A reason must be given.
    ReasonRequired = "reason_required", 400, "Send {\"reason\": \"…\"}: it goes to the audit.";
    /// No token, no session, or neither is valid.
    Unauthenticated = "unauthenticated", 401, "Send Authorization: Bearer TOKEN (belayd token create), or sign in at /login.";
    /// The role does not reach that far.
    Forbidden = "forbidden", 403, "Use a token of a role that may: ingest pushes; viewer looks, operator also decides, admin may do everything, pushing included.";
    /// A write with a cookie that did not come from this site.
    CrossSite = "cross_site", 403, "A write with a session cookie must come from this site's own pages; scripts use a Bearer token.";
    /// There is nothing here.
    NotFound = "not_found", 404, "Compare the path with GET /api/docs, the id or name with the list that it comes from.";
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", 405, "The Allow header lists the methods.";
    /// The client was too slow.
    RequestTimeout = "request_timeout", 408, "Send the whole request without pauses, or ask for a longer server.client_timeout.";
    /// The thing is not in a state in which that can be done.
    Conflict = "conflict", 409, "The message says why; fetch it again to see its present state.";
    /// The idempotency key has made another message.
    IdempotencyConflict = "idempotency_conflict", 409, "Use a new idempotencyKey for a new message; repeat a message with the very same content.";
    /// The request target is too long.
    UriTooLong = "uri_too_long", 414, "Shorten the path and query to 8 KB.";
    /// This server does not answer for that host.
    WrongHost = "wrong_host", 421, "Add the name to server.hosts in belayd.toml, or use one that is there.";
    /// Too many failed sign-ins from one address.
    TooManySignIns = "too_many_sign_ins", 429, "Wait as long as Retry-After says.";
    /// The budget for bodies in the works is used up.
    AdmissionLimit = "admission_limit", 429, "Come again after Retry-After, with fewer requests at once.";
    /// More readings a second than `buffer.readings_per_s`.
    RateLimit = "rate_limit", 429, "Come again after Retry-After; send fewer readings a second, or ask for a higher buffer.readings_per_s.";
    /// More requests than `[limits]` allows.
    TooManyRequests = "too_many_requests", 429, "Come again after Retry-After, or ask for a higher limit in [limits] of belayd.toml.";
    /// The ingest mailbox is full.
    IngestBusy = "ingest_busy", 429, "Come again after Retry-After, with fewer requests at once.";
    /// The header section is too large.
    HeadTooLarge = "head_too_large", 431, "Send fewer and shorter headers.";
    /// A fault of belayd.
    Internal = "internal", 500, "This is a fault of belayd: please report it with the request id and the log line.";
    /// The buffer's bound is reached.
    BufferFull = "buffer_full", 503, "The database does not keep up or is away; send the same again after Retry-After.";
    /// The daemon is stopping.
    Stopping = "stopping", 503, "Send the same again after Retry-After.";
    /// The buffer could not take it.
    BufferFailed = "buffer_failed", 503, "Nothing of it was taken; send the same again after Retry-After.";
    /// The one who worked on it was restarted; the outcome is not known.
    OutcomeUnknown = "outcome_unknown", 503, "Send the same again with its timestamps: what was stored already counts as duplicate.";
    /// The database is away.
    StoreUnavailable = "store_unavailable", 503, "Readings are still taken; ask again when GET /readyz says ready.";
    /// The part that answers is not there yet or has gone.
    NotReady = "not_ready", 503, "Ask again after Retry-After.";
    /// Every place for a live stream is taken.
    TooManyStreams = "too_many_streams", 503, "Close another page or tail, or raise server.max_streams.";
    /// The medium has no room.
    DiskFull = "disk_full", 507, "Make room on the disk of server.data_dir; nothing of the request was taken.";
}

impl ErrorCode {
    fn status_code(self) -> StatusCode {
        StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Seconds for `Retry-After`, for codes that ask the client to come again.
    const fn retry_after_s(self) -> Option<u32> {
        match self {
            Self::AdmissionLimit
            | Self::RateLimit
            | Self::TooManyRequests
            | Self::IngestBusy
            | Self::BufferFull
            | Self::BufferFailed
            | Self::OutcomeUnknown
            | Self::NotReady => Some(1),
            Self::Stopping | Self::StoreUnavailable | Self::TooManyStreams => Some(5),
            _ => None,
        }
    }

    const fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Unauthenticated,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            405 => Self::MethodNotAllowed,
            408 => Self::RequestTimeout,
            414 => Self::UriTooLong,
            431 => Self::HeadTooLarge,
            503 => Self::NotReady,
            500.. => Self::Internal,
            _ => Self::BadRequest,
        }
    }
}

/// What there is to tell about a failure.
#[derive(Clone, Debug)]
pub struct Told {
    /// The stable word.
    pub code: &'static str,
    /// The HTTP status.
    pub status: StatusCode,
    /// What happened, for a person; no secrets.
    pub message: Cow<'static, str>,
    /// What to do.
    pub hint: Cow<'static, str>,
    /// One entry for each item or field concerned.
    pub details: Vec<Value>,
    /// Seconds for `Retry-After`.
    pub retry_after_s: Option<u32>,
    /// Methods for `Allow`.
    pub allow: Vec<Method>,
}

/// A failure on its way to the client. Boxed, so that the results on the hot path stay small.
#[derive(Clone, Debug)]
pub struct ApiError(Box<Told>);

impl Deref for ApiError {
    type Target = Told;

    fn deref(&self) -> &Told {
        &self.0
    }
}

impl ApiError {
    /// An error with the table's hint.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Told {
            code: code.as_str(),
            status: code.status_code(),
            message: message.into(),
            hint: Cow::Borrowed(code.hint()),
            details: Vec::new(),
            retry_after_s: code.retry_after_s(),
            allow: Vec::new(),
        }))
    }

    /// For what actix refused by itself, by its status.
    pub fn of_status(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        match status.as_u16() {
            413 => BodyError::new(Reason::BodyTooLarge, message).into(),
            415 => BodyError::new(Reason::UnsupportedMediaType, message).into(),
            other => {
                let mut error = Self::new(ErrorCode::of_status(other), message);
                error.0.status = status;
                error
            }
        }
    }

    /// With a better hint.
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = hint.into();
        self
    }

    /// With details.
    pub fn details(mut self, details: Vec<Value>) -> Self {
        self.0.details = details;
        self
    }

    /// To come again after so many seconds.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    /// With the methods that the path takes.
    pub fn allow(mut self, methods: Vec<Method>) -> Self {
        self.0.allow = methods;
        self
    }

    /// A field of the body, with the reason in words.
    pub fn field(field: &str, reason: impl fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidField, format!("{field}: {reason}"))
            .details(vec![json!({"field": field, "message": reason.to_string()})])
    }

    /// A query parameter, with the reason in words.
    pub fn query(name: &str, reason: impl fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidQuery, format!("{name}: {reason}"))
            .details(vec![json!({"parameter": name, "message": reason.to_string()})])
    }

    /// Several fields of the body at once, each with the reason in words: at least one.
    pub fn fields(faults: &[(String, String)]) -> Self {
        let (field, reason) = faults.first().map_or(("body", "is wrong"), |(field, reason)| (field.as_str(), reason.as_str()));
        let more = match faults.len() {
            0 | 1 => String::new(),
            count => format!(", and {} more", count - 1),
        };
        let details = faults.iter().take(MAX_DETAILS).map(|(field, message)| json!({"field": field, "message": message})).collect();
        Self::new(ErrorCode::InvalidField, format!("{field}: {reason}{more}")).details(details)
    }

    /// As [`ApiError::fields`] where one of them has too many bytes: 413.
    pub fn too_large(faults: &[(String, String)]) -> Self {
        let told = Self::fields(faults);
        let (message, details) = (told.0.message.clone().into_owned(), told.0.details.clone());
        Self::from(BodyError::new(Reason::BodyTooLarge, message)).details(details)
    }

    /// Nothing has this id.
    pub fn not_found(what: &str, id: impl fmt::Display) -> Self {
        let id: String = id.to_string().chars().take(128).collect();
        Self::new(ErrorCode::NotFound, format!("there is no {what} \"{id}\""))
    }

    /// The body of the answer.
    pub fn body(&self, request_id: &str) -> String {
        let (code, message, hint, details) = (self.code, &self.message, &self.hint, &self.details);
        json!({"error": {"code": code, "message": message, "hint": hint, "requestId": request_id, "details": details}}).to_string()
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for ApiError {}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        // The gate fills this in.
        HttpResponse::new(self.status)
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        Self(Box::new(Told {
            code: error.code.as_str(),
            status: StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST),
            hint: Cow::Borrowed(error.hint()),
            message: error.message.into(),
            details: Vec::new(),
            retry_after_s: None,
            allow: Vec::new(),
        }))
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full => Self::new(ErrorCode::BufferFull, "the buffer is full"),
            Refusal::Stopping => Self::new(ErrorCode::Stopping, "the daemon is stopping"),
            Refusal::DiskFull => Self::new(ErrorCode::DiskFull, "the buffer's disk is full"),
            Refusal::Failed => Self::new(ErrorCode::BufferFailed, "the buffer could not take the readings"),
        }
    }
}

impl From<StoreError> for ApiError {
    /// Logs what the client need not know. A store that is away is 503, and so is one whose tables are still to be made: the daemon is up
    /// before its migrations have run, and again while a database comes back empty. Only what should not happen is 500.
    fn from(error: StoreError) -> Self {
        if error.lacks_tables() {
            return Self::new(ErrorCode::StoreUnavailable, "the database's tables are not made yet");
        }
        match error.kind {
            StoreErrorKind::Unavailable => Self::new(ErrorCode::StoreUnavailable, "the database does not answer"),
            StoreErrorKind::NotFound => Self::new(ErrorCode::NotFound, error.message),
            StoreErrorKind::Conflict => Self::new(ErrorCode::Conflict, error.message),
            StoreErrorKind::Invalid => Self::new(ErrorCode::InvalidField, error.message),
            StoreErrorKind::Corrupt | StoreErrorKind::Moved | StoreErrorKind::Other => {
                log::error!(target: "belayd::web", errorType = error.code.as_deref().unwrap_or("-"), error = error.message.as_str(); "query failed");
                Self::new(ErrorCode::Internal, "the database refused the query")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_database_whose_tables_are_still_to_be_made_is_asked_again_later() {
        for error in [
            StoreError::from_code("42P01", "relation \"readings\" does not exist"),
            StoreError::from_code("SQLITE_ERROR", "no such table: readings"),
        ] {
            let told = ApiError::from(error);
            assert_eq!((told.status.as_u16(), told.code), (503, "store_unavailable"));
        }
        assert_eq!(ApiError::from(StoreError::from_code("SQLITE_ERROR", "near \"x\": syntax error")).status.as_u16(), 500);
    }

    #[test]
    fn every_code_is_unique_has_a_real_status_and_says_what_to_do() {
        let codes: HashSet<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes.len(), ErrorCode::ALL.len());
        assert!(Reason::all().all(|reason| !codes.contains(reason.as_str())), "a code stands in one table only");
        for code in ErrorCode::ALL {
            assert!((400..600).contains(&code.status()), "{code:?}");
            assert!(code.hint().len() > 10, "{code:?}");
            assert!(code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
    }

    #[test]
    fn limits_and_bounds_say_when_to_come_again() {
        for code in ErrorCode::ALL {
            let asks = matches!(code.status(), 429 | 503) && *code != ErrorCode::TooManySignIns;
            assert_eq!(code.retry_after_s().is_some(), asks, "{code:?}");
        }
    }

    #[test]
    fn only_a_fault_of_ours_is_a_500() {
        assert_eq!(ErrorCode::ALL.iter().filter(|code| code.status() == 500).collect::<Vec<_>>(), [&ErrorCode::Internal]);
    }

    #[test]
    fn the_body_has_the_form_of_the_interface() {
        let body: Value = serde_json::from_str(&ApiError::query("limit", "too \"high\"").body("r1")).expect("is JSON");
        let error = &body["error"];
        assert_eq!(error["code"], "invalid_query");
        assert_eq!(error["message"], "limit: too \"high\"");
        assert_eq!(error["requestId"], "r1");
        assert_eq!(error["details"][0]["parameter"], "limit");
        assert!(error["hint"].is_string());
    }
}
