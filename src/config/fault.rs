//! What is wrong with a configuration: where, which key, and what to do about it.

use std::fmt;

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the file, counted from 1; the column counts characters.
    File {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// In an environment variable of this name.
    Env(String),
    /// In a flag, as given.
    Flag(String),
    /// Nowhere: a default, or the file as a whole.
    Nowhere,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The name of the file that was read, as it was given.
    pub file: String,
    /// Where.
    pub place: Place,
    /// The key's path, such as `sources[1].interval`; empty where the text is not TOML at all.
    pub key: String,
    /// What is wrong, without the values of secrets.
    pub message: String,
    /// What to do about it, where that is not plain from the message.
    pub hint: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File { line, column } => write!(f, "{}:{line}:{column}: ", self.file)?,
            Place::Env(name) => write!(f, "{name}: ")?,
            Place::Flag(flag) => write!(f, "--set {flag}: ")?,
            Place::Nowhere => write!(f, "{}: ", self.file)?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

/// Every fault of a configuration, in the order in which they stand. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
