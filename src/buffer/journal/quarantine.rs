//! Sets aside what is damaged, so that a person, or a better program, can look at it.
//!
//! In: a stretch of a segment, or a file that is none of ours. Out: a file in `quarantine/` and a note beside it. It is best effort:
//! where the disk is full or broken, and where the folder holds [`BYTES_MAX`] or [`FILES_MAX`] already, the damage is told without it.
//! Nothing here is needed to read the log. What has its final name is whole and durable before its segment can go; a crash may leave a
//! file without its note, or a `.part`, which the next copy replaces.

use std::io;

use super::{
    disk::{Disk, DiskFile, QUARANTINE},
    scan::{Bad, Scanner},
    shared::Damage,
};

/// Most bytes that the folder takes before nothing more is set aside: evidence of damage must not fill the disk.
pub(super) const BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Most files, notes included.
pub(super) const FILES_MAX: u64 = 4_096;
/// What is copied at once.
const PIECE: usize = 64 * 1024;

/// Copies a damaged stretch. A stretch that was set aside before is not copied again.
pub(super) fn bytes<D: Disk>(
    disk: &D,
    segment: u64,
    scanner: &mut Scanner<impl DiskFile>,
    bad: &Bad,
    what: &'static str,
) -> Damage {
    let readings = bad.frame.map(|frame| (frame.lane, frame.first, frame.last()));
    let name = format!("{QUARANTINE}/{segment:010}-{:010}.bin", bad.offset);
    let kept = match disk.open_read(&name) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && has_room(disk, bad.bytes) => keep(disk, &name, scanner, bad)
            .and_then(|()| note(disk, &name, segment, bad, readings, what))
            .and_then(|()| disk.sync_dir()),
        Err(error) => Err(error),
    };
    let quarantine_file = kept.is_ok().then_some(name);
    Damage { segment, offset: bad.offset, bytes: bad.bytes, what, quarantine_file, readings }
}

/// Whether the folder takes so many bytes more.
pub(super) fn has_room<D: Disk>(disk: &D, bytes: u64) -> bool {
    disk.quarantined().is_ok_and(|(files, there)| files + 2 <= FILES_MAX && there.saturating_add(bytes) <= BYTES_MAX)
}

/// Copies under another name first, so that a copy that a crash cut short never passes for the whole.
fn keep<D: Disk>(disk: &D, name: &str, scanner: &mut Scanner<impl DiskFile>, bad: &Bad) -> io::Result<()> {
    let part = format!("{name}.part");
    let file = disk.create_new(&part).or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => disk.remove(&part).and_then(|()| disk.create_new(&part)),
        _ => Err(error),
    })?;
    let copied = copy(&file, scanner, bad).and_then(|()| file.sync_data()).and_then(|()| disk.rename_new(&part, name));
    if copied.is_err() {
        let _ = disk.remove(&part);
    }
    copied
}

fn copy(file: &impl DiskFile, scanner: &mut Scanner<impl DiskFile>, bad: &Bad) -> io::Result<()> {
    let mut done = 0;
    while done < bad.bytes {
        let piece = scanner.bytes(bad.offset + done, (bad.bytes - done).min(PIECE as u64) as usize);
        if piece.is_empty() {
            break;
        }
        file.write_at(piece, done)?;
        done += piece.len() as u64;
    }
    Ok(())
}

fn note<D: Disk>(disk: &D, name: &str, segment: u64, bad: &Bad, readings: Option<(u8, u64, u64)>, what: &str) -> io::Result<()> {
    let numbers = readings.map_or_else(
        || "which readings it held is not known from it; the gap in the numbers tells".to_owned(),
        |(lane, first, last)| format!("it held the readings at positions {first} to {last} of lane {lane}"),
    );
    let text = format!(
        "damaged: {what}\nsegment {segment}, offset {}, {} bytes\n{numbers}\nblocks that could not be read are filled with 0xee\n",
        bad.offset, bad.bytes
    );
    let file = match disk.create_new(&format!("{}.txt", name.trim_end_matches(".bin"))) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other?,
    };
    file.write_at(text.as_bytes(), 0)?;
    file.sync_data()
}

/// Moves a whole file (or whatever stands in its place) out of the way. Returns its new name.
pub(super) fn file<D: Disk>(disk: &D, name: &str) -> Option<String> {
    // A name that is taken belongs to an earlier one; a few tries are enough for any mistake by hand.
    (0..100).find_map(|turn| {
        let to = if turn == 0 { format!("{QUARANTINE}/{name}") } else { format!("{QUARANTINE}/{name}.{turn}") };
        match disk.open_read(&to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => disk.rename(name, &to).ok().map(|()| to),
            _ => None,
        }
    })
}
