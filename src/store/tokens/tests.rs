//! Tokens and sessions: shown once, known at once, gone at once.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    clock::ManualClock,
    store::{Store, control::tests::scratch},
};

fn book(store: &Store, clock: &Arc<ManualClock>) -> TokenBook {
    TokenBook::open(store.clone(), clock.clone()).expect("opens")
}

const HOUR: Duration = Duration::from_secs(3_600);
const HOUR_US: i64 = 3_600_000_000;

#[tokio::test]
async fn a_token_made_through_the_book_is_good_at_once_and_gone_at_once() {
    let (_dir, store) = scratch();
    let clock = ManualClock::at(1_000);
    let book = book(&store, &clock);
    let made = book.create("pump", Role::Ingest, None).await.expect("made");
    assert_eq!(made.text.len(), TOKEN_CHARS);
    assert!(!format!("{made:?}").contains(&made.text), "the secret is not in the debug form");
    let principal = book.verify(&made.text).expect("known");
    assert_eq!((principal.name.as_str(), principal.role), ("pump", Role::Ingest));
    assert_eq!(book.verify(&made.text.replace("bly_", "blx_")), None);
    assert_eq!(book.verify(&format!("bly_{}", "A".repeat(43))), None);
    let changes = book.changes();
    book.revoke("pump").await.expect("revoked");
    assert!(changes.has_changed().expect("the book lives"));
    assert_eq!(book.verify(&made.text), None);
    assert_eq!(book.revoke("pump").await.map_err(|error| error.kind), Err(StoreErrorKind::NotFound));
    book.create("pump", Role::Viewer, None).await.expect("a revoked name is free again");
}

#[tokio::test]
async fn the_same_name_twice_is_refused_with_what_to_do() {
    let (_dir, store) = scratch();
    let book = book(&store, &ManualClock::at(1));
    book.create("pump", Role::Ingest, None).await.expect("made");
    let error = book.create("pump", Role::Admin, None).await.expect_err("taken");
    assert_eq!(error.kind, StoreErrorKind::Conflict);
    assert!(error.message.contains("revoke it first"), "{error}");
    assert_eq!(book.create("no spaces", Role::Admin, None).await.map_err(|error| error.kind), Err(StoreErrorKind::Invalid));
}

#[tokio::test]
async fn a_token_made_on_the_command_line_is_known_at_the_next_start_and_expires() {
    let (_dir, store) = scratch();
    let clock = ManualClock::at(1_000);
    let made = store.with(|conn| create(conn, "cli", Role::Admin, Some(1_000 + HOUR_US), 1_000)).expect("made");
    let book = book(&store, &clock);
    assert!(book.verify(&made.text).is_some());
    clock.advance_us(HOUR_US);
    assert!(book.verify(&made.text).is_none());
    assert!(!book.is_live(&made.info.id));
}

#[tokio::test]
async fn a_session_ends_by_time_by_logout_and_with_its_token() {
    let (_dir, store) = scratch();
    let clock = ManualClock::at(1_000);
    let book = book(&store, &clock);
    let token = book.create("kim", Role::Operator, None).await.expect("made");
    let cookie = book.open_session(&token.info.id, HOUR).await.expect("opened");
    assert_eq!(book.verify_session(&cookie).map(|principal| principal.role), Some(Role::Operator));
    assert_eq!(book.verify(&cookie), None, "a cookie is no token");
    let restarted = self::book(&store, &clock);
    assert!(restarted.verify_session(&cookie).is_some(), "a restart signs nobody out");
    book.close_session(&cookie).await.expect("closed");
    assert!(book.verify_session(&cookie).is_none());
    let second = book.open_session(&token.info.id, HOUR).await.expect("opened");
    clock.advance_us(HOUR_US);
    assert!(book.verify_session(&second).is_none());
    let third = book.open_session(&token.info.id, HOUR).await.expect("opened");
    book.revoke("kim").await.expect("revoked");
    assert!(book.verify_session(&third).is_none());
    assert!(book.open_session(&token.info.id, HOUR).await.is_err());
    assert_eq!(store.with(|conn| crate::store::sessions::prune(conn, i64::MAX)), Ok(0), "revoking removed the rows too");
}

#[tokio::test]
async fn the_last_use_is_written_when_asked_and_only_once() {
    let (_dir, store) = scratch();
    let clock = ManualClock::at(5_000);
    let book = book(&store, &clock);
    let token = book.create("pump", Role::Ingest, None).await.expect("made");
    assert_eq!(book.note_uses().await, Ok(0));
    book.verify(&token.text);
    assert_eq!((book.note_uses().await, book.note_uses().await), (Ok(1), Ok(0)));
    assert_eq!(book.list().await.expect("lists")[0].last_used_at_us, Some(5_000));
}

#[test]
fn a_token_that_would_be_over_at_once_is_not_made() {
    let (_dir, store) = scratch();
    let made = store.with(|conn| super::create(conn, "a", Role::Viewer, Some(5), 5));
    assert_eq!(made.map(|made| made.info).unwrap_err().kind, StoreErrorKind::Invalid);
}

#[test]
fn old_tokens_are_pruned_and_live_ones_stay() {
    let (_dir, store) = scratch();
    store
        .with(|conn| {
            create(conn, "live", Role::Viewer, None, 1)?;
            create(conn, "expired", Role::Viewer, Some(10), 1)?;
            create(conn, "revoked", Role::Viewer, None, 1)?;
            revoke(conn, "revoked", 5)?;
            assert_eq!((prune(conn, 5)?, prune(conn, 11)?), (0, 2));
            assert_eq!(list(conn)?.len(), 1);
            Ok(())
        })
        .expect("works");
}
