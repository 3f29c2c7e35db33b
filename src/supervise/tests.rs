//! Supervision with real actors on real threads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::*},
    },
    time::{Duration, Instant},
};

use actix::prelude::*;
use tokio::sync::oneshot;

use super::{ActorState, Supervisor, *};
use crate::config::SupervisionConfig;

/// An actor that does what it is told, and counts in its own state.
struct Puppet {
    life: u32,
    handled: u32,
    drains: Arc<AtomicU32>,
}

impl Actor for Puppet {
    type Context = Context<Self>;
}

service!(Puppet, "Puppet", 512);

/// Answers which life it is, and how many of these it has answered in this life.
#[derive(Message)]
#[rtype(result = "()")]
struct Ask(oneshot::Sender<(u32, u32)>);

#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
enum Do {
    Panic,
    TimerPanic,
    Stop,
    Hang,
    Block(Duration),
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

fn settings() -> SupervisionConfig {
    SupervisionConfig {
        max_restarts: 1_000,
        within: Duration::from_secs(30),
        backoff_base: Duration::from_millis(10),
        backoff_max: Duration::from_millis(20),
        healthy_after: Duration::from_secs(10),
        hang_after: Duration::from_millis(200),
    }
}

/// Starts a puppet; its lives are numbered from 1.
fn start(supervisor: &Supervisor) -> ActorRef<Puppet> {
    let (lives, drains) = (AtomicU32::new(0), Arc::new(AtomicU32::new(0)));
    let factory = move || Puppet { life: 1 + lives.fetch_add(1, SeqCst), handled: 0, drains: drains.clone() };
    supervisor.start(factory).unwrap()
}

async fn ask(courier: &Courier<Ask>) -> (u32, u32) {
    let (tx, rx) = oneshot::channel();
    courier.send(Ask(tx)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), rx).await.unwrap().unwrap()
}

/// Polls until the condition holds; tests never wait for a fixed time.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(10), "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Sends the fault with three questions behind it, and expects all three answered by the second life.
async fn survives(fault: Do) -> ActorStatus {
    let supervisor = Supervisor::new(settings());
    let puppet = start(&supervisor);
    let overseer = Overseer::start(supervisor.registry().clone(), settings().hang_after, Default::default()).unwrap();
    let (asks, orders) = (puppet.courier::<Ask>(), puppet.courier::<Do>());
    assert_eq!(ask(&asks).await, (1, 1));
    orders.try_send(fault).unwrap();
    if matches!(fault, Do::TimerPanic) {
        until("the timer fired", || supervisor.registry().status("Puppet").unwrap().generation == 1).await;
    }
    let (answers, questions): (Vec<_>, Vec<_>) = (0..3).map(|_| oneshot::channel()).unzip();
    for answer in answers {
        asks.try_send(Ask(answer)).unwrap();
    }
    for (index, question) in questions.into_iter().enumerate() {
        let answer = tokio::time::timeout(Duration::from_secs(5), question).await.unwrap().unwrap();
        assert_eq!(answer, (2, index as u32 + 1), "fresh state, in order");
    }
    let status = supervisor.registry().status("Puppet").unwrap();
    assert_eq!((status.state, status.generation, status.restarts, status.mailbox_depth), (ActorState::Running, 1, 1, 0));
    assert_eq!(supervisor.escalation().cause(), None);
    drop(overseer);
    assert!(supervisor.stop(Duration::from_secs(5)).await.is_empty());
    status
}

#[actix::test]
async fn a_panic_in_a_handler_keeps_mailbox_and_addresses() {
    assert_eq!(survives(Do::Panic).await.restarts_by_reason.panic, 1);
}

#[actix::test]
async fn a_panic_in_a_timer_keeps_mailbox_and_addresses() {
    assert_eq!(survives(Do::TimerPanic).await.restarts_by_reason.panic, 1);
}

#[actix::test]
async fn a_stop_keeps_mailbox_and_addresses() {
    assert_eq!(survives(Do::Stop).await.restarts_by_reason.stop, 1);
}

#[actix::test]
async fn a_hung_actor_is_restarted_in_place() {
    assert_eq!(survives(Do::Hang).await.restarts_by_reason.hang, 1);
}
