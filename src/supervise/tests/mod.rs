//! Supervision with real actors on real threads. Here: the puppet that all of these tests pull at.

mod flow;
mod restart;
mod watch;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::*},
    },
    time::{Duration, Instant},
};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message};
use tokio::sync::oneshot;

pub(super) use super::{ActorState, Supervisor, *};
use crate::config::SupervisionConfig;

/// An actor that does what it is told, and counts in its own state.
pub(super) struct Puppet {
    life: u32,
    handled: u32,
    drains: Arc<AtomicU32>,
    spoiled: Arc<AtomicBool>,
}

impl Actor for Puppet {
    type Context = Context<Self>;
}

service!(Puppet, "Puppet", 512, gathers);

/// Answers which life it is, and how many of these it has answered in this life.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Ask(pub(super) oneshot::Sender<(u32, u32)>);

#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub(super) enum Do {
    Panic,
    TimerPanic,
    Stop,
    Hang,
    Block(Duration),
    /// Keeps the thread busy for so long.
    Work(Duration),
    /// Counts up every millisecond, by a timer.
    Tick(&'static AtomicU32),
    /// The next life's factory panics once.
    PanicAndSpoil,
}

/// Comes back to the mailbox each time it is handled, until it is told to end: a mailbox that never runs empty.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Boomerang(pub(super) Courier<Boomerang>, pub(super) Arc<AtomicBool>);

impl Handler<Boomerang> for Puppet {
    type Result = ();
    fn handle(&mut self, boomerang: Boomerang, _: &mut Context<Self>) {
        if !boomerang.1.load(SeqCst) {
            let courier = boomerang.0.clone();
            let _ = courier.try_send(boomerang);
        }
    }
}

impl Handler<Ask> for Puppet {
    type Result = ();
    fn handle(&mut self, ask: Ask, _: &mut Context<Self>) {
        self.handled += 1;
        let _ = ask.0.send((self.life, self.handled));
    }
}

impl Handler<Do> for Puppet {
    type Result = ();
    fn handle(&mut self, order: Do, ctx: &mut Context<Self>) {
        match order {
            Do::Panic => panic!("as told"),
            Do::TimerPanic => {
                ctx.run_later(Duration::from_millis(1), |_, _| panic!("in a timer, as told"));
            }
            Do::Stop => ctx.stop(),
            Do::Hang => ctx.wait(actix::fut::wrap_future(std::future::pending())),
            Do::Block(time) => std::thread::sleep(time),
            Do::Work(time) => {
                let began = Instant::now();
                while began.elapsed() < time {
                    std::hint::spin_loop();
                }
            }
            Do::Tick(count) => {
                ctx.run_interval(Duration::from_millis(1), move |_, _| {
                    count.fetch_add(1, SeqCst);
                });
            }
            Do::PanicAndSpoil => {
                self.spoiled.store(true, SeqCst);
                panic!("as told");
            }
        }
    }
}

impl Handler<Drain> for Puppet {
    type Result = ();
    fn handle(&mut self, drain: Drain, _: &mut Context<Self>) {
        // The first drain dies on the way.
        if self.drains.fetch_add(1, SeqCst) == 0 {
            panic!("while it drains, as told");
        }
        let _ = drain.done.send(());
    }
}

impl Handler<Reconfigure> for Puppet {
    type Result = ();
    fn handle(&mut self, _: Reconfigure, _: &mut Context<Self>) {}
}

pub(super) fn settings() -> SupervisionConfig {
    SupervisionConfig {
        max_restarts: 1_000,
        within: Duration::from_secs(30),
        backoff_base: Duration::from_millis(10),
        backoff_max: Duration::from_millis(20),
        healthy_after: Duration::from_secs(10),
        // Long enough that a busy machine is not taken for a hung actor.
        hang_after: Duration::from_millis(800),
    }
}

/// Starts a puppet; its lives are numbered from 1.
pub(super) fn start(supervisor: &Supervisor) -> ActorRef<Puppet> {
    let (lives, drains, spoiled) = (AtomicU32::new(0), Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let factory = move || {
        assert!(!spoiled.swap(false, SeqCst), "the factory, as told");
        Puppet { life: 1 + lives.fetch_add(1, SeqCst), handled: 0, drains: drains.clone(), spoiled: spoiled.clone() }
    };
    supervisor.start(factory).unwrap()
}

pub(super) async fn ask(courier: &Courier<Ask>) -> (u32, u32) {
    let (tx, rx) = oneshot::channel();
    courier.send(Ask(tx)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), rx).await.unwrap().unwrap()
}

/// Polls until the condition holds; tests never wait for a fixed time.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
