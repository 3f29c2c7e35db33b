//! Starts actors, each on its own named thread, and stops the threads again.
//! In: factories, in the order of the start (who is sent to before who sends). Out: [`ActorRef`]s. A crash loses nothing here.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use actix::prelude::*;

use super::{
    Service,
    escalation::Escalation,
    keeper::{Keeper, set_current_actor},
    mailbox::{Counted, Courier},
    registry::{ActorRegistry, Entry},
    vitals::{ActorState, Vitals},
};
use crate::config::SupervisionConfig;

/// Why an actor could not be started.
#[derive(Debug)]
pub struct StartError {
    actor: &'static str,
    reason: String,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} could not be started: {}", self.actor, self.reason)
    }
}

impl std::error::Error for StartError {}

/// The way to a running actor; valid over every restart.
pub struct ActorRef<A: Service> {
    addr: Addr<A>,
    vitals: Arc<Vitals>,
}

impl<A: Service> Clone for ActorRef<A> {
    fn clone(&self) -> Self {
        Self { addr: self.addr.clone(), vitals: self.vitals.clone() }
    }
}

impl<A: Service> fmt::Debug for ActorRef<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ActorRef").field(&A::NAME).finish()
    }
}

impl<A: Service> ActorRef<A> {
    /// A sender of one kind of message.
    pub fn courier<M>(&self) -> Courier<M>
    where
        A: Handler<Counted<M>>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        Courier::to_actor(self.addr.clone(), self.vitals.clone())
    }

    /// actix's own address, for what a [`Courier`] cannot do. It does not keep the bound of the mailbox.
    pub fn addr(&self) -> &Addr<A> {
        &self.addr
    }
}

/// See the module. Needs a running actix `System`.
#[derive(Debug)]
pub struct Supervisor {
    settings: SupervisionConfig,
    registry: Arc<ActorRegistry>,
    escalation: Escalation,
    threads: Mutex<Vec<Arbiter>>,
}

impl Supervisor {
    /// A supervisor without actors.
    pub fn new(settings: SupervisionConfig) -> Self {
        let (registry, escalation) = (ActorRegistry::new(), Escalation::default());
        Self { settings, registry, escalation, threads: Mutex::default() }
    }

    /// Who is there.
    pub fn registry(&self) -> &Arc<ActorRegistry> {
        &self.registry
    }

    /// The signal that the process must end.
    pub fn escalation(&self) -> &Escalation {
        &self.escalation
    }

    /// The restart policy and limits.
    pub fn settings(&self) -> &SupervisionConfig {
        &self.settings
    }

    /// Starts an actor on a thread of its own. `factory` runs on that thread, now and at every restart; this call waits for its
    /// first run.
    ///
    /// # Errors
    /// No actix `System` runs here, no thread can be had, or the factory panicked.
    pub fn start<A: Service>(&self, factory: impl Fn() -> A + Send + 'static) -> Result<ActorRef<A>, StartError> {
        let error = |reason: String| StartError { actor: A::NAME, reason };
        if System::try_current().is_none() {
            return Err(error("no actix system runs on this thread".into()));
        }
        let arbiter = Arbiter::try_with_tokio_rt(actix_runtime).map_err(|e| error(format!("no thread: {e}")))?;
        let vitals = Arc::new(Vitals::new(A::NAME, A::MAILBOX));
        let (tx, rx) = mpsc::sync_channel(1);
        let (settings, escalation) = (self.settings.clone(), self.escalation.clone());
        let thread_vitals = vitals.clone();
        arbiter.spawn_fn(move || {
            set_current_actor(A::NAME);
            name_thread(A::NAME);
            let built =
                catch_unwind(AssertUnwindSafe(|| Keeper::new(Box::new(factory), thread_vitals.clone(), settings, escalation)));
            let addr = built.ok().map(|(keeper, addr)| {
                thread_vitals.set_state(ActorState::Running);
                tokio::task::spawn_local(keeper);
                addr
            });
            // The receiver waits below; were it gone, nobody would miss the address.
            let _ = tx.send(addr);
        });
        let Ok(Some(addr)) = rx.recv() else {
            arbiter.stop();
            return Err(error("its factory panicked, see the line above".into()));
        };
        self.registry.add(Entry::new(&addr, vitals.clone(), arbiter.handle()));
        self.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(arbiter);
        log::info!(target: "belayd::supervise", actor = A::NAME, mailbox = vitals.bound(); "actor started");
        Ok(ActorRef { addr, vitals })
    }

    /// Stops all threads and waits for them, at most `wait`. What waits in mailboxes is dropped: drain first. Returns the names of
    /// the actors whose thread is still stuck; they end with the process.
    pub async fn stop(&self, wait: Duration) -> Vec<&'static str> {
        for thread in self.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).drain(..) {
            thread.stop();
        }
        let until = Instant::now() + wait;
        loop {
            let entries = self.registry.entries();
            let alive = entries.iter().map(|entry| &entry.vitals).filter(|vitals| vitals.state() != ActorState::Stopped);
            let alive: Vec<_> = alive.map(|vitals| vitals.name()).collect();
            if alive.is_empty() || Instant::now() >= until {
                return alive;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        for thread in self.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).drain(..) {
            thread.stop();
        }
    }
}

/// A runtime for one actor: one thread, and few threads for what it hands to `spawn_blocking`.
fn actix_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(16).build()
}

/// Shows the actor's name in `top -H` and in core dumps; Linux keeps the first 15 bytes.
fn name_thread(name: &str) {
    let mut text = [0_u8; 16];
    for (to, from) in text[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: `text` is a NUL-terminated string that lives over the call, which copies it.
    unsafe { libc::prctl(libc::PR_SET_NAME, text.as_ptr()) };
}
