//! The ways a message can go: the sinks of the configuration, and what each takes.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{config::Config, sinks, web::state::WebState};

/// The sink that is meant where a message names none, and the one whose recipients are mail addresses.
const MAIL: &str = "smtp";

/// One sink, as a message sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Its name.
    pub name: String,
    /// Whether it is told to whom; otherwise it is the receiver itself.
    pub takes_recipients: bool,
    /// Whether files can go with it.
    pub takes_files: bool,
    /// Whether its recipients are mail addresses.
    pub takes_addresses: bool,
    /// Whether it is meant where none is named.
    pub is_default: bool,
}

/// The ways of the configuration in force, worked out once for each.
#[derive(Debug, Default)]
pub struct Ways(Mutex<Option<Known>>);

/// A configuration, and what follows from it.
type Known = (Arc<Config>, Arc<[Way]>);

/// Every way there is now.
pub fn all(state: &WebState) -> Arc<[Way]> {
    let config = state.config.load_full();
    let mut known = state.ways.0.lock().unwrap_or_else(PoisonError::into_inner);
    match &*known {
        Some((of, ways)) if Arc::ptr_eq(of, &config) => ways.clone(),
        _ => {
            let ways: Arc<[Way]> = of(&config).into();
            *known = Some((config, ways.clone()));
            ways
        }
    }
}

fn of(config: &Config) -> Vec<Way> {
    let way = |name: String| Way {
        takes_recipients: sinks::takes_recipients(config, &name),
        takes_files: sinks::takes_files(config, &name),
        takes_addresses: name == MAIL,
        is_default: name == MAIL,
        name,
    };
    sinks::known(config).into_iter().map(way).collect()
}
