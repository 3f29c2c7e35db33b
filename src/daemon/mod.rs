//! The daemon: wires every stage to the next, starts them in order, reloads, and stops them in order.
//!
//! In: a checked configuration. Out: a running [`Daemon`], and at its end an exit code. Nothing is decided here that a stage could
//! decide; what is here is who holds whose sender.

mod deadman;
mod descriptors;
mod directory;
mod drain;
mod heartbeat;
mod journal;
mod left_behind;
mod left_open;
mod redis;
mod redis_leases;
mod reload;
mod start;
mod stop;
mod triple;
mod wiring;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::dev::ServerHandle;
use arc_swap::ArcSwap;
use tokio::signal::unix::{Signal, SignalKind, signal};

use directory::is_own;
pub use directory::{CONTROL_SOCKET, DataDirectory, Denied, RESTORING};

use crate::{
    buffer::{Buffer, drain::DrainHandle},
    cli::exit,
    clock::SharedClock,
    config::{Config, LoadOptions},
    logging::Logging,
    monitor::{Board, InboxItem, Look},
    outbox::Relay,
    store::{Store, tokens::TokenBook},
    supervise::{Overseer, Supervisor},
    systemd::Notifier,
};

/// What a start is given beside the configuration.
pub struct Options {
    /// The log, set up before.
    pub logging: Logging,
    /// How to load the configuration again at SIGHUP; `None` where there is nothing to load (the demo).
    pub reload: Option<LoadOptions>,
    /// The demo's inbox.
    pub demo: Option<Look<Vec<InboxItem>>>,
}

/// Why the daemon did not start. The text says what to do.
#[derive(Debug)]
pub struct StartFailed(pub String);

impl std::fmt::Display for StartFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartFailed {}

/// Turns any error of the start into one that says what was being done.
fn while_doing<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> StartFailed {
    move |error| StartFailed(format!("{what}: {error}"))
}

/// A daemon that runs. [`Daemon::wait`] drives it to its end.
pub struct Daemon {
    /// `http://ADDRESS`, as it listens.
    pub url: String,
    /// Tokens and sessions.
    pub tokens: Arc<TokenBook>,
    config: Arc<ArcSwap<Config>>,
    clock: SharedClock,
    board: Arc<Board>,
    buffer: Arc<dyn Buffer>,
    drain: DrainHandle,
    drain_threads: Vec<std::thread::JoinHandle<()>>,
    store: Store,
    control: Store,
    heartbeat: heartbeat::Heartbeat,
    relay: Option<Arc<Relay>>,
    supervisor: Supervisor,
    overseer: Overseer,
    notifier: Notifier,
    logging: Logging,
    reload: Option<LoadOptions>,
    web: ServerHandle,
    control_socket: PathBuf,
    // Declared last: the lock of the directory is given back when everything else is gone.
    directory: DataDirectory,
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Loads nothing, runs everything: starts the daemon in an actix system of its own and returns when it has stopped.
pub fn run(config: Config, options: Options) -> ExitCode {
    block_on(async move {
        match Daemon::start(config, options).await {
            Ok(daemon) => daemon.wait().await,
            Err(error) => {
                log::error!(target: "belayd", error:% = error; "belayd did not start");
                ExitCode::from(exit::FAILED)
            }
        }
    })
}

/// Runs `daemon` in an actix system that is not waited for at the end: dropping it would wait for every blocking call in flight, and
/// a call to a database that hangs has no end. What must be finished has been by then, before its own deadline; the process's end
/// does the rest.
#[allow(clippy::mem_forget, reason = "the process ends right after; see above")]
pub fn block_on<T>(daemon: impl Future<Output = T>) -> T {
    let system = actix::System::new();
    let end = system.block_on(daemon);
    std::mem::forget(system);
    end
}

impl Daemon {
    /// Runs until SIGTERM, SIGINT or an escalation, then stops in order. SIGHUP reloads.
    pub async fn wait(self) -> ExitCode {
        let listen =
            |kind| signal(kind).inspect_err(|error| log::error!(target: "belayd", error:% = error; "a signal cannot be heard"));
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) =
            (listen(SignalKind::terminate()), listen(SignalKind::interrupt()), listen(SignalKind::hangup()))
        else {
            return self.stop(exit::FAILED).await;
        };
        let code = loop {
            tokio::select! {
                cause = self.supervisor.escalation().wait() => {
                    log::error!(target: "belayd", cause:% = cause; "restarting does not help; the process ends, so that it is started anew");
                    break exit::FAILED;
                }
                _ = terminate.recv() => break exit::DONE,
                _ = interrupt.recv() => break exit::DONE,
                _ = hangup.recv() => self.reload().await,
            }
        };
        let stop = self.stop(code);
        // A second signal while stopping does not wait any longer.
        tokio::select! {
            code = stop => code,
            () = second(&mut terminate, &mut interrupt) => {
                log::warn!(target: "belayd", "second signal: stopped without waiting any longer");
                ExitCode::from(exit::FAILED)
            }
        }
    }
}

async fn second(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// The moment `timeout` from now.
fn deadline(timeout: Duration) -> Instant {
    Instant::now() + timeout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocking_call_that_hangs_does_not_keep_the_process_from_its_end() {
        let (release, hung) = std::sync::mpsc::channel::<()>();
        let (ended, end) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            block_on(async move { drop(tokio::task::spawn_blocking(move || hung.recv())) });
            ended.send(())
        });
        end.recv_timeout(Duration::from_secs(10)).expect("it ends while the call still hangs");
        drop(release);
    }
}
