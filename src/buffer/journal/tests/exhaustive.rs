//! Every flipped bit and every length of a small journal: it opens, what is whole comes out, what is not is reported.
//!
//! `BELAYD_EVERY_BIT=1 cargo test --release --lib journal::tests::exhaustive` does it for 1 MB; plain `cargo test` for a smaller one.

use std::collections::BTreeMap;

use super::{disk::ModelDisk, new_stream, payload};
use crate::buffer::journal::{Item, LaneReader, LogSettings, open};

fn settings() -> LogSettings {
    LogSettings { segment_bytes: 64 * 1024, total_bytes: 64 * 1024 * 1024 }
}

/// The segments of a log with so many bytes of payload, and how many frames it has.
fn built(bytes: usize) -> (BTreeMap<String, Vec<u8>>, u64) {
    let disk = ModelDisk::new();
    let (mut log, _) = open(disk.clone(), settings(), &mut new_stream, 1).expect("opens");
    let (mut written, mut frames) = (0, 0);
    while written < bytes {
        let len = 300 + (frames as usize * 37) % 2500;
        log.append(0, 1, 1, &[payload(0, frames, len)]).expect("room");
        (written, frames) = (written + len, frames + 1);
        if frames.is_multiple_of(3) {
            log.sync().expect("synced");
        }
    }
    log.sync().expect("synced");
    drop(log);
    (disk.segments().into_iter().map(|name| (name.clone(), disk.content(&name))).collect(), frames)
}

/// Opens the log with one file changed; how many readings come out, are missing, and whether damage was told.
fn look(files: &BTreeMap<String, Vec<u8>>, name: &str, changed: &[u8]) -> (u64, u64, bool) {
    let disk = ModelDisk::new();
    for (other, bytes) in files {
        disk.put(other, if other == name { changed.to_vec() } else { bytes.clone() });
    }
    let (log, recovered) = open(disk, settings(), &mut new_stream, 1).expect("any bytes open");
    let mut reader = LaneReader::new(log.shared(), 0);
    let (mut came, mut missing) = (0, 0);
    while let Some(item) = reader.next().expect("readable") {
        match item {
            Item::Frame { first_seq, payload: bytes, .. } => {
                let seq = if recovered.forked.is_empty() && !recovered.fresh { first_seq } else { log.lanes()[0].base + first_seq };
                assert_eq!(bytes, payload(0, seq - 1, bytes.len()), "{name}");
                came += 1;
            }
            Item::Gap { first_seq, last_seq, .. } => missing += last_seq + 1 - first_seq,
        }
    }
    (came, missing, !recovered.damage.is_empty() || !log.shared().take_damage().is_empty())
}

fn every_bit(bytes: usize, stride: usize) -> u64 {
    let (files, frames) = built(bytes);
    let mut looks = 0;
    for (name, content) in &files {
        // Only the file that is changed and its neighbours differ in what they do; all of them are opened and read each time.
        let mut changed = content.clone();
        for at in (0..content.len()).step_by(stride) {
            let bit = (at / stride % 8) as u8;
            for bit in if stride == 1 { 0..8 } else { bit..bit + 1 } {
                changed[at] ^= 1 << bit;
                let (came, missing, told) = look(&files, name, &changed);
                changed[at] ^= 1 << bit;
                assert_eq!(came + missing, frames, "{name} byte {at} bit {bit}");
                assert!(missing <= 1 && (missing == 0 || told), "{name} byte {at} bit {bit}: {missing} missing, told {told}");
                looks += 1;
            }
        }
    }
    looks
}

#[test]
fn any_flipped_bit_opens_and_costs_at_most_one_frame_which_is_told() {
    let begun = std::time::Instant::now();
    let whole = std::env::var_os("BELAYD_EVERY_BIT").is_some();
    let looks = if whole { every_bit(1024 * 1024, 1) } else { every_bit(60 * 1024, 61) };
    eprintln!("{looks} flipped bits in {:?}", begun.elapsed());
    assert!(looks > 1000);
}

#[test]
fn any_length_opens_and_everything_before_it_comes_out() {
    let begun = std::time::Instant::now();
    let whole = std::env::var_os("BELAYD_EVERY_BIT").is_some();
    let (files, frames) = built(if whole { 1024 * 1024 } else { 60 * 1024 });
    let mut looks = 0;
    for (name, content) in &files {
        for len in (0..content.len()).step_by(if whole { 1 } else { 37 }) {
            let (came, missing, told) = look(&files, name, &content[..len]);
            let last = Some(name) == files.keys().last();
            assert!(told || came == frames, "{name} cut at {len} is not told");
            assert!(came + missing == frames || last || len < 8192, "{name} cut at {len}: {came} + {missing} of {frames}");
            looks += 1;
        }
    }
    eprintln!("{looks} lengths in {:?}", begun.elapsed());
}
