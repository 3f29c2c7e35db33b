//! Puts a backup back: first all of it is read and held to its checksums, then it is unpacked beside what is there, then the database
//! is replaced in one transaction, then names are changed.
//!
//! Nothing that was there is deleted: files get another name. PostgreSQL's tables are the exception, which is said before. From the
//! first change on the directory holds a folder [`RESTORING`]; while it is there no daemon starts, and the restore can be run again.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use chrono::DateTime;

use super::{
    About, CONTROL, JOURNAL, Outcome, Progress, STORE, TABLES,
    archive::{self, Visit},
};
use crate::{
    buffer::journal::{DIRECTORY_ONLY, RESTORED},
    config::Config,
    daemon::{DataDirectory, RESTORING},
    folders::{self, sync},
    store::{Backend, Store, StoreError, StoreErrorKind, control, snapshot::Load},
};

/// Largest part of a table: what is written at once, and one long row.
const PART_MAX: u64 = 64 * 1024 * 1024;

/// What is put back where it is not all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Only {
    /// The data directory: control store and journal
    Directory,
    /// The database of readings
    Database,
}

/// What was put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// When the backup was made, RFC 3339.
    pub created_at: String,
    /// Which version made it.
    pub version: String,
    /// Where what was there is now.
    pub aside: Vec<PathBuf>,
}

/// Reads an archive to its end and holds it to its checksums. Returns when it was made, by which version, from which database.
///
/// # Errors
/// What is wrong with it.
pub fn check(file: &Path, progress: &mut dyn Progress) -> Outcome<(String, String, String)> {
    let about = verify(file, progress)?;
    Ok((about.created_at, about.version, about.backend))
}

fn verify(file: &Path, progress: &mut dyn Progress) -> Outcome<About> {
    let mut found = None;
    progress.part("checking", fs::metadata(file).map_or(0, |file| file.len()));
    let mut take = |about: &About| {
        found = Some(about.clone());
        Ok(())
    };
    archive::read(file, &mut take, &mut |_, _, _| Ok(()), &mut |bytes| progress.done(bytes))?;
    found.ok_or_else(|| format!("{} is no backup of belayd's", file.display()))
}

/// Puts a backup back into what the configuration names. The daemon must be stopped.
///
/// # Errors
/// What failed, and whether anything was changed.
pub fn restore(
    config: &Config,
    file: &Path,
    only: Option<Only>,
    replace: bool,
    now_us: i64,
    progress: &mut dyn Progress,
) -> Outcome<Restored> {
    let about = verify(file, progress)?;
    let data_dir = &config.server.data_dir;
    let (directory, database) = (only != Some(Only::Database), only != Some(Only::Directory));
    let store = Store::open(&config.store).map_err(|error| format!("store.url: {error}"))?;
    if database && about.backend != store.backend().as_str() {
        let (from, to) = (&about.backend, store.backend());
        return Err(format!(
            "the backup is of a store on {from}, and store.url names one on {to}: set store.url to one on {from}, or use --only directory"
        ));
    }
    let control = Store::open_control(&data_dir.join(control::FILE)).map_err(|error| error.to_string())?;
    store.knows(&about.store).and_then(|()| control.knows(&about.control)).map_err(|error| error.to_string())?;
    let _lock = DataDirectory::open_to_restore(data_dir).map_err(|denied| denied.to_string())?;
    if !replace {
        vacant(config, &store, directory, database)?;
    }
    let cannot = |error: io::Error| format!("{}: {error}; nothing was replaced", data_dir.display());
    let staging = Staging::begin(data_dir, &store, directory, database, now_us).map_err(cannot)?;
    progress.part("restoring", fs::metadata(file).map_or(0, |file| file.len()));
    if database && store.backend() == Backend::Postgres {
        let loaded = store.replace(&about.store, &mut |load| {
            let mut visit = |name: &str, bytes: u64, content: &mut dyn Read| match name.strip_prefix(TABLES) {
                Some(part) => load_part(part, bytes, content, load),
                None => staging.take(name, content),
            };
            unpack(file, &mut visit, progress).map_err(StoreError::other)
        });
        loaded.map_err(|error| told(&error, &store))?;
    } else {
        unpack(file, &mut |name, _, content| staging.take(name, content), progress)?;
    }
    // The database stands in its place by then. Where it is not put back it knows what was drained after the backup.
    let settled =
        || directory.then(|| if database { String::new() } else { format!("{DIRECTORY_ONLY}\n") } + &settled_numbers(&store));
    let aside = staging.finish(settled).map_err(|error| {
        format!("{}: {error}; the restore is half done: mend that and run it again, with --replace", data_dir.display())
    })?;
    Ok(Restored { created_at: about.created_at, version: about.version, aside })
}

/// For each stream the last number that the database has, a line each: what [`RESTORED`] holds. Where the database cannot be asked, none is
/// known, and what it has already will turn up as duplicates.
fn settled_numbers(store: &Store) -> String {
    let totals = store.with(crate::store::ledger::cursors);
    totals.unwrap_or_default().iter().map(|(stream, cursor)| format!("{stream} {cursor}\n")).collect()
}

fn told(error: &StoreError, store: &Store) -> String {
    if error.kind == StoreErrorKind::Other {
        error.to_string()
    } else {
        format!("{}: {error}; the database is as it was", store.redacted_url())
    }
}

/// Refuses to replace anything.
fn vacant(config: &Config, store: &Store, directory: bool, database: bool) -> Outcome<()> {
    let data_dir = &config.server.data_dir;
    if directory && (data_dir.join(control::FILE).exists() || data_dir.join("journal").exists()) {
        return Err(format!(
            "{} holds data already; --replace gives it other names and puts the backup in its place",
            data_dir.display()
        ));
    }
    if database && !store.is_vacant().map_err(|error| format!("{}: {error}", store.redacted_url()))? {
        let what = match store.backend() {
            Backend::Sqlite => "gives the file another name",
            Backend::Postgres => "drops belayd's tables there, for good",
        };
        return Err(format!("{} holds data already; --replace {what} and puts the backup in its place", store.redacted_url()));
    }
    Ok(())
}

fn unpack(file: &Path, visit: Visit<'_>, progress: &mut dyn Progress) -> Outcome<()> {
    archive::read(file, &mut |_| Ok(()), visit, &mut |bytes| progress.done(bytes))
}

fn load_part(part: &str, bytes: u64, content: &mut dyn Read, load: Load<'_>) -> Outcome<()> {
    let table = part.split('/').next().unwrap_or_default();
    if bytes > PART_MAX {
        return Err(format!("a part of {table} is too large"));
    }
    let mut lines = Vec::new();
    content.read_to_end(&mut lines).map_err(|error| error.to_string())?;
    load(table, &lines).map_err(|error| error.to_string())
}

/// What is unpacked, before it gets its names.
struct Staging {
    dir: PathBuf,
    data_dir: PathBuf,
    directory: bool,
    /// The SQLite store: where it is unpacked, and where it belongs.
    database: Option<(PathBuf, PathBuf)>,
    /// The end of the names of what goes aside.
    stamp: String,
    aside: Vec<PathBuf>,
}

impl Staging {
    fn begin(data_dir: &Path, store: &Store, directory: bool, database: bool, now_us: i64) -> io::Result<Self> {
        let stamp = DateTime::from_timestamp_micros(now_us).unwrap_or_default().format("%Y%m%dT%H%M%S%6f").to_string();
        let dir = data_dir.join(RESTORING);
        let mut aside = Vec::new();
        if dir.exists() && fs::read_dir(&dir)?.next().is_some() {
            // The folder itself stays, because no daemon may start on what a restore has left half done; its content goes aside.
            let other = with_end(&dir, &format!(".replaced-{stamp}"));
            DirBuilder::new().mode(0o700).create(&other)?;
            for entry in fs::read_dir(&dir)? {
                let entry = entry?;
                fs::rename(entry.path(), other.join(entry.file_name()))?;
            }
            sync(&other)?;
            aside.push(other);
        }
        folders::create(&dir.join("journal/quarantine"))?;
        let mut target = None;
        if let Some(file) = store.file().filter(|_| database) {
            // Beside its place: it may lie on another disk than the directory.
            let mut name = file.as_os_str().to_owned();
            name.push(".restoring");
            if let Some(parent) = file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                folders::create(parent)?;
            }
            target = Some((PathBuf::from(name), file.to_owned()));
        }
        sync(data_dir)?;
        Ok(Self { dir, data_dir: data_dir.to_owned(), directory, database: target, stamp, aside })
    }

    /// Unpacks a member that is wanted.
    fn take(&self, name: &str, content: &mut dyn Read) -> Outcome<()> {
        let path = match (name, &self.database) {
            (STORE, Some((path, _))) => path.clone(),
            (STORE, None) => return Ok(()),
            (CONTROL, _) if self.directory => self.dir.join(CONTROL),
            (name, _) if self.directory && name.starts_with(JOURNAL) => self.dir.join(name),
            _ => return Ok(()),
        };
        let mut write = || -> io::Result<()> {
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
            io::copy(content, &mut file)?;
            file.sync_all()
        };
        write().map_err(|error| format!("{}: {error}; nothing was replaced", path.display()))
    }

    /// Changes the names: what is there goes aside, what was unpacked takes its place.
    fn finish(self, settled: impl FnOnce() -> Option<String>) -> io::Result<Vec<PathBuf>> {
        let (stamp, mut aside) = (self.stamp, self.aside);
        if let Some((unpacked, place)) = &self.database {
            set_aside_database(place, &stamp, &mut aside)?;
            fs::rename(unpacked, place)?;
            sync(folders::parent_of(place))?;
        }
        let settled = settled();
        if self.directory {
            let (control, journal) = (self.data_dir.join(CONTROL), self.data_dir.join("journal"));
            set_aside_database(&control, &stamp, &mut aside)?;
            if journal.exists() {
                let other = with_end(&journal, &format!(".replaced-{stamp}"));
                fs::rename(&journal, &other)?;
                aside.push(other);
            }
            let unpacked = self.dir.join("journal");
            if let Some(settled) = &settled {
                let mut mark = OpenOptions::new().create_new(true).write(true).mode(0o600).open(unpacked.join(RESTORED))?;
                mark.write_all(settled.as_bytes())?;
                mark.sync_all()?;
            }
            sync(&unpacked)?;
            // A daemon without a journal left none, and needs none.
            let empty = fs::read_dir(&unpacked)?
                .filter_map(Result::ok)
                .all(|entry| ["quarantine", RESTORED].iter().any(|name| entry.file_name() == *name))
                && fs::read_dir(unpacked.join("quarantine"))?.next().is_none();
            if !empty {
                fs::rename(&unpacked, &journal)?;
            }
            fs::rename(self.dir.join(CONTROL), &control)?;
        }
        sync(&self.data_dir)?;
        fs::remove_dir_all(&self.dir)?;
        sync(&self.data_dir)?;
        Ok(aside)
    }
}

/// A SQLite file goes aside with its companions: a write-ahead log left behind would be played into the new file.
fn set_aside_database(path: &Path, stamp: &str, aside: &mut Vec<PathBuf>) -> io::Result<()> {
    let other = with_end(path, &format!(".replaced-{stamp}"));
    for end in ["-wal", "-shm", ""] {
        let from = with_end(path, end);
        if from.exists() {
            fs::rename(&from, with_end(&other, end))?;
        }
    }
    if other.exists() {
        aside.push(other);
    }
    Ok(())
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}
