//! The answers that actix gives by itself, before there is a request: to a head that cannot be read (400), is too large or has too many
//! fields (431), or comes too slowly (408). They have no body and no request id, and actix offers no way to give them any.
//!
//! In: bytes about to be sent on an HTTP/1 connection. Out: the same answer in the one form of [`super::error`]. It keeps no state.
//!
//! They are told from our own by what our own always carry: the gate gives each answer further headers, so an answer that ends what is
//! to be sent and has no headers but these three is actix's. No body of ours can end like that, because JSON, events and pages carry
//! no bare CR LF CR LF from outside.

use std::borrow::Cow;

use actix_web::http::StatusCode;
use uuid::Uuid;

use super::{
    error::{ApiError, ErrorCode},
    gate, request_id,
};

/// Longest bare answer, bytes; in truth about 90.
const MAX_BYTES: usize = 256;
const VERSION: &[u8] = b"HTTP/1.1 ";

/// Where a bare answer begins that ends `bytes`.
pub(super) fn find(bytes: &[u8]) -> Option<usize> {
    let head = bytes.strip_suffix(b"\r\n\r\n")?;
    let from = head.len().saturating_sub(MAX_BYTES);
    let at = from + head[from..].windows(VERSION.len()).rposition(|window| window == VERSION)?;
    parse(&head[at..]).map(|_| at)
}

/// Status and, where it has one, the date of a bare answer without its last four bytes.
fn parse(head: &[u8]) -> Option<(StatusCode, Option<&str>)> {
    let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let status = StatusCode::from_u16(status).ok().filter(|status| status.is_client_error() || status.is_server_error())?;
    let (mut empty, mut date) = (false, None);
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        match name {
            "content-length" if value == "0" => empty = true,
            "date" => date = Some(value),
            "connection" => {}
            _ => return None,
        }
    }
    empty.then_some((status, date))
}

/// The whole answer to send instead of the bare one that `bytes` are.
pub(super) fn replace(bytes: &[u8]) -> Vec<u8> {
    let parsed = bytes.strip_suffix(b"\r\n\r\n").and_then(parse);
    let (status, date) = parsed.unwrap_or((StatusCode::BAD_REQUEST, None));
    let error = told(status);
    let id = Uuid::now_v7().to_string();
    log::debug!(target: "belayd::web", requestId = id.as_str(), code = error.code; "refused before it was a request");
    let body = error.body(&id);
    let reason = status.canonical_reason().unwrap_or("Error");
    let mut answer = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n{}: {id}\r\nx-content-type-options: nosniff\r\n",
        status.as_u16(),
        body.len(),
        request_id::HEADER,
    );
    for (name, value) in &gate::STANDARD {
        answer.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
    }
    if let Some(date) = date {
        answer.push_str(&format!("date: {date}\r\n"));
    }
    answer.push_str("\r\n");
    answer.push_str(&body);
    answer.into_bytes()
}

fn told(status: StatusCode) -> ApiError {
    let message = match status {
        StatusCode::REQUEST_TIMEOUT => Cow::Borrowed("the head of the request did not come in time"),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            Cow::Borrowed("the head of the request is larger than 128 KB or has more than 96 fields")
        }
        StatusCode::BAD_REQUEST => Cow::Borrowed("this is no HTTP request that can be read"),
        other => Cow::Owned(other.canonical_reason().unwrap_or("the request failed").to_lowercase()),
    };
    if status == StatusCode::BAD_REQUEST {
        return ApiError::new(ErrorCode::BadRequest, message)
            .hint("Check the request line, the headers and how the body is framed.");
    }
    ApiError::of_status(status, message)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const BARE: &[u8] =
        b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\ndate: Fri, 20 Nov 2026 00:00:00 GMT\r\n\r\n";

    #[test]
    fn only_an_answer_without_the_gates_headers_is_bare() {
        assert_eq!(find(BARE), Some(0));
        let behind = [b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}".as_slice(), BARE].concat();
        assert_eq!(find(&behind), Some(behind.len() - BARE.len()), "behind an answer of ours");
        for ours in [
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nx-content-type-options: nosniff\r\n\r\n",
            "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\ndate: x\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nx",
            "0\r\n\r\n",
            "\r\n\r\n",
            "",
        ] {
            assert_eq!(find(ours.as_bytes()), None, "{ours}");
        }
    }

    #[test]
    fn the_answer_in_its_place_has_the_one_form() {
        let text = String::from_utf8(replace(BARE)).expect("is text");
        let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
        assert!(head.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{head}");
        assert!(head.contains("\r\ndate: Fri, 20 Nov 2026 00:00:00 GMT") && head.contains("\r\nconnection: close"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        let body: Value = serde_json::from_str(body).expect("is JSON");
        assert_eq!(body["error"]["code"], "request_timeout");
        let id = body["error"]["requestId"].as_str().expect("an id");
        assert!(head.contains(&format!("x-request-id: {id}\r\n")), "{head}");
        assert_eq!(find(text.as_bytes()), None, "it is not replaced again");
    }
}
