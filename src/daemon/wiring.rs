//! What the start hands to the stages: closures over handles, so that no stage knows another.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwap;

use super::{drain::OnOpen, left_behind::LeftBehind};
use crate::{
    alert::{AlertBoard, AwayFn},
    buffer::{Account, Buffer, Frame, Totals, health::StoreHealth},
    clock::{ArrivalClock, Clock, SharedClock, SystemClock},
    config::{Config, Tier},
    domain::{
        ack::AckLevel,
        alert::{AlertKind, Level, Transition},
        breaker::CircuitState,
        delivery::DeliveryState,
        rule::Phase,
        time::rfc3339_us,
    },
    event::{Metrics, ReadingsRejected},
    ingest::{
        actor::{MakePollContext, SaveBaselines, SavePhases},
        admission::Admission,
        board::SourceBoard,
        engines::{SavedBaseline, SavedPhase},
        poll::{OnParsed, PollContext},
        raiser::Raiser,
    },
    monitor::{OutboxView, SinkView, StoreDisk, Views},
    outbox::{Outbox, Relay, RelayParts},
    protocol::Ingest,
    schedule::Statistics,
    store::{self, Store, StoreResult, rule_baselines::BaselineRow, rule_state::PhaseRow},
    supervise::Courier,
};

/// What every poller is given, once the actor's own address is known.
pub(super) fn pollers(
    myself: &Arc<OnceLock<Courier<Ingest>>>,
    arrivals: &Arc<ArrivalClock>,
    admission: &Admission,
    raiser: &Raiser,
    ack: AckLevel,
    sources: &Arc<SourceBoard>,
    metrics: &Arc<Metrics>,
) -> MakePollContext {
    let (myself, arrivals, admission) = (myself.clone(), arrivals.clone(), admission.clone());
    let (raiser, sources, metrics) = (raiser.clone(), sources.clone(), metrics.clone());
    let shown = metrics.clone();
    Box::new(move |config| {
        let metrics = metrics.clone();
        let on_parsed: OnParsed = Arc::new(move |source, parsed| {
            for (reason, count) in parsed.rejected_by.iter() {
                ReadingsRejected { via: source, reason: reason.as_str(), readings: count.into() }.emit(&metrics);
            }
        });
        Some(PollContext {
            readings: Arc::new(config.readings.clone()),
            arrival: arrivals.clone(),
            admission: admission.clone(),
            ingest: myself.get()?.clone(),
            ack,
            raise: Some(raiser.clone()),
            board: sources.clone(),
            on_parsed: Some(on_parsed),
            metrics: Some(shown.clone()),
        })
    })
}

/// Saves the phases that have begun but not fired, so that a restart does not start their clocks anew.
pub(super) fn save_phases(control: &Store, clock: &SharedClock) -> SavePhases {
    let (control, clock) = (control.clone(), clock.clone());
    Box::new(move |phases| {
        let (control, now_us) = (control.clone(), clock.now_us());
        let rows: Vec<_> =
            phases.into_iter().map(|saved| PhaseRow { rule: saved.rule, engine_id: saved.engine_id, phase: saved.phase }).collect();
        Box::pin(async move {
            let saved = control.call(move |conn| store::rule_state::save_pending(conn, &rows, now_us)).await;
            saved
                .inspect_err(
                    |error| log::warn!(target: "belayd::ingest", error:% = error; "rule phases could not be saved; tried again"),
                )
                .is_ok()
        })
    })
}

/// Saves what anomaly rules have learned, as much of it as the configuration in force allows engines.
pub(super) fn save_baselines(control: &Store, clock: &SharedClock, config: &Arc<ArcSwap<Config>>) -> SaveBaselines {
    let (control, clock, config) = (control.clone(), clock.clone(), config.clone());
    Box::new(move |learned| {
        let (control, now_us, keep) = (control.clone(), clock.now_us(), baselines_kept(&config.load()));
        let row = |SavedBaseline { rule, engine_id, baseline }| BaselineRow { rule, engine_id, baseline };
        let rows: Vec<_> = learned.into_iter().map(row).collect();
        Box::pin(async move {
            let saved = control.call(move |conn| store::rule_baselines::save(conn, &rows, keep, now_us)).await;
            saved
                .inspect_err(
                    |error| log::warn!(target: "belayd::ingest", error:% = error; "learned baselines could not be saved; tried again"),
                )
                .is_ok()
        })
    })
}

fn baselines_kept(config: &Config) -> usize {
    config.readings.max_engines.saturating_mul(config.anomaly_rules.len().max(1))
}

/// What anomaly rules learned in earlier runs.
pub(super) fn load_baselines(conn: &mut store::Conn, config: &Config) -> StoreResult<Vec<SavedBaseline>> {
    let limit = if config.anomaly_rules.is_empty() { 0 } else { baselines_kept(config) };
    let rows = store::rule_baselines::load(conn, limit)?;
    let saved = |BaselineRow { rule, engine_id, baseline }| SavedBaseline { rule, engine_id, baseline };
    Ok(rows.into_iter().map(saved).collect())
}

/// Hands conditions of the daemon itself to the alert side. Nobody waits for the commit; the raiser repeats it until it is done.
pub(super) fn raise(raiser: &Raiser) -> Box<dyn Fn(Vec<Transition>) + Send + Sync> {
    let raiser = raiser.clone();
    Box::new(move |transitions| drop(raiser.raise(transitions)))
}

/// Which sinks take nothing now, for whoever wonders why their deliveries wait.
pub(super) fn away(outbox: &Arc<Outbox>) -> AwayFn {
    let outbox = outbox.clone();
    Box::new(move || {
        let not_closed = |(name, state): (String, CircuitState)| (state != CircuitState::Closed).then_some(name);
        outbox.circuits().into_iter().filter_map(not_closed).collect()
    })
}

/// What the end of the run before means: an alert that stays open until a run has ended in order.
pub(super) fn last_run(left_open: bool, config: &Config, now_us: i64) -> Transition {
    // What a journal has acknowledged is still there.
    let left_open = left_open && config.buffer.tier == Tier::Memory;
    let text = if left_open {
        let most = config.buffer.memory_rows;
        format!(
            "the run before did not end in order; readings that it had acknowledged at level memory and not stored are lost, at most {most}"
        )
    } else {
        "the run before ended in order".to_owned()
    };
    if left_open {
        log::warn!(target: "belayd", "{text}");
    }
    Transition::system(("unclean-stop", "daemon"), Level::Warning, left_open, text, now_us)
}

pub(super) fn store_is_up(health: &Arc<StoreHealth>) -> Box<dyn Fn() -> bool + Send + Sync> {
    let health = health.clone();
    Box::new(move || health.is_up())
}

/// Fills the board, and puts the phases together: firing is what has an open alert, whatever else was saved.
pub(super) fn load_alerts(conn: &mut store::Conn, board: &AlertBoard) -> StoreResult<Vec<SavedPhase>> {
    board.load(conn)?;
    let open = board.open();
    let open: Vec<_> = open.iter().filter(|alert| alert.kind == AlertKind::Rule).collect();
    let rows = store::rule_state::load_all(conn)?;
    let known: HashSet<_> = rows.iter().map(|row| (row.rule.as_str(), row.engine_id.as_str())).collect();
    let missing = open.iter().filter(|alert| !known.contains(&(alert.name.as_str(), alert.subject.as_str())));
    let mut phases: Vec<_> = missing
        .map(|alert| SavedPhase {
            rule: alert.name.clone(),
            engine_id: alert.subject.clone(),
            phase: Phase::Firing { last_breach_us: alert.opened_at_us },
        })
        .collect();
    phases.extend(rows.into_iter().map(|row| SavedPhase { rule: row.rule, engine_id: row.engine_id, phase: row.phase }));
    Ok(phases)
}

/// What is loaded each time the database has been opened: the account of earlier streams and, once, the newest readings.
pub(super) fn on_open(views: &Arc<Views>, left_behind: LeftBehind) -> OnOpen {
    let views = Arc::downgrade(views);
    let mut loaded = false;
    Box::new(move |conn, stream| {
        let Some(views) = views.upgrade() else { return Ok(()) };
        // The sums that the medium takes over now hold every decision so far.
        views.forget_decisions(stream);
        views.set_earlier(earlier_streams(conn, left_behind.buffer.as_ref(), &left_behind.instance)?);
        left_behind.look(conn)?;
        let keep = views.config.load().retention.readings;
        store::partitions::make_ahead(conn, views.clock.now_us(), store::partitions::width_us(keep))?;
        if !loaded {
            let limit = u32::try_from(views.config.load().readings.max_engines).unwrap_or(u32::MAX);
            let newest = store::readings::latest_per_engine(conn, limit)?;
            views.engines.remember(newest.iter().map(store::readings::StoredReading::as_ref));
            loaded = true;
        }
        let lacks = store::conn::durability(conn)?;
        for lack in &lacks {
            log::warn!(target: "belayd::store", "{}", lack.words);
        }
        let weak: Vec<_> = lacks.into_iter().filter(|lack| lack.loses_commits).map(|lack| lack.words).collect();
        views.health.found_weak((!weak.is_empty()).then(|| weak.join("; ")));
        Ok(())
    })
}

/// The account of this directory's streams that are not written any more, as the ledger has it.
pub(super) fn earlier_streams(conn: &mut store::Conn, buffer: &dyn Buffer, instance: &str) -> StoreResult<Account> {
    let mut totals = Totals::default();
    for stream in store::ledger::stream_totals(conn, i64::MAX)?
        .iter()
        .filter(|stream| stream.instance == instance && !buffer.writes(stream.stream))
    {
        totals.add(&stream.totals);
    }
    let mut earlier = Account { accepted: totals.sum(), ..Account::default() };
    earlier.set_totals(&totals);
    Ok(earlier)
}

/// The outbox as the page shows it.
pub(super) fn view_outbox(outbox: &Outbox, relay: Option<&Relay>) -> OutboxView {
    let counts = outbox.counts();
    let of = |state| counts.of_state(state);
    let oldest_us = counts.oldest_due_at_us.map_or(0, |due_us| SystemClock.now_us() - due_us);
    let waiting_us = counts.oldest_waiting_at_us.map_or(0, |due_us| SystemClock.now_us() - due_us);
    let kafka = relay.map(|relay| (store::relay::SINK.to_owned(), relay.circuit()));
    let circuits = outbox.circuits().into_iter().chain(kafka);
    let in_flight = outbox.sending_by_sink();
    let backlog = |name: &String| counts.by_sink.get(name).map_or(0, |sink| sink.backlog);
    OutboxView {
        scheduled: of(DeliveryState::Scheduled),
        ready: of(DeliveryState::Ready),
        claimed: of(DeliveryState::Claimed),
        sending: of(DeliveryState::Sending),
        retry: of(DeliveryState::Retry),
        uncertain: of(DeliveryState::Uncertain),
        dead: of(DeliveryState::Dead),
        sent_total: outbox.sent_total(),
        oldest_age_s: oldest_us.max(0) as f64 / 1e6,
        oldest_waiting_s: waiting_us.max(0) as f64 / 1e6,
        sinks: circuits
            .map(|(name, state)| SinkView {
                backlog: backlog(&name),
                in_flight: in_flight.get(&name).copied().unwrap_or(0),
                state: state.as_str(),
                name,
            })
            .collect(),
    }
}

/// The last statistics as the page shows them: all of it, and of what.
pub(super) fn view_disk(taken: &Statistics) -> (u64, StoreDisk) {
    let disk = StoreDisk {
        readings_bytes: taken.readings_bytes,
        deliveries_bytes: taken.deliveries_bytes,
        ledger_bytes: taken.ledger_bytes,
        index_bytes: taken.index_bytes,
        free_bytes: taken.free_bytes,
        control_bytes: taken.control_bytes,
        partitions: taken.partitions,
        oldest_reading_at: taken.oldest_reading_us.map(rfc3339_us),
    };
    (taken.size_bytes, disk)
}

/// The relay, where the configuration has one.
pub(super) fn start_relay(
    settings: &Config,
    store: &Store,
    health: &Arc<StoreHealth>,
    buffer: &Arc<dyn Buffer>,
    outbox: &Arc<Outbox>,
    (worker, clock, metrics): (String, SharedClock, Arc<Metrics>),
) -> std::io::Result<Option<Arc<Relay>>> {
    let Some(kafka) = settings.kafka.clone() else { return Ok(None) };
    let buffer = buffer.clone();
    Relay::start(RelayParts {
        kafka,
        store: store.clone(),
        store_is_up: store_is_up(health),
        own: Box::new(move || (0..buffer.lanes()).map(|lane| buffer.stream(lane)).collect()),
        max_engines: settings.readings.max_engines,
        worker,
        clock,
        metrics,
        outbox: outbox.clone(),
    })
    .map(Some)
}

/// The buffer as the integrity check asks it.
pub(super) struct HeldBy(pub(super) Arc<dyn Buffer>);

impl store::integrity::Held for HeldBy {
    fn span(&self, stream: crate::domain::receipt::StreamId) -> Option<(u64, u64)> {
        self.0.held(stream)
    }

    fn frames(&self, stream: crate::domain::receipt::StreamId, first: u64, last: u64) -> std::io::Result<Vec<Frame>> {
        self.0.read_again(stream, first, last)
    }

    fn audit(&self, medium: store::integrity::Medium) -> Option<Box<dyn store::integrity::Audit>> {
        self.0.audit(medium)
    }
}
