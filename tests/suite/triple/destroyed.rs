//! Each of the three media is destroyed in turn, with belayd killed in between.

use super::*;

#[test]
fn the_journal_is_deleted_while_only_it_and_redis_have_the_readings() {
    if !redis::is_installed() || !postgres::is_installed() {
        return;
    }
    let server = Redis::start(&["--appendfsync everysec"]);
    let mut database = Postgres::start(&[]);
    let mut daemon = on(&server).store(&database.url("postgres")).start();
    wait_whole(&daemon);
    let told = Arc::new(Told::default());
    run_for(&daemon, &told, 3, || wait_told(&daemon, &told, 100));
    database.crash();
    let stop = sending(&daemon, &told);
    daemon.wait_for("answered by the journal", LONG, |_| told.at("journal") >= 300);
    daemon.kill();
    fs::remove_dir_all(daemon.dir().join("data/journal")).expect("the journal can be deleted");
    daemon.spawn();
    daemon.wait_for("alive", LONG, |daemon| daemon.get("/healthz").status == 200);
    let before = told.total();
    wait_told(&daemon, &told, before + 50);
    stop();
    database.restart();
    wait_whole(&daemon);
    assert_whole(&daemon, &told);
}

#[test]
fn the_database_is_replaced_by_an_empty_one() {
    if !redis::is_installed() || !postgres::is_installed() {
        return;
    }
    let server = Redis::start(&["--appendfsync everysec"]);
    let database = Postgres::start(&[]);
    let daemon = on(&server).store(&database.url("postgres")).start();
    wait_whole(&daemon);
    let told = Arc::new(Told::default());
    let stop = sending(&daemon, &told);
    wait_told(&daemon, &told, 300);
    // Everything that belayd made there is gone from one moment to the next.
    empty(&database);
    let before = told.total();
    wait_told(&daemon, &told, before + 100);
    stop();
    wait_whole(&daemon);
    assert_whole(&daemon, &told);
}

/// Drops and makes the schema anew, as a person would who puts an empty database in place.
fn empty(database: &Postgres) {
    use diesel::{Connection, PgConnection, connection::SimpleConnection};
    let mut connection = PgConnection::establish(&database.url("postgres")).expect("PostgreSQL answers");
    let text = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database(); \
                DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO public";
    connection.batch_execute(text).expect("the schema is dropped");
}

#[test]
fn the_database_is_deleted_and_the_journal_holds_no_more_than_its_tail() {
    if !redis::is_installed() {
        return;
    }
    let server = Redis::start(&["--appendfsync everysec"]);
    // Segments of 1 MB, so that the oldest are dropped soon.
    let mut daemon = with(&server, "journal_bytes = \"8MB\"\n").start();
    wait_whole(&daemon);
    let told = Arc::new(Told::default());
    let client = Client::new(&daemon.address, &daemon.token);
    for _ in 0..60 {
        told.push(&client, 1_000);
    }
    wait_copied(&daemon);
    daemon.kill();
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(daemon.dir().join(format!("belayd.db{end}")));
    }
    daemon.start_again();
    wait_whole(&daemon);
    assert_whole(&daemon, &told);
    told.push(&client_of(&daemon), 10);
    assert_whole(&daemon, &told);
}

fn client_of(daemon: &Daemon) -> Client {
    Client::new(&daemon.address, &daemon.token)
}

#[test]
fn redis_is_deleted_while_the_database_is_away_and_belayd_is_killed() {
    if !redis::is_installed() || !postgres::is_installed() {
        return;
    }
    let mut server = Redis::start(&["--appendfsync everysec"]);
    let mut database = Postgres::start(&[]);
    let mut daemon = on(&server).store(&database.url("postgres")).start();
    wait_whole(&daemon);
    let told = Arc::new(Told::default());
    run_for(&daemon, &told, 3, || wait_told(&daemon, &told, 100));
    database.crash();
    let stop = sending(&daemon, &told);
    daemon.wait_for("answered by the journal", LONG, |_| told.at("journal") >= 300);
    server.kill();
    server.delete_data();
    daemon.kill();
    daemon.spawn();
    daemon.wait_for("alive", LONG, |daemon| daemon.get("/healthz").status == 200);
    server.restart();
    let before = told.total();
    wait_told(&daemon, &told, before + 50);
    stop();
    database.restart();
    wait_whole(&daemon);
    assert_whole(&daemon, &told);
    wait_copied(&daemon);
}
