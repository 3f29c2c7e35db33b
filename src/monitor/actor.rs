//! `MonitorActor`: looks at host and daemon, publishes the snapshot while someone watches, and raises system alerts.
//!
//! In: the boards, /proc. Out: figures on the boards, transitions to the alert side. It commands nobody. A panic loses one look;
//! which alerts are open is read again from the board of alerts.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::prelude::*;

use super::{Condition, Conditions, Filling, FullIn, HostFigures, HostProbe, Views, recovery::RECOVERY_LATE};
use crate::{
    buffer::{Account, BufferStats},
    config::MonitorConfig,
    domain::ack::AckLevel,
    domain::alert::{AlertKind, AlertState, Level, Transition},
    ingest::board::{SourceState, SourceStatus},
    protocol::{Drain, Reconfigure},
    supervise::service,
};

/// Messages that may wait: nobody sends this actor more than orders.
const MAILBOX: usize = 64;
/// From one snapshot to the next.
const TICK: Duration = Duration::from_secs(1);
/// The rate is a mean over this many ticks.
const RATE_TICKS: usize = 5;
/// Looks at a source that fails before an alert opens; what is merely restarted is back by then.
const SOURCE_LOOKS: u32 = 10;
/// Looks at a busy processor before an alert opens: a backup or a build may have it for some seconds.
const CPU_LOOKS: u32 = 10;
/// Fill of the buffer above which a WARNING is raised, percent.
const BUFFER_PERCENT: f64 = 80.0;
/// Every condition that this actor raises; an open alert of another name is not its business.
const NAMES: [&str; 10] = [
    "cpu-high",
    "memory-high",
    "disk-high",
    "buffer-high",
    "journal-filling",
    "disk-filling",
    "conservation-violation",
    "readings-lost",
    "source-failing",
    RECOVERY_LATE,
];

/// Hands transitions to the alert side, which commits them sooner or later.
pub type RaiseFn = Box<dyn Fn(Vec<Transition>) + Send + Sync>;

/// What the actor works with; it outlives every restart.
pub struct MonitorParts {
    /// Everything that can be looked at.
    pub views: Arc<Views>,
    /// The way of transitions.
    pub raise: RaiseFn,
}

/// See the module.
pub struct MonitorActor {
    parts: Arc<MonitorParts>,
    probe: HostProbe,
    conditions: Conditions,
    journal: Filling,
    disk: Filling,
    next_look: Instant,
    accepted: VecDeque<(Instant, u64)>,
    stopping: bool,
}

service!(MonitorActor, "MonitorActor", MAILBOX);

impl MonitorActor {
    /// A fresh actor over parts that stay.
    pub fn new(parts: Arc<MonitorParts>) -> Self {
        let probe = HostProbe::new(&parts.views.config.load().server.data_dir);
        let mut conditions = Conditions::default();
        let open = (parts.views.alerts)();
        for alert in open.iter().filter(|alert| alert.kind == AlertKind::System && alert.state != AlertState::Resolved) {
            if let Some(name) = NAMES.into_iter().find(|name| *name == alert.name) {
                conditions.resume(name, &alert.subject, alert.level);
            }
        }
        let (journal, disk) = (Filling::default(), Filling::default());
        Self { parts, probe, conditions, journal, disk, next_look: Instant::now(), accepted: VecDeque::new(), stopping: false }
    }

    /// One turn, then the timer again: a stall is followed by one tick, not by a burst.
    fn tick(&mut self, ctx: &mut Context<Self>) {
        if self.stopping {
            return;
        }
        let views = self.parts.views.clone();
        let now = Instant::now();
        if now >= self.next_look {
            self.next_look = now + views.config.load().monitor.interval;
            self.look();
        }
        let (_, account) = views.account();
        views.set_rate(self.rate(now, account.accepted));
        // Building it costs more than everything else here: only for those who watch.
        if views.board.watchers() > 0 {
            match serde_json::to_string(&views.snapshot()) {
                Ok(json) => views.board.publish(json.into()),
                Err(error) => log::error!(target: "belayd::monitor", error:% = error; "the snapshot could not be made"),
            }
        }
        ctx.run_later(TICK, Self::tick);
    }

    fn look(&mut self) {
        let views = self.parts.views.clone();
        let figures = self.probe.look();
        views.set_host(figures);
        // Looked at before and after: a lane may begin a new stream meanwhile.
        let known = views.accounted();
        let (stats, account) = views.account();
        let known = (known && views.accounted()).then_some(&account);
        let mut looks = conditions_now(&figures, &views.config.load().monitor, &stats, known);
        looks.extend(views.recovery(&stats, &account).conditions(known.is_some()));
        looks.extend(self.fillings(&figures, &stats));
        views.set_full_in(FullIn { journal: self.journal.full_in(), disk: self.disk.full_in() });
        let known = views.sources.list();
        looks.extend(
            views
                .config
                .load()
                .sources
                .iter()
                .map(|source| source_condition(&source.name, known.iter().find(|status| status.name == source.name))),
        );
        let transitions = self.conditions.step(&looks, views.clock.now_us());
        if !transitions.is_empty() {
            (self.parts.raise)(transitions);
        }
    }

    /// What fills up, and when it will be full.
    fn fillings(&mut self, figures: &HostFigures, stats: &BufferStats) -> Vec<Condition> {
        let now = Instant::now();
        let mut looks = Vec::with_capacity(2);
        self.disk.look(now, figures.disk.used_bytes, figures.disk.total_bytes);
        let then = "then belayd cannot write any more and senders get 507: make room";
        looks.push(self.disk.condition("disk-filling", "host", "Disk of the data directory", then));
        // What is in memory is full within seconds or never: buffer-high tells of it.
        if stats.ack == AckLevel::Journal {
            self.journal.look(now, stats.bytes, stats.bytes_bound);
            let then = "then senders get 503: bring the database back, or raise buffer.journal_bytes";
            looks.push(self.journal.condition("journal-filling", "journal", "The journal", then));
        }
        looks
    }

    fn rate(&mut self, now: Instant, accepted: u64) -> f64 {
        self.accepted.push_back((now, accepted));
        if self.accepted.len() > RATE_TICKS + 1 {
            self.accepted.pop_front();
        }
        let Some((since, before)) = self.accepted.front() else { return 0.0 };
        let seconds = now.duration_since(*since).as_secs_f64();
        if seconds > 0.0 { accepted.saturating_sub(*before) as f64 / seconds } else { 0.0 }
    }
}

/// What host and buffer look like, as conditions. `account` is that of every stream of this directory, `None` while the database has not told
/// it: then nobody knows what is lost, and an alert of an earlier run is neither over nor raised anew.
fn conditions_now(figures: &HostFigures, limits: &MonitorConfig, stats: &BufferStats, account: Option<&Account>) -> Vec<Condition> {
    let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
    let fill = stats.rows_bound.map_or(0.0, |bound| share(stats.rows, bound)).max(share(stats.bytes, stats.bytes_bound));
    let gone = account.map_or(f64::NAN, |account| (account.lost + account.quarantined + account.void) as f64);
    let mut buffer = Condition::percent("buffer-high", "Fill of the buffer", Level::Warning, fill, BUFFER_PERCENT);
    buffer.subject = "buffer".into();
    let cpu = Condition::percent("cpu-high", "CPU of the host", Level::Warning, figures.cpu_percent, limits.cpu_percent);
    vec![
        Condition { looks: CPU_LOOKS, ..cpu },
        Condition::percent("memory-high", "Memory of the host", Level::Critical, figures.memory.percent(), limits.memory_percent),
        Condition::percent("disk-high", "Disk of the data directory", Level::Warning, figures.disk.percent(), limits.disk_percent),
        buffer,
        Condition::never(
            "conservation-violation",
            "buffer",
            "Readings that cannot be accounted for",
            "",
            stats.difference.unsigned_abs() as f64,
        ),
        Condition::never("readings-lost", "buffer", "Acknowledged readings that are gone", "", gone),
    ]
}

fn source_condition(name: &str, status: Option<&SourceStatus>) -> Condition {
    let value = match status.map(|status| status.state) {
        Some(SourceState::Failing) => 1.0,
        Some(SourceState::Ok) => 0.0,
        // Not asked yet: neither opens an alert nor closes the one of an earlier run.
        Some(SourceState::Starting) | None => f64::NAN,
    };
    let error = status.and_then(|status| status.error.as_deref()).unwrap_or("no answer");
    Condition {
        level: Level::Warning,
        looks: SOURCE_LOOKS,
        cause: Some(format!("source {name} cannot be read: {error}")),
        ..Condition::never("source-failing", name, "The source could not be read", "", value)
    }
}

impl Actor for MonitorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_later(Duration::from_millis(50), Self::tick);
    }
}

impl Handler<Reconfigure> for MonitorActor {
    type Result = ();

    /// Limits are read from the shared configuration at each look; only the wait until the next one must not be the old one.
    fn handle(&mut self, _: Reconfigure, _: &mut Self::Context) {
        self.next_look = Instant::now();
    }
}

impl Handler<Drain> for MonitorActor {
    type Result = ();

    fn handle(&mut self, drain: Drain, _: &mut Self::Context) {
        self.stopping = true;
        // Whoever asked has given up waiting; there is nothing to hand over.
        let _ = drain.done.send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::ack::AckLevel,
        monitor::{ProcessFigures, Usage},
    };

    fn stats() -> BufferStats {
        BufferStats {
            tier: "memory",
            ack: AckLevel::Memory,
            may_lose: "",
            may_lose_code: "",
            streams: vec![uuid::Uuid::nil()],
            rows: 90,
            rows_bound: Some(100),
            refuses: false,
            failing: false,
            bytes: 1,
            bytes_bound: 100,
            oldest_age_ms: 0,
            waiters: 0,
            lost_ends: 0,
            account: Account::default(),
            abandoned: 0,
            difference: -3,
        }
    }

    #[test]
    fn every_limit_becomes_a_condition_of_its_own() {
        let figures = HostFigures {
            cpu_percent: 81.0,
            memory: Usage { used_bytes: 91, total_bytes: 100 },
            disk: Usage { used_bytes: 86, total_bytes: 100 },
            process: ProcessFigures::default(),
        };
        let limits = MonitorConfig { interval: TICK, cpu_percent: 80.0, memory_percent: 90.0, disk_percent: 85.0 };
        // Of an earlier stream: the ones being written have lost nothing.
        let account = Account { lost: 2, ..Account::default() };
        let mut looks = conditions_now(&figures, &limits, &stats(), Some(&account));
        let status = |state| SourceStatus { name: "plant".into(), state, error: Some("refused".into()), ..SourceStatus::default() };
        looks.push(source_condition("plant", Some(&status(SourceState::Failing))));
        assert!(source_condition("plant", Some(&status(SourceState::Starting))).value.is_nan());
        let above: Vec<_> = looks.iter().filter(|look| look.value > look.limit).map(|look| (look.name, look.level)).collect();
        assert_eq!(
            above,
            [
                ("cpu-high", Level::Warning),
                ("memory-high", Level::Critical),
                ("disk-high", Level::Warning),
                ("buffer-high", Level::Warning),
                ("conservation-violation", Level::Critical),
                ("readings-lost", Level::Critical),
                ("source-failing", Level::Warning),
            ]
        );
        assert!(looks.iter().all(|look| NAMES.contains(&look.name)));

        let unknown = conditions_now(&figures, &limits, &stats(), None);
        let mut conditions = Conditions::default();
        conditions.resume("readings-lost", "buffer", Level::Critical);
        let told = |transitions: Vec<Transition>| -> Vec<(String, bool)> {
            transitions.into_iter().filter(|one| one.name == "readings-lost").map(|one| (one.name, one.firing)).collect()
        };
        assert_eq!(told(conditions.step(&unknown, 1)), [], "nobody knows yet whether that is over");
        assert_eq!(told(conditions.step(&looks, 2)), [], "it goes on");
    }
}
