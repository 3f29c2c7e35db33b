//! What a receiver answered, in its own words: on the page of the failure and in the timeline of the message, as text whatever it says.

use std::time::Duration;

use serde_json::json;

use super::work::Desk;
use crate::support::web_receiver::{Receiver, Reply};

/// Would be markup if anything let it.
const REFUSED: &str = "no such room <img src=x onerror=window.broken=1> & so on";
const TAKEN: &str = "taken as number 7 <b>really</b>";

#[tokio::test]
async fn the_receivers_words_stand_where_a_person_looks_for_what_became_of_a_message() {
    let Some(desk) = Desk::set().await else { return };
    let _receiver = Receiver::start_at(&desk.nobody, |before, _| match before {
        0 => Reply::Say("422 Unprocessable Entity", "Content-Type: text/plain\r\n", REFUSED),
        _ => Reply::Say("200 OK", "Content-Type: text/plain\r\n", TAKEN),
    });
    let sent = |state: &str| {
        let made =
            desk.daemon.post("/api/messages", &json!({"via": "hook", "subject": "a message", "body": "x"}).to_string()).json();
        let id = made["id"].as_str().expect("an id").to_owned();
        desk.daemon.wait_for(state, Duration::from_secs(30), |daemon| {
            daemon.get(&format!("/api/messages/{id}")).json()["deliveries"][0]["state"] == state
        });
        (id, made["deliveries"][0]["id"].as_str().expect("a delivery").to_owned())
    };
    let (refused, failure) = sent("dead");
    let (taken, _) = sent("sent");

    desk.open(&format!("/failures#{failure}")).await;
    desk.until("document.querySelector('#entry-body h2') !== null").await;
    let shown = desk.text("#entry-body").await;
    assert!(shown.contains(REFUSED) && shown.contains("422"), "{shown}");
    desk.open(&format!("/messages#{refused}")).await;
    desk.until("document.querySelectorAll('#entry-body .card').length === 1").await;
    let shown = desk.text("#entry-body .card").await;
    assert!(shown.contains(REFUSED) && shown.contains("422"), "{shown}");
    desk.open(&format!("/messages#{taken}")).await;
    desk.until("document.querySelectorAll('#entry-body .card .answer').length === 1").await;
    let shown = desk.text("#entry-body .card .answer").await;
    assert!(shown.contains(TAKEN) && shown.contains("200"), "{shown}");
    desk.clear(&[]).await;
}
