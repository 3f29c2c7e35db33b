//! The log against real files and against a model of a disk.

mod arbitrary;
mod audit;
mod basics;
mod disk;
mod exhaustive;
mod forks;
mod history;
mod model;
mod oracle;
mod proof;
mod random;
mod room;
mod shaky;
mod tier;
mod unreadable;

use std::path::Path;

use bytes::Bytes;
use uuid::Uuid;

use super::{
    Item, LaneReader, LaneState, Log, LogSettings, Recovered,
    disk::{Disk, RealDisk},
    frame::{self, EDGE, Frame},
    open,
};
use crate::domain::receipt::StreamId;

/// Small segments, so that a few frames roll.
fn small() -> LogSettings {
    LogSettings { segment_bytes: 64 * 1024, total_bytes: 16 * 1024 * 1024 }
}

/// Tiny ones, so that a short history rolls and reaches the bound.
fn new_history_settings() -> LogSettings {
    LogSettings { segment_bytes: 16 * 1024, total_bytes: 160 * 1024 }
}

fn new_stream() -> StreamId {
    Uuid::new_v4()
}

fn open_dir(dir: &Path, lanes: usize) -> (Log<RealDisk>, Recovered) {
    let disk = RealDisk::create(dir).expect("the directory is made");
    open(disk, small(), &mut new_stream, lanes).expect("it opens")
}

/// A payload that tells which reading it belongs to.
fn payload(lane: usize, seq: u64, len: usize) -> Bytes {
    let seed = (lane as u64 + 1).wrapping_mul(0x9e37_79b9) ^ seq.wrapping_mul(0x85eb_ca6b_27d4_eb4f);
    (0..len).map(|at| (seed.rotate_left(at as u32 % 61) as u8).wrapping_add(at as u8)).collect::<Vec<_>>().into()
}

/// Everything that a lane's reader gives until there is no more.
fn drain<D: Disk>(reader: &mut LaneReader<D>) -> Vec<Item> {
    std::iter::from_fn(|| reader.next().expect("readable")).collect()
}

fn read_all<D: Disk>(log: &Log<D>, lane: usize) -> Vec<Item> {
    drain(&mut LaneReader::new(log.shared(), lane))
}

/// What would pass for the frame that comes next, if checksums knew no place.
fn counterfeit(lane: usize, state: &LaneState) -> Vec<u8> {
    let inside = b"counterf";
    let end = [&inside[..], &state.next.to_le_bytes(), &1u32.to_le_bytes()].concat();
    let chain = frame::chain(state.chain, &end);
    let frame = Frame {
        lane: lane as u8,
        rows: 1,
        payload: inside.len() as u32,
        first: state.next,
        prev_chain: state.chain,
        chain,
        received_at_us: 0,
        group: 8192,
        empty: 0,
    };
    let mut edge = [0; EDGE];
    frame.head(7, &mut edge);
    let mut bytes = [&edge[..], inside].concat();
    frame.foot(7, &mut edge);
    bytes.extend_from_slice(&edge);
    bytes
}

fn uuid(random: &mut disk::Random) -> StreamId {
    Uuid::from_u64_pair(random.next(), random.next())
}
