//! The log: one line an event, for people who tail it and for machines.
//!
//! In: the `log` macros with key-values. Out: stderr or a rotated file, as logfmt or JSON; under systemd logfmt with the journal's
//! priorities; the last lines in memory ([`LogRing`]) for `belayd tail` and the page. `env_logger` buffers and writes; what passes is
//! decided here, because its filter cannot change while it runs. A crash loses nothing that was written: nothing is held back.
//!
//! Never log a token, password, address list, body or URL with a secret.

mod entry;
mod file;
mod format;
mod panic;
mod ring;

use std::{
    fmt,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    str::FromStr,
    sync::Arc,
};

use arc_swap::ArcSwap;
use env_filter::Filter;
use log::{LevelFilter, Log, Metadata, Record};

pub use entry::{Fields, LogEntry};
pub use panic::install_panic_hook;
pub use ring::{LogFilter, LogRing, LogTail, RING_BYTES, RING_LINES, TailEvent};

use self::{file::RotatingFile, format::LineFormat};
use crate::{
    clock::{Clock, SystemClock},
    config::LogConfig,
};

/// Why logging cannot be set up or changed.
#[derive(Debug)]
pub enum LogError {
    /// Directives that cannot be read.
    Filter {
        /// What is wrong.
        reason: String,
    },
    /// The log file cannot be opened.
    File {
        /// Path and cause.
        reason: String,
    },
    /// A logger has been installed before.
    Installed,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter { reason } => {
                write!(f, "{reason}; write a level (off, error, warn, info, debug, trace), or such as `info,belayd::outbox=debug`")
            }
            Self::File { reason } => write!(f, "log file {reason}"),
            Self::Installed => f.write_str("a logger has been installed already"),
        }
    }
}

impl std::error::Error for LogError {}

/// What of the log others hold. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Logging {
    /// Changes what is logged.
    pub control: LogControl,
    /// The last lines, and the live tail.
    pub ring: LogRing,
}

impl Logging {
    /// A control and an empty ring that no logger feeds: for tests of who reads them.
    ///
    /// # Errors
    /// Directives that cannot be read, with a hint.
    pub fn detached(directives: &str) -> Result<Self, LogError> {
        Ok(Self { control: LogControl::new(directives)?, ring: LogRing::default() })
    }
}

/// Sets up logging for the process and the panic hook. To the journal where systemd reads stderr, else to `config.file` where it
/// is set, else to stderr.
///
/// # Errors
/// Directives that cannot be read, a file that cannot be opened, or a logger that is installed already.
pub fn init(config: &LogConfig) -> Result<Logging, LogError> {
    let journal = is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref(), stderr_id());
    let file = config.file.as_deref().filter(|_| !journal);
    let (logger, logging) = build(config, journal, writer(config, file)?)?;
    log::set_boxed_logger(Box::new(logger)).map_err(|_| LogError::Installed)?;
    logging.control.announce();
    install_panic_hook();
    if journal && config.file.is_some() {
        log::info!(target: "belayd::logging", "log.file is not used: the journal keeps the log");
    }
    Ok(logging)
}

/// Checks directives without applying them, for `belayd check`.
///
/// # Errors
/// Directives that cannot be read, with a hint.
pub fn check_filter(directives: &str) -> Result<(), LogError> {
    parse_filter(directives).map(|_| ())
}

fn writer(config: &LogConfig, file: Option<&Path>) -> Result<Box<dyn Write + Send>, LogError> {
    let Some(path) = file else { return Ok(Box::new(io::stderr())) };
    let file = RotatingFile::open(path, config.rotate_bytes, config.keep_files);
    let file = file.map_err(|error| LogError::File { reason: format!("{}: {error}", path.display()) })?;
    Ok(Box::new(file))
}

/// Builds the logger without installing it.
fn build(config: &LogConfig, journal: bool, writer: Box<dyn Write + Send>) -> Result<(Logger, Logging), LogError> {
    let control = LogControl::new(&config.level)?;
    let ring = LogRing::default();
    let line = LineFormat { format: config.format, journal };
    let kept = ring.clone();
    let inner = env_logger::Builder::new()
        .filter_level(LevelFilter::Trace)
        .target(env_logger::Target::Pipe(writer))
        .write_style(env_logger::WriteStyle::Never)
        .format(move |out, record| {
            let entry = LogEntry::new(record, SystemClock.now_us());
            let written = line.write(out, &entry);
            kept.push(entry);
            written
        })
        .build();
    let logger = Logger { state: control.state.clone(), inner };
    Ok((logger, Logging { control, ring }))
}

/// Decides what passes and hands it to `env_logger`.
struct Logger {
    state: Arc<ArcSwap<State>>,
    inner: env_logger::Logger,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.state.load().filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.inner.log(record);
        }
    }

    fn flush(&self) {
        self.inner.flush();
    }
}

#[derive(Debug)]
struct State {
    directives: String,
    filter: Filter,
}

/// Changes what is logged while the daemon runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogControl {
    state: Arc<ArcSwap<State>>,
}

impl LogControl {
    fn new(directives: &str) -> Result<Self, LogError> {
        Ok(Self { state: Arc::new(ArcSwap::from_pointee(parse_filter(directives)?)) })
    }

    /// Takes over these directives at once, for example `info,belayd::outbox=debug`; where they cannot be read, the old stay.
    ///
    /// # Errors
    /// Directives that cannot be read, with a hint.
    pub fn set_filter(&self, directives: &str) -> Result<(), LogError> {
        self.state.store(Arc::new(parse_filter(directives)?));
        self.announce();
        Ok(())
    }

    /// The directives in force.
    pub fn filter(&self) -> String {
        self.state.load().directives.clone()
    }

    /// Tells the `log` macros what is worth building at all.
    fn announce(&self) {
        log::set_max_level(self.state.load().filter.filter());
    }
}

/// Stricter than `env_filter`, which takes a misspelt level for the name of a target and then logs nothing else.
fn parse_filter(directives: &str) -> Result<State, LogError> {
    let fault = |reason: String| LogError::Filter { reason };
    let mut parts = 0;
    for part in directives.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (target, level) = part.split_once('=').unwrap_or(("-", part));
        if LevelFilter::from_str(level.trim()).is_err() || target.trim().is_empty() {
            return Err(fault(format!("`{part}` is no log level")));
        }
        parts += 1;
    }
    if parts == 0 {
        return Err(fault("no log level is given".into()));
    }
    let compact: String = directives.chars().filter(|c| !c.is_whitespace()).collect();
    let mut builder = env_filter::Builder::new();
    builder.try_parse(&compact).map_err(|error| fault(error.to_string()))?;
    Ok(State { directives: compact, filter: builder.build() })
}

/// Whether stderr is the journal's stream: `JOURNAL_STREAM` holds its device and inode, and is inherited by children whose stderr
/// goes elsewhere.
fn is_journal(journal_stream: Option<&str>, stderr: Option<(u64, u64)>) -> bool {
    let named = journal_stream.and_then(|text| text.split_once(':'));
    let named = named.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    named.is_some() && named == stderr
}

fn stderr_id() -> Option<(u64, u64)> {
    let metadata = std::fs::metadata("/proc/self/fd/2").ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::config::LogFormat;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn config(level: &str) -> LogConfig {
        LogConfig { format: LogFormat::Logfmt, level: level.into(), file: None, rotate_bytes: 0, keep_files: 0 }
    }

    fn say(logger: &Logger, level: log::Level, target: &str, text: &str) {
        logger.log(&Record::builder().level(level).target(target).args(format_args!("{text}")).build());
    }

    #[test]
    fn the_filter_changes_while_it_runs_and_the_ring_keeps_what_passed() {
        let sink = Sink::default();
        let (logger, logging) = build(&config("warn"), false, Box::new(sink.clone())).unwrap();
        say(&logger, log::Level::Info, "belayd::outbox", "too early");
        logging.control.set_filter("warn, belayd::outbox=debug").unwrap();
        say(&logger, log::Level::Debug, "belayd::outbox", "now");
        say(&logger, log::Level::Info, "belayd::web", "not here");
        assert!(logging.control.set_filter("inof").is_err());
        assert_eq!(logging.control.filter(), "warn,belayd::outbox=debug");
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("level=debug target=belayd::outbox msg=\"now\""), "{text}");
        assert_eq!(logging.ring.snapshot(&LogFilter::default()).len(), 1);
    }

    #[test]
    fn directives_that_cannot_be_read_are_refused_with_a_hint() {
        for bad in ["", " , ", "inof", "belayd::outbox", "belayd=loud", "=info", "info/regex"] {
            let error = check_filter(bad).unwrap_err().to_string();
            assert!(error.contains("belayd::outbox=debug"), "{bad}: {error}");
        }
        for good in ["info", "off", "WARN", "info,belayd::outbox=debug", "belayd=trace"] {
            check_filter(good).unwrap();
        }
    }

    #[test]
    fn only_the_stream_that_systemd_made_is_the_journal() {
        assert!(is_journal(Some("8:1234"), Some((8, 1234))));
        for (named, stderr) in [(Some("8:1234"), Some((8, 1))), (Some("junk"), None), (Some("8"), Some((8, 1))), (None, None)] {
            assert!(!is_journal(named, stderr));
        }
    }
}
