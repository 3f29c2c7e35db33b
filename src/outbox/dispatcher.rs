//! The dispatchers: one task a store that settles, reclaims, claims and starts attempts, whenever there may be something to do. A store
//! that hangs holds up its own only.
//!
//! ```text
//!  look: renew leases -> free what vanished -> make ready what is due, or whose channel is back -> which sinks have anything ready
//!        -> claim, lap by lap
//!        PostgreSQL: each a transaction of its own; ends are written beside it (`settle.rs`)
//!        SQLite: all of it and the ends that wait in one, so that one sync serves them
//! ```

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    channel, listen,
    state::{CONTROL, Outbox, Side, Trouble, lock},
};
use crate::{
    event::ClaimFailed,
    sinks,
    store::{
        Backend, Conn, StoreError, StoreResult, conn,
        deliveries::{self, Claim, Held, Owner, Settlement, Taken},
        relay,
    },
};

/// Longest pause of a store that fails, in poll intervals' doubling.
const TROUBLE_MAX: Duration = Duration::from_secs(30);
/// Shortest pause between two looks that nothing asked for.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// From one look for vanished workers to the next.
const RECLAIM_EVERY: Duration = Duration::from_secs(1);
/// From one question when the next is due to another, where looks come thick and fast.
const DUE_EVERY: Duration = Duration::from_millis(50);
/// So many ends in one look are worth a larger page cache.
const MANY: usize = 100;
/// Deliveries of one vanished sink that are handed to a person in one look.
const ORPHANS_MAX: usize = 64;

/// What a dispatcher knows from one look to the next.
pub(super) struct Beat {
    renewed: Instant,
    reclaimed: Option<Instant>,
    asked_due: Option<Instant>,
    /// When the next scheduled or retried delivery is due, microseconds since the epoch.
    next_due_us: Option<i64>,
}

impl Beat {
    pub(super) fn new() -> Self {
        Self { renewed: Instant::now(), reclaimed: None, asked_due: None, next_due_us: None }
    }
}

/// One sink's part of a look.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) sink: String,
    limit: usize,
    per_lane: usize,
    pub(super) after: Option<String>,
    /// Its circuit is half-open: it is to be tried, with what waits for it where nothing is ready.
    pub(super) tries: bool,
    /// It is not configured any more; nothing was reserved.
    is_orphan: bool,
}

/// What one round in the database is to do.
pub(super) struct Order {
    worker: Arc<str>,
    lease: Duration,
    pub(super) now_us: i64,
    /// Claims of ours that nobody works on are freed, except these. Whether any of the others may have been sent: those of an earlier life.
    take_back: Option<(Vec<Held>, bool)>,
    /// Claims that have run out are freed, except these, which are being worked on.
    reclaim: Option<Vec<Held>>,
    promote: bool,
    ends: Arc<Vec<Settlement>>,
    /// Sinks of which it is to be found out whether anything waits for them.
    pub(super) doubted: Vec<String>,
    /// Sinks that are back: what waits for them is made ready.
    pub(super) forward: Vec<String>,
    pub(super) wanted: Vec<Wanted>,
}

/// What it brought.
#[derive(Default)]
struct Round {
    fenced: Vec<Held>,
    /// For each that was wanted, up to the one that failed; `None` where nothing is ready.
    taken: Vec<Option<Taken>>,
    /// Of the sinks that were asked about, those for which something waits.
    waiting: Vec<String>,
    /// How many were brought forward, by sink.
    forwarded: Vec<(String, usize)>,
    failed: Option<StoreError>,
}

impl Outbox {
    /// Starts the dispatchers on this thread, unless they run. Their panic is noticed by the actor's tick, which starts them anew.
    pub(super) fn drive(self: &Arc<Self>) {
        for (at, side) in self.sides.iter().enumerate() {
            if side.driving.swap(true, Ordering::AcqRel) {
                continue;
            }
            listen::start(self, at);
            let driver = Driver(self.clone(), at);
            actix::spawn(async move {
                let mut beat = Beat::new();
                let side = &driver.0.sides[at];
                while !driver.0.stopping.load(Ordering::Acquire) {
                    let pause = driver.0.look(at, &mut beat).await;
                    // Woken or not: look again.
                    let _ = tokio::time::timeout(pause, side.wake.notified()).await;
                }
            });
        }
    }

    /// Rounds at one store until nothing more can be claimed now; returns how long nothing can be due.
    pub(super) async fn look(self: &Arc<Self>, at: usize, beat: &mut Beat) -> Duration {
        let config = self.config.load_full();
        let side = &self.sides[at];
        if side.name == CONTROL {
            self.show_circuits();
        }
        let pause = config.outbox.poll_interval.min(config.outbox.lease / 3);
        let now = Instant::now();
        let not_before = lock(&side.trouble).not_before.filter(|at| *at > now);
        if let Some(not_before) = not_before {
            return pause.min(not_before - now);
        }
        if !(side.is_up)() {
            return pause;
        }
        if beat.renewed.elapsed() >= config.outbox.lease / 3 {
            beat.renewed = now;
            self.renew(side, config.outbox.lease).await;
        }
        self.settle_beside(at);
        lock(&side.laps).values_mut().for_each(|lap| lap.is_whole = false);
        loop {
            match self.round(at, beat).await {
                Ok(true) if !self.stopping.load(Ordering::Acquire) => {}
                Ok(_) => break,
                Err(error) => {
                    self.note_trouble(side, &error);
                    return pause;
                }
            }
        }
        let again = self.ask_due(side, beat).await;
        pause.min(self.until(beat.next_due_us)).min(self.until_sink(at)).min(again).max(PAUSE_MIN)
    }

    /// Asks when the next is due; where that was asked just now, returns how long to wait for it.
    async fn ask_due(&self, side: &Side, beat: &mut Beat) -> Duration {
        let wait = beat.asked_due.map_or(Duration::ZERO, |at| DUE_EVERY.saturating_sub(at.elapsed()));
        if !wait.is_zero() {
            return wait;
        }
        beat.asked_due = Some(Instant::now());
        match side.store.call(deliveries::next_due).await {
            Ok(due_us) => beat.next_due_us = due_us,
            Err(error) => {
                log::debug!(target: "belayd::outbox", store = side.name, error:% = error; "what is due next is not known")
            }
        }
        Duration::MAX
    }

    fn until(&self, due_us: Option<i64>) -> Duration {
        let wait_us = due_us.map_or(i64::MAX, |due_us| due_us.saturating_sub(self.clock.now_us()));
        Duration::from_micros(u64::try_from(wait_us).unwrap_or(0))
    }

    /// Until a circuit or a rate lets something pass again, or something is to be brought forward.
    fn until_sink(&self, at: usize) -> Duration {
        let now = Instant::now();
        lock(&self.sinks).values().filter_map(|way| way.next_look(at, now)).min().unwrap_or(Duration::MAX)
    }

    /// One round; returns whether another may bring more at once.
    async fn round(self: &Arc<Self>, at: usize, beat: &mut Beat) -> StoreResult<bool> {
        let (config, side, now_us) = (self.config.load_full(), &self.sides[at], self.clock.now_us());
        let is_sqlite = side.store.backend() == Backend::Sqlite;
        let (first, unsure) = {
            let trouble = lock(&side.trouble);
            (!trouble.taken_back, trouble.unsure)
        };
        let reclaim = beat.reclaimed.is_none_or(|at| at.elapsed() >= RECLAIM_EVERY.min(config.outbox.lease / 3));
        let promote = first || beat.next_due_us.is_some_and(|due_us| due_us <= now_us);
        // What an earlier life has left tells which channels are doubtful: nothing is sent before that is known.
        let wanted = if first { Vec::new() } else { self.wanted(at) };
        let doubted = if first { self.sink_names() } else { Vec::new() };
        let forward = self.to_forward(at);
        let settling = if is_sqlite { Some(side.settling.lock().await) } else { None };
        let ends = Arc::new(if is_sqlite { side.take_ends(usize::MAX) } else { Vec::new() });
        if wanted.is_empty() && ends.is_empty() && forward.is_empty() && !first && !unsure && !reclaim && !promote {
            return Ok(false);
        }
        let order = Order {
            worker: self.worker.clone(),
            lease: config.outbox.lease,
            now_us,
            take_back: (first || unsure).then(|| (side.held(Duration::ZERO), first)),
            reclaim: reclaim.then(|| side.held(Duration::ZERO)),
            promote,
            ends: ends.clone(),
            doubted,
            forward: forward.clone(),
            wanted: wanted.clone(),
        };
        let since = Instant::now();
        let result = side.store.call(move |conn| carry_out(conn, &order)).await;
        let mut round = match result {
            Ok(round) => round,
            Err(error) => {
                lock(&side.ends).splice(0..0, ends.iter().cloned());
                wanted.iter().for_each(|one| self.put_back(at, one, one.limit));
                self.forward_again(at, forward, Instant::now());
                // What was committed before the answer was lost is ours and was not sent.
                lock(&side.trouble).unsure = true;
                return Err(error);
            }
        };
        drop(settling);
        *lock(&side.trouble) = Trouble { taken_back: true, unsure: round.failed.is_some(), ..Trouble::default() };
        if reclaim {
            beat.reclaimed = Some(Instant::now());
        }
        if promote {
            beat.next_due_us = None;
        }
        self.settled(at, &ends, &round.fenced);
        if first {
            self.doubt(&round.waiting);
        }
        let promote = self.forwarded(at, std::mem::take(&mut round.forwarded)) || promote;
        round.taken.resize(wanted.len(), None);
        // What was wanted was reckoned before these ends were written; now there is room for more.
        let more = self.begin(at, wanted, round.taken, since) || promote || !ends.is_empty();
        round.failed.map_or(Ok(more), Err)
    }

    /// Starts what was claimed; returns whether there may be more.
    fn begin(self: &Arc<Self>, at: usize, wanted: Vec<Wanted>, taken: Vec<Option<Taken>>, since: Instant) -> bool {
        let mut more = false;
        let mut rows = Vec::new();
        for (one, taken) in wanted.iter().zip(taken) {
            let nothing = taken.is_none();
            let mut taken = taken.unwrap_or_default();
            self.put_back(at, one, one.limit.saturating_sub(taken.rows.len()));
            let mut laps = lock(&self.sides[at].laps);
            let lap = laps.entry(one.sink.clone()).or_default();
            lap.was_fruitful |= !taken.rows.is_empty();
            let is_over = taken.resume.is_none();
            lap.is_whole |= one.after.is_none();
            // A whole round that brought nothing: until something changes there is nothing. Begun behind the first lane, it has to come to
            // its beginning before it can be called fruitless.
            more |= !nothing && (!is_over || lap.was_fruitful || !lap.is_whole);
            if is_over {
                (lap.was_fruitful, lap.is_whole) = (false, false);
            }
            lap.after = taken.resume;
            drop(laps);
            rows.append(&mut taken.rows);
        }
        self.start(at, rows, since);
        more
    }

    fn put_back(&self, at: usize, one: &Wanted, count: usize) {
        let other_waits = !one.is_orphan && lock(&self.sinks).get_mut(&one.sink).is_some_and(|way| way.put_back(at, count));
        if other_waits {
            self.wake_other(at);
        }
    }

    /// How much each sink takes now.
    fn wanted(&self, at: usize) -> Vec<Wanted> {
        if self.stopping.load(Ordering::Acquire) {
            return Vec::new();
        }
        let (side, concurrency, now) = (&self.sides[at], self.config.load().outbox.concurrency, Instant::now());
        let after = |sink: &str| lock(&side.laps).get(sink).and_then(|lap| lap.after.clone());
        let mut wanted = Vec::new();
        for (name, way) in lock(&self.sinks).iter_mut() {
            let (limit, per_lane) = way.reserve(at, now, concurrency);
            if limit > 0 {
                let tries = way.is_half_open(now);
                wanted.push(Wanted { sink: name.clone(), limit, per_lane, after: after(name), tries, is_orphan: false });
            }
        }
        // Another instance may still have the sink; a file has this one only.
        if side.store.backend() == Backend::Sqlite {
            let gone = self.orphans().into_iter();
            wanted.extend(gone.map(|sink| Wanted {
                sink,
                limit: ORPHANS_MAX,
                per_lane: ORPHANS_MAX,
                after: None,
                tries: false,
                is_orphan: true,
            }));
        }
        wanted
    }

    /// Sinks that have a backlog and are gone from the configuration. Their deliveries are claimed to be handed to a person: nobody
    /// else would ever look at them.
    fn orphans(&self) -> Vec<String> {
        let backlogs = self.counts().by_sink;
        let mut gone: Vec<String> = backlogs.into_iter().filter(|(_, sink)| sink.backlog > 0).map(|(name, _)| name).collect();
        if gone.is_empty() {
            return gone;
        }
        let known = sinks::known(&self.config.load());
        gone.retain(|name| name != relay::SINK && !known.contains(name) && !lock(&self.sinks).contains_key(name));
        gone
    }

    fn note_trouble(&self, side: &Side, error: &StoreError) {
        let poll = self.config.load().outbox.poll_interval;
        let mut trouble = lock(&side.trouble);
        trouble.failures = trouble.failures.saturating_add(1);
        let pause = poll.saturating_mul(1 << trouble.failures.min(8)).min(TROUBLE_MAX);
        trouble.not_before = Some(Instant::now() + pause);
        drop(trouble);
        let error_type = error.code.as_deref().unwrap_or("other");
        ClaimFailed { store: side.name, error_type, message: &error.message }.emit(&self.metrics);
    }

    /// Prolongs the leases of what is being worked on for a while. One that was lost is told when the end of its attempt is fenced.
    async fn renew(&self, side: &Side, lease: Duration) {
        // Most are over before they need it.
        let held = side.held(lease / 6);
        if held.is_empty() {
            return;
        }
        let (count, since) = (held.len(), Instant::now());
        let kept = side.store.call(move |conn| deliveries::renew(conn, &held, lease)).await;
        match kept {
            Ok(kept) => {
                side.renewed(&kept, since + lease);
                if kept.len() < count {
                    log::debug!(target: "belayd::outbox", store = side.name, lost = count - kept.len();
                        "leases were taken over by another worker, or their deliveries ended meanwhile");
                }
            }
            Err(error) => log::debug!(target: "belayd::outbox", store = side.name, error:% = error; "leases were not renewed"),
        }
    }
}

/// See the drawing above.
fn carry_out(conn: &mut Conn, order: &Order) -> StoreResult<Round> {
    if conn.backend() == Backend::Sqlite {
        let writes = order.take_back.is_some() || order.promote || !order.ends.is_empty();
        let reclaims = order.reclaim.is_some() && deliveries::any_expired(conn)?;
        let ready = is_ready(conn, &order.wanted)?;
        let waiting = channel::waiting(conn, order)?;
        if !writes && !reclaims && !ready.contains(&true) && waiting.is_empty() {
            return Ok(Round { taken: vec![None; order.wanted.len()], waiting, ..Round::default() });
        }
        if order.ends.len() >= MANY {
            conn::enlarge_cache(conn)?;
        }
        return conn.write(|conn| {
            let fenced = deliveries::settle(conn, &order.ends, order.now_us)?;
            free_and_promote(conn, order)?;
            let forwarded = channel::forward(conn, order)?;
            let each = order.wanted.iter();
            let taken = each.map(|one| channel::claim_to_try(conn, order, one, &waiting).map(Some)).collect::<StoreResult<_>>()?;
            Ok(Round { fenced, taken, waiting, forwarded, failed: None })
        });
    }
    free_and_promote(conn, order)?;
    let waiting = channel::waiting(conn, order)?;
    let mut round = Round { forwarded: channel::forward(conn, order)?, ..Round::default() };
    let ready = is_ready(conn, &order.wanted)?;
    for (one, ready) in order.wanted.iter().zip(ready) {
        let ready = ready || (one.tries && waiting.contains(&one.sink));
        // What was claimed before one that fails is committed, and is sent.
        match ready.then(|| channel::claim_to_try(conn, order, one, &waiting)).transpose() {
            Ok(taken) => round.taken.push(taken),
            Err(error) => {
                round.failed = Some(error);
                break;
            }
        }
    }
    round.waiting = waiting;
    Ok(round)
}

fn free_and_promote(conn: &mut Conn, order: &Order) -> StoreResult<()> {
    if let Some((keep, may_be_sent)) = &order.take_back {
        let owner = if conn.backend() == Backend::Sqlite { Owner::Anyone } else { Owner::Worker(&order.worker) };
        conn.write(|conn| deliveries::take_back(conn, owner, keep, *may_be_sent, order.now_us))?;
    }
    if let Some(keep) = &order.reclaim
        && deliveries::any_expired(conn)?
    {
        conn.write(|conn| deliveries::reclaim_expired(conn, keep, order.now_us))?;
    }
    if order.promote {
        deliveries::promote_due(conn, order.now_us)?;
    }
    Ok(())
}

fn is_ready(conn: &mut Conn, wanted: &[Wanted]) -> StoreResult<Vec<bool>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let sinks: Vec<String> = wanted.iter().map(|one| one.sink.clone()).collect();
    let ready = deliveries::ready_sinks(conn, &sinks)?;
    Ok(sinks.iter().map(|sink| ready.contains(sink)).collect())
}

pub(super) fn claim(conn: &mut Conn, order: &Order, one: &Wanted) -> StoreResult<Taken> {
    let claim = Claim {
        sink: &one.sink,
        worker: &order.worker,
        limit: u32::try_from(one.limit).unwrap_or(u32::MAX),
        per_lane: u32::try_from(one.per_lane).unwrap_or(u32::MAX),
        after: one.after.as_deref(),
        lease: order.lease,
        now_us: order.now_us,
    };
    deliveries::claim_due(conn, &claim)
}

/// The right to dispatch. Given back however the task ends; whoever ends it in a panic is replaced at the actor's next tick.
struct Driver(Arc<Outbox>, usize);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.sides[self.1].driving.store(false, Ordering::Release);
    }
}
