//! What the drain's observer tells, and which of its connections may keep many pages.

use diesel::prelude::*;

use super::*;
use crate::{
    clock::ManualClock,
    config::{Config, Tier},
    daemon::triple,
    protocol::Raise,
    supervise::{ActorRegistry, Courier},
};

#[actix::test]
async fn a_lane_that_cannot_be_read_is_told_of_by_time_once_and_its_end_also_where_an_earlier_run_told_of_it() {
    let (alerts, mut probe) = Courier::<Raise>::probe(4);
    let observer = DrainObserver {
        metrics: Arc::new(Metrics::new().expect("the catalogue is sound")),
        health: Arc::default(),
        raiser: Raiser::start(alerts),
        clock: ManualClock::at(1),
        stamps: Vec::new(),
        recovery: Mutex::new(None),
        waiting: Box::new(|| 0),
        left_unreadable: AtomicU64::new(0b100),
    };
    let error = std::io::Error::from_raw_os_error(libc::EIO);
    let told = |lane: usize, seconds| observer.medium_failed(lane, 1, Duration::from_secs(seconds), &error);
    told(0, 0);
    observer.medium_works(0);
    // One try that took 8 s says more than five that took a moment.
    told(1, 8);
    told(1, 16);
    observer.medium_silent(1, Duration::from_secs(10));
    observer.medium_works(1);
    observer.medium_silent(0, Duration::from_secs(10));
    for _ in 0..2 {
        observer.medium_works(2);
    }
    let raised = probe.recv().await.expect("raised").transitions;
    let seen: Vec<_> = raised.iter().map(|one| (one.name.as_str(), one.subject.as_str(), one.firing)).collect();
    let unreadable = |lane, firing| (BUFFER_UNREADABLE, lane, firing);
    assert_eq!(seen, [unreadable("1", true), unreadable("1", false), unreadable("0", true), unreadable("2", false)]);
}

#[actix::test]
async fn only_the_first_lane_of_what_is_new_keeps_many_pages() {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::Integer)]
        cache_size: i32,
    }
    let (alerts, _probe) = Courier::<Raise>::probe(64);
    let raiser = Raiser::start(alerts);
    let clock: SharedClock = ManualClock::at(1);
    let (metrics, registry) = (Arc::new(Metrics::new().expect("the catalogue is sound")), ActorRegistry::new());
    // Lanes of Redis come before those of the journal.
    for (tier, main, lanes) in [(Tier::Memory, 0, 1), (Tier::Journal, 0, 1), (Tier::Redis, 0, 3), (Tier::Triple, 1, 2)] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut settings = Config::default();
        settings.server.data_dir = dir.path().to_owned();
        settings.store.url = format!("sqlite://{}", dir.path().join("test.db").display());
        settings.buffer.tier = tier;
        // Nobody listens there, and nobody has to.
        settings.redis.url = Some("redis://127.0.0.1:1".to_owned());
        let store = Store::open(&settings.store).expect("a store");
        let buffer = triple::open(&triple::Parts {
            settings: &settings,
            instance: "me",
            store: &store,
            store_is_up: &|| Box::new(|| false),
            raiser: &raiser,
            clock: &clock,
            metrics: &metrics,
            registry: &registry,
        })
        .expect("a buffer");
        let kib = |lane: usize| {
            let (earlier, on_open): (Earlier, OnOpen) = (Box::new(|_| Vec::new()), Box::new(|_, _| Ok(())));
            let writer = StoreWriter::new(store.clone(), clock.clone(), "t", "me".into(), earlier, on_open, None);
            let asked = writer
                .for_lane(&*buffer, lane)
                .writer
                .with(|conn| Ok(crate::on_backend!(conn, |c| diesel::sql_query("PRAGMA cache_size").get_result::<Row>(c))?));
            -asked.expect("SQLite says").cache_size
        };
        assert_eq!(buffer.lanes(), lanes, "{tier:?}");
        let expected: Vec<i32> = (0..lanes).map(|lane| if lane == main { 8_192 } else { 2_048 }).collect();
        assert_eq!((0..lanes).map(kib).collect::<Vec<_>>(), expected, "{tier:?}");
    }
}
