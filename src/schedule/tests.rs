//! Duties by a clock that is turned by hand.

use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering::SeqCst},
};

use actix::prelude::*;
use arc_swap::ArcSwap;

use super::*;
use crate::{
    clock::ManualClock,
    config::StoreConfig,
    domain::alert::Transition,
    protocol::RunDuty,
    store::control::{self, tests::scratch},
};

const MINUTE_US: i64 = 60_000_000;
const START_US: i64 = 20_000 * DAY_US + 100 * MINUTE_US;

#[test]
fn an_interval_counts_from_the_last_run_and_a_missed_run_is_due_once() {
    let hourly = Rhythm::Every(Duration::from_secs(3_600));
    assert_eq!(hourly.due_us(None, START_US), START_US);
    assert_eq!(hourly.due_us(Some(START_US), START_US), START_US + 60 * MINUTE_US);
    assert_eq!(hourly.due_us(Some(START_US - DAY_US), START_US), START_US - DAY_US + 60 * MINUTE_US, "overdue, once");
    assert_eq!(hourly.due_us(Some(START_US + DAY_US), START_US), START_US + 60 * MINUTE_US, "the clock was set back");
}

#[test]
fn a_time_of_day_is_met_today_or_tomorrow_and_made_up_after_downtime() {
    let midnight_us = START_US - 100 * MINUTE_US;
    let at = |minute| Rhythm::DailyAtMinute(minute);
    assert_eq!(at(120).due_us(None, START_US), midnight_us + 120 * MINUTE_US, "later today");
    assert_eq!(at(30).due_us(None, START_US), midnight_us + DAY_US + 30 * MINUTE_US, "tomorrow");
    assert_eq!(at(30).due_us(Some(midnight_us + 30 * MINUTE_US), START_US), midnight_us + DAY_US + 30 * MINUTE_US, "not twice");
    assert!(at(30).due_us(Some(START_US - 5 * DAY_US), START_US) < START_US, "made up");
}

struct Probe {
    runs: Arc<AtomicU32>,
    fails: Arc<AtomicBool>,
    needs_store: bool,
}

impl Duty for Probe {
    fn name(&self) -> &'static str {
        if self.needs_store { "with-store" } else { "without" }
    }

    fn rhythm(&self, _: &Config) -> Rhythm {
        Rhythm::Every(Duration::from_secs(3_600))
    }

    fn needs_store(&self) -> bool {
        self.needs_store
    }

    fn run_once<'a>(&'a self, _: &'a DutyContext) -> BoxFuture<'a, Result<DutyReport, StoreError>> {
        self.runs.fetch_add(1, SeqCst);
        let failed = self.fails.load(SeqCst);
        Box::pin(async move { if failed { Err(StoreError::other("as told")) } else { Ok(DutyReport::default()) } })
    }
}

struct Bench {
    dir: tempfile::TempDir,
    control: Store,
    clock: Arc<ManualClock>,
    up: Arc<AtomicBool>,
    raised: Arc<Mutex<Vec<Transition>>>,
    board: Arc<ScheduleBoard>,
}

fn bench() -> Bench {
    let (dir, control) = scratch();
    Bench {
        dir,
        control,
        clock: ManualClock::at(START_US),
        up: Arc::new(AtomicBool::new(true)),
        raised: Arc::default(),
        board: Arc::default(),
    }
}

impl Bench {
    fn store(&self) -> Store {
        let config = Config::default();
        let url = format!("sqlite://{}", self.dir.path().join("store.db").display());
        Store::open(&StoreConfig { url, ..config.store }).expect("opens nothing yet")
    }

    fn desk(&self, duties: Vec<Box<dyn Duty>>) -> Arc<ScheduleDesk> {
        let (up, raised) = (self.up.clone(), self.raised.clone());
        let parts = ScheduleParts {
            store: self.store(),
            store_is_up: Box::new(move || up.load(SeqCst)),
            control: self.control.clone(),
            tokens: Arc::new(TokenBook::open(self.control.clone(), self.clock.clone()).expect("opens")),
            config: Arc::new(ArcSwap::from_pointee(Config::default())),
            clock: self.clock.clone(),
            board: self.board.clone(),
            metrics: Arc::new(Metrics::new().expect("the catalogue is sound")),
            raise: Box::new(move |transitions| raised.lock().expect("no panic").extend(transitions)),
            held: Arc::new(HoldsNothing),
            instance: "this".into(),
        };
        ScheduleDesk::open(parts, duties).expect("opens")
    }

    async fn settle(&self, desk: &Arc<ScheduleDesk>) {
        desk.work();
        while desk.is_running() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn probe(needs_store: bool) -> (Box<dyn Duty>, Arc<AtomicU32>, Arc<AtomicBool>) {
    let (runs, fails) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    (Box::new(Probe { runs: runs.clone(), fails: fails.clone(), needs_store }), runs, fails)
}

#[actix::test]
async fn a_duty_runs_at_its_times_and_its_last_run_outlives_a_restart() {
    let bench = bench();
    let (duty, runs, _) = probe(false);
    let desk = bench.desk(vec![duty]);
    for (advance_min, expected) in [(0, 1), (59, 1), (1, 2), (600, 3), (1, 3)] {
        bench.clock.advance_us(advance_min * MINUTE_US);
        bench.settle(&desk).await;
        assert_eq!(runs.load(SeqCst), expected, "after {advance_min} minutes");
    }
    assert_eq!(bench.control.with(control::last_duty_runs).expect("reads").len(), 1);
    let (again, runs, _) = probe(false);
    let restarted = bench.desk(vec![again]);
    bench.settle(&restarted).await;
    assert_eq!(runs.load(SeqCst), 0, "it ran a minute ago");
}

#[actix::test]
async fn a_duty_waits_for_the_store_and_holds_up_no_other() {
    let bench = bench();
    bench.up.store(false, SeqCst);
    let ((waiting, waiting_runs, _), (other, other_runs, _)) = (probe(true), probe(false));
    let desk = bench.desk(vec![waiting, other]);
    bench.settle(&desk).await;
    assert_eq!((waiting_runs.load(SeqCst), other_runs.load(SeqCst)), (0, 1));
    bench.clock.advance_us(30 * MINUTE_US);
    bench.up.store(true, SeqCst);
    bench.settle(&desk).await;
    assert_eq!(waiting_runs.load(SeqCst), 1);
    assert_eq!(bench.board.duties()["with-store"].lateness_us, 30 * MINUTE_US);
}

#[actix::test]
async fn a_duty_that_fails_is_tried_again_and_told_after_three_times() {
    let bench = bench();
    let (duty, runs, fails) = probe(false);
    fails.store(true, SeqCst);
    let desk = bench.desk(vec![duty]);
    for _ in 0..4 {
        bench.settle(&desk).await;
        bench.clock.advance_us(MINUTE_US);
    }
    let told = |bench: &Bench| bench.raised.lock().expect("no panic").iter().map(|t| t.firing).collect::<Vec<_>>();
    assert_eq!((runs.load(SeqCst), told(&bench)), (4, vec![true]));
    fails.store(false, SeqCst);
    bench.settle(&desk).await;
    assert_eq!(told(&bench), [true, false]);
    assert_eq!(bench.board.duties()["without"].failures, 0);
}

#[actix::test]
async fn the_first_success_of_a_run_ends_what_an_earlier_run_told_of_a_duty() {
    let bench = bench();
    let (duty, runs, _) = probe(false);
    let desk = bench.desk(vec![duty]);
    for _ in 0..2 {
        bench.settle(&desk).await;
        bench.clock.advance_us(3_600 * 1_000_000);
    }
    assert_eq!(runs.load(SeqCst), 2);
    let raised = bench.raised.lock().expect("no panic");
    assert_eq!(raised.iter().map(|t| (t.name.as_str(), t.firing)).collect::<Vec<_>>(), [("duty-failed", false)], "once");
}

#[actix::test]
async fn a_duty_can_be_asked_for_by_name() {
    let bench = bench();
    let (duty, runs, _) = probe(false);
    let desk = bench.desk(vec![duty]);
    let actor = ScheduleActor::new(desk.clone()).start();
    actor.send(RunDuty { name: "nobody".into() }).await.expect("handled");
    bench.settle(&desk).await;
    let before = runs.load(SeqCst);
    actor.send(RunDuty { name: "without".into() }).await.expect("handled");
    bench.settle(&desk).await;
    assert_eq!(runs.load(SeqCst), before + 1);
}

#[actix::test]
async fn every_duty_does_its_work_on_a_real_store() {
    let bench = bench();
    bench.store().migrate().expect("migrates");
    let desk = bench.desk(duties());
    for duty in duties() {
        assert!(desk.ask(duty.name()));
    }
    bench.settle(&desk).await;
    for (name, status) in bench.board.duties() {
        assert_eq!((status.failures, status.last_run_at_us), (0, Some(START_US)), "{name}: {:?}", status.outcome);
    }
    let statistics = bench.board.statistics().expect("taken");
    assert!(statistics.size_bytes > 0 && statistics.control_bytes > 0);
    assert_eq!((statistics.readings, statistics.conflicts, statistics.dead), (Some(0), 0, 0));
}

/// A medium that keeps nothing of what the database has.
struct HoldsNothing;

impl crate::store::integrity::Held for HoldsNothing {
    fn span(&self, _: crate::domain::receipt::StreamId) -> Option<(u64, u64)> {
        None
    }

    fn frames(&self, _: crate::domain::receipt::StreamId, _: u64, _: u64) -> std::io::Result<Vec<crate::buffer::Frame>> {
        Ok(Vec::new())
    }
}
