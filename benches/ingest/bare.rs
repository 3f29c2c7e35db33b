//! The same pushes to the least that answers them durably: actix-web, belayd's parser, one thread that appends what waits to a file and
//! syncs it once for all. No rules, no numbers, no database: what a machine gives this much is what belayd's figures are to be held against.
//!
//! It runs in a process of its own, as the daemon does, so that its processor time can be told from the generator's.

use std::{
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom, Write},
    os::fd::AsRawFd,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use actix_web::{App, HttpResponse, HttpServer, http::StatusCode, web};
use belayd::{
    clock::{ArrivalClock, SystemClock},
    config::ReadingsConfig,
    ingest::parse::{BodyKind, ParseContext, parse_body},
};
use tokio::sync::oneshot;

use crate::{
    host,
    load::{Load, Outcome},
    report::{Figure, Scenario, plain},
    setup::{Bench, SENDERS},
};

/// The argument that makes this program the server: a directory and the microseconds that a commit waits for company follow.
pub const SERVE: &str = "--bare-server";
/// The file is written anew from its beginning at this length, so that a long run needs no more disk than a short one.
const FILE_BYTES: u64 = 256 * 1024 * 1024;
/// As many threads as belayd's own server has on two cores.
const WORKERS: usize = 2;
/// What a commit waits where single pushes come slowly enough to gather.
const GATHER: Duration = Duration::from_millis(1);

pub const PUSH_100: Scenario = Scenario {
    name: "bare-100",
    what: "what ack-100 asks, of parser, one hop and group commit alone",
    once: false,
    run: |bench| closed(bench, 16, 100),
};
pub const PUSH_1000: Scenario = Scenario {
    name: "bare-1000",
    what: "what ack-1000 asks, of parser, one hop and group commit alone",
    once: false,
    run: |bench| closed(bench, 16, 1_000),
};
pub const SINGLE_16: Scenario = Scenario {
    name: "bare-single-16",
    what: "what ack-single-16 asks, of parser, one hop and group commit alone",
    once: false,
    run: |bench| closed(bench, 16, 1),
};
pub const SINGLE_64: Scenario = Scenario {
    name: "bare-single-64",
    what: "what ack-single-64 asks, of parser, one hop and group commit alone",
    once: false,
    run: |bench| closed(bench, 64, 1),
};
pub const OFFERED_5000: Scenario = Scenario {
    name: "bare-offered-5000",
    what: "what offered-5000 asks, of parser, one hop and group commit alone, which waits 1 ms for company",
    once: false,
    run: |bench| offered(bench, 5_000, GATHER),
};
pub const OFFERED_10000: Scenario = Scenario {
    name: "bare-offered-10000",
    what: "what offered-10000 asks, of parser, one hop and group commit alone",
    once: false,
    run: |bench| offered(bench, 10_000, Duration::ZERO),
};

fn closed(bench: &mut Bench, connections: usize, push: usize) -> Vec<Figure> {
    let server = Server::start(Duration::ZERO);
    let cpu = server.cpu();
    let outcome = server.load(connections, push).closed(bench.length());
    figures(&server, cpu, &outcome)
}

fn offered(bench: &mut Bench, rate: u64, gather: Duration) -> Vec<Figure> {
    let server = Server::start(gather);
    let cpu = server.cpu();
    let outcome = server.load(SENDERS, 1).open(rate, bench.length());
    figures(&server, cpu, &outcome)
}

/// What it came to, by a server that had used `cpu` before.
fn figures(server: &Server, cpu: Duration, outcome: &Outcome) -> Vec<Figure> {
    vec![
        plain("readings/s", outcome.readings_per_s()),
        plain("requests/s", outcome.requests_per_s()),
        plain("answer p50, ms", outcome.ms(0.5)),
        plain("answer p99, ms", outcome.ms(0.99)),
        plain("server, % of a core", (server.cpu() - cpu).as_secs_f64() / outcome.took.as_secs_f64() * 100.0),
    ]
}

/// The other process; it ends with this value.
struct Server {
    child: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start(gather: Duration) -> Self {
        // On the disk of the working directory, as the daemons' journals.
        let dir = tempfile::tempdir_in(".").expect("the working directory can be written");
        let program = std::env::current_exe().expect("the path of this program");
        let mut child = Command::new(program)
            .args([SERVE, &dir.path().display().to_string(), &gather.as_micros().to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs once more");
        let mut address = String::new();
        let told = BufReader::new(child.stdout.take().expect("its words are ours")).read_line(&mut address);
        assert!(told.is_ok_and(|length| length > 0), "the other process tells its address");
        Self { child, address: address.trim().to_owned(), _dir: dir }
    }

    fn load(&self, connections: usize, push: usize) -> Load {
        Load { address: self.address.clone(), token: "none".to_owned(), connections, push, dated: false }
    }

    fn cpu(&self) -> Duration {
        host::cpu_of(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A body that waits for its sync, and whom to tell.
type Waiting = (web::Bytes, oneshot::Sender<()>);

struct Shared {
    limits: ReadingsConfig,
    arrival: ArrivalClock,
    commit: mpsc::Sender<Waiting>,
}

/// What the other process does until it is killed.
pub fn serve(dir: &str, gather_us: &str) {
    let gather = Duration::from_micros(gather_us.parse().expect("microseconds"));
    let (commit, waiting) = mpsc::channel::<Waiting>();
    let file = File::create(Path::new(dir).join("log")).expect("a file");
    thread::spawn(move || commits(file, &waiting, gather));
    let limits = ReadingsConfig {
        max_ahead: Duration::from_secs(86_400),
        max_behind: Duration::from_secs(315_360_000),
        ranges: Default::default(),
        max_engines: 1_000,
    };
    let arrival = ArrivalClock::new(Arc::new(SystemClock));
    let shared = web::Data::new(Shared { limits, arrival, commit });
    actix_web::rt::System::new().block_on(async move {
        let app = move || App::new().app_data(shared.clone()).route("/api/readings", web::post().to(push));
        let server = HttpServer::new(app).workers(WORKERS).bind(("127.0.0.1", 0)).expect("a free port");
        println!("{}", server.addrs()[0]);
        server.run().await.expect("it serves");
    });
}

async fn push(shared: web::Data<Shared>, body: web::Bytes) -> HttpResponse {
    let parsed = parse_body(BodyKind::Json, &body, &ParseContext::new(&shared.limits, &shared.arrival));
    if parsed.is_err() {
        return HttpResponse::BadRequest().finish();
    }
    let (done, told) = oneshot::channel();
    if shared.commit.send((body, done)).is_err() || told.await.is_err() {
        return HttpResponse::InternalServerError().finish();
    }
    HttpResponse::build(StatusCode::ACCEPTED).content_type("application/json").body(r#"{"accepted":1,"ack":"journal"}"#)
}

/// One sync for all that wait when it begins.
fn commits(mut file: File, waiting: &mpsc::Receiver<Waiting>, gather: Duration) {
    // SAFETY: plain system call on a file of ours. Room on the disk for all of it, as belayd's segments have.
    let room = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, FILE_BYTES as libc::off_t) };
    assert_eq!(room, 0, "the disk has room");
    let mut at = 0;
    let (mut bytes, mut told) = (Vec::new(), Vec::new());
    while let Ok(first) = waiting.recv() {
        if !gather.is_zero() {
            thread::sleep(gather);
        }
        for (body, done) in std::iter::once(first).chain(waiting.try_iter()) {
            bytes.extend_from_slice(&body);
            told.push(done);
        }
        if at + bytes.len() as u64 > FILE_BYTES {
            at = file.seek(SeekFrom::Start(0)).expect("a file can be sought");
        }
        file.write_all(&bytes).expect("the disk takes it");
        file.sync_data().expect("the disk syncs");
        at += bytes.len() as u64;
        bytes.clear();
        // Whoever has gone needs no answer.
        for done in told.drain(..) {
            let _: Result<(), ()> = done.send(());
        }
    }
}
