//! Files and blocks that the disk does not give: for a moment, or for good.

use std::time::Duration;

use super::{disk::ModelDisk, *};
use crate::buffer::journal::{GapKind, quarantine, scrub};

fn opened(disk: &ModelDisk) -> (Log<ModelDisk>, Recovered) {
    open(disk.clone(), small(), &mut new_stream, 1).expect("it opens")
}

/// A log of several segments with 300 readings, one a frame.
fn filled(disk: &ModelDisk) -> StreamId {
    let (mut log, _) = opened(disk);
    for turn in 0..300 {
        log.append(0, 1, 1, &[payload(0, turn, 600)]).expect("room");
        log.sync().expect("synced");
    }
    disk.kill();
    log.lanes()[0].stream
}

fn append_some(log: &mut Log<ModelDisk>) -> StreamId {
    let mut stream = StreamId::nil();
    for turn in 0..300 {
        stream = log.append(0, 1, 1, &[payload(0, turn, 600)]).expect("room").stream;
        log.sync().expect("synced");
    }
    stream
}

#[test]
fn a_segment_that_does_not_open_for_a_moment_costs_nothing() {
    for which in 0..2 {
        let disk = ModelDisk::new();
        let stream = filled(&disk);
        let names = disk.segments();
        let name = if which == 0 { &names[1] } else { names.last().expect("several") };
        disk.inner().shut.insert(name.clone(), 3);
        let (log, recovered) = opened(&disk);
        assert!(recovered.damage.is_empty() && recovered.forked.is_empty(), "{recovered:?}");
        assert_eq!((recovered.lanes[0].stream, recovered.lanes[0].next_seq()), (stream, 301));
        assert_eq!(read_all(&log, 0).len(), 300);
    }
}

#[test]
fn the_newest_segment_is_not_overwritten_when_it_does_not_open() {
    let disk = ModelDisk::new();
    let stream = filled(&disk);
    let newest = disk.segments().pop().expect("several");
    let before = disk.content(&newest);
    disk.inner().shut.insert(newest.clone(), u32::MAX);
    for _ in 0..2 {
        let (mut log, recovered) = opened(&disk);
        assert!(recovered.damage.iter().any(|damage| damage.what.contains("does not open")), "{recovered:?}");
        assert_ne!(append_some(&mut log), stream, "its numbers may have been given out");
        assert_eq!(disk.content(&newest), before, "what was acknowledged is still there");
        drop(log);
        disk.kill();
    }
    disk.inner().shut.clear();
    let (_, recovered) = opened(&disk);
    let aside = recovered.damage.iter().find_map(|damage| damage.quarantine_file.clone()).expect("told, and set aside");
    assert_eq!(disk.content(&aside), before);
    let (_, recovered) = opened(&disk);
    assert!(recovered.damage.is_empty(), "once: {recovered:?}");
}

#[test]
fn an_older_segment_that_does_not_open_at_the_start_is_read_when_it_does() {
    let disk = ModelDisk::new();
    let stream = filled(&disk);
    let older = disk.segments()[1].clone();
    disk.inner().shut.insert(older.clone(), u32::MAX);
    let (mut log, recovered) = opened(&disk);
    assert_eq!((recovered.damage.len(), recovered.forked.len()), (1, 0), "{recovered:?}");
    assert_eq!(append_some(&mut log), stream);
    disk.inner().shut.clear();
    let items = read_all(&log, 0);
    assert_eq!(items.len(), 600);
    assert!(items.iter().all(|item| matches!(item, Item::Frame { .. })));
}

#[test]
fn no_file_is_replaced_by_a_new_segment() {
    let disk = ModelDisk::new();
    let (mut log, _) = opened(&disk);
    disk.put("0000000002.seg", b"somebody's".to_vec());
    append_some(&mut log);
    assert_eq!(disk.content("0000000002.seg"), b"somebody's");
    assert_eq!(read_all(&log, 0).len(), 300);
}

/// Everything that the reader gives, asked once a second as a drain would. With how many times it failed.
fn drain_patiently(disk: &ModelDisk, log: &Log<ModelDisk>) -> (Vec<Item>, u32) {
    drain_every(Duration::from_secs(1), disk, log)
}

/// The same, with another time from one failure to the next.
fn drain_every(pause: Duration, disk: &ModelDisk, log: &Log<ModelDisk>) -> (Vec<Item>, u32) {
    let mut reader = LaneReader::new(log.shared(), 0);
    let (mut items, mut failures) = (Vec::new(), 0);
    loop {
        match reader.next() {
            Ok(Some(item)) => items.push(item),
            Ok(None) => return (items, failures),
            Err(_) => {
                failures += 1;
                disk.wait(pause);
            }
        }
    }
}

#[test]
fn blocks_that_cannot_be_read_for_a_moment_are_read_later_and_are_no_damage() {
    let disk = ModelDisk::new();
    filled(&disk);
    let (log, _) = opened(&disk);
    let name = disk.segments()[1].clone();
    disk.inner().silent.insert(name, 40);
    let (items, failures) = drain_patiently(&disk, &log);
    assert!((1..30).contains(&failures), "{failures}");
    assert_eq!(items.len(), 300);
    assert!(items.iter().all(|item| matches!(item, Item::Frame { .. })), "not one is given up");
    assert!(log.shared().take_damage().is_empty());
}

#[test]
fn blocks_that_stay_unreadable_are_given_up_in_the_end_and_their_segment_is_kept_whole() {
    let disk = ModelDisk::new();
    filled(&disk);
    let (mut log, _) = opened(&disk);
    let name = disk.segments()[1].clone();
    disk.spoil(&name, 3);
    let before = disk.content(&name);
    let (items, failures) = drain_patiently(&disk, &log);
    assert_eq!(failures, 30, "once for the whole segment");
    let given_up: u64 =
        items.iter().map(|item| if let Item::Gap { first_seq, last_seq, .. } = item { last_seq + 1 - first_seq } else { 0 }).sum();
    assert!((1..20).contains(&given_up), "{given_up}");
    assert!(items.iter().any(|item| matches!(item, Item::Gap { kind: GapKind::Quarantined, .. })));
    append_some(&mut log);
    log.trim(&[500]).expect("trimmed");
    assert!(!disk.segments().contains(&name));
    let kept =
        log.shared().take_damage().into_iter().find_map(|damage| damage.quarantine_file.filter(|file| file.ends_with(".seg")));
    assert_eq!(disk.content(&kept.expect("told")), before);
}

#[test]
fn a_disk_that_takes_long_for_each_try_is_given_up_after_as_long_and_one_that_was_not_asked_is_not() {
    for (pause, refused) in [(8, 4), (16, 2), (3_600, 2)] {
        let disk = ModelDisk::new();
        filled(&disk);
        let (log, _) = opened(&disk);
        disk.spoil(&disk.segments()[1], 3);
        let (_, failures) = drain_every(Duration::from_secs(pause), &disk, &log);
        assert_eq!(failures, refused, "{pause} s from one try to the next");
    }
    let disk = ModelDisk::new();
    filled(&disk);
    let (log, _) = opened(&disk);
    let name = disk.segments()[1].clone();
    disk.inner().shut.insert(name, 2);
    let (items, failures) = drain_every(Duration::from_secs(3_600), &disk, &log);
    assert_eq!((items.len(), failures), (300, 2), "refused twice, an hour apart");
    assert!(log.shared().take_damage().is_empty());
}

#[test]
fn a_disk_that_takes_long_to_refuse_is_asked_for_little_until_it_is_given_up_and_for_each_block_once_then() {
    let refusal = Duration::from_secs(8);
    let disk = ModelDisk::new();
    filled(&disk);
    let (log, _) = opened(&disk);
    let name = disk.segments()[1].clone();
    // Two places with whole frames between them and behind.
    let bad = [3, 4, 6];
    bad.into_iter().for_each(|block| disk.spoil(&name, block));
    disk.inner().faults.refusal_takes = refusal;
    let began = disk.now();
    let mut reader = LaneReader::new(log.shared(), 0);
    let (mut items, mut failures) = (Vec::new(), 0);
    loop {
        let asked = disk.now();
        match reader.next() {
            Ok(Some(item)) => items.push(item),
            Ok(None) => break,
            Err(_) => {
                failures += 1;
                // Once while reading ahead, and twice when it is needed.
                assert!(disk.now() - asked <= 3 * refusal, "{:?} for one try", disk.now() - asked);
                disk.wait(Duration::from_secs(1));
            }
        }
    }
    let took = disk.now() - began;
    assert!((2..=4).contains(&failures), "{failures}");
    // As much for each try, and for each block once it is given up; of a try that long 15 s count.
    assert!(took <= Duration::from_secs(30) + 3 * refusal * (failures + bad.len() as u32 + 1), "{took:?}");
    let whole = items.iter().filter(|item| matches!(item, Item::Frame { .. })).count();
    assert!((270..300).contains(&whole), "{whole} of 300 are left");
    assert!(items.iter().any(|item| matches!(item, Item::Gap { kind: GapKind::Quarantined, .. })));
}

#[test]
fn a_segment_that_does_not_open_while_it_is_drained_holds_the_lane_up_for_a_while_and_not_for_ever() {
    let disk = ModelDisk::new();
    filled(&disk);
    let (log, _) = opened(&disk);
    let name = disk.segments()[1].clone();
    disk.inner().shut.insert(name.clone(), 5);
    let (items, failures) = drain_patiently(&disk, &log);
    assert_eq!((items.len(), failures), (300, 5));
    disk.inner().shut.insert(name.clone(), u32::MAX);
    let (items, failures) = drain_patiently(&disk, &log);
    assert_eq!(failures, 30);
    assert!(items.len() < 300 && items.iter().any(|item| matches!(item, Item::Gap { .. })));
    assert!(log.shared().take_damage().iter().any(|damage| damage.what.contains("does not open")));
}

#[test]
fn a_copy_that_a_crash_cut_short_does_not_pass_for_the_damaged_bytes() {
    let disk = ModelDisk::new();
    filled(&disk);
    let name = disk.segments()[1].clone();
    disk.flip(&name, 8_192 + 200, 3);
    disk.put("quarantine/0000000002-0000008192.bin.part", b"stub".to_vec());
    let (log, _) = opened(&disk);
    log.shared().scrub(2);
    let kept = log.shared().take_damage().pop().expect("told").quarantine_file.expect("set aside");
    assert_eq!(disk.content(&kept), disk.content(&name)[8_192..8_192 + 728]);
    let mut random = super::disk::Random(1);
    drop(log);
    disk.power_cut(&mut random);
    assert_eq!(disk.content(&kept), disk.content(&name)[8_192..8_192 + 728], "durable when it is told");
    assert_eq!(disk.content("quarantine/0000000002-0000008192.bin.part"), Vec::<u8>::new());
}

#[test]
fn the_folder_for_what_was_damaged_has_a_bound() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = RealDisk::create(dir.path()).expect("made");
    assert!(quarantine::has_room(&disk, 1_000));
    std::fs::File::create(dir.path().join("quarantine/large.bin"))
        .and_then(|file| file.set_len(quarantine::BYTES_MAX - 500))
        .expect("made");
    assert!(quarantine::has_room(&disk, 500) && !quarantine::has_room(&disk, 501));
}

#[test]
fn what_the_disk_does_not_give_a_scrub_for_a_moment_is_not_told_as_damage() {
    for (fails, told) in [(3, false), (u32::MAX, true)] {
        let disk = ModelDisk::new();
        filled(&disk);
        let (log, _) = opened(&disk);
        let older = disk.segments()[1].clone();
        disk.inner().silent.insert(older, fails);
        let (shared, mut place) = (log.shared(), scrub::Place::default());
        let mut damage = Vec::new();
        for _ in 0..30 {
            scrub::next(&shared, &mut place, &scrub::End::default());
            damage.extend(shared.take_damage());
        }
        assert_eq!(!damage.is_empty(), told, "{damage:?}");
        let set_aside = disk.inner().names.keys().any(|name| name.starts_with("quarantine"));
        assert!(told || !set_aside, "nothing is set aside that is whole");
    }
}

#[test]
fn a_log_that_is_away_as_a_whole_costs_nothing_however_long_it_lasts() {
    let disk = ModelDisk::new();
    filled(&disk);
    let (log, _) = opened(&disk);
    let names = disk.segments();
    for name in &names {
        disk.rename(name, &format!("away-{name}")).expect("renamed");
    }
    let mut reader = LaneReader::new(log.shared(), 0);
    for _ in 0..100 {
        assert_eq!(reader.next().expect_err("nothing is there").kind(), std::io::ErrorKind::NotFound);
        disk.wait(Duration::from_secs(5));
    }
    for name in &names {
        disk.rename(&format!("away-{name}"), name).expect("renamed");
    }
    assert_eq!(drain(&mut reader).len(), 300);
    assert!(log.shared().take_damage().is_empty());
}

#[test]
fn a_single_file_that_was_deleted_is_given_up_after_a_while_and_told() {
    let disk = ModelDisk::new();
    filled(&disk);
    let (log, _) = opened(&disk);
    disk.remove(&disk.segments()[1]).expect("removed");
    let (items, failures) = drain_every(Duration::from_secs(5), &disk, &log);
    assert!(failures >= 5, "asked again for half a minute: {failures}");
    let gaps = items.iter().filter(|item| matches!(item, Item::Gap { kind: GapKind::Quarantined, .. })).count();
    assert_eq!(gaps, 1);
    assert_eq!(log.shared().take_damage().len(), 1);
}
