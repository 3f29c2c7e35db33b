//! `belayd run`: the daemon, as systemd starts it.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use super::{GlobalArgs, complain, exit};
use crate::{
    daemon::{self, Options},
    logging,
    sinks::templates::Templates,
};

/// Arguments of `belayd run`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "Example:\n  belayd run --config /etc/belayd/belayd.toml")]
pub struct RunArgs {
    /// Listen here instead of at server.listen
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Keep state here instead of in server.data_dir
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Runs the daemon until it is told to stop.
pub fn execute(args: &RunArgs, global: &GlobalArgs) -> ExitCode {
    keep_memory_small();
    // The arguments are settings like any other, so that a reload sees them too.
    let mut options = global.options();
    options.set.extend(args.listen.map(|address| format!("server.listen={address}")));
    options.set.extend(args.data_dir.as_ref().map(|dir| format!("server.data_dir={}", dir.display())));
    let loaded = match super::load(&options) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    if let Err(faults) = Templates::load(&loaded.config.templates) {
        complain(&faults.to_string());
        return ExitCode::from(exit::CONFIG);
    }
    let logging = match logging::init(&loaded.config.log) {
        Ok(logging) => logging,
        Err(error) => {
            complain(&format!("log: {error}"));
            return ExitCode::from(exit::CONFIG);
        }
    };
    let file = loaded.file.as_ref().map_or_else(|| "none, defaults".into(), |file| file.display().to_string());
    log::info!(target: "belayd::config", file = file.as_str(); "configuration read");
    for note in &loaded.notes {
        log::warn!(target: "belayd::config", "{note}");
    }
    daemon::run(loaded.config, Options { logging, reload: Some(options), demo: None })
}

/// What glibc's allocator takes from the system by itself, and goes back at once when it is freed, bytes.
#[cfg(target_env = "gnu")]
const MMAP_FROM_BYTES: libc::c_int = 64 * 1024;
/// What a heap may keep unused at its end, bytes.
#[cfg(target_env = "gnu")]
const KEPT_BYTES: libc::c_int = 128 * 1024;

/// glibc gives each thread a heap of its own, up to eight per core, and each keeps what it once needed. A dozen threads that are
/// mostly idle do well with two. And whenever something large is freed it raises both bounds above, up to 32 and 64 MB, so that bodies and
/// batches come to lie among what stays, and the heaps grow to a multiple of what is in use; bounds that are set stay.
pub fn keep_memory_small() {
    #[cfg(target_env = "gnu")]
    // SAFETY: plain call without pointers, before any other thread runs.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_FROM_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
    }
}
