//! Whatever lies in the directory, the log opens and takes readings: files of bytes that nobody wrote, pieces of real segments in the wrong place,
//! whole segments under other names and of another log.
//!
//! `BELAYD_ARBITRARY=1000000 cargo test --release --lib journal::tests::arbitrary -- --nocapture` tries that many; a seed that fails is printed and
//! can be given again as `BELAYD_SAMPLE_SEED`.

use std::{collections::BTreeMap, time::SystemTime};

use bytes::Bytes;

use super::{disk::Random, drain, new_stream, payload, small};
use crate::buffer::journal::{Item, LaneReader, LogSettings, flat::FlatDisk, open, segment::FRAMES_AT};

const LANES: usize = 2;
/// Fresh readings that each lane must take.
const FRESH: u64 = 5;

fn settings() -> LogSettings {
    LogSettings { total_bytes: 64 << 20, ..small() }
}

/// The segments of a log of its own.
fn segments(seed: u64) -> Vec<Vec<u8>> {
    let disk = FlatDisk::default();
    let (mut log, _) = open(disk.clone(), settings(), &mut new_stream, LANES).expect("opens");
    let mut random = Random(seed);
    for n in 0..150 {
        let lane = random.below(LANES as u64) as usize;
        let len = random.below(2_500) as usize;
        log.append(lane, 1, 1 + random.below(3) as u32, &[payload(lane, n, len)]).expect("room");
        if random.one_in(3) {
            log.sync().expect("synced");
        }
    }
    log.sync().expect("synced");
    drop(log);
    disk.content().into_iter().filter(|(name, _)| name.ends_with(".seg")).map(|(_, bytes)| bytes).collect()
}

/// A file's content: of `real` segments more or less, or of nothing that was ever written.
fn content(random: &mut Random, real: &[Vec<u8>]) -> Vec<u8> {
    let some = |random: &mut Random| real[random.below(real.len() as u64) as usize].clone();
    let noise = |random: &mut Random, len: u64| -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).take(len as usize).collect()
    };
    match random.below(9) {
        0 => Vec::new(),
        1 => {
            let len = random.below(70_000);
            noise(random, len)
        }
        2 => vec![random.next() as u8; random.below(70_000) as usize],
        // As it is: under another name, twice, or of another log.
        3 => some(random),
        // A real beginning, and noise, or a real part of something else, behind it.
        4 | 5 => {
            let (mut bytes, other) = (some(random), some(random));
            bytes.truncate(random.below(bytes.len() as u64) as usize);
            if random.one_in(2) {
                let len = random.below(20_000);
                bytes.extend(noise(random, len));
            } else {
                bytes.extend_from_slice(&other[random.below(other.len() as u64) as usize..]);
            }
            bytes
        }
        // Frames without their header, or from the wrong place on.
        6 => {
            let bytes = some(random);
            let from = if random.one_in(2) { FRAMES_AT } else { random.below(bytes.len() as u64) };
            bytes[from as usize..].to_vec()
        }
        // Stretches overwritten.
        _ => {
            let mut bytes = some(random);
            for _ in 0..=random.below(6) {
                let at = random.below(bytes.len() as u64) as usize;
                let len = 1 + random.below(5_000) as usize;
                let fill = noise(random, len as u64);
                let end = bytes.len().min(at + len);
                bytes[at..end].copy_from_slice(&fill[..end - at]);
            }
            bytes
        }
    }
}

fn attempt(seed: u64, real: &[Vec<u8>]) {
    let mut random = Random(seed);
    let mut files = BTreeMap::new();
    for _ in 0..=random.below(5) {
        // Mostly what a log might be called, sometimes a number at the end of all numbers, or no name of a segment.
        let name = match random.below(12) {
            0 => "18446744073709551615.seg".to_owned(),
            1 => format!("{}.seg", random.next()),
            2 => "0000000001".to_owned(),
            _ => format!("{:010}.seg", random.below(9)),
        };
        files.insert(name, content(&mut random, real));
    }
    let disk = FlatDisk::with(&files);
    for life in 0..2 {
        let (mut log, _) = open(disk.clone(), settings(), &mut new_stream, LANES).expect("it opens");
        let mut given: Vec<Vec<(u64, Bytes)>> = vec![Vec::new(); LANES];
        for n in 0..FRESH {
            for (lane, given) in given.iter_mut().enumerate() {
                let bytes = payload(lane, 1_000 * (life + 1) + n, 100);
                let appended = log.append(lane, 1, 1, std::slice::from_ref(&bytes)).expect("room");
                given.push((appended.first_seq, bytes));
            }
        }
        log.sync().expect("synced");
        for (lane, given) in given.into_iter().enumerate() {
            let items = drain(&mut LaneReader::new(log.shared(), lane));
            let whole = |item: Item| match item {
                Item::Frame { first_seq, payload, .. } => Some((first_seq, payload)),
                Item::Gap { .. } => None,
            };
            let frames: Vec<_> = items.into_iter().filter_map(whole).collect();
            assert!(frames.ends_with(&given), "lane {lane} in life {life}: what was taken last comes out last, each once");
        }
    }
}

#[test]
fn whatever_lies_in_the_directory_it_opens_and_takes_readings() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let given = number("BELAYD_SAMPLE_SEED");
    let (seed, cases) = (given.unwrap_or_else(now), if given.is_some() { 1 } else { number("BELAYD_ARBITRARY").unwrap_or(400) });
    let real: Vec<_> = [segments(1), segments(2)].concat();
    for case in 0..cases {
        let seed = seed.wrapping_add(case);
        if let Err(failure) = std::panic::catch_unwind(|| attempt(seed, &real)) {
            eprintln!("BELAYD_SAMPLE_SEED={seed}");
            std::panic::resume_unwind(failure);
        }
    }
}
