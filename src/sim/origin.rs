//! Where the simulator's readings come from, and how it tells a person what happens on the way.

use std::sync::Arc;

use super::{model::FleetOptions, pace::Speed, replay::Recording};

/// The model or a file.
#[derive(Clone, Debug)]
pub enum Origin {
    /// Engines that do not exist.
    Model(FleetOptions),
    /// A file, at a speed.
    Recording(Recording, Speed),
}

/// Told when something happens that a person should see; each kind once.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;
