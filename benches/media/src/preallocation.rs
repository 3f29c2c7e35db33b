//! How a segment's room should be made: `fallocate`, zeros, or an old segment that is used again.
//!
//! `-- preallocation` appends pieces to segments made in each way, interleaved, one `fdatasync` each as the journal does, and prints the
//! table of `docs/JOURNAL_MEDIA.md`. It needs nothing but the file system; a crash loses its temporary files.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Length of a segment, as the journal makes it.
const SEGMENT_BYTES: u64 = 32 << 20;
/// Zeros are written in pieces of this size.
const ZEROS: usize = 256 * 1024;
/// Appended between two syncs.
const PIECES: [usize; 3] = [512, 8 * 1024, 128 * 1024];

/// How the room is made.
#[derive(Clone, Copy)]
enum Way {
    Fallocate,
    Zeros,
    Recycled,
}

const WAYS: [(Way, &str); 3] = [(Way::Fallocate, "fallocate"), (Way::Zeros, "zero-filled"), (Way::Recycled, "recycled")];

/// What one way came to for one piece.
#[derive(Default)]
struct Figures {
    made: Vec<Duration>,
    synced: Vec<Duration>,
    bytes: u64,
    took: Duration,
}

/// Measures and prints. `appends` a round, so many `rounds`.
///
/// # Errors
/// What the file system says.
pub(crate) fn run(dir: &Path, rounds: usize, appends: usize) -> io::Result<()> {
    let dir = dir.join(format!("preallocation-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let mut figures: Vec<Vec<Figures>> = PIECES.iter().map(|_| WAYS.iter().map(|_| Figures::default()).collect()).collect();
    let measured: io::Result<()> = (0..rounds).try_for_each(|_| {
        for (piece, of_piece) in PIECES.iter().zip(&mut figures) {
            for ((way, _), figures) in WAYS.iter().zip(of_piece) {
                one(&dir, *way, *piece, appends, figures)?;
            }
        }
        Ok(())
    });
    fs::remove_dir_all(&dir)?;
    measured?;
    println!("| appended and synced | room made by | fdatasync p50 | fdatasync p99 | MB/s | a segment made in, p50 |");
    println!("|---|---|---|---|---|---|");
    for (piece, of_piece) in PIECES.iter().zip(&mut figures) {
        for ((_, name), figures) in WAYS.iter().zip(of_piece) {
            let rate = figures.bytes as f64 / figures.took.as_secs_f64() / 1e6;
            let (p50, p99) = (of(&mut figures.synced, 50), of(&mut figures.synced, 99));
            println!("| {piece} bytes | {name} | {p50:.2} ms | {p99:.2} ms | {rate:.1} | {:.1} ms |", of(&mut figures.made, 50));
        }
    }
    Ok(())
}

fn of(times: &mut [Duration], percent: usize) -> f64 {
    times.sort();
    times.get(times.len() * percent / 100).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

fn one(dir: &Path, way: Way, piece: usize, appends: usize, figures: &mut Figures) -> io::Result<()> {
    let path = dir.join("segment");
    if matches!(way, Way::Recycled) {
        // An old segment, written once from front to back.
        make(&path, Way::Zeros, 0xa5)?;
    }
    let began = Instant::now();
    let file = match way {
        Way::Recycled => recycle(&path)?,
        way => make(&path, way, 0)?,
    };
    File::open(dir)?.sync_all()?;
    figures.made.push(began.elapsed());
    let bytes = vec![0x5a; piece];
    let began = Instant::now();
    for at in (0..SEGMENT_BYTES - piece as u64).step_by(piece).take(appends) {
        file.write_all_at(&bytes, at)?;
        let syncing = Instant::now();
        file.sync_data()?;
        figures.synced.push(syncing.elapsed());
        figures.bytes += piece as u64;
    }
    figures.took += began.elapsed();
    fs::remove_file(dir.join("segment.used")).or_else(|_| fs::remove_file(&path))
}

fn make(path: &Path, way: Way, fill: u8) -> io::Result<File> {
    let file = OpenOptions::new().create_new(true).write(true).open(path)?;
    if let Way::Fallocate = way {
        // SAFETY: plain system call on a descriptor that is open.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, SEGMENT_BYTES as libc::off_t) } != 0 {
            return Err(io::Error::last_os_error());
        }
    } else {
        let zeros = vec![fill; ZEROS];
        (0..SEGMENT_BYTES).step_by(ZEROS).try_for_each(|at| file.write_all_at(&zeros, at))?;
    }
    file.sync_data()?;
    Ok(file)
}

/// A new name for an old file.
fn recycle(path: &Path) -> io::Result<File> {
    let used: PathBuf = path.with_extension("used");
    fs::rename(path, &used)?;
    OpenOptions::new().write(true).open(used)
}
