//! Configuration: from `belayd.toml`, environment and flags to typed values, or to every fault at once.
//!
//! ```text
//!  text -> tree -> overlay (environment, flags) -> resolve (table of keys) -> relations -> assemble -> Config
//! ```
//! Nothing is kept beyond the typed values; a crash loses nothing, the file is read again.

mod alerts;
mod assemble;
pub mod example;
pub mod fault;
pub mod keys;
#[cfg(test)]
mod layers;
pub mod load;
#[cfg(test)]
mod malformed;
mod messages;
pub mod model;
mod node;
mod overlay;
mod redact;
mod relations;
mod reload;
mod resolve;
mod retention;
mod secrets;
mod sinks;
mod templates;
mod texts;
pub mod units;
mod value;
mod view;

pub use alerts::{AlertsConfig, DeadmanConfig, RouteConfig};
pub use fault::{Fault, Faults, Place};
pub use load::{LoadOptions, Loaded, data_dir, load, parse};
pub use model::*;
pub use redact::redact_url;
pub use reload::{Changes, NotReloadable, diff};
pub use sinks::*;
pub use templates::TEMPLATE_ENDING;
pub use texts::signing_key;
