//! Duty: one loop a source: ask, parse, hand on, wait for the next turn. No loop waits for another.
//!
//! Comes in: answers of one source. Goes out: [`Ingest`] orders, the source's status on the [`SourceBoard`], and the system
//! condition `source-failing`. A crash loses the answer in hand; the source is asked for it again, because `X-Next` only advances
//! once the buffer has taken an answer.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    admission::Admission,
    board::{SourceBoard, SourceState, SourceStatus},
    fetch::{Fetched, Fetcher, PollError},
    parse::Parsed,
    raiser::Raiser,
};
use crate::{
    clock::ArrivalClock,
    config::{ReadingsConfig, SourceConfig},
    domain::{
        ack::AckLevel,
        alert::{Level, Transition},
        batch::Batch,
        breaker::{Breaker, CircuitState},
    },
    event::{
        Metrics,
        circuits::{self, CircuitIs},
    },
    protocol::{Ingest, Refusal},
    supervise::Courier,
};

/// The name of the system condition; its subject is the source.
pub const SOURCE_FAILING: &str = "source-failing";
/// Failures in a row that raise it: one lost packet is no news.
pub const FAILURES_TO_RAISE: u32 = 3;
/// Pause before a batch that was refused, or a body that found no room, is offered again.
const OFFER_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for the word that a batch has been taken. Beyond it the answer is asked for again; what was taken is then a
/// duplicate.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// Told of every answer that was parsed, to count its rejections; the first argument is the source's name.
pub type OnParsed = Arc<dyn Fn(&str, &Parsed) + Send + Sync>;

/// What all pollers share.
#[derive(Clone)]
pub struct PollContext {
    /// What readings may look like.
    pub readings: Arc<ReadingsConfig>,
    /// Times for readings without one.
    pub arrival: Arc<ArrivalClock>,
    /// The byte budget that pushes use too.
    pub admission: Admission,
    /// Where readings go.
    pub ingest: Courier<Ingest>,
    /// The level at which an answer counts as taken: the tier's own.
    pub ack: AckLevel,
    /// Where `source-failing` is raised; `None` where nobody listens.
    pub raise: Option<Raiser>,
    /// Where the status is kept.
    pub board: Arc<SourceBoard>,
    /// Told of every parsed answer.
    pub on_parsed: Option<OnParsed>,
    /// Where the sources' circuit breakers are shown; `None` where nobody looks.
    pub metrics: Option<Arc<Metrics>>,
}

impl PollContext {
    fn show_circuit(&self, source: &str, state: CircuitState, cause: &str) {
        if let Some(metrics) = &self.metrics {
            let now_us = self.arrival.clock().now_us();
            CircuitIs { party: &circuits::source(source), state, cause, now_us }.emit(metrics);
        }
    }
}

/// A loop that ends when this is dropped.
#[derive(Debug)]
pub struct Poller {
    task: tokio::task::JoinHandle<()>,
}

impl Poller {
    /// Starts the loop of `source` on the current arbiter.
    pub fn spawn(source: SourceConfig, context: PollContext) -> Self {
        Self { task: actix::spawn(run(source, context)) }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Forgets the sources that are not among `sources` any more, and ends their `source-failing`: nobody would, otherwise.
pub fn retire_missing(context: &PollContext, sources: &[SourceConfig]) {
    let now_us = context.arrival.clock().now_us();
    let names: Vec<_> = sources.iter().map(|source| source.name.as_str()).collect();
    let gone = context.board.keep_only(&names);
    if let Some(metrics) = &context.metrics {
        gone.iter().for_each(|status| metrics.forget_circuit(&circuits::source(&status.name)));
    }
    let failing = gone.into_iter().filter(|status| status.raised);
    let transitions: Vec<_> = failing.map(|status| transition(&status.name, None, now_us)).collect();
    if let Some(raiser) = context.raise.as_ref().filter(|_| !transitions.is_empty()) {
        // The raiser repeats it until it is committed; nobody waits here.
        drop(raiser.raise(transitions));
    }
}

/// Polls `source` for ever, on a grid of its interval. A turn that is over before its answer came is left out, not made up for; so are
/// those while its circuit breaker is open.
pub async fn run(source: SourceConfig, context: PollContext) {
    let fetcher = Fetcher::new(&source);
    context.board.update(&source.name, |_| ());
    let mut turn = Instant::now();
    let mut breaker = Breaker::new(source.breaker);
    loop {
        context.show_circuit(&source.name, breaker.state(Instant::now().into_std()), "");
        let deadline = next_turn(turn, Instant::now(), source.interval);
        let mut answered = false;
        let outcome = poll_once(&source, &fetcher, &context, deadline, &mut answered).await;
        let now = Instant::now();
        // What fails after a good answer (no room in the buffer) is not the source's fault.
        if answered {
            breaker.succeeded()
        } else {
            breaker.failed(now.into_std())
        };
        let cause = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
        context.show_circuit(&source.name, breaker.state(now.into_std()), &cause);
        record(&source.name, &context, outcome);
        let earliest = breaker.opens_again_at(now.into_std()).map_or(now, |at| now.max(at.into()));
        turn = next_turn(turn, earliest, source.interval);
        tokio::time::sleep_until(turn).await;
    }
}

/// The first turn after `now` on the grid that `turn` is on.
fn next_turn(turn: Instant, now: Instant, interval: Duration) -> Instant {
    // Configuration keeps intervals above this; a zero would divide.
    let interval_us = interval.max(Duration::from_millis(1)).as_micros();
    let passed = now.saturating_duration_since(turn).as_micros() / interval_us + 1;
    turn + Duration::from_micros(u64::try_from(passed * interval_us).unwrap_or(u64::MAX >> 1))
}

/// What one poll took.
#[derive(Debug, Default)]
struct Taken {
    accepted: u32,
    rejected: u32,
    /// Why not all is well although the answer is done with.
    complaint: Option<String>,
}

/// `answered` is set once the source has given an answer that can be read.
async fn poll_once(
    source: &SourceConfig,
    fetcher: &Fetcher,
    context: &PollContext,
    deadline: Instant,
    answered: &mut bool,
) -> Result<Taken, PollError> {
    let after = context.board.get(&source.name).and_then(|status| status.next);
    let Fetched { body, kind, next } = fetcher.fetch(after.as_deref()).await?;
    let deadline = deadline.max(Instant::now() + OFFER_PAUSE);
    *answered = true;
    let permit = loop {
        if let Some(permit) = context.admission.try_admit(body.len() as u64) {
            break permit;
        }
        wait_until(deadline, "no room: too many bytes of readings are in the works").await?;
    };
    *answered = false;
    let parsed = fetcher.parse(kind, &body, context)?;
    *answered = true;
    drop(body);
    let mut taken = Taken::default();
    if let Some(parsed) = parsed {
        if let Some(hook) = &context.on_parsed {
            hook(&source.name, &parsed);
        }
        taken.rejected = parsed.rejected_total;
        taken.accepted = parsed.batch.len();
        // What is refused for its content is refused for good: asking again would bring the same, for ever.
        taken.complaint = parsed.refusal().map(|error| error.to_string());
        if !parsed.batch.is_empty() {
            hand_on(&parsed.batch, context, permit, deadline).await?;
        }
    }
    if let Some(next) = next {
        context.board.update(&source.name, |status| status.next = Some(next));
    }
    Ok(taken)
}

/// Offers a batch until it is taken at the level asked for, or `deadline` has passed.
async fn hand_on(
    batch: &Batch,
    context: &PollContext,
    permit: super::admission::Permit,
    deadline: Instant,
) -> Result<(), PollError> {
    let bytes = batch.bytes().len() as u64;
    let mut permit = Some(permit);
    loop {
        // The permit travels with the message and is gone with it: every further offer takes its own.
        let refused = match permit.take().or_else(|| context.admission.try_admit(bytes)) {
            None => "no room: too many bytes of readings are in the works",
            Some(permit) => {
                let (reply, answer) = tokio::sync::oneshot::channel();
                let order = Ingest { batch: batch.clone(), ack: context.ack, reply, permit };
                context.ingest.send(order).await.map_err(|_| PollError::new("the daemon is stopping"))?;
                match tokio::time::timeout(REPLY_TIMEOUT, answer).await {
                    Ok(Ok(Ok(accepted))) if accepted.level >= context.ack => return Ok(()),
                    Ok(Ok(Ok(accepted))) => return upgraded(accepted.upgrade, context.ack).await,
                    Ok(Ok(Err(Refusal::Full))) => "the buffer is full",
                    Ok(Ok(Err(Refusal::Stopping))) => return Err(PollError::new("the daemon is stopping")),
                    Ok(Ok(Err(Refusal::DiskFull))) => "the disk of the buffer is full",
                    Ok(Ok(Err(Refusal::Failed))) | Ok(Err(_)) => "the buffer failed",
                    Err(_) => return Err(PollError::new("the buffer did not answer")),
                }
            }
        };
        wait_until(deadline, refused).await?;
    }
}

/// Waits for a level that is reached later than the batch is taken.
async fn upgraded(upgrade: Option<tokio::sync::oneshot::Receiver<AckLevel>>, ack: AckLevel) -> Result<(), PollError> {
    let reached = match upgrade {
        Some(upgrade) => tokio::time::timeout(REPLY_TIMEOUT, upgrade).await,
        None => return Err(PollError::new(format!("the buffer does not reach the level {ack}"))),
    };
    match reached {
        Ok(Ok(level)) if level >= ack => Ok(()),
        _ => Err(PollError::new(format!("the level {ack} was not reached in time"))),
    }
}

/// Pauses before another try, or gives up with `why` where the pause would outlast `deadline`.
async fn wait_until(deadline: Instant, why: &str) -> Result<(), PollError> {
    if Instant::now() + OFFER_PAUSE > deadline {
        return Err(PollError::new(why));
    }
    tokio::time::sleep(OFFER_PAUSE).await;
    Ok(())
}

/// Writes the outcome on the board; logs and raises where it changes something.
fn record(name: &str, context: &PollContext, outcome: Result<Taken, PollError>) {
    let now_us = context.arrival.clock().now_us();
    let (taken, failure) = match outcome {
        Ok(mut taken) => {
            let complaint = taken.complaint.take();
            (taken, complaint)
        }
        Err(error) => (Taken::default(), Some(error.to_string())),
    };
    let change = context.board.update(name, |status| {
        let before = status.clone();
        status.polls += 1;
        status.accepted += u64::from(taken.accepted);
        status.rejected += u64::from(taken.rejected);
        status.state = if failure.is_some() { SourceState::Failing } else { SourceState::Ok };
        match &failure {
            Some(_) => {
                status.failures += 1;
                status.consecutive = status.consecutive.saturating_add(1);
            }
            None => {
                status.consecutive = 0;
                status.last_ok_at_us = Some(now_us);
            }
        }
        status.error = failure;
        let change = judge(&before, status, now_us);
        status.raised = change.as_ref().map_or(before.raised, |transition| transition.firing);
        log_change(&before, status);
        change
    });
    if let (Some(transition), Some(raiser)) = (change, &context.raise) {
        // The raiser repeats it until it is committed; nobody waits here.
        drop(raiser.raise(vec![transition]));
    }
}

/// Whether the condition began or ended. The first success after a start ends it too: it may have been open when the process ended,
/// and ending what is not open does nothing.
fn judge(before: &SourceStatus, status: &SourceStatus, now_us: i64) -> Option<Transition> {
    match status.state {
        SourceState::Failing if status.consecutive >= FAILURES_TO_RAISE && !before.raised => {
            Some(transition(&status.name, status.error.as_deref(), now_us))
        }
        SourceState::Ok if before.raised || before.last_ok_at_us.is_none() => Some(transition(&status.name, None, now_us)),
        _ => None,
    }
}

fn transition(name: &str, error: Option<&str>, now_us: i64) -> Transition {
    let text = match error {
        Some(error) => format!("Source {name} failed {FAILURES_TO_RAISE} times in a row: {error}."),
        None => format!("Source {name} answers."),
    };
    Transition::system((SOURCE_FAILING, name), Level::Warning, error.is_some(), text, now_us)
}

/// One line when a source begins to fail and one when it is well again, not one a second.
fn log_change(before: &SourceStatus, status: &SourceStatus) {
    match (before.state, status.state) {
        (SourceState::Failing, SourceState::Ok) => {
            log::info!(target: "belayd::ingest", source = status.name, failures = before.consecutive; "source answers again");
        }
        (SourceState::Starting, SourceState::Ok) => {
            log::info!(target: "belayd::ingest", source = status.name; "source answers");
        }
        (SourceState::Starting | SourceState::Ok, SourceState::Failing) => {
            log::warn!(target: "belayd::ingest", source = status.name, error = status.error.as_deref().unwrap_or_default(); "source fails");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
