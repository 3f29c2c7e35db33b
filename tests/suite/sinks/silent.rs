//! Receivers that take a request and say nothing, for as long as the test lasts: no transaction is open meanwhile, in neither store, so
//! that nobody waits for the network of somebody else.

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use diesel::{
    Connection, PgConnection, QueryableByName, RunQueryDsl, SqliteConnection,
    connection::SimpleConnection,
    sql_query,
    sql_types::{BigInt, Integer},
};
use serde_json::json;

use super::{QUICK, overheat};
use crate::support::{
    daemon::{Daemon, Setup},
    left_out,
    postgres::{self, Postgres},
};

const LIMIT: Duration = Duration::from_secs(60);
/// Ways that are tried, each with a message and with an alert.
const WAYS: [&str; 5] = ["slack", "discord", "hook", "bot", "smtp"];
/// Deliveries on their way.
const SENDING: &str = "SELECT CAST(COALESCE(SUM(remaining), 0) AS BIGINT) AS n FROM delivery_claims";
/// As somebody does who has to do with the same rows.
const TOUCH: &str = "UPDATE deliveries SET updated_at_us = updated_at_us WHERE state = 'ready'";

/// Takes connections, keeps them and never answers.
struct Silent {
    address: String,
    taken: Arc<Mutex<Vec<TcpStream>>>,
}

impl Silent {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (address, taken) = (listener.local_addr().expect("bound").to_string(), Arc::<Mutex<Vec<TcpStream>>>::default());
        let kept = taken.clone();
        thread::spawn(move || listener.incoming().flatten().for_each(|socket| kept.lock().expect("no panic").push(socket)));
        Self { address, taken }
    }

    fn taken(&self) -> usize {
        self.taken.lock().expect("no panic").len()
    }
}

fn hanging(silent: &Silent) -> String {
    let url = format!("http://{}", silent.address);
    format!(
        "{QUICK}[slack]\nurl = \"{url}/slack\"\ntimeout = \"10m\"\n[discord]\nurl = \"{url}/discord\"\ntimeout = \"10m\"\n\
         [[webhooks]]\nname = \"hook\"\nurl = \"{url}/hook\"\ntimeout = \"10m\"\n\
         [smtp]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nfrom = \"belayd@example.org\"\nto = \"ops@example.org\"\ntimeout = \"45s\"\n\
         [[bots]]\nname = \"bot\"\nurl = \"{url}/bot\"\ntoken = \"x\"\nroom = \"r\"\ntimeout = \"10m\"\n\
         [[rules]]\nname = \"overheat\"\nmetric = \"temperature\"\nop = \">\"\nthreshold = 350.0\nlevel = \"CRITICAL\"\n\
         [[routes]]\nkinds = [\"rule\"]\nsinks = [\"slack\", \"discord\", \"hook\", \"bot\", \"smtp\"]\n",
        silent.address.rsplit(':').next().expect("a port")
    )
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

#[derive(QueryableByName)]
struct Checkpoint {
    #[diesel(sql_type = Integer)]
    busy: i32,
}

fn sqlite(path: &Path) -> SqliteConnection {
    let mut conn = SqliteConnection::establish(path.to_str().expect("a plain path")).expect("the database opens");
    conn.batch_execute("PRAGMA busy_timeout = 20000").expect("a pragma");
    conn
}

/// Neither a writer nor a reader has a transaction open: the write lock is free, and the log can be begun anew.
fn sqlite_is_free(path: &Path) {
    let mut conn = sqlite(path);
    let at_once = format!("BEGIN IMMEDIATE; {TOUCH}; COMMIT");
    conn.batch_execute(&at_once).unwrap_or_else(|error| panic!("{}: a writer waits for a receiver: {error}", path.display()));
    let log: Checkpoint = sql_query("PRAGMA wal_checkpoint(RESTART)").get_result(&mut conn).expect("a pragma");
    assert_eq!(log.busy, 0, "{}: a reader's transaction stays open", path.display());
}

/// No session of the daemon stays in a transaction, and its rows are nobody's.
fn postgres_is_free(daemon: &Daemon, url: &str) {
    let mut conn = PgConnection::establish(url).expect("the server answers");
    let waiting = "SELECT COUNT(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
                   AND state LIKE 'idle in transaction%'";
    // One between two statements of its transaction is gone at the next look; one that waits for a receiver stays.
    daemon.wait_for("out of every transaction", LIMIT, |_| {
        sql_query(waiting).get_result::<Number>(&mut conn).expect("a count").n == 0
    });
    conn.batch_execute("SET lock_timeout = '20s'").expect("a setting");
    let touched = sql_query(TOUCH).execute(&mut conn).expect("nobody holds the rows");
    assert_eq!(touched, WAYS.len());
}

#[test]
fn no_transaction_is_open_while_a_receiver_keeps_a_sender_waiting() {
    let mut databases = vec![("sqlite://belayd.db".to_owned(), None)];
    if postgres::is_installed() {
        let server = Postgres::start(&[]);
        databases.push((server.new_database("silent"), Some(server)));
    } else {
        left_out("silent receivers on PostgreSQL, because it is not installed (tests/run installs it)");
    }
    for (url, _server) in databases {
        let silent = Silent::start();
        let daemon = Setup::with(&hanging(&silent)).store(&url).start();
        let (store, control) = (daemon.dir().join("belayd.db"), daemon.dir().join("data/control.db"));
        let is_pg = url.starts_with("postgres:");
        let in_store = || {
            if is_pg {
                let mut conn = PgConnection::establish(&url).expect("the server answers");
                return sql_query(SENDING).get_result::<Number>(&mut conn).expect("a count").n;
            }
            sql_query(SENDING).get_result::<Number>(&mut sqlite(&store)).expect("a count").n
        };
        let in_control = || sql_query(SENDING).get_result::<Number>(&mut sqlite(&control)).expect("a count").n;
        let all = WAYS.len() as i64;

        overheat(&daemon, "engine-1");
        for via in WAYS {
            let mut message = json!({"via": via, "subject": "s", "body": "b"});
            match via {
                "bot" => message["to"] = json!(["r"]),
                "smtp" => message["to"] = json!(["kim@example.org"]),
                _ => {}
            }
            let made = daemon.post("/api/messages", &message.to_string());
            assert_eq!(made.status, 202, "{made:?}");
        }
        daemon
            .wait_for("all are on their way", LIMIT, |_| (in_store(), in_control(), silent.taken()) == (all, all, 2 * WAYS.len()));

        sqlite_is_free(&control);
        if is_pg {
            postgres_is_free(&daemon, &url)
        } else {
            sqlite_is_free(&store)
        }
        // The daemon's own writers go on as well, in both stores.
        let stored = daemon.post("/api/readings?ack=store", r#"{"engineId":"e2","rpm":1}"#);
        assert_eq!((stored.status, stored.json()["ack"].as_str()), (202, Some("store")), "{stored:?}");
        let told = daemon.post("/api/messages", r#"{"via":"log","subject":"s","body":"b"}"#).json();
        let path = format!("/api/messages/{}", told["id"].as_str().expect("an id"));
        daemon.wait_for("another message is sent", LIMIT, |daemon| daemon.get(&path).json()["status"] == "sent");
        assert_eq!(daemon.post("/api/issues", r#"{"title":"bearing"}"#).status, 201);
        let tested = daemon.post("/admin/sinks/log/test", r#"{"reason":"in the control store"}"#);
        let path = format!("/admin/failures/{}", tested.json()["deliveryId"].as_str().expect("an id"));
        daemon.wait_for("the test is sent", LIMIT, |daemon| daemon.get(&path).json()["state"] == "sent");

        assert_eq!((in_store(), in_control()), (all, all), "the receivers have not answered yet");
    }
}
