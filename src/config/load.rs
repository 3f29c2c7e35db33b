//! Finding the file and going the whole way from its text to a [`Config`]. In: file, environment, flags. Out: the
//! configuration, or every fault at once. Pure apart from reading files.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use super::{
    assemble::assemble,
    fault::{Fault, Faults, Place},
    model::Config,
    node, overlay, relations,
    resolve::{Files, Ground, HostFiles, NoFiles, Report, resolve},
    templates,
    value::Value,
};

/// Largest file that is read, bytes.
const FILE_MAX_BYTES: u64 = 1_048_576;

/// Most faults that are told.
const FAULTS_MAX: usize = 500;

/// Where a configuration comes from. `default()` is nothing at all: no file, no environment, paths left relative.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The file to read; it must be there.
    pub file: Option<PathBuf>,
    /// Files to look for where `file` is not given; the first that is there is read.
    pub search: Vec<PathBuf>,
    /// Environment variables; those that begin with `BELAYD__` count.
    pub env: Vec<(String, String)>,
    /// Settings that go over everything else, `section.key=value`.
    pub set: Vec<String>,
    /// What relative paths outside the file count from.
    pub working_dir: PathBuf,
    /// systemd's `$CREDENTIALS_DIRECTORY`.
    pub credentials_dir: Option<PathBuf>,
}

impl LoadOptions {
    /// The process's environment and working directory, with the usual places to look for the file.
    pub fn from_process() -> Self {
        let readable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            let name = name.into_string().ok().filter(|name| name.starts_with(overlay::PREFIX))?;
            Some((name, value.to_string_lossy().into_owned()))
        };
        Self {
            file: None,
            search: vec![PathBuf::from("belayd.toml"), PathBuf::from("/etc/belayd/belayd.toml")],
            env: env::vars_os().filter_map(readable).collect(),
            set: Vec::new(),
            working_dir: env::current_dir().unwrap_or_default(),
            credentials_dir: env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        }
    }
}

/// A configuration that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The file they came from; `None` where there was none.
    pub file: Option<PathBuf>,
    /// What is no fault and yet probably not meant, one sentence each: worth a warning.
    pub notes: Vec<String>,
}

/// Loads the configuration: the file, then the environment over it, then the settings.
///
/// # Errors
/// Every fault at once, with its place, key and what to do.
pub fn load(options: &LoadOptions) -> Result<Loaded, Faults> {
    let (file, text) = match find(options) {
        Ok(Some((file, text))) => (Some(file), text),
        Ok(None) => (None, String::new()),
        Err((file, message)) => {
            let fault = Fault { file: file.display().to_string(), place: Place::Nowhere, key: String::new(), message, hint: None };
            return Err(Faults(vec![fault]));
        }
    };
    build(&text, file, options, &HostFiles)
}

/// Where the data directory is, for commands that need no more: faults elsewhere in the configuration are told beside it and stop
/// nobody. It is not guessed: where a fault might be about the directory itself, such as a misspelt key of `[server]`, the directory
/// must be given by the environment or a flag.
///
/// # Errors
/// Every fault of the configuration, where the directory cannot be told.
pub fn data_dir(options: &LoadOptions) -> Result<(PathBuf, Option<Faults>), Faults> {
    match load(options) {
        Ok(loaded) => Ok((loaded.config.server.data_dir, None)),
        Err(faults) => match salvage(options) {
            Some(dir) => Ok((dir, Some(faults))),
            None => Err(faults),
        },
    }
}

fn salvage(options: &LoadOptions) -> Option<PathBuf> {
    let (file, text) = find(options).ok().flatten().unwrap_or_default();
    let name = file.display().to_string();
    let (mut root, syntax) = node::read(text.strip_prefix('\u{feff}').unwrap_or(&text), &name);
    let guesswork = !is_sound(&syntax);
    if guesswork {
        root = node::read("", &name).0;
    }
    let mut report = Report { file: name, faults: Vec::new() };
    overlay::apply_env(&mut root, &options.env, &mut report);
    overlay::apply_flags(&mut root, &options.set, &mut report);
    let ground = ground(Some(&file), options, &HostFiles);
    let resolved = resolve(root, &ground, &mut report);
    let server = resolved.one("server")?;
    let doubtful = |fault: &Fault| {
        let about = fault.key.as_str();
        about == "server.data_dir" || !server.is_given("data_dir") && (about.starts_with("server") || !about.contains('.'))
    };
    if report.faults.iter().any(doubtful) || (!server.is_given("data_dir") && (guesswork || find(options).is_err())) {
        return None;
    }
    match server.value("data_dir") {
        Some(Value::Path(path)) => Some(path.clone()),
        _ => None,
    }
}

/// Where brackets or quotes do not close, what follows is guesswork. A key that is given twice leaves the rest sound.
fn is_sound(syntax: &[Fault]) -> bool {
    syntax.iter().all(|fault| fault.message.contains("duplicate key"))
}

fn ground<'a>(file: Option<&Path>, options: &LoadOptions, files: &'a dyn Files) -> Ground<'a> {
    let file_dir =
        file.map_or_else(|| options.working_dir.clone(), |file| options.working_dir.join(file.parent().unwrap_or(Path::new(""))));
    Ground { file_dir, working_dir: options.working_dir.clone(), credentials_dir: options.credentials_dir.clone(), files }
}

/// The configuration that a text alone means: no file, no environment; paths stay as written, files it names count as there.
/// Never panics, whatever the text; tests and fuzzing start here.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str) -> Result<Config, Faults> {
    build(text, Some(PathBuf::from("belayd.toml")), &LoadOptions::default(), &NoFiles).map(|loaded| loaded.config)
}

type Unreadable = (PathBuf, String);

fn find(options: &LoadOptions) -> Result<Option<(PathBuf, String)>, Unreadable> {
    if let Some(file) = &options.file {
        return match read(&options.working_dir.join(file)) {
            Ok(text) => Ok(Some((file.clone(), text))),
            Err(error) => Err((file.clone(), format!("cannot read the configuration: {error}"))),
        };
    }
    for file in &options.search {
        match read(&options.working_dir.join(file)) {
            Ok(text) => return Ok(Some((file.clone(), text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err((file.clone(), format!("cannot read the configuration: {error}"))),
        }
    }
    Ok(None)
}

fn read(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    if metadata.len() > FILE_MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {FILE_MAX_BYTES} bytes")));
    }
    fs::read_to_string(path)
}

fn build(text: &str, file: Option<PathBuf>, options: &LoadOptions, files: &dyn Files) -> Result<Loaded, Faults> {
    let name = file.as_ref().map_or_else(|| "defaults".to_owned(), |file| file.display().to_string());
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut root, syntax) = node::read(text, &name);
    // Further faults behind guesswork would mislead.
    let sound = is_sound(&syntax);
    let mut report = Report { file: name, faults: syntax };
    if !sound {
        return Err(sorted(report));
    }
    overlay::apply_env(&mut root, &options.env, &mut report);
    overlay::apply_flags(&mut root, &options.set, &mut report);
    let ground = ground(file.as_deref(), options, files);
    let resolved = resolve(root, &ground, &mut report);
    relations::check(&resolved, &mut report);
    if !report.faults.is_empty() {
        return Err(sorted(report));
    }
    let own_texts = templates::read(&resolved, files, &mut report);
    if !report.faults.is_empty() {
        return Err(sorted(report));
    }
    match assemble(&resolved, own_texts) {
        Ok(config) => Ok(Loaded { notes: relations::notes(&config, &resolved), config, file }),
        Err(key) => {
            report.add(&Place::Nowhere, key, "has no value; this is a fault of belayd's table of keys, please report it");
            Err(sorted(report))
        }
    }
}

/// In the order in which they stand; nobody reads more than so many.
fn sorted(mut report: Report) -> Faults {
    report.faults.sort_by(|a, b| a.place.cmp(&b.place));
    let more = report.faults.len().saturating_sub(FAULTS_MAX);
    if more > 0 {
        report.faults.truncate(FAULTS_MAX);
        report.add(&Place::Nowhere, "", format!("and {more} further faults"));
    }
    Faults(report.faults)
}
