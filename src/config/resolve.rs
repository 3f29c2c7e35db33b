//! From the tree of what was written to values by the table of keys. In: tree, files that keys name. Out: one [`Entry`] for each
//! table with every default filled in, and every fault on the way.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    fault::{Fault, Place},
    keys::{Absent, Key, Kind, NOT_SERVED, SECTIONS, Section},
    node::{self, Item, Node, Table},
    secrets,
    texts::nearest,
    value::{Value, Wrong, convert},
};

/// The files that a configuration names. Fuzzing and tests bring their own.
pub(super) trait Files {
    /// The text of a file.
    fn read(&self, path: &Path) -> io::Result<String>;
    /// Whether it is there and a file.
    fn is_file(&self, path: &Path) -> bool;
    /// Whether it is there and a folder.
    fn is_dir(&self, path: &Path) -> bool;
    /// The names of the files in a folder, in order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
}

/// The host's files.
pub(super) struct HostFiles;

impl Files for HostFiles {
    fn read(&self, path: &Path) -> io::Result<String> {
        fs::read_to_string(path)
    }

    fn is_file(&self, path: &Path) -> bool {
        path.is_file()
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// No files at all: every one counts as there, and none can be read.
pub(super) struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _path: &Path) -> io::Result<String> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "no file is read here"))
    }

    fn is_file(&self, _path: &Path) -> bool {
        true
    }

    fn is_dir(&self, _path: &Path) -> bool {
        true
    }

    fn list(&self, _dir: &Path) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// Where paths count from, and where files come from.
pub(super) struct Ground<'a> {
    /// The directory of the file, for what stands in it and for defaults.
    pub(super) file_dir: PathBuf,
    /// The working directory, for environment and flags.
    pub(super) working_dir: PathBuf,
    /// systemd's credentials.
    pub(super) credentials_dir: Option<PathBuf>,
    /// The files.
    pub(super) files: &'a dyn Files,
}

impl Ground<'_> {
    fn dir(&self, place: &Place) -> &Path {
        match place {
            Place::File { .. } | Place::Nowhere => &self.file_dir,
            Place::Env(_) | Place::Flag(_) => &self.working_dir,
        }
    }
}

/// Collects faults.
pub(super) struct Report {
    /// The name of the file, for what is printed.
    pub(super) file: String,
    /// What was found so far.
    pub(super) faults: Vec<Fault>,
}

impl Report {
    /// Adds one fault.
    pub(super) fn add(&mut self, place: &Place, key: impl Into<String>, wrong: impl Into<Wrong>) {
        let Wrong { message, hint } = wrong.into();
        self.faults.push(Fault { file: self.file.clone(), place: place.clone(), key: key.into(), message, hint });
    }
}

/// One table, resolved.
pub(super) struct Entry {
    pub(super) section: &'static Section,
    /// `buffer`, or `sources[1]`.
    pub(super) path: String,
    /// Where the table begins.
    pub(super) place: Place,
    pub(super) values: BTreeMap<&'static str, (Value, Place)>,
    /// Keys that were given with a value that is none; each is told.
    pub(super) wrong: Vec<&'static str>,
}

impl Entry {
    /// The value of a key.
    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.values.get(name).map(|(value, _)| value)
    }

    /// Where a key's value stands; the table's place where it has none.
    pub(super) fn place_of(&self, name: &str) -> &Place {
        self.values.get(name).map_or(&self.place, |(_, place)| place)
    }

    /// Whether a key was given, in the file or elsewhere.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|(_, place)| *place != Place::Nowhere)
    }

    /// The path of one of its keys.
    pub(super) fn key_path(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }
}

/// Every table, in the order of [`SECTIONS`].
pub(super) struct Resolved(Vec<Entry>);

impl Resolved {
    /// The entries of a section: exactly one unless it is a list of tables.
    pub(super) fn entries(&self, section: &str) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter(move |entry| entry.section.name == section)
    }

    /// The one entry of a section that is no list.
    pub(super) fn one(&self, section: &str) -> Option<&Entry> {
        self.entries(section).next()
    }
}

/// Resolves the whole tree.
pub(super) fn resolve(mut root: Table, ground: &Ground<'_>, report: &mut Report) -> Resolved {
    for field in &root.fields {
        if !SECTIONS.iter().any(|section| section.name == field.name) {
            report.add(&field.place, &*field.name, unknown_section(&field.name));
        }
    }
    let mut entries = Vec::new();
    for section in SECTIONS {
        for (path, item) in tables(section, root.get_mut(section.name).map(|field| &field.item), report) {
            entries.push(entry(section, path, &item, ground, report));
        }
    }
    Resolved(entries)
}

/// What to say of a name at the top that is no section.
pub(super) fn unknown_section(name: &str) -> Wrong {
    if let Some((_, reason)) = NOT_SERVED.iter().find(|(path, _)| *path == name) {
        return Wrong::hint("not available in this build", *reason);
    }
    let sections = SECTIONS.iter().map(|section| section.name);
    let hint = elsewhere(name, None).or_else(|| nearest(name, sections).map(|near| format!("did you mean \"{near}\"?")));
    Wrong { message: "unknown key".to_owned(), hint }
}

/// What to say of a name in a section that is no key of it.
pub(super) fn unknown_key(section: &'static Section, name: &str) -> Wrong {
    let path = format!("{}.{name}", section.name);
    if let Some((_, reason)) = NOT_SERVED.iter().find(|(known, _)| *known == path) {
        return Wrong::hint("not available in this build", *reason);
    }
    let near = nearest(name, section.keys.iter().map(|key| key.name));
    let hint = near.map(|near| format!("did you mean \"{near}\"?")).or_else(|| elsewhere(name, Some(section)));
    Wrong { message: "unknown key".to_owned(), hint }
}

/// The section that has a key of exactly this name.
fn elsewhere(name: &str, not: Option<&'static Section>) -> Option<String> {
    let mut others = SECTIONS.into_iter().filter(|section| not.is_none_or(|not| not.name != section.name));
    let section = others.find(|section| section.keys.iter().any(|key| key.name == name))?;
    let header = if section.is_list() { format!("[[{}]]", section.name) } else { format!("[{}]", section.name) };
    Some(format!("it belongs under {header}"))
}

/// The tables of a section with their paths: as written, or as they are by default.
fn tables(section: &'static Section, written: Option<&Item>, report: &mut Report) -> Vec<(String, Item)> {
    let nowhere = |node| Item { node, place: Place::Nowhere };
    match (written.map(|item| (&item.node, item)), section.is_list()) {
        (None, false) => vec![(section.name.to_owned(), nowhere(Node::Table(Table::default())))],
        (None, true) => {
            let (mut root, _) = node::read(section.default_entries, "defaults");
            let Some(Node::List(items)) = root.get_mut(section.name).map(|field| &field.item.node) else { return Vec::new() };
            items.iter().cloned().enumerate().map(|(index, item)| (format!("{}[{index}]", section.name), item.unplaced())).collect()
        }
        (Some((Node::Table(_), item)), false) => vec![(section.name.to_owned(), item.clone())],
        (Some((Node::List(items), item)), true) if items.len() > section.most => {
            report.add(&item.place, section.name, format!("has more than {} entries", section.most));
            Vec::new()
        }
        (Some((Node::List(items), _)), true) => {
            items.iter().cloned().enumerate().map(|(index, item)| (format!("{}[{index}]", section.name), item)).collect()
        }
        (Some((node, item)), list) => {
            let (what, write) = if list {
                ("a list of tables", format!("[[{}]]", section.name))
            } else {
                ("one table", format!("[{}]", section.name))
            };
            report.add(
                &item.place,
                section.name,
                Wrong::hint(format!("expected {what}, found {}", node.describe()), format!("write {write}")),
            );
            Vec::new()
        }
    }
}

fn entry(section: &'static Section, path: String, item: &Item, ground: &Ground<'_>, report: &mut Report) -> Entry {
    let mut entry = Entry { section, path, place: item.place.clone(), values: BTreeMap::new(), wrong: Vec::new() };
    let Node::Table(table) = &item.node else {
        report.add(&item.place, &*entry.path, format!("expected a table, found {}", item.node.describe()));
        return entry;
    };
    let mut seen: Vec<&'static str> = Vec::new();
    for field in &table.fields {
        let Some(key) = section.key(&field.name) else {
            report.add(&field.place, entry.key_path(&field.name), unknown_key(section, &field.name));
            continue;
        };
        if seen.contains(&key.name) {
            let other = if field.name == key.name { key.alias.unwrap_or_default() } else { key.name };
            report.add(
                &field.place,
                entry.key_path(&field.name),
                Wrong::hint(format!("given twice, also as \"{other}\""), "keep one of them"),
            );
            continue;
        }
        seen.push(key.name);
        take(&mut entry, key, &field.name, &field.item, ground, report);
    }
    for key in section.keys.iter().filter(|key| !seen.contains(&key.name)) {
        match key.absent {
            Absent::Is(default) => {
                let (mut table, _) = node::read(&format!("value = {default}"), "defaults");
                if let Some(field) = table.get_mut("value") {
                    take(&mut entry, key, key.name, &field.item.clone().unplaced(), ground, report);
                }
            }
            Absent::Example(_) => {}
            Absent::Fault(example) => {
                report.add(
                    &item.place,
                    entry.key_path(key.name),
                    Wrong::hint("is missing", format!("add for example: {} = {example}", key.name)),
                );
            }
        }
    }
    secrets::resolve_secrets(&mut entry, &seen, ground, report);
    entry
}

fn take(entry: &mut Entry, key: &'static Key, written: &str, item: &Item, ground: &Ground<'_>, report: &mut Report) {
    let value = convert(key.kind, item).and_then(|value| settle(key.kind, value, ground.dir(&item.place), ground.files));
    match value {
        Ok(value) => {
            entry.values.insert(key.name, (value, item.place.clone()));
        }
        Err(wrong) => {
            entry.wrong.push(key.name);
            report.add(&item.place, entry.key_path(written), wrong);
        }
    }
}

/// Makes paths absolute from `dir`, and looks whether files that must exist do.
pub(super) fn settle(kind: Kind, value: Value, dir: &Path, files: &dyn Files) -> Result<Value, Wrong> {
    match (kind, value) {
        (Kind::InputFile, Value::Path(path)) => {
            let path = dir.join(path);
            if files.is_file(&path) { Ok(Value::Path(path)) } else { Err(format!("there is no file {}", path.display()).into()) }
        }
        (Kind::InputDir, Value::Path(path)) => {
            let path = dir.join(path);
            if files.is_dir(&path) { Ok(Value::Path(path)) } else { Err(format!("there is no folder {}", path.display()).into()) }
        }
        (Kind::Path, Value::Path(path)) => Ok(Value::Path(dir.join(path))),
        (Kind::StoreUrl, Value::Text(url)) => Ok(Value::Text(match url.strip_prefix("sqlite://") {
            Some(path) => format!("sqlite://{}", dir.join(path).display()),
            None => url,
        })),
        (_, value) => Ok(value),
    }
}
