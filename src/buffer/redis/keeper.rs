//! The keeper: begins streams when Redis answers, finds those of earlier lives, looks after what is kept, and looks whether it still answers.
//!
//! In: time. Out: streams to write and to drain, and room in Redis. A crash loses nothing: what it was about to remove is removed by the
//! next one. It has a connection of its own, so that a look never waits behind a batch.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use redis::{Value, cmd};
use uuid::Uuid;

use super::{
    again::entries_from,
    book::{Book, Kept},
    chunks::{Early, Trim},
    core::{Core, lock},
    entry::{Entry, GROUP, Registered, entries, seal, seq_of},
    facts::Facts,
    link::{Link, LinkError, text},
};
use crate::domain::receipt::StreamId;

/// Longest sleep.
const STEP: Duration = Duration::from_millis(250);
/// Shortest time from one try that failed to the next, however many the circuit breaker allows.
const TRY_AGAIN: Duration = Duration::from_millis(20);
/// How often Redis is asked whether it is there.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is asked what it is.
const FACTS_EVERY: Duration = Duration::from_secs(30);
/// How often what has been kept long enough is removed.
const TRIM_EVERY: Duration = Duration::from_secs(5);
/// Nodes of a cluster that are tried for a new stream: each name lies in another slot.
const TRIES: usize = 8;
/// How long no copy must have gone before its relay until the alarm may be over.
const CALM_AFTER: Duration = Duration::from_secs(60);
/// Most streams that are kept although nothing of them waits; the oldest go first.
const KEPT_MAX: usize = 1_024;

/// Starts the thread.
pub(super) fn start(core: Arc<Core>) -> std::io::Result<thread::JoinHandle<()>> {
    let now = Instant::now();
    let mut keeper = Keeper {
        core,
        link: None,
        look_at: now,
        facts_at: now,
        trim_at: now,
        unrelayed_gone_at: None,
        found: false,
        left: BTreeSet::new(),
    };
    thread::Builder::new().name("redis-keeper".into()).spawn(move || {
        while !keeper.core.ended.load(Ordering::Acquire) {
            keeper.core.observer.alive();
            let sleep = keeper.turn(Instant::now());
            keeper.core.keeper_sleeps(sleep.min(STEP));
        }
    })
}

struct Keeper {
    core: Arc<Core>,
    /// To the node with the list of streams.
    link: Option<Link>,
    look_at: Instant,
    facts_at: Instant,
    trim_at: Instant,
    /// When room was made last with what the relay had not yet, while the alarm about that is on.
    unrelayed_gone_at: Option<Instant>,
    /// Streams of earlier lives have been looked for, all of them.
    found: bool,
    /// Streams that were begun and could not be listed: their keys are removed.
    left: BTreeSet<StreamId>,
}

impl Keeper {
    fn turn(&mut self, now: Instant) -> Duration {
        self.calm(now);
        if !self.core.is_up() {
            let wait = lock(&self.core.health).wait(self.core.observer.as_ref(), now);
            if let Some(wait) = wait {
                return wait;
            }
            self.link = None;
            let opened = self.open();
            let Err(cause) = opened.map(|facts| self.opened(facts)) else { return Duration::ZERO };
            lock(&self.core.health).failed(self.core.observer.as_ref(), &cause.message, &cause.code);
            return TRY_AGAIN;
        }
        if let Err(cause) = self.look(now) {
            self.link = None;
            self.core.order_give_up(cause);
        }
        STEP
    }

    fn opened(&mut self, facts: Facts) {
        let now = Instant::now();
        (self.look_at, self.facts_at) = (now + LOOK_EVERY, now + FACTS_EVERY);
        self.core.readable.store(true, Ordering::Release);
        self.core.up.store(true, Ordering::Release);
        lock(&self.core.health).succeeded(self.core.observer.as_ref(), facts);
        self.core.tell_visible();
    }

    fn link(&mut self) -> Result<&mut Link, LinkError> {
        if self.link.is_none() {
            self.link = Some(self.core.settings.server.connect(&self.core.keys.registry())?);
        }
        self.link.as_mut().ok_or_else(|| LinkError::ours("io", "no connection"))
    }

    /// The connection to the node that holds a stream, where that is another one than the list's.
    fn with<T>(&mut self, stream: StreamId, work: impl FnOnce(&mut Link, &str) -> Result<T, LinkError>) -> Result<T, LinkError> {
        let key = self.core.keys.stream(stream);
        if self.core.settings.server.is_cluster() {
            return work(&mut self.core.settings.server.connect(&key)?, &key);
        }
        work(self.link()?, &key)
    }

    /// Redis answers and takes new streams: each lane gets one.
    fn open(&mut self) -> Result<Facts, LinkError> {
        let asked = self.link().and_then(Facts::ask);
        self.core.readable.store(asked.is_ok(), Ordering::Release);
        let mut facts = asked?;
        self.core.tell_visible();
        if lock(&self.core.health).short_of_memory {
            // What an earlier life left is drained although nothing more goes in, and what is only kept must not stand in the way of what comes.
            let listed = self.listed()?;
            self.look_back(&listed)?;
            self.trim(Instant::now(), u64::MAX);
            facts = Facts::ask(self.link()?)?;
            if facts.max_memory > 0 && facts.used_memory > facts.max_memory / 10 * 9 {
                // A new stream would fit, and the first batch would not.
                return Err(LinkError::ours("OOM", "OOM: Redis has no memory left (maxmemory); what it holds is being drained"));
            }
        }
        for stream in std::mem::take(&mut self.left) {
            self.remove(stream)?;
        }
        let lanes = self.core.settings.streams;
        let begun = (0..lanes).map(|_| self.begin()).collect::<Result<Vec<_>, _>>()?;
        let mut books = lock(&self.core.books);
        for (lane, stream) in begun.into_iter().enumerate() {
            books.begin(lane, stream);
        }
        Ok(facts)
    }

    /// A new stream, in Redis and in the list.
    fn begin(&mut self) -> Result<StreamId, LinkError> {
        let mut failed = None;
        for _ in 0..if self.core.settings.server.is_cluster() { TRIES } else { 1 } {
            let stream = Uuid::now_v7();
            let made = self.with(stream, |link, key| {
                let mut create = cmd("XGROUP");
                create.arg("CREATE").arg(key).arg(GROUP).arg("0").arg("MKSTREAM");
                link.ask(&create)
            });
            match made {
                Ok(_) => {
                    self.left.insert(stream);
                    self.list(stream, false)?;
                    self.left.remove(&stream);
                    return Ok(stream);
                }
                Err(cause) => failed = Some(cause),
            }
        }
        Err(failed.unwrap_or_else(|| LinkError::ours("error", "no stream could be begun")))
    }

    /// Writes a stream into the list.
    fn list(&mut self, stream: StreamId, done: bool) -> Result<(), LinkError> {
        let now_us = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_micros());
        let value = Registered::value(&self.core.settings.instance, done, i64::try_from(now_us).unwrap_or(0));
        let registry = self.core.keys.registry();
        let mut set = cmd("HSET");
        set.arg(registry).arg(stream.to_string()).arg(value);
        self.link()?.ask(&set).map(drop)
    }

    /// Removes a stream: marked first, so that a crash in between does not look like a loss. A Redis without memory left takes no mark; then
    /// the line goes first, and a crash in between would leave a key that nobody looks for.
    fn remove(&mut self, stream: StreamId) -> Result<(), LinkError> {
        let marked = match self.list(stream, true) {
            Ok(()) => true,
            Err(refused) if refused.definite => false,
            Err(failed) => return Err(failed),
        };
        if marked {
            self.with(stream, |link, key| link.ask(cmd("UNLINK").arg(key)))?;
            return self.strike(stream);
        }
        self.strike(stream)?;
        self.with(stream, |link, key| link.ask(cmd("UNLINK").arg(key))).map(drop)
    }

    /// Takes a stream from the list.
    fn strike(&mut self, stream: StreamId) -> Result<(), LinkError> {
        lock(&self.core.others).forget(stream);
        let registry = self.core.keys.registry();
        self.link()?.ask(cmd("HDEL").arg(registry).arg(stream.to_string())).map(drop)
    }

    /// The list of streams.
    fn listed(&mut self) -> Result<Vec<Registered>, LinkError> {
        let registry = self.core.keys.registry();
        let Value::Array(pairs) = self.link()?.ask(cmd("HGETALL").arg(registry))? else { return Ok(Vec::new()) };
        let line = |pair: &[Value]| Registered::parse(text(pair.first()?)?, text(pair.get(1)?)?);
        Ok(pairs.chunks(2).filter_map(line).collect())
    }

    /// Takes over what earlier lives of this instance left, or a dead one. `false`: some of it cannot be reached now.
    fn find(&mut self, listed: &[Registered], of: &str) -> Result<bool, LinkError> {
        let mut all = true;
        let from = (of != self.core.settings.instance).then_some(of);
        for Registered { stream, instance, done } in listed {
            let stream = *stream;
            // What the journal writes is copied, not drained from here.
            if instance != of || lock(&self.core.books).knows(stream) || self.core.inner.writes(stream) {
                continue;
            }
            if *done {
                self.remove(stream)?;
                continue;
            }
            match self.inherit(stream, from) {
                Ok(()) => {}
                Err(cause) if self.core.settings.server.is_cluster() => {
                    all = false;
                    log::warn!(target: "belayd::buffer", stream:% = stream, error:% = cause; "a stream in Redis cannot be reached; tried again");
                }
                Err(cause) => return Err(cause),
            }
        }
        Ok(all)
    }

    /// Takes over what earlier lives of this instance left, once, as soon as it may.
    fn look_back(&mut self, listed: &[Registered]) -> Result<(), LinkError> {
        if self.core.look_again.swap(false, Ordering::AcqRel) {
            lock(&self.core.books).forget_kept();
            self.found = false;
        }
        if !self.found && self.core.may_drain.load(Ordering::Acquire) {
            let instance = self.core.settings.instance.clone();
            self.found = self.find(listed, &instance)?;
            self.core.found.store(self.found, Ordering::Release);
            self.core.tell_visible();
        }
        Ok(())
    }

    /// Seals a stream, so that its end is certain, and puts it among those that are drained.
    pub(super) fn inherit(&mut self, stream: StreamId, from: Option<&str>) -> Result<(), LinkError> {
        let found = self.with(stream, |link, key| {
            match link.ask(&seal(key)) {
                Ok(Value::Nil) => return Ok(None),
                Ok(_) => {}
                // Sealed before, by a life that was cut short.
                Err(refused) if refused.definite && refused.code == "ERR" => {}
                // No memory left for the seal. A stream of this directory's earlier life has no writer any more, and what that one was told
                // is there; another instance may only be paused.
                Err(refused) if refused.definite && refused.code == "OOM" && from.is_none() => {}
                Err(failed) => return Err(failed),
            }
            let newest = link.ask(cmd("XREVRANGE").arg(key).arg("+").arg("-").arg("COUNT").arg(2))?;
            let end = entries(newest).iter().find(|entry| !matches!(entry, Entry::Seal)).map_or(0, Entry::last_seq);
            let first = entries_from(link, key, 0, 1)?.first().map_or(1, Entry::first_seq);
            let bytes = match link.ask(cmd("MEMORY").arg("USAGE").arg(key)) {
                Ok(Value::Int(bytes)) => u64::try_from(bytes).unwrap_or(0),
                Ok(_) => 0,
                Err(refused) if refused.definite => 0,
                Err(failed) => return Err(failed),
            };
            Ok(Some(((first, end), bytes, settled_in_group(link, key)?)))
        })?;
        match found {
            None => {
                self.core.observer.lost(stream, None);
                self.strike(stream)
            }
            Some(((_, 0), ..)) => {
                lock(&self.core.books).finished.push_back(stream);
                self.remove(stream)
            }
            Some(((first, end), bytes, settled)) => {
                let copied = self.core.settings.streams == 0;
                let book = Book::found(stream, from, end, bytes).beginning_with(first).settled_at_least(settled).copied(copied);
                lock(&self.core.books).inherit(self.core.heritage(), book);
                self.core.observer.inherited(stream, from, end.saturating_sub(settled));
                Ok(())
            }
        }
    }

    fn look(&mut self, now: Instant) -> Result<(), LinkError> {
        let ordered = !lock(&self.core.take_over).is_empty();
        if now >= self.look_at || ordered {
            self.look_at = now + LOOK_EVERY;
            let answer = self.link()?.ask(&cmd("PING"))?;
            if text(&answer) != Some("PONG") {
                return Err(LinkError::ours("error", "PING was not answered with PONG"));
            }
            let listed = self.listed()?;
            // Before any line is struck: what is struck below must not be seen again.
            lock(&self.core.others).see(&listed, &self.core.settings.instance, now);
            self.look_back(&listed)?;
            let orders = lock(&self.core.take_over).clone();
            for instance in orders {
                if self.find(&listed, &instance)? {
                    lock(&self.core.take_over).retain(|order| *order != instance);
                    self.core.tell_visible();
                }
            }
        }
        if now >= self.facts_at {
            self.facts_at = now + FACTS_EVERY;
            let facts = Facts::ask(self.link()?)?;
            let mut health = lock(&self.core.health);
            let before = health.facts.replace(facts.clone());
            drop(health);
            let judged = |facts: &Facts| (facts.may_lose(), facts.max_memory);
            if before.is_some_and(|before| judged(&before) != judged(&facts)) {
                self.core.observer.changed(&facts);
            }
        }
        let bound = self.core.settings.stream_bytes;
        let bytes = lock(&self.core.books).bytes();
        if now >= self.trim_at || bytes > bound {
            self.trim_at = now + TRIM_EVERY;
            self.trim(now, bytes.saturating_sub(bound / 10 * 9));
        }
        let bytes = lock(&self.core.books).bytes();
        let was_full = self.core.full.load(Ordering::Acquire);
        let full = if was_full { bytes > bound / 10 * 9 } else { bytes > bound };
        if full != was_full {
            self.core.full.store(full, Ordering::Release);
            self.core.observer.full(full);
        }
        Ok(())
    }

    /// The alarm that unrelayed copies are removed is over once none was for a while, and the next to go is relayed: room is made by tenths of
    /// the bound, which may lie far apart.
    fn calm(&mut self, now: Instant) {
        if self.unrelayed_gone_at.is_some_and(|at| now - at >= CALM_AFTER) && !lock(&self.core.books).begin_unrelayed() {
            self.unrelayed_gone_at = None;
            self.core.observer.unrelayed_gone(false);
        }
    }

    /// Removes what is settled and has been kept long enough, or as much of it as is too much.
    fn trim(&mut self, now: Instant, too_many: u64) {
        let (keep, relays) = (self.core.settings.keep, self.core.settings.relays);
        let mut trim = Trim { now, keep, relays, too_many, early: Early::default() };
        self.remove_settled(&mut trim);
        let mut books = lock(&self.core.books);
        books.early = books.early.plus(trim.early);
        drop(books);
        if trim.early.relay > 0 && self.unrelayed_gone_at.replace(now).is_none() {
            self.core.observer.unrelayed_gone(true);
        }
    }

    fn remove_settled(&mut self, trim: &mut Trim) {
        loop {
            let oldest = lock(&self.core.books).kept.front().copied();
            let Some(oldest) = oldest else { break };
            let crowded = lock(&self.core.books).kept.len() > KEPT_MAX;
            let unrelayed = trim.relays && !oldest.relayed;
            let young = trim.now.saturating_duration_since(oldest.since) < trim.keep;
            if (young || unrelayed) && trim.too_many == 0 && !crowded && oldest.bytes > 0 {
                break;
            }
            // Out of the books first: what stands in them must be in Redis.
            lock(&self.core.books).kept.pop_front();
            if let Err(cause) = self.remove(oldest.stream) {
                let nothing = (oldest.there.1 + 1, oldest.there.1);
                lock(&self.core.books).kept.push_front(Kept { there: nothing, ..oldest });
                log::warn!(target: "belayd::buffer", stream:% = oldest.stream, error:% = cause; "a settled stream could not be removed from Redis; tried again");
                self.link = None;
                return;
            }
            trim.gone(oldest.bytes, young, (unrelayed, oldest.asked));
        }
        let cuts = lock(&self.core.books).trim(trim);
        for (stream, first) in cuts {
            let cut = self.with(stream, |link, key| link.ask(cmd("XTRIM").arg(key).arg("MINID").arg(format!("{first}-0"))));
            if let Err(cause) = cut {
                // The next cut takes these along.
                log::warn!(target: "belayd::buffer", stream:% = stream, error:% = cause; "settled readings could not be removed from Redis; tried again");
                self.link = None;
            }
        }
    }
}

/// How far the group says that a stream was settled: up to the first entry that is pending, or all that was handed out.
fn settled_in_group(link: &mut Link, key: &str) -> Result<u64, LinkError> {
    let pending = match link.ask(cmd("XPENDING").arg(key).arg(GROUP)) {
        Ok(Value::Array(pending)) => pending,
        // No group: nothing was ever read.
        Ok(_) => return Ok(0),
        Err(refused) if refused.definite => return Ok(0),
        Err(failed) => return Err(failed),
    };
    if let Some(first) = pending.get(1).and_then(text).and_then(seq_of) {
        return Ok(first.saturating_sub(1));
    }
    let Value::Array(groups) = link.ask(cmd("XINFO").arg("GROUPS").arg(key))? else { return Ok(0) };
    let handed_out = |group: &Value| {
        let Value::Array(fields) = group else { return None };
        let mut fields = fields.chunks(2);
        fields.find_map(|field| {
            (text(field.first()?)? == "last-delivered-id").then(|| field.get(1).and_then(text).and_then(seq_of))?
        })
    };
    Ok(groups.iter().find_map(handed_out).unwrap_or(0))
}
