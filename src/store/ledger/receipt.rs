//! What has become of one number.

use diesel::prelude::*;

use super::Ranges;
use crate::{
    domain::receipt::{ReceiptState, StreamId},
    store::{
        Conn, StoreResult,
        schema::{batches, reading_failures, streams},
    },
};

/// Where a number stands as far as the database knows. A number beyond the cursor of an open stream is still on its way to it.
///
/// # Errors
/// Those of the database.
pub fn receipt_state(conn: &mut Conn, stream: StreamId, seq: u64) -> StoreResult<ReceiptState> {
    let Ok(seq) = i64::try_from(seq) else { return Ok(ReceiptState::Unknown) };
    let stream = stream.to_string();
    conn.read(|conn| {
        let known: Option<(i64, i64, Option<String>)> = streams::table
            .filter(streams::stream.eq(&stream))
            .select((streams::cursor_seq, streams::pruned_seq, streams::closing))
            .first(conn)
            .optional()?;
        let Some((cursor, pruned, closing)) = known else { return Ok(ReceiptState::Unknown) };
        if seq < 1 {
            return Ok(ReceiptState::Unknown);
        }
        if seq > cursor {
            return Ok(match closing.as_deref() {
                None => ReceiptState::Buffered,
                // What a forked stream had waiting goes on under another one, and the medium knows it; the rest is in no medium.
                Some("cut" | "forked") => ReceiptState::Lost,
                Some(_) => ReceiptState::Unknown,
            });
        }
        if let Some(state) = failed_state(conn, &stream, seq)? {
            return Ok(state);
        }
        if seq <= pruned {
            return Ok(ReceiptState::Settled);
        }
        settled_state(conn, &stream, seq)
    })
}

fn failed_state(conn: &mut Conn, stream: &str, seq: i64) -> StoreResult<Option<ReceiptState>> {
    let failure: Option<(String, String)> = reading_failures::table
        .filter(reading_failures::stream.eq(stream))
        .filter(reading_failures::seq.eq(seq))
        .select((reading_failures::kind, reading_failures::state))
        .first(conn)
        .optional()?;
    Ok(failure.map(|(kind, state)| match (state.as_str(), kind.as_str()) {
        ("retried", _) => ReceiptState::Stored,
        ("discarded", _) => ReceiptState::Discarded,
        (_, "dead") => ReceiptState::Dead,
        _ => ReceiptState::Conflict,
    }))
}

fn settled_state(conn: &mut Conn, stream: &str, seq: i64) -> StoreResult<ReceiptState> {
    let row: Option<(i64, i64, Option<String>, Option<String>)> = batches::table
        .filter(batches::stream.eq(stream))
        .filter(batches::first_seq.le(seq))
        .order(batches::first_seq.desc())
        .select((batches::first_seq, batches::last_seq, batches::exceptions, batches::gap))
        .first(conn)
        .optional()?;
    Ok(match row {
        Some((_, last, _, Some(gap))) if seq <= last => match gap.as_str() {
            "quarantined" => ReceiptState::Quarantined,
            "void" => ReceiptState::Void,
            _ => ReceiptState::Lost,
        },
        Some((first, last, exceptions, None)) if seq <= last => {
            let duplicates = Ranges::parse(exceptions.as_deref().unwrap_or_default());
            if duplicates.contains(seq - first) { ReceiptState::Duplicate } else { ReceiptState::Stored }
        }
        _ => ReceiptState::Unknown,
    })
}
