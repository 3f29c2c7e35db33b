//! What is committed is heard of at once and not at the next poll: by the daemon that took it, and, on PostgreSQL, by every other on the
//! same database.

use std::{
    thread,
    time::{Duration, Instant},
};

use belayd::{
    config::{Config, OnUnknown},
    store::{
        Store,
        deliveries::{self, NewDelivery},
    },
};
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query, sql_types::Text};

use super::{Receiver, databases, plain, ready, send};
use crate::support::daemon::Setup;

/// All but one of so many must be quick; by a poll each 5 s one in five would be, by chance.
const TRIALS: u64 = 6;
const QUICK: Duration = Duration::from_secs(1);
/// Well beyond the poll.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(QueryableByName)]
struct Payload {
    #[diesel(sql_type = Text)]
    payload: String,
}

/// How many of the deliveries whose ids `hand_in` returns arrive soon.
fn quick(receiver: &Receiver, mut hand_in: impl FnMut(u64) -> String) -> u64 {
    let is_quick = |n: &u64| {
        // Polls come at another moment each time.
        thread::sleep(Duration::from_millis(150 + 310 * n));
        let began = Instant::now();
        let id = hand_in(*n);
        loop {
            if let Some((_, _, at)) = receiver.messages().into_iter().find(|(heard, _, _)| *heard == id) {
                return at.saturating_duration_since(began) < QUICK;
            }
            assert!(began.elapsed() < LIMIT, "{id} does not arrive");
            thread::sleep(Duration::from_millis(5));
        }
    };
    (0..TRIALS).filter(is_quick).count() as u64
}

#[test]
fn what_is_handed_in_is_sent_at_once_and_not_at_the_next_poll() {
    for (url, server) in databases() {
        let receiver = Receiver::start(200);
        let more = format!("[outbox]\npoll_interval = \"5s\"\n{}", receiver.section("hook"));
        let daemon = ready(&Setup::with(&more).store(&url));
        let by_request = quick(&receiver, |n| {
            let answer = send(&daemon, &plain("hook", &format!("request {n}")));
            answer.json()["deliveries"][0]["id"].as_str().expect("an id").to_owned()
        });
        assert!(by_request >= TRIALS - 1, "{url}: {by_request} of {TRIALS} were sent soon");
        if server.is_none() {
            continue;
        }
        // Another process adds what is like it, and belayd hears of it from the database alone.
        let mut config = Config::default().store;
        config.url.clone_from(&url);
        let store = Store::open(&config).expect("a valid URL");
        let mut direct = PgConnection::establish(&url).expect("the server answers");
        let one: Payload = sql_query("SELECT payload FROM deliveries LIMIT 1").get_result(&mut direct).expect("there are some");
        let by_another = quick(&receiver, |n| {
            let id = format!("00000000-0000-4000-8000-{n:012}");
            let new = NewDelivery {
                id: id.clone(),
                sink: "hook".into(),
                lane: format!("another/{n}"),
                subject: "another".into(),
                payload: one.payload.clone(),
                due_at_us: 0,
                max_attempts: 3,
                on_unknown: OnUnknown::Review,
                recipient: String::new(),
            };
            store.with(|conn| conn.write(|conn| deliveries::enqueue(conn, &[new], 1))).expect("it is taken");
            id
        });
        assert!(by_another >= TRIALS - 1, "{by_another} of {TRIALS} that another process added were sent soon");
    }
}
