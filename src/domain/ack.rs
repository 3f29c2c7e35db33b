//! How safe a reading is when its sender gets the answer.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Ack levels, in rising order of safety. A tier reaches some of them; a sender may ask for any that its tier has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckLevel {
    /// In this process's memory; a crash of the process may lose it.
    Memory,
    /// On this host's disk, synced.
    Journal,
    /// In Redis, as safe as its append-only settings make it.
    Redis,
    /// Committed in the database.
    Store,
    /// Acknowledged by the Kafka broker.
    Relay,
}

impl AckLevel {
    /// Every level, in rising order.
    pub const ALL: [AckLevel; 5] = [Self::Memory, Self::Journal, Self::Redis, Self::Store, Self::Relay];

    /// The word used in configuration, in `?ack=` and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Journal => "journal",
            Self::Redis => "redis",
            Self::Store => "store",
            Self::Relay => "relay",
        }
    }
}

impl fmt::Display for AckLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AckLevel {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| UnknownWord::new(text, &Self::ALL.map(Self::as_str)))
    }
}

/// A word that is not one of those a setting or parameter takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    /// The word as given, cut to 64 characters.
    pub given: String,
    /// The words that would have been understood.
    pub known: Vec<&'static str>,
}

impl UnknownWord {
    /// Remembers `given` (cut to 64 characters) beside the words that are known.
    pub fn new(given: &str, known: &[&'static str]) -> Self {
        Self { given: given.chars().take(64).collect(), known: known.to_vec() }
    }
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown word \"{}\", expected one of: {}", self.given, self.known.join(", "))
    }
}

impl std::error::Error for UnknownWord {}
