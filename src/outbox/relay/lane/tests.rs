//! A lane beside librdkafka's mock cluster: what becomes of runs whose end nobody saw, and who is told. Whether transactions hold is not
//! asked here, where there is no real broker.

use std::{
    net::TcpListener,
    sync::{Condvar, Mutex, atomic::AtomicBool},
};

use arc_swap::ArcSwap;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    mocking::MockCluster,
    producer::DefaultProducerContext,
};
use tokio::sync::oneshot::{Receiver, error::TryRecvError::Closed};

use super::*;
use crate::{
    buffer::Frame,
    clock::SystemClock,
    config::{Config, parse},
    domain::{
        batch::BatchBuilder,
        delivery::DeliveryState::{self, Dead, Sent, Uncertain},
        reading::ReadingRef,
        receipt::StreamId,
    },
    event::Metrics,
    outbox::{
        Outbox, OutboxParts, RelayParts,
        relay::{board::Board, circuit::Circuit, spread::Spread},
    },
    sinks::kafka::group_of,
    store::{
        Store,
        control::tests::scratch,
        deliveries, ledger,
        readings::{Relaying, store_for},
    },
};

const STREAM: StreamId = StreamId::from_u128(7);

struct Bench {
    _dirs: [tempfile::TempDir; 2],
    /// Ends with the bench.
    _cluster: Option<MockCluster<'static, DefaultProducerContext>>,
    store: Store,
    shared: Arc<Shared>,
}

impl Bench {
    /// With a topic in a cluster, and a stream in a database.
    fn start() -> Self {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic("engine", 1, 1).expect("a topic");
        let bench = Self::of("sqlite://DIR/store.db", &cluster.bootstrap_servers());
        bench.store.migrate().expect("migrated");
        bench.with(|conn| ledger::register_stream(conn, STREAM, "journal", "instance", 1));
        bench.shared.board.opened(STREAM, 0, None);
        Self { _cluster: Some(cluster), ..bench }
    }

    fn of(url: &str, brokers: &str) -> Self {
        let (control_dir, control) = scratch();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let url = url.replace("DIR", &dir.path().display().to_string());
        let text = format!("[store]\nurl = \"{url}\"\n[kafka]\nbrokers = \"{brokers}\"\ntimeout = \"2s\"\n");
        let config = parse(&text).expect("no fault");
        let store = Store::open(&config.store).expect("a store");
        let metrics = Arc::new(Metrics::new().expect("the catalogue is sound"));
        let outbox = Outbox::new(OutboxParts {
            control,
            store: None,
            config: Arc::new(ArcSwap::from_pointee(Config::default())),
            sinks: Vec::new(),
            own_sinks: Vec::new(),
            clock: Arc::new(SystemClock),
            metrics: metrics.clone(),
            worker: "worker".into(),
        });
        let kafka = config.kafka.expect("a relay");
        let shared = Shared {
            circuit: Circuit::new(kafka.breaker),
            spread: Spread::new(100),
            parts: RelayParts {
                kafka,
                store: store.clone(),
                store_is_up: Box::new(|| true),
                // What is left to another instance ends when nothing waits.
                own: Box::new(Vec::new),
                max_engines: 100,
                worker: "worker".into(),
                clock: Arc::new(SystemClock),
                metrics,
                outbox,
            },
            board: Board::default(),
            wakes: Mutex::new(0),
            woken: Condvar::new(),
            stopping: AtomicBool::new(false),
        };
        Self { _dirs: [control_dir, dir], _cluster: None, store, shared: Arc::new(shared) }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Conn) -> StoreResult<T>) -> T {
        self.store.with(|conn| conn.write(f)).expect("the store works")
    }

    fn execute(&self, sql: &str) {
        self.with(|conn| diesel::connection::SimpleConnection::batch_execute(conn, sql).map_err(Into::into));
    }

    fn lane(&self) -> Lane {
        let lease = self.with(|conn| leases::take(conn, &format!("relay/{STREAM}"), "worker", leases::TTL)).expect("free");
        Lane::new(self.shared.clone(), STREAM.to_string(), lease)
    }

    /// Stores three readings from number `first` on, and waits for them.
    fn stored(&self, first: u64) -> Receiver<()> {
        let mut builder = BatchBuilder::default();
        for n in 0..3 {
            builder.push(&ReadingRef {
                engine_id: "e",
                observed_at_us: first.cast_signed() + n,
                status: None,
                temperature: Some(1.0),
                rpm: None,
                pressure: None,
                fuel_flow: None,
                extra: None,
            });
        }
        let frame = Frame { first_seq: first, batch: builder.finish(5), chain_before: 0, chain: 0 };
        let outcome = self.store.with(|conn| store_for(conn, STREAM, &[frame], 5, Relaying::On)).expect("stored");
        assert_eq!((outcome.stored, outcome.last_seq), (3, first + 2));
        self.shared.board.committed(STREAM, outcome.last_seq, outcome.relay_seq, &[]);
        self.shared.board.wait_for(STREAM, (first, outcome.last_seq))
    }

    /// Claims what waits, as somebody of whom nothing more was heard.
    fn claimed(&self, mark: &str) -> String {
        match self.with(|conn| relay::claim_run(conn, &STREAM.to_string(), mark, 1_000, 6)) {
            Claimed::Run(run) => run.deliveries[0].id.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn state(&self, id: &str) -> (DeliveryState, i32) {
        let row = self.with(|conn| deliveries::get(conn, id)).expect("it is there");
        (row.state().expect("a state"), row.attempt)
    }

    /// The mark that Kafka has. The mock keeps what consumers commit, and nothing of what transactions do.
    fn mark(&self, mark: &str) {
        let (brokers, group) = (&self.shared.parts.kafka.brokers, group_of(&STREAM.to_string()));
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", group).create().expect("a consumer");
        let mut place = TopicPartitionList::new();
        place.add_partition_offset("engine", 0, Offset::Offset(1)).expect("an offset");
        place.find_partition("engine", 0).expect("it was added").set_metadata(mark);
        consumer.commit(&place, CommitMode::Sync).expect("committed");
    }

    fn counted(&self) -> u64 {
        self.shared.parts.metrics.readings_relayed.get()
    }
}

#[test]
fn a_claim_of_whose_commit_nobody_heard_is_found_and_goes_again() {
    let bench = Bench::start();
    bench.mark("earlier");
    let mut lane = bench.lane();
    assert!(matches!(lane.turn(), Ok(Turn::Idle)), "it has a link now");
    let mut waiter = bench.stored(1);
    let id = bench.claimed("unheard");
    lane.run();
    assert_eq!(bench.state(&id), (Sent, 2));
    assert_eq!((waiter.try_recv(), bench.counted()), (Ok(()), 3));
}

#[test]
fn a_run_of_whose_end_nobody_heard_is_counted_and_told_before_any_other_goes() {
    let bench = Bench::start();
    let mut waiter = bench.stored(1);
    let id = bench.claimed("mark");
    bench.mark("mark");
    let mut lane = bench.lane();
    assert!(matches!(lane.turn(), Ok(Turn::Idle)), "nothing goes");
    assert_eq!((waiter.try_recv(), bench.counted()), (Ok(()), 3));
    assert_eq!(bench.state(&id), (Sent, 1));
}

#[test]
fn who_waits_for_a_delivery_that_is_rejected_is_not_told_with_those_behind_it() {
    for damage in ["UPDATE delivery_bodies SET body = x'00' WHERE first_seq = 1", "DELETE FROM delivery_bodies WHERE first_seq = 1"]
    {
        let bench = Bench::start();
        bench.mark("earlier");
        let (mut rejected, mut behind) = (bench.stored(1), bench.stored(4));
        bench.execute(damage);
        bench.lane().run();
        assert_eq!((rejected.try_recv(), behind.try_recv()), (Err(Closed), Ok(())), "{damage}");
        let failures = bench.with(|conn| deliveries::failures(conn, 10, None));
        assert_eq!(failures.iter().map(deliveries::DeliveryRow::state).collect::<Vec<_>>(), [Ok(Dead)], "{damage}");
        assert_eq!(bench.counted(), 3);
    }
}

#[test]
fn what_another_instance_rejected_meanwhile_is_not_told_with_those_behind_it() {
    for gone in [false, true] {
        let bench = Bench::start();
        bench.mark("theirs");
        let (mut rejected, mut behind) = (bench.stored(1), bench.stored(4));
        let id = bench.claimed("theirs");
        if gone {
            bench.execute("DELETE FROM delivery_bodies WHERE first_seq = 1");
        }
        // They had the lane, rejected the first, and sent what came behind it.
        bench.with(|conn| relay::reject(conn, &id, ("unreadable", "damaged"), 7));
        bench.with(|conn| relay::settle_run(conn, &STREAM.to_string(), "theirs", 7));
        let mut last = bench.stored(7);
        bench.lane().run();
        assert_eq!((rejected.try_recv(), behind.try_recv(), last.try_recv()), (Err(Closed), Ok(()), Ok(())), "{gone}");
    }
}

#[test]
fn who_waits_for_what_kafka_has_forgotten_is_not_told_with_those_behind_it() {
    // The second time the answer to the commit that says so was lost.
    for unheard in [false, true] {
        let bench = Bench::start();
        let mut forgotten = bench.stored(1);
        let id = bench.claimed("mark");
        if unheard {
            bench.with(|conn| relay::resolve(conn, &STREAM.to_string(), None, 7));
        }
        let mut lane = bench.lane();
        assert!(matches!(lane.turn(), Ok(Turn::Idle)));
        assert_eq!((forgotten.try_recv(), bench.state(&id)), (Err(Closed), (Uncertain, 1)), "{unheard}");
        let mut behind = bench.stored(4);
        lane.run();
        assert_eq!((behind.try_recv(), bench.counted()), (Ok(()), 3), "{unheard}");
    }
}

#[test]
fn kafka_is_left_alone_while_the_database_does_not_answer() {
    // Nobody listens there any more.
    let closed = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let bench = Bench::of(&format!("postgres://belayd@{}/none", closed()), &closed().to_string());
    let lease = Lease { name: format!("relay/{STREAM}"), owner: "worker".into(), epoch: 1 };
    let mut lane = Lane::new(bench.shared.clone(), STREAM.to_string(), lease);
    assert!(matches!(lane.turn(), Err(Trouble::Store(_))));
}
