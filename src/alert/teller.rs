//! Spaces notices out and folds storms: what is told alone, what waits for more, what goes into a digest.
//!
//! In: decisions to tell one receiver of one alert. Out: deliveries and what is known of each group, all in the caller's transaction. A
//! crash loses nothing that was committed: the groups are in the control store.
//!
//! ```text
//!  quiet for a second ......................... told alone, at once
//!  else ....................................... told alone, group_wait later
//!  more than group_max wait that way .......... called off, folded into a digest that is due when the first of them was
//!  twice group_max told alone in group_interval . a digest of the whole channel
//!  a digest is not due yet .................... into that one
//!  less than group_interval since the last .... into the next, due group_interval after the last
//! ```
//! A *channel* is a route, a sink and a recipient; its alerts are one group unless the route divides them (`group_by`).

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    notice::{self, Digest},
    routes::Target,
};
use crate::{
    config::Config,
    domain::alert::Alert,
    store::{
        Conn, StoreResult,
        alerts::{
            groups::{self, Group},
            notices::{self, NewNotice},
        },
        deliveries::{self, NewDelivery},
        silences::{self, Silence},
    },
};

/// A group of which nothing was told for so long is told at once.
const QUIET_US: i64 = 1_000_000;

/// Counts of one transaction, for the metrics: by what became of notices.
pub(super) type Outcomes = BTreeMap<&'static str, u64>;

/// One transaction's worth of telling. Call [`Teller::finish`] before its end.
pub(super) struct Teller<'a> {
    pub(super) config: &'a Config,
    pub(super) now_us: i64,
    /// Silences in force.
    pub(super) silences: Vec<Silence>,
    groups: BTreeMap<(String, String), Open>,
    pub(super) outcomes: Outcomes,
    /// Deliveries made.
    pub(super) deliveries: usize,
}

/// A group that this transaction has touched.
struct Open {
    group: Group,
    /// The digest that is being filled, where it is not due yet.
    digest: Option<Digest>,
    route: (u32, crate::config::OnUnknown),
    sink: String,
    recipient: String,
    /// Whether it is to be written down: a group that was only looked at is not.
    changed: bool,
}

/// What is told, and when the one it tells of came to be known.
pub(super) struct Word<'a> {
    pub(super) alert: &'a Alert,
    /// `firing`, `escalated`, `repeat` or `resolved`.
    pub(super) event: &'static str,
    /// Since when it could have been told: the outbox measures the latency from there.
    pub(super) since_us: i64,
}

impl<'a> Teller<'a> {
    /// One that has told nothing.
    ///
    /// # Errors
    /// Those of the control store.
    pub(super) fn new(conn: &mut Conn, config: &'a Config, now_us: i64) -> StoreResult<Self> {
        let silences = silences::active(conn, now_us)?;
        Ok(Self { config, now_us, silences, groups: BTreeMap::new(), outcomes: Outcomes::new(), deliveries: 0 })
    }

    pub(super) fn count(&mut self, outcome: &'static str) {
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    /// Tells one receiver, alone or with others, and writes down with which delivery.
    pub(super) fn tell(&mut self, conn: &mut Conn, word: &Word<'_>, target: &Target) -> StoreResult<()> {
        let channel = target.channel();
        let name = target.route.group_of(word.alert);
        let (wait_us, interval_us) = (micros(target.route.group_wait), micros(target.route.group_interval));
        self.open(conn, target, &channel, "")?;
        self.open(conn, target, &channel, &name)?;
        let whole = (channel.clone(), String::new());
        let own = (channel, name);
        if self.is_filling(&own) {
            return self.join(conn, word, target, &own);
        }
        if self.is_filling(&whole) {
            return self.join(conn, word, target, &whole);
        }
        // What comes soon after a digest waits for the next one.
        for key in [&own, &whole] {
            let next_us = self.groups[key].group.digest_at_us.saturating_add(interval_us);
            if self.now_us < next_us {
                self.begin(conn, key, next_us)?;
                return self.join(conn, word, target, key);
            }
        }
        let most = i64::try_from(target.route.group_max).unwrap_or(i64::MAX);
        let now_us = self.now_us;
        if let Some(open) = self.groups.get_mut(&whole)
            && now_us.saturating_sub(open.group.window_from_us) >= interval_us
        {
            (open.group.window_from_us, open.group.told) = (now_us, 0);
        }
        if self.groups[&whole].group.told >= most.saturating_mul(2) {
            self.begin(conn, &whole, now_us.saturating_add(wait_us))?;
            return self.join(conn, word, target, &whole);
        }
        let waiting = self.still_waiting(conn, &own)?;
        if waiting.len() >= target.route.group_max {
            self.fold(conn, &own, waiting, now_us.saturating_add(wait_us))?;
            return self.join(conn, word, target, &own);
        }
        let quiet = now_us.saturating_sub(self.groups[&own].group.last_at_us) >= QUIET_US;
        let id = self.alone(conn, word, target, if quiet { None } else { Some(now_us.saturating_add(wait_us)) })?;
        if let Some(open) = self.groups.get_mut(&whole) {
            open.group.told += 1;
            open.group.last_at_us = now_us;
            open.changed = true;
        }
        if let Some(open) = self.groups.get_mut(&own) {
            open.group.last_at_us = now_us;
            open.changed = true;
            open.group.waiting = waiting;
            if !quiet && wait_us > 0 {
                open.group.waiting.push(id.clone());
            }
        }
        let notice = NewNotice { delivery_id: Some(&id), reason: "route", detail: None, ..self.notice(word, target) };
        notices::note(conn, &notice)?;
        self.count("told");
        Ok(())
    }

    /// Writes down that a receiver is not told, and why. `target` is `None` where that holds for all.
    pub(super) fn leave_out(
        &mut self,
        conn: &mut Conn,
        word: (&Alert, &'static str),
        target: Option<&Target>,
        (reason, detail): (&'static str, Option<&str>),
    ) -> StoreResult<()> {
        self.count(reason);
        let (sink, recipient) = target.map_or(("", ""), |target| (&target.sink, &target.recipient));
        let (alert, event) = word;
        let at_us = self.now_us;
        let notice = NewNotice { alert_id: &alert.id, at_us, event, sink, recipient, delivery_id: None, reason, detail };
        notices::note(conn, &notice)
    }

    fn notice<'b>(&self, word: &'b Word<'_>, target: &'b Target) -> NewNotice<'b> {
        NewNotice {
            alert_id: &word.alert.id,
            at_us: self.now_us,
            event: word.event,
            sink: &target.sink,
            recipient: &target.recipient,
            delivery_id: None,
            reason: "",
            detail: None,
        }
    }

    /// Takes a group up, once a transaction, with the digest that it is filling.
    fn open(&mut self, conn: &mut Conn, target: &Target, channel: &str, name: &str) -> StoreResult<()> {
        let key = (channel.to_owned(), name.to_owned());
        if self.groups.contains_key(&key) {
            return Ok(());
        }
        let mut group = groups::get(conn, channel, name)?;
        // A clock that was set back must not make everything wait for the old time.
        for at_us in [&mut group.last_at_us, &mut group.window_from_us] {
            *at_us = (*at_us).min(self.now_us);
        }
        let longest_us = self.now_us.saturating_add(micros(target.route.group_interval));
        group.digest_at_us = group.digest_at_us.min(longest_us);
        let mut digest = None;
        if let Some(id) = &group.digest_id {
            let row = deliveries::get(conn, id)?;
            let filling = row.filter(|row| row.state() == Ok(crate::domain::delivery::DeliveryState::Scheduled));
            digest = filling.map(|row| Digest::read(&row.payload));
        }
        let route = (self.config.outbox.max_attempts, target.route.on_unknown);
        let (sink, recipient) = (target.sink.clone(), target.recipient.clone());
        self.groups.insert(key, Open { group, digest, route, sink, recipient, changed: false });
        Ok(())
    }

    fn is_filling(&self, key: &(String, String)) -> bool {
        self.groups.get(key).is_some_and(|open| open.digest.is_some())
    }

    /// Begins a digest that is due at `due_us`. It is filled until then, by later transactions too.
    fn begin(&mut self, conn: &mut Conn, key: &(String, String), due_us: i64) -> StoreResult<()> {
        let now_us = self.now_us;
        let Some(open) = self.groups.get_mut(key) else { return Ok(()) };
        let id = Uuid::now_v7().to_string();
        let (max_attempts, on_unknown) = open.route;
        let delivery = NewDelivery {
            id: id.clone(),
            sink: open.sink.clone(),
            lane: format!("digest/{}/{}", key.0, key.1),
            subject: "digest".to_owned(),
            payload: Digest::new().render(now_us),
            // Never due at once: what is ready cannot be filled any more.
            due_at_us: due_us.max(now_us + 1),
            max_attempts,
            on_unknown,
            recipient: open.recipient.clone(),
        };
        deliveries::enqueue(conn, &[delivery], now_us)?;
        open.group.digest_id = Some(id);
        open.group.digest_at_us = due_us;
        open.digest = Some(Digest::new());
        open.changed = true;
        self.deliveries += 1;
        Ok(())
    }

    /// Puts an alert into the digest that is being filled.
    fn join(&mut self, conn: &mut Conn, word: &Word<'_>, target: &Target, key: &(String, String)) -> StoreResult<()> {
        let now_us = self.now_us;
        let Some(open) = self.groups.get_mut(key) else { return Ok(()) };
        let Some((digest, id)) = open.digest.as_mut().zip(open.group.digest_id.clone()) else { return Ok(()) };
        let before = if word.event == "firing" { None } else { notices::told_with(conn, &word.alert.id, &id)? };
        digest.add(word.alert, word.event, before.as_deref(), now_us);
        open.group.last_at_us = now_us;
        open.changed = true;
        let notice = NewNotice { delivery_id: Some(&id), reason: "digest", detail: None, ..self.notice(word, target) };
        notices::note(conn, &notice)?;
        self.count("digest");
        Ok(())
    }

    /// Calls off what waits and begins a digest with it, due when the first of it was.
    fn fold(&mut self, conn: &mut Conn, key: &(String, String), waiting: Vec<String>, due_us: i64) -> StoreResult<()> {
        let (now_us, mut due_us) = (self.now_us, due_us);
        let mut folded = Vec::with_capacity(waiting.len());
        for id in waiting {
            if let Some(row) = deliveries::call_off(conn, &id, "told with others in a digest", now_us)? {
                due_us = due_us.min(row.due_at_us);
                folded.push(row);
            }
        }
        self.begin(conn, key, due_us)?;
        let whole = (key.0.clone(), String::new());
        if let Some(open) = self.groups.get_mut(&whole) {
            open.group.told = open.group.told.saturating_sub(folded.len() as i64).max(0);
            open.changed = true;
        }
        let mut moved = 0;
        if let Some(open) = self.groups.get_mut(key) {
            open.group.waiting.clear();
            if let Some((digest, id)) = open.digest.as_mut().zip(open.group.digest_id.as_deref()) {
                for row in &folded {
                    digest.fold(&row.payload);
                    moved += notices::fold(conn, &row.id, id)?;
                }
            }
        }
        *self.outcomes.entry("folded").or_default() += moved as u64;
        Ok(())
    }

    /// What was to be told alone and is not due yet.
    fn still_waiting(&self, conn: &mut Conn, key: &(String, String)) -> StoreResult<Vec<String>> {
        let mut waiting = Vec::new();
        for id in self.groups.get(key).map(|open| open.group.waiting.clone()).unwrap_or_default() {
            let row = deliveries::get(conn, &id)?;
            if row.is_some_and(|row| row.state() == Ok(crate::domain::delivery::DeliveryState::Scheduled)) {
                waiting.push(id);
            }
        }
        Ok(waiting)
    }

    /// A delivery of its own, due at once or at `later_us`.
    fn alone(&mut self, conn: &mut Conn, word: &Word<'_>, target: &Target, later_us: Option<i64>) -> StoreResult<String> {
        let id = Uuid::now_v7().to_string();
        let delivery = NewDelivery {
            id: id.clone(),
            sink: target.sink.clone(),
            lane: word.alert.episode(),
            subject: word.alert.id.clone(),
            payload: notice::render(word.alert, word.event, self.now_us),
            due_at_us: later_us.unwrap_or(word.since_us.min(self.now_us)),
            max_attempts: self.config.outbox.max_attempts,
            on_unknown: target.route.on_unknown,
            recipient: target.recipient.clone(),
        };
        deliveries::enqueue(conn, &[delivery], self.now_us)?;
        self.deliveries += 1;
        Ok(id)
    }

    /// Writes down what is known of the groups, and what the digests say now.
    pub(super) fn finish(&mut self, conn: &mut Conn) -> StoreResult<()> {
        for open in std::mem::take(&mut self.groups).into_values().filter(|open| open.changed) {
            groups::put(conn, &open.group)?;
            if let Some((mut digest, id)) =
                open.digest.zip(open.group.digest_id.as_deref()).filter(|(digest, _)| !digest.is_empty())
            {
                deliveries::refill(conn, id, &digest.render(self.now_us), self.now_us)?;
            }
        }
        Ok(())
    }
}

fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}
