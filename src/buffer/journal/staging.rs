//! Frames on their way into a segment's file: staged in memory, written in large pieces.
//!
//! In: payloads in parts. Out: header, payload and footer behind what is staged, or in the file. A crash loses what is staged; nobody was
//! told of it. The staging buffer is used again and again and never grows above [`STAGE`].

use std::io;

use bytes::Bytes;

use super::{
    disk::DiskFile,
    frame::{self, EDGE, Frame, Pieces},
    writer::Current,
};

/// Most bytes that are staged in memory before they are written.
pub(super) const STAGE: usize = 1024 * 1024;

/// Writes what is staged.
pub(super) fn flush<F: DiskFile>(current: &Current<F>, stage: &mut Vec<u8>) -> io::Result<()> {
    if stage.is_empty() {
        return Ok(());
    }
    let written = current.file.write_at(stage, current.at - stage.len() as u64);
    stage.clear();
    written
}

/// Stages a frame in one piece.
pub(super) fn stage(stage: &mut Vec<u8>, offset: u64, frame: &mut Frame, seed: u64, parts: &[Bytes]) {
    let begin = stage.len();
    let (payload, mut edge) = (frame.payload as usize, [0; EDGE]);
    stage.resize(begin + frame.payload_at(), 0);
    for part in parts {
        stage.extend_from_slice(part);
    }
    let foot = stage.len();
    stage.extend_from_slice(&frame.first.to_le_bytes());
    stage.extend_from_slice(&frame.rows.to_le_bytes());
    frame.chain = frame::chain(frame.prev_chain, &stage[foot - payload..]);
    // Header and footer have no empty piece, whatever they say; until they are written they must not look like one.
    stage[begin..begin + EDGE].fill(0xff);
    stage.resize(foot + EDGE, 0xff);
    frame.empty = frame::empty_pieces(&stage[begin..], offset) as u16;
    frame.head(seed, &mut edge);
    stage[begin..begin + EDGE].copy_from_slice(&edge);
    frame.foot(seed, &mut edge);
    stage[foot..].copy_from_slice(&edge);
}

/// Writes a frame that is larger than the stage, in pieces.
pub(super) fn write_large<F: DiskFile>(
    current: &mut Current<F>,
    stage: &mut Vec<u8>,
    frame: &mut Frame,
    seed: u64,
    parts: &[Bytes],
) -> io::Result<()> {
    let end = [&frame.first.to_le_bytes()[..], &frame.rows.to_le_bytes()[..]].concat();
    frame.chain = frame::chain_of_parts(frame.prev_chain, parts.iter().map(|part| &part[..]).chain([&end[..]]));
    let mut pieces = Pieces::new(current.at);
    pieces.push(&[0xff; EDGE]);
    pieces.push(&[0; frame::ALIGN][..frame::padding(frame.payload as usize)]);
    parts.iter().for_each(|part| pieces.push(part));
    pieces.push(&[0xff; EDGE]);
    frame.empty = pieces.empty() as u16;
    let mut edge = [0; EDGE];
    let mut put = |bytes: &[u8]| -> io::Result<()> {
        for piece in bytes.chunks(STAGE) {
            if stage.len() + piece.len() > STAGE {
                flush(current, stage)?;
            }
            stage.extend_from_slice(piece);
            current.at += piece.len() as u64;
        }
        Ok(())
    };
    frame.head(seed, &mut edge);
    put(&edge)?;
    put(&[0; frame::ALIGN][..frame::padding(frame.payload as usize)])?;
    parts.iter().try_for_each(|part| put(part))?;
    frame.foot(seed, &mut edge);
    put(&edge)
}
