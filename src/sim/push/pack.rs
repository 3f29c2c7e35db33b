//! Makes readings and packs them into pushes, one open push for each lane.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rustc_hash::FxHasher;
use tokio::{runtime::Handle, sync::mpsc};

use super::{Stop, Tally};
use crate::sim::{
    answer::ArrayWriter,
    model::{Fleet, FleetOptions},
    origin::Origin,
    pace::{Pacer, Speed},
    replay::Recording,
    sample::Sample,
};

/// Size at which a push is closed, in bytes; the daemon takes 8 MB.
const PUSH_MAX_BYTES: usize = 4 * 1024 * 1024;
/// A fleet with a high rate is sent in steps of this, not one push a moment.
const STEP_MIN: Duration = Duration::from_millis(20);

/// A body ready to be sent, as often as it takes.
#[derive(Clone, Debug)]
pub(super) struct Push {
    /// A JSON array.
    pub(super) body: Bytes,
    /// How many readings it holds.
    pub(super) rows: u64,
}

/// The run is over: a lane has gone.
#[derive(Debug)]
pub(super) struct Gone;

/// Collects readings by lane.
pub(super) struct Packer {
    lanes: Vec<(ArrayWriter, mpsc::Sender<Push>)>,
    batch_rows: u64,
    tally: Arc<Tally>,
    bytes_read: u64,
}

impl Packer {
    pub(super) fn new(senders: Vec<mpsc::Sender<Push>>, batch_rows: u64, tally: Arc<Tally>) -> Self {
        let lanes = senders.into_iter().map(|sender| (ArrayWriter::default(), sender)).collect();
        Self { lanes, batch_rows: batch_rows.max(1), tally, bytes_read: 0 }
    }

    fn add(&mut self, sample: &Sample) -> Result<(), Gone> {
        let mut hasher = FxHasher::default();
        sample.engine_id.hash(&mut hasher);
        let lane = (hasher.finish() % self.lanes.len() as u64) as usize;
        let (writer, _) = &mut self.lanes[lane];
        writer.push(sample);
        if writer.rows() >= self.batch_rows || writer.bytes() >= PUSH_MAX_BYTES { self.close(lane) } else { Ok(()) }
    }

    fn close(&mut self, lane: usize) -> Result<(), Gone> {
        let (writer, sender) = &mut self.lanes[lane];
        let rows = writer.rows();
        if rows == 0 {
            return Ok(());
        }
        let push = Push { body: writer.finish(), rows };
        self.tally.add_made(rows, self.bytes_read);
        // Waits while the lane is busy: this is where a slow daemon slows the maker.
        sender.blocking_send(push).map_err(|_| Gone)
    }

    fn close_all(&mut self) -> Result<(), Gone> {
        (0..self.lanes.len()).try_for_each(|lane| self.close(lane))
    }
}

/// Makes what `origin` gives until it ends or `stop` is set. Runs on a thread of its own.
///
/// # Errors
/// What is wrong with the file, or that the run was stopped before its end.
pub(super) fn make(origin: Origin, mut packer: Packer, stop: &Stop, runtime: &Handle) -> Result<(), String> {
    match origin {
        Origin::Model(options) => {
            model(options, &mut packer, stop, runtime);
            Ok(())
        }
        Origin::Recording(recording, speed) => replay(&recording, speed, &mut packer, stop, runtime),
    }
}

/// Without end: a model that is stopped has done what it should.
fn model(options: FleetOptions, packer: &mut Packer, stop: &Stop, runtime: &Handle) {
    let mut fleet = Fleet::new(options);
    let started = Instant::now();
    while !stop.is_set() {
        let due_s = fleet.seconds_at(fleet.tick());
        let elapsed_s = started.elapsed().as_secs_f64();
        if due_s <= elapsed_s {
            let mut outcome = Ok(());
            fleet.next_moment(|sample| {
                if outcome.is_ok() {
                    outcome = packer.add(sample);
                }
            });
            if outcome.is_err() {
                return;
            }
            continue;
        }
        if packer.close_all().is_err() {
            return;
        }
        let pause = Duration::try_from_secs_f64(due_s - elapsed_s).unwrap_or(Duration::MAX).max(STEP_MIN);
        runtime.block_on(stop.sleep(pause));
    }
    let _ = packer.close_all();
}

fn replay(recording: &Recording, speed: Speed, packer: &mut Packer, stop: &Stop, runtime: &Handle) -> Result<(), String> {
    let mut reader = recording.open().map_err(|error| format!("{}: {error}", recording.path.display()))?;
    let started = Instant::now();
    let mut pacer = Pacer::new(speed);
    let mut sample = Sample::default();
    let mut fault = None;
    loop {
        match reader.read_into(&mut sample) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                fault = Some(recording.explain(&error));
                break;
            }
        }
        let wait = pacer.due(sample.observed_at_us).saturating_sub(started.elapsed());
        if !wait.is_zero() && packer.close_all().is_ok() {
            runtime.block_on(stop.sleep(wait));
        }
        packer.bytes_read = reader.bytes_read();
        if stop.is_set() || packer.add(&sample).is_err() {
            fault = Some(format!("stopped before the end of {}; a repeat of the run is harmless", recording.path.display()));
            break;
        }
    }
    // Good rows before a bad line are sent; if the lanes have gone the tally knows why.
    let _ = packer.close_all();
    fault.map_or(Ok(()), Err)
}
