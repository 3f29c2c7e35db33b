//! The id of a request: the client's own where it is sane, else a new UUIDv7. Made only when someone asks for it, because most
//! pushes never need one.

use actix_web::{HttpMessage, HttpRequest, http::header::HeaderName};
use uuid::Uuid;

/// The header in both directions.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken over from a client, bytes.
const MAX_BYTES: usize = 128;

/// Kept with the request once it is known.
#[derive(Clone)]
struct RequestId(String);

/// The client's own id, where it sent one that can stand in a log line and a header as it is.
pub fn incoming(request: &HttpRequest) -> Option<&str> {
    let id = request.headers().get(HEADER)?.to_str().ok()?;
    let sane = (1..=MAX_BYTES).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'='));
    sane.then_some(id)
}

/// The id of this request; the same at every call.
pub fn request_id(request: &HttpRequest) -> String {
    if let Some(known) = request.extensions().get::<RequestId>() {
        return known.0.clone();
    }
    let id = incoming(request).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    request.extensions_mut().insert(RequestId(id.clone()));
    id
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_sane_id_is_kept_and_a_strange_one_replaced() {
        let request = TestRequest::default().insert_header((HEADER, "abc-1.2:3")).to_http_request();
        assert_eq!(request_id(&request), "abc-1.2:3");
        for strange in ["", "a b", "x\"y", &"x".repeat(129)] {
            let request = TestRequest::default().insert_header((HEADER, strange)).to_http_request();
            let id = request_id(&request);
            assert!(Uuid::parse_str(&id).is_ok(), "{strange} -> {id}");
            assert_eq!(request_id(&request), id, "the same at every call");
        }
    }
}
