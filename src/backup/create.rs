//! Makes a backup. See the module above for the order, and why.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use tempfile::{NamedTempFile, TempDir};

use super::{
    About, CONTROL, FORMAT, JOURNAL, Outcome, Progress, STORE, TABLES,
    archive::{Writer, add_about},
    journal::{ATTEMPTS, Pinned, up_to},
};
use crate::{
    config::Config,
    domain::time::rfc3339_us,
    store::{
        Store, StoreError, control,
        snapshot::{Shape, Snapshot},
    },
};

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// Bytes of the archive.
    pub bytes: u64,
    /// Segments of the journal in it.
    pub segments: usize,
}

/// Makes a backup of the data directory and the store in `target`, which must not exist. The daemon may run.
///
/// # Errors
/// What failed; there is no file then.
pub fn create(config: &Config, target: &Path, now_us: i64, progress: &mut dyn Progress) -> Outcome<Created> {
    let data_dir = &config.server.data_dir;
    if target.symlink_metadata().is_ok() {
        return Err(format!("{} is there already; name a new file", target.display()));
    }
    if !data_dir.join(control::FILE).exists() {
        return Err(format!("there is no data of belayd in {}; is server.data_dir right?", data_dir.display()));
    }
    let beside = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let cannot = |error: io::Error| format!("cannot write to {}: {error}", beside.display());
    let store = Store::open(&config.store).map_err(|error| format!("store.url: {error}"))?;
    let control = Store::open_control(&data_dir.join(control::FILE)).map_err(|error| error.to_string())?;
    for _ in 0..ATTEMPTS {
        let mut job = Job {
            scratch: tempfile::Builder::new().prefix(".belayd-backup-").tempdir_in(beside).map_err(cannot)?,
            about: About {
                format: FORMAT,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                created_at: rfc3339_us(now_us),
                backend: store.backend().to_string(),
                store: Shape::default(),
                control: Shape::default(),
            },
            mtime: u64::try_from(now_us / 1_000_000).unwrap_or(0),
            progress: &mut *progress,
        };
        let file = NamedTempFile::new_in(job.scratch.path()).map_err(cannot)?;
        let mut pinned = Pinned::first(&data_dir.join("journal")).map_err(|error| format!("the journal: {error}"))?;
        let made = store.snapshot(|shape, snapshot| {
            if !pinned.more().map_err(failed)? {
                return Ok(None);
            }
            pinned.fix_ends().map_err(failed)?;
            control.snapshot(|control_shape, control_snapshot| {
                job.about.store = shape.clone();
                job.about.control = control_shape.clone();
                let writer = Writer::new(file.as_file().try_clone().map_err(failed)?, job.mtime);
                job.write(writer, &pinned, snapshot, control_snapshot).map(Some).map_err(failed)
            })
        });
        if let Some(made) = made.map_err(|error| error.to_string())? {
            file.persist_noclobber(target).map_err(|error| format!("{}: {}", target.display(), error.error))?;
            File::open(beside).and_then(|dir| dir.sync_all()).map_err(cannot)?;
            return Ok(made);
        }
    }
    Err("segments of the journal come and go faster than they can be opened; try again when less is pushed".to_owned())
}

fn failed(error: io::Error) -> StoreError {
    StoreError::other(error.to_string())
}

fn refused(error: StoreError) -> io::Error {
    io::Error::other(error.to_string())
}

struct Job<'p> {
    scratch: TempDir,
    about: About,
    mtime: u64,
    progress: &'p mut dyn Progress,
}

impl Job<'_> {
    fn write(&mut self, mut writer: Writer, pinned: &Pinned, store: Snapshot<'_>, control: Snapshot<'_>) -> io::Result<Created> {
        add_about(&mut writer, &self.about)?;
        self.progress.part("journal", pinned.bytes());
        let mut segments = 0;
        for (name, file, end) in pinned.segments() {
            let len = file.metadata()?.len();
            let content = up_to(file, end, len)?;
            writer.add(&format!("{JOURNAL}{name}"), len, content, &mut |bytes| self.progress.done(bytes))?;
            segments += 1;
        }
        for (name, path) in pinned.quarantined()? {
            let file = File::open(&path)?;
            let len = file.metadata()?.len();
            writer.add(&format!("{JOURNAL}{name}"), len, file, &mut |_| {})?;
        }
        self.progress.part("database", 0);
        match store {
            Snapshot::Sqlite(_) => self.file(&mut writer, STORE, store)?,
            Snapshot::Postgres(mut postgres) => {
                self.progress.part("database", postgres.size_estimate().map_err(refused)?);
                for table in self.about.store.tables.clone() {
                    let mut number = 0;
                    let dumped = postgres.dump(&table.name, &mut |part| {
                        number += 1;
                        let name = format!("{TABLES}{}/{number:06}", table.name);
                        writer.add(&name, part.len() as u64, part, &mut |bytes| self.progress.done(bytes)).map_err(failed)
                    });
                    dumped.map_err(refused)?;
                }
            }
        }
        self.progress.part("control store", 0);
        self.file(&mut writer, CONTROL, control)?;
        Ok(Created { bytes: writer.finish()?, segments })
    }

    /// A SQLite database: copied into a file beside the archive, then into it.
    fn file(&mut self, writer: &mut Writer, name: &str, snapshot: Snapshot<'_>) -> io::Result<()> {
        let Snapshot::Sqlite(snapshot) = snapshot else { return Err(io::Error::other("the control store is no SQLite file")) };
        let path: PathBuf = self.scratch.path().join(name);
        let (mut before, mut told) = (0, false);
        let copied = snapshot.copy_to(&path, &mut |copied, all| {
            if !told {
                // Copied once out of the database, and once into the archive.
                self.progress.part(name, 2 * all);
                told = true;
            }
            self.progress.done(copied.saturating_sub(before));
            before = copied;
        });
        copied.map_err(refused)?;
        let file = File::open(&path)?;
        writer.add(name, file.metadata()?.len(), file, &mut |bytes| self.progress.done(bytes))?;
        fs::remove_file(&path)
    }
}
