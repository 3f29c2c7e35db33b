//! Openings at which the disk does not take the proof of the last group.

use super::{
    disk::{ModelDisk, Random},
    *,
};
use crate::buffer::journal::{AppendError, GapKind};

fn opened(disk: &ModelDisk) -> (Log<ModelDisk>, Recovered) {
    open(disk.clone(), small(), &mut new_stream, 2).expect("it opens")
}

/// Six groups of three frames in two lanes, and a process that is killed.
fn filled(disk: &ModelDisk) -> (StreamId, Vec<LaneState>) {
    let (mut log, _) = opened(disk);
    for turn in 0..6 {
        for (lane, rows) in [(0, 2), (1, 1), (0, 3)] {
            log.append(lane, 7, rows, &[payload(lane, turn, 500)]).expect("room");
        }
        log.sync().expect("synced");
    }
    let lanes = log.lanes().to_vec();
    drop(log);
    disk.kill();
    (lanes[0].stream, lanes)
}

#[test]
fn a_last_group_that_the_disk_does_not_take_again_stands_in_a_new_segment_under_the_same_numbers() {
    let disk = ModelDisk::new();
    let (_, lanes) = filled(&disk);
    let before = disk.segments();
    disk.inner().faults.sync = 1;
    let (log, recovered) = opened(&disk);
    assert_eq!(recovered.damage.len(), 1, "{recovered:?}");
    assert!(recovered.damage[0].what.contains("new segment"), "{recovered:?}");
    assert!(recovered.forked.is_empty());
    assert_eq!(log.lanes(), lanes, "numbers, counts and chains");
    let items: Vec<_> = (0..2).map(|lane| read_all(&log, lane)).collect();
    assert_eq!((items[0].len(), items[1].len()), (12, 6));
    assert!(disk.segments().len() > before.len());
    // It does not need what the failed sync left in the kernel's memory.
    drop(log);
    for seed in 0..8 {
        disk.power_cut(&mut Random(seed));
        let (log, recovered) = opened(&disk);
        assert!(recovered.damage.is_empty() && recovered.forked.is_empty(), "{recovered:?}");
        assert_eq!(log.lanes(), lanes);
        assert_eq!((0..2).map(|lane| read_all(&log, lane)).collect::<Vec<_>>(), items);
    }
}

#[test]
fn a_segment_whose_header_is_not_proved_either_gives_way_to_the_new_one() {
    let disk = ModelDisk::new();
    let (mut log, _) = opened(&disk);
    log.append(0, 7, 5, &[payload(0, 1, 500)]).expect("room");
    log.append(1, 7, 1, &[payload(1, 1, 500)]).expect("room");
    log.sync().expect("synced");
    let (lanes, first) = (log.lanes().to_vec(), disk.segments());
    drop(log);
    disk.kill();
    disk.inner().faults.sync = 1;
    let (log, recovered) = opened(&disk);
    assert_eq!((recovered.damage.len(), log.lanes()), (1, &lanes[..]), "{recovered:?}");
    assert!(disk.segments().len() == 1 && disk.segments() != first);
    let items: Vec<_> = (0..2).map(|lane| read_all(&log, lane)).collect();
    drop(log);
    for seed in 0..8 {
        disk.power_cut(&mut Random(seed));
        let (log, recovered) = opened(&disk);
        assert!(recovered.damage.is_empty() && recovered.forked.is_empty(), "{recovered:?}");
        assert_eq!((0..2).map(|lane| read_all(&log, lane)).collect::<Vec<_>>(), items);
    }
}

#[test]
fn what_cannot_be_written_anywhere_is_drained_from_where_it_is() {
    let disk = ModelDisk::new();
    let (stream, lanes) = filled(&disk);
    disk.inner().faults.sync = 1;
    disk.inner().read_only = true;
    let (mut log, recovered) = opened(&disk);
    assert!(recovered.damage.iter().any(|damage| damage.what.contains("drained")), "{recovered:?}");
    assert_eq!(log.lanes(), lanes);
    assert_eq!((read_all(&log, 0).len(), read_all(&log, 1).len()), (12, 6));
    let refused = log.append(0, 7, 1, &[payload(0, 9, 50)]).expect_err("nowhere to");
    assert!(matches!(refused, AppendError::NoSegment(_)), "{refused}");
    disk.inner().read_only = false;
    let appended = log.append(0, 7, 1, &[payload(0, 9, 50)]).expect("it goes on by itself");
    assert_eq!((appended.stream, appended.first_seq), (stream, lanes[0].next_seq()));
    log.sync().expect("synced");
    assert_eq!(read_all(&log, 0).len(), 13);
}

#[test]
fn numbers_that_cannot_be_carried_over_are_not_given_out_again() {
    let disk = ModelDisk::new();
    let (mut log, _) = opened(&disk);
    log.append(0, 7, 1, &[payload(0, 1, 500)]).expect("room");
    log.sync().expect("synced");
    log.append(0, 7, 4, &[payload(0, 2, 9_000)]).expect("room");
    log.sync().expect("synced");
    let lanes = log.lanes().to_vec();
    drop(log);
    disk.kill();
    let last = disk.segments().pop().expect("one");
    // In the middle of the second frame's payload.
    disk.spoil(&last, 3);
    // That of the copy in the quarantine, and that of the proof.
    disk.inner().faults.sync = 2;
    let (log, recovered) = opened(&disk);
    assert!(recovered.damage.iter().any(|damage| damage.what.contains("new segment")), "{recovered:?}");
    drop(log);
    disk.kill();
    let (mut log, _) = opened(&disk);
    let appended = log.append(0, 7, 1, &[payload(0, 3, 50)]).expect("room");
    assert!(appended.stream != lanes[0].stream || appended.first_seq == lanes[0].next_seq(), "{appended:?}");
    log.sync().expect("synced");
    let items = read_all(&log, 0);
    assert!(matches!(items[0], Item::Frame { first_seq: 1, .. }), "{items:?}");
    assert!(matches!(items.last(), Some(Item::Frame { rows: 1, .. })), "{items:?}");
    assert!(items.iter().all(|item| !matches!(item, Item::Gap { kind: GapKind::Void, .. })), "nobody was told no: {items:?}");
}
