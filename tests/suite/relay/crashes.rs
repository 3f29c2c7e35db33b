//! belayd killed again and again under load, with commits of the database that fail: each stored reading once in Kafka, and nothing that
//! was not committed.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{body, databases, relayed, setup};
use crate::support::{daemon::Daemon, kafka::Kafka, reader::Reader, rows};

/// Kills for each database.
const KILLS: u32 = 12;

#[test]
fn a_daemon_that_is_killed_again_and_again_relays_each_stored_reading_once() {
    let Some(kafka) = Kafka::start() else { return };
    for (nth, (database, _server)) in databases().iter().enumerate() {
        let topic = format!("engine-{nth}");
        let mut setup = setup(&kafka, "").store(database);
        setup.more = setup.more.replace("\"engine\"", &format!("\"{topic}\""));
        let mut daemon = setup.start();
        let reader = Reader::start(&kafka.client(), &topic);
        let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let sender = {
            let (stop, next, address, token) = (stop.clone(), next.clone(), daemon.address.clone(), daemon.token.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    let from = next.load(Ordering::Acquire);
                    // The same again until it is acknowledged: what was taken unheard is a duplicate then, stored once.
                    if push_once(&address, &token, &body(from, 100, 23)) {
                        next.store(from + 100, Ordering::Release);
                    }
                }
            })
        };
        for kill in 0..KILLS {
            let at = next.load(Ordering::Acquire);
            let pause = Duration::from_millis(150 + u64::from(kill * 97 % 500));
            let until = Instant::now() + pause;
            while Instant::now() < until || next.load(Ordering::Acquire) < at + 300 {
                assert!(Instant::now() < until + Duration::from_secs(30), "the daemon takes nothing:\n{}", daemon.log());
                std::thread::sleep(Duration::from_millis(5));
            }
            daemon.kill();
            daemon.start_again();
        }
        stop.store(true, Ordering::Release);
        sender.join().expect("the sender");
        relayed(&daemon);
        let stored = stored(&daemon, database);
        reader.wait_for(stored.len(), Duration::from_secs(60));
        compare(&reader, &stored);
        reader.check_order();
        assert!(stored.len() as u64 >= next.load(Ordering::Acquire), "{} of {}", stored.len(), next.load(Ordering::Acquire));
        daemon.stop();
    }
}

/// Every stored reading by stream and number.
fn stored(daemon: &Daemon, database: &str) -> HashMap<(String, u64), String> {
    let url = if database.starts_with("sqlite") {
        format!("sqlite://{}", daemon.dir().join("belayd.db").display())
    } else {
        database.to_owned()
    };
    rows::numbered(&url).into_iter().map(|(stream, seq, engine)| ((stream, seq), engine)).collect()
}

fn compare(reader: &Reader, stored: &HashMap<(String, u64), String>) {
    let read = reader.by_number();
    let twice: Vec<_> = read.iter().filter(|(_, count)| **count > 1).take(5).collect();
    let missing: Vec<_> = stored.keys().filter(|number| !read.contains_key(*number)).take(5).collect();
    let made_up: Vec<_> = read.keys().filter(|number| !stored.contains_key(*number)).take(5).collect();
    assert!(
        twice.is_empty() && missing.is_empty() && made_up.is_empty(),
        "stored {}, read {}; twice {twice:?}, missing {missing:?}, never committed {made_up:?}",
        stored.len(),
        read.len()
    );
}

/// One push, given up after 5 s; whether it was acknowledged.
fn push_once(address: &str, token: &str, body: &str) -> bool {
    use std::io::{Read, Write};
    let attempt = || -> std::io::Result<bool> {
        let mut socket = std::net::TcpStream::connect(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(
            socket,
            "POST /api/readings HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 202"))
    };
    let taken = attempt().unwrap_or(false);
    if !taken {
        std::thread::sleep(Duration::from_millis(20));
    }
    taken
}

/// A database that refuses commits at random: a trigger of its own, deferred to the end of the transaction.
#[test]
fn nothing_is_relayed_of_transactions_that_were_rolled_back() {
    let Some(kafka) = Kafka::start() else { return };
    let Some(server) = super::server() else { return };
    let database = server.new_database("refusing");
    let daemon = setup(&kafka, "").store(&database).start();
    super::push(&daemon, &body(9_000, 1, 1), "?ack=store");
    // Every second or so transaction is refused when it commits, after all that it has written.
    rows::execute(
        &database,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF random() < 0.5 THEN RAISE EXCEPTION 'not today' USING ERRCODE = '40001'; END IF; RETURN NULL; END $$",
    );
    rows::execute(
        &database,
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON batches DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    let reader = Reader::start(&kafka.client(), "engine");
    for n in 0..40 {
        super::push(&daemon, &body(n * 50, 50, 5), "");
        std::thread::sleep(Duration::from_millis(25));
    }
    relayed(&daemon);
    let stored = stored(&daemon, &database);
    assert_eq!(stored.len(), 2_001);
    reader.wait_for(2_001, Duration::from_secs(30));
    compare(&reader, &stored);
    assert!(daemon.log().contains("database is away"), "some commits were refused");
}
