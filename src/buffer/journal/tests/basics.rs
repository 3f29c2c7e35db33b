//! What the log does when nothing goes wrong, and what it says when there is no room.

use std::fs;

use bytes::Bytes;

use super::*;
use crate::buffer::journal::{AppendError, Found, GapKind};

fn frames(items: &[Item]) -> Vec<(u64, u32, Bytes)> {
    items
        .iter()
        .map(|item| match item {
            Item::Frame { first_seq, rows, payload, .. } => (*first_seq, *rows, payload.clone()),
            Item::Gap { .. } => panic!("a gap: {item:?}"),
        })
        .collect()
}

#[test]
fn what_was_synced_comes_out_in_order_with_the_same_bytes_and_after_a_restart_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut written = [Vec::new(), Vec::new()];
    {
        let (mut log, recovered) = open_dir(&dir.path().join("journal"), 2);
        assert!(recovered.fresh);
        for turn in 0..200u64 {
            for (lane, written) in written.iter_mut().enumerate() {
                let rows = 1 + (turn % 5) as u32;
                let parts = [payload(lane, turn, 700), payload(lane, turn + 1, 13)];
                let appended = log.append(lane, 5, rows, &parts).expect("room");
                written.push((appended.first_seq, rows, Bytes::from(parts.concat())));
            }
            log.sync().expect("synced");
        }
        for (lane, written) in written.iter().enumerate() {
            assert_eq!(frames(&read_all(&log, lane)), *written);
        }
    }
    let (mut log, recovered) = open_dir(&dir.path().join("journal"), 2);
    assert!(
        !recovered.fresh && recovered.damage.is_empty() && recovered.forked.is_empty() && recovered.torn_bytes == 0,
        "{recovered:?}"
    );
    assert!(recovered.segments > 3, "{recovered:?}");
    assert!(recovered.tail_scanned_bytes <= 64 * 1024, "only the tail is read: {recovered:?}");
    let appended = log.append(0, 5, 3, &[payload(0, 999, 100)]).expect("room");
    assert_eq!(appended.first_seq, written[0].last().map_or(1, |(first, rows, _)| first + u64::from(*rows)));
    log.sync().expect("synced");
    written[0].push((appended.first_seq, 3, payload(0, 999, 100)));
    for (lane, written) in written.iter().enumerate() {
        assert_eq!(frames(&read_all(&log, lane)), *written);
    }
}

#[test]
fn a_reader_sees_nothing_before_its_sync_and_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut log, _) = open_dir(dir.path(), 1);
    let mut reader = LaneReader::new(log.shared(), 0);
    log.append(0, 1, 2, &[payload(0, 1, 40)]).expect("room");
    assert_eq!(drain(&mut reader), []);
    log.sync().expect("synced");
    assert_eq!(drain(&mut reader).len(), 1);
    for turn in 0..500 {
        log.append(0, 1, 1, &[payload(0, turn, 1000)]).expect("room");
        if turn % 7 == 0 {
            log.sync().expect("synced");
        }
    }
    log.sync().expect("synced");
    let items = drain(&mut reader);
    assert_eq!(items.len(), 500, "over the segments' borders");
    assert!(matches!(items[0], Item::Frame { first_seq: 3, .. }));
}

#[test]
fn a_frame_larger_than_a_segment_and_an_empty_one_come_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut log, _) = open_dir(dir.path(), 1);
    let large = payload(0, 1, 3_000_001);
    let zeros = Bytes::from(vec![0; 5000]);
    log.append(0, 1, 9, &[large.slice(..1_500_000), large.slice(1_500_000..)]).expect("room");
    log.append(0, 1, 1, &[]).expect("room");
    log.append(0, 1, 1, std::slice::from_ref(&zeros)).expect("room");
    log.sync().expect("synced");
    drop(log);
    let (log, recovered) = open_dir(dir.path(), 1);
    assert!(recovered.damage.is_empty(), "{recovered:?}");
    assert_eq!(frames(&read_all(&log, 0)), [(1, 9, large), (10, 1, Bytes::new()), (11, 1, zeros)]);
}

#[test]
fn a_cursor_is_found_by_number_and_chain_and_another_past_is_noticed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut log, _) = open_dir(dir.path(), 2);
    let mut ends = Vec::new();
    for turn in 0..300 {
        let appended = log.append(0, 1, 2, &[payload(0, turn, 900)]).expect("room");
        log.append(1, 1, 1, &[payload(1, turn, 50)]).expect("room");
        ends.push((appended.last_seq, appended.chain));
    }
    log.sync().expect("synced");
    let mut reader = LaneReader::new(log.shared(), 0);
    assert_eq!(reader.seek_after(0, 0).expect("readable"), Found::At);
    assert_eq!(drain(&mut reader).len(), 300);
    for (index, (last, chain)) in ends.iter().enumerate() {
        assert_eq!(reader.seek_after(*last, *chain).expect("readable"), Found::At, "{last}");
        assert_eq!(frames(&drain(&mut reader)).len(), 299 - index);
        assert_eq!(reader.seek_after(*last, chain ^ 1).expect("readable"), Found::Elsewhere);
        assert_eq!(reader.seek_after(last - 1, *chain).expect("readable"), Found::Elsewhere, "inside a frame");
    }
    assert_eq!(reader.seek_after(601, ends[299].1).expect("readable"), Found::Elsewhere, "beyond the end");
    // Half of it is settled and dropped; a database restored to an earlier time is noticed.
    let before = log.bytes();
    let freed = log.trim(&[300, 150]).expect("trimmed");
    assert!(freed > 0 && log.bytes() == before - freed);
    let Found::Behind { first } = reader.seek_after(2, ends[0].1).expect("readable") else { panic!("it is gone") };
    assert!(first > 3 && first <= 301, "{first}");
    assert_eq!(frames(&drain(&mut reader)).first().map(|frame| frame.0), Some(first));
    assert_eq!(reader.seek_after(300, ends[149].1).expect("readable"), Found::At);
    assert_eq!(frames(&drain(&mut reader)).len(), 150);
    assert_eq!(log.shared().first_retained(0), first);
}

#[test]
fn a_fork_renumbers_what_is_not_settled_and_is_remembered() {
    let dir = tempfile::tempdir().expect("a directory");
    let (old, new) = {
        let (mut log, _) = open_dir(dir.path(), 2);
        let old = log.lanes()[0].stream;
        for turn in 0..10 {
            log.append(0, 1, 3, &[payload(0, turn, 90)]).expect("room");
            log.append(1, 1, 3, &[payload(1, turn, 90)]).expect("room");
        }
        log.sync().expect("synced");
        let new = new_stream();
        log.fork(0, 13, new).expect("forked");
        let appended = log.append(0, 1, 1, &[payload(0, 10, 90)]).expect("room");
        assert_eq!((appended.stream, appended.first_seq), (new, 19));
        log.sync().expect("synced");
        (old, new)
    };
    let (log, recovered) = open_dir(dir.path(), 2);
    assert_eq!((recovered.lanes[0].stream, recovered.lanes[0].next_seq(), recovered.lanes[0].accepted), (new, 20, 19));
    let mut reader = LaneReader::new(log.shared(), 0);
    assert_eq!(reader.seek_after(0, 0).expect("readable"), Found::At);
    let items = frames(&drain(&mut reader));
    assert_eq!((items.len(), items[0].0, items[0].2.clone()), (7, 1, payload(0, 4, 90)));
    assert_eq!(frames(&read_all(&log, 1)).len(), 10, "the other lane is left alone");
    let shared = log.shared();
    assert_eq!(shared.renumbered(old, 13), Some((0, 1)));
    assert_eq!(shared.renumbered(old, 30), Some((0, 18)));
    assert_eq!((shared.renumbered(old, 12), shared.renumbered(old, 31), shared.renumbered(new, 1)), (None, None, None));
}

/// A log with some frames in its last group, closed in order or not; its first file.
fn ended(dir: &std::path::Path, closed: bool) -> std::path::PathBuf {
    let (mut log, _) = open_dir(dir, 1);
    for turn in 0..4 {
        log.append(0, 1, 2, &[payload(0, turn, 1_500)]).expect("room");
        log.sync().expect("synced");
    }
    if closed {
        log.close().expect("room");
        log.close().expect("nothing to do");
    }
    dir.join("0000000001.seg")
}

/// The sector in the middle of the last frame's payload, gone.
fn without_a_sector(file: &std::path::Path) {
    let mut bytes = fs::read(file).expect("read");
    let at = (8192 + 3 * 1_632 + 700) / 512 * 512;
    bytes[at..at + 512].fill(0);
    fs::write(file, &bytes).expect("written");
}

#[test]
fn an_orderly_end_tells_a_sector_that_was_lost_from_one_that_was_never_written() {
    let dir = tempfile::tempdir().expect("a directory");
    without_a_sector(&ended(dir.path(), false));
    let (_, recovered) = open_dir(dir.path(), 1);
    assert!(recovered.damage.is_empty() && recovered.torn_bytes > 0 && recovered.lanes[0].next == 7, "{recovered:?}");

    let dir = tempfile::tempdir().expect("a directory");
    without_a_sector(&ended(dir.path(), true));
    let (log, recovered) = open_dir(dir.path(), 1);
    assert_eq!((recovered.torn_bytes, recovered.lanes[0].next, recovered.forked.len()), (0, 9, 0), "{recovered:?}");
    let items = read_all(&log, 0);
    let told = log.shared().take_damage();
    assert_eq!(told.iter().map(|damage| damage.readings).collect::<Vec<_>>(), [Some((0, 7, 8))]);
    assert!(matches!(items[3], Item::Gap { first_seq: 7, last_seq: 8, kind: GapKind::Quarantined, .. }), "{items:?}");
}

#[test]
fn an_orderly_end_gives_room_back_and_is_written_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = ended(dir.path(), true);
    assert_eq!(fs::metadata(&first).expect("there").len(), 8192 + 4 * 1_632);
    let mark = || fs::metadata(dir.path().join("0000000002.seg")).expect("there").len();
    assert_eq!(mark(), 8192);
    let (mut log, recovered) = open_dir(dir.path(), 1);
    assert!(recovered.damage.is_empty() && recovered.tail_scanned_bytes == 0, "{recovered:?}");
    assert_eq!(log.bytes(), 8192 + 4 * 1_632 + 8192);
    log.close().expect("nothing was written since");
    assert_eq!(recovered.segments, 2);
    assert!(!dir.path().join("0000000003.seg").exists());
    log.trim(&[8]).expect("nothing to do");
    assert_eq!(log.shared().segments(), [1, 2], "what a database that is put back may lack stays");
    // It goes on behind the mark, and both go when they are settled.
    let appended = log.append(0, 1, 1, &[payload(0, 9, 100)]).expect("room");
    assert_eq!(appended.first_seq, 9);
    log.sync().expect("synced");
    log.trim(&[8]).expect("trimmed");
    assert_eq!(log.shared().segments(), [3]);
    assert!(!first.exists());
}

#[test]
fn a_file_that_was_cut_is_told_with_the_last_number_that_is_known() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = ended(dir.path(), false);
    let before = {
        let (log, _) = open_dir(dir.path(), 1);
        log.lanes()[0].stream
    };
    fs::OpenOptions::new().write(true).open(&file).expect("there").set_len(8192 + 2 * 1_632 + 9).expect("cut");
    let (log, recovered) = open_dir(dir.path(), 1);
    let lost = recovered.forked.first().expect("its end is lost");
    assert_eq!((lost.lane, lost.stream, lost.last_seq), (0, before, 4), "{recovered:?}");
    assert_eq!(lost.cut_bytes, 64 * 1024 - (8192 + 2 * 1_632 + 9));
    assert!(recovered.damage.iter().any(|damage| damage.what.contains("cut")));
    drop(log);
    // A later opening remembers.
    let (log, recovered) = open_dir(dir.path(), 1);
    assert!(recovered.forked.is_empty() && recovered.damage.is_empty(), "{recovered:?}");
    assert_eq!(log.shared().lost_ends(), [(0, before, 4)]);
}

#[test]
fn at_its_bound_it_refuses_and_takes_again_when_a_segment_was_dropped() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = RealDisk::create(dir.path()).expect("made");
    let settings = LogSettings { segment_bytes: 64 * 1024, total_bytes: 256 * 1024 };
    let (mut log, _) = open(disk, settings, &mut new_stream, 1).expect("opens");
    let mut taken = 0u64;
    let full = loop {
        match log.append(0, 1, 1, &[payload(0, taken, 1000)]) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, AppendError::Full), "{full}");
    assert!(log.bytes() <= 256 * 1024);
    log.sync().expect("what was taken is still there");
    assert_eq!(frames(&read_all(&log, 0)).len() as u64, taken);
    log.trim(&[taken / 2]).expect("trimmed");
    log.append(0, 1, 1, &[payload(0, taken, 1000)]).expect("room again");
    let bytes: u64 = fs::read_dir(dir.path())
        .expect("listed")
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .map(|m| if m.is_file() { m.len() } else { 0 })
        .sum();
    assert_eq!(bytes, log.bytes());
}

#[test]
fn one_flipped_bit_costs_at_most_the_frame_that_it_is_in() {
    let dir = tempfile::tempdir().expect("a directory");
    {
        let (mut log, _) = open_dir(dir.path(), 1);
        for turn in 0..20 {
            log.append(0, 1, 1, &[payload(0, turn, 400)]).expect("room");
            log.sync().expect("synced");
        }
    }
    let file = dir.path().join("0000000001.seg");
    let mut bytes = fs::read(&file).expect("read");
    // In the fourth frame's payload.
    bytes[8192 + 3 * 528 + 100] ^= 4;
    fs::write(&file, &bytes).expect("written");
    let (log, recovered) = open_dir(dir.path(), 1);
    assert_eq!(recovered.damage.len(), 1, "{recovered:?}");
    assert_eq!(recovered.damage[0].readings, Some((0, 4, 4)));
    let kept = recovered.damage[0].quarantine_file.clone().expect("set aside");
    assert_eq!(fs::read(dir.path().join(kept)).expect("kept").len(), 528);
    let items = read_all(&log, 0);
    assert_eq!(items.len(), 20);
    let chain_before = match &items[4] {
        Item::Frame { prev_chain, .. } => *prev_chain,
        Item::Gap { .. } => panic!("only one"),
    };
    assert_eq!(items[3], Item::Gap { first_seq: 4, last_seq: 4, kind: GapKind::Quarantined, chain: chain_before });
}
