//! What the drain's observer tells.

use super::*;
use crate::{clock::ManualClock, protocol::Raise, supervise::Courier};

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
