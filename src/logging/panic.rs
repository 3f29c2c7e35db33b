//! Panics as lines of the log: one error with actor and location instead of a raw text in the middle of it.

use std::panic::{self, PanicHookInfo};

use crate::supervise::current_actor;

/// Installs the hook. Where nothing logs (yet), the previous hook speaks.
pub fn install_panic_hook() {
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if log::max_level() >= log::LevelFilter::Error {
            report(info);
        } else {
            previous(info);
        }
    }));
}

fn report(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("a panic without a text");
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let current = std::thread::current();
    let who = current_actor().or(current.name()).unwrap_or("unnamed");
    // Costs milliseconds, so only where it is asked for.
    let backtrace = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    if backtrace {
        let backtrace = std::backtrace::Backtrace::force_capture();
        log::error!(target: "belayd::panic", actor = who, location = location, backtrace:% = backtrace; "panicked: {message}");
    } else {
        log::error!(target: "belayd::panic", actor = who, location = location; "panicked: {message}");
    }
}
