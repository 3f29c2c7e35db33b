//! The start, in order: directory, control store, boards, buffer and drain, actors from the way out to the way in, the surface.
//! Ready means that the buffer and the listener are open; the database may be away.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::{
    Daemon, DataDirectory, Options, StartFailed, deadman, descriptors,
    drain::{DrainObserver, StoreWriter},
    heartbeat::{self, Heartbeat},
    is_own,
    left_behind::LeftBehind,
    left_open::{ended_by_start, unreadable},
    triple, while_doing,
    wiring::{
        HeldBy, away, last_run, load_alerts, load_baselines, on_open, pollers, raise, save_baselines, save_phases, start_relay,
        store_is_up, view_disk, view_outbox,
    },
};
use crate::{
    alert::{AlertActor, AlertBoard, AlertDesk, AlertParts},
    buffer::{
        actor::{BatchBufferActor, BufferParts},
        drain::{DrainHandle, DrainSettings, Writer},
        health::StoreHealth,
    },
    clock::{ArrivalClock, SharedClock, SystemClock},
    config::Config,
    domain::time::rfc3339_us,
    event::Metrics,
    ingest::{
        actor::{IngestActor, IngestParts},
        admission::Admission,
        board::SourceBoard,
        engines::EngineTable,
        pace::Pace,
        raiser::Raiser,
    },
    monitor::{self, Board, InstanceBoard, IntegrityView, Measured, MonitorActor, MonitorParts, Stage, Views},
    outbox::{IssueSink, Outbox, OutboxActor, OutboxParts},
    protocol::{Ingest, Reconfigure, Visible, Wake},
    schedule::{self, ScheduleActor, ScheduleBoard, ScheduleDesk, ScheduleParts},
    sinks,
    store::{self, Store, checkpointer::Checkpointer, instances::Instance, tokens::TokenBook},
    supervise::{Overseer, Supervisor},
    systemd::Notifier,
    web,
};

/// Longest silence of the drain. Calls to the database do not count: they are watched apart (`buffer/call.rs`).
const DRAIN_SILENCE: Duration = Duration::from_secs(10);

impl Daemon {
    /// Starts everything. Must run in an actix system, on its thread.
    ///
    /// # Errors
    /// What keeps the daemon from starting, and what to do. A database that is away does not.
    pub async fn start(config: Config, options: Options) -> Result<Self, StartFailed> {
        let demo = options.demo.is_some();
        let clock: SharedClock = Arc::new(SystemClock);
        let started = (clock.now_us(), Instant::now());
        let notifier = Notifier::from_env();
        descriptors::raise(&config);
        // A directory is not begun for a daemon that cannot run; in one that is belayd's already its lock says more than the port.
        if !is_own(&config.server.data_dir) {
            let listen = config.server.listen;
            drop(std::net::TcpListener::bind(listen).map_err(while_doing(&format!("listening on {listen}")))?);
        }
        let directory = DataDirectory::open(&config.server.data_dir).map_err(|denied| StartFailed(denied.to_string()))?;
        let left_open = directory.begin_run();
        let config = Arc::new(ArcSwap::from_pointee(config));
        let settings = config.load_full();

        let (control, identity) = store::control::open(directory.path(), started.0).map_err(while_doing("control store"))?;
        let tokens = Arc::new(TokenBook::open(control.clone(), clock.clone()).map_err(while_doing("tokens in the control store"))?);
        let alerts = Arc::new(AlertBoard::default());
        let phases = control.with(|conn| load_alerts(conn, &alerts)).map_err(while_doing("alerts in the control store"))?;

        let store = Store::open(&settings.store).map_err(while_doing("store.url"))?;
        let metrics = Arc::new(Metrics::new().map_err(while_doing("metrics"))?);
        let arrivals = Arc::new(ArrivalClock::new(clock.clone()));
        let admission = Admission::new(settings.buffer.admission_bytes);
        let baselines =
            control.with(|conn| load_baselines(conn, &settings)).map_err(while_doing("baselines in the control store"))?;
        let (rules, anomalies) = (&settings.rules, &settings.anomaly_rules);
        let engines = EngineTable::with_anomalies(rules, anomalies, settings.readings.max_engines, phases, baselines);
        let engines = Arc::new(engines);
        let sources = Arc::new(SourceBoard::default());
        let board = Arc::new(Board::default());
        let health = Arc::new(StoreHealth::default());
        let supervisor = Supervisor::new(settings.supervision.clone());
        let registry = supervisor.registry().clone();
        let start = while_doing("actors");

        let outbox = Outbox::new(OutboxParts {
            control: control.clone(),
            store: Some((store.clone(), store_is_up(&health))),
            config: config.clone(),
            sinks: sinks::build(&settings),
            own_sinks: vec![Arc::new(IssueSink::new(store.clone(), store_is_up(&health), clock.clone()))],
            clock: clock.clone(),
            metrics: metrics.clone(),
            worker: identity.directory_id.to_string(),
        });
        let wake = {
            let outbox = outbox.clone();
            supervisor.start(move || OutboxActor::new(outbox.clone())).map_err(&start)?.courier::<Wake>()
        };
        let desk = AlertDesk::new(AlertParts {
            store: control.clone(),
            board: alerts.clone(),
            config: config.clone(),
            clock: clock.clone(),
            outbox: wake.clone(),
            metrics: metrics.clone(),
            away: away(&outbox),
        });
        let alert = supervisor.start(move || AlertActor::new(desk.clone())).map_err(&start)?;
        let raiser = Raiser::start(alert.courier());
        outbox.set_raise(raise(&raiser));
        raise(&raiser)(vec![last_run(left_open, &settings, started.0)]);
        let before = alerts.open();
        raise(&raiser)(ended_by_start(&before, &settings, started.0));

        let instance = identity.directory_id.to_string();
        let buffer = triple::open(&triple::Parts {
            settings: &settings,
            at_rest: directory.left_at_rest(),
            instance: &instance,
            store: &store,
            store_is_up: &|| store_is_up(&health),
            raiser: &raiser,
            clock: &clock,
            metrics: &metrics,
            registry: &registry,
        })
        .map_err(while_doing("the buffer"))?;

        let named = (identity.directory_id.to_string(), clock.clone(), metrics.clone());
        let relay = start_relay(&settings, &store, &health, &buffer, &outbox, named).map_err(while_doing("the relay's thread"))?;

        let schedule = Arc::new(ScheduleBoard::default());
        let duties = ScheduleParts {
            store: store.clone(),
            store_is_up: store_is_up(&health),
            control: control.clone(),
            tokens: tokens.clone(),
            config: config.clone(),
            clock: clock.clone(),
            board: schedule.clone(),
            metrics: metrics.clone(),
            raise: raise(&raiser),
            held: Arc::new(HeldBy(buffer.clone())),
            instance: identity.directory_id.to_string(),
        };
        let duties = ScheduleDesk::open(duties, schedule::duties()).map_err(while_doing("duties in the control store"))?;
        let run_duty = supervisor.start(move || ScheduleActor::new(duties.clone())).map_err(&start)?.courier();

        let instances = Arc::new(InstanceBoard::default());
        let views = Arc::new(Views {
            config: config.clone(),
            clock: clock.clone(),
            started,
            demo,
            board: board.clone(),
            metrics: metrics.clone(),
            buffer: buffer.clone(),
            store: store.clone(),
            health: health.clone(),
            engines: engines.clone(),
            sources: sources.clone(),
            registry: registry.clone(),
            alerts: Arc::new({
                let alerts = alerts.clone();
                move || alerts.list(crate::monitor::ALERTS_SHOWN)
            }),
            alert_counts: Arc::new({
                let alerts = alerts.clone();
                move || alerts.tally()
            }),
            outbox: Arc::new({
                let relay = relay.clone();
                move || view_outbox(&outbox, relay.as_deref())
            }),
            store_disk: Arc::new({
                let schedule = schedule.clone();
                move || schedule.statistics().as_ref().map(view_disk)
            }),
            instances: instances.clone(),
            integrity: Arc::new({
                let schedule = schedule.clone();
                move || {
                    schedule.integrity().map(|found| IntegrityView {
                        ended_at: rfc3339_us(found.ended_at_us),
                        rows: found.rows,
                        faults: found.missing + found.twice + found.ledger_faults + found.delivery_faults,
                    })
                }
            }),
            inbox: options.demo,
            measured: Measured::default(),
        });
        {
            let views = views.clone();
            let schedule = schedule.clone();
            metrics.on_scrape(move |metrics| {
                views.gather(metrics);
                for (duty, status) in schedule.duties() {
                    metrics.schedule_lateness.with_label_values(&[duty]).set(status.lateness_us as f64 / 1e6);
                }
            });
        }

        let (left_unreadable, gone) = unreadable(&before, buffer.lanes(), started.0);
        raise(&raiser)(gone);
        let observer = DrainObserver {
            metrics: metrics.clone(),
            health: health.clone(),
            raiser: raiser.clone(),
            clock: clock.clone(),
            stamps: (0..buffer.lanes()).map(|lane| registry.register_loop(format!("drain-{lane}"), DRAIN_SILENCE)).collect(),
            recovery: Mutex::new(None),
            waiting: Box::new({
                let buffer = buffer.clone();
                move || buffer.stats().rows
            }),
            left_unreadable: left_unreadable.into(),
        };
        let drain_settings = DrainSettings { batch_rows: settings.buffer.batch_rows, breaker: settings.store.breaker };
        let left_behind = LeftBehind {
            buffer: buffer.clone(),
            store: store.clone(),
            instance: instance.clone(),
            raiser: raiser.clone(),
            clock: clock.clone(),
            data_dir: directory.path().to_owned(),
            looked: Arc::default(),
        };
        // Without that thread all works, more slowly.
        let checkpointer = Checkpointer::start(&store).unwrap_or_else(|error| {
            log::warn!(target: "belayd::store", error:% = error; "no thread to copy SQLite's write-ahead log: the drain does it");
            None
        });
        let checkpointer = checkpointer.map(Arc::new);
        let writer = |lane| -> Box<dyn Writer> {
            let on_open = on_open(&views, left_behind.clone());
            let earlier = buffer.clone();
            let earlier = Box::new(move |stream| earlier.earlier(stream));
            let (store, clock, instance) = (store.clone(), clock.clone(), instance.clone());
            Box::new(
                StoreWriter::new(store, clock, buffer.lane_tier(lane), instance, earlier, on_open, relay.clone())
                    .copied_by(checkpointer.clone())
                    .watched_by(health.clone()),
            )
        };
        let (drain, drain_threads) = DrainHandle::start(buffer.clone(), writer, Arc::new(observer), drain_settings)
            .map_err(while_doing("the drain's thread"))?;

        let parts = BufferParts::new(buffer.clone(), drain.clone(), settings.buffer.batch_rows, settings.buffer.flush_interval);
        let buffer_parts = Arc::new(parts);
        let batches = {
            let parts = buffer_parts.clone();
            supervisor.start(move || BatchBufferActor::new(parts.clone())).map_err(&start)?
        };
        let timer = batches.courier::<Visible>();
        buffer.on_visible(Box::new(move |waiting, urgent| {
            if buffer_parts.became_visible(waiting, urgent) {
                // A full mailbox holds batches, and each of them arms the timer.
                let _ = timer.try_send(Visible);
            }
        }));

        let myself = Arc::new(OnceLock::new());
        let ingest_parts = Arc::new(IngestParts {
            engines: engines.clone(),
            raiser: raiser.clone(),
            buffer: batches.courier(),
            refuses: Box::new({
                let buffer = buffer.clone();
                move |batch| buffer.refuses(batch)
            }),
            config: config.clone(),
            clock: clock.clone(),
            save_phases: save_phases(&control, &clock),
            save_baselines: save_baselines(&control, &clock, &config),
            poll: pollers(&myself, &arrivals, &admission, &raiser, buffer.medium_level(), &sources, &metrics),
        });
        let ingest = supervisor.start(move || IngestActor::new(ingest_parts.clone())).map_err(&start)?;
        // Only now is the actor's own address known to the pollers; this order makes them begin.
        let _ = myself.set(ingest.courier::<Ingest>());
        let _ = ingest.courier().send(Reconfigure(settings.clone())).await;

        deadman::start(deadman::Parts {
            config: config.clone(),
            registry: registry.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            raise: raise(&raiser),
        });
        let monitor_parts = Arc::new(MonitorParts { views: views.clone(), raise: raise(&raiser) });
        supervisor.start(move || MonitorActor::new(monitor_parts.clone())).map_err(&start)?;

        let running = web::serve(web::WebState::new(web::Parts {
            config: config.clone(),
            clock: clock.clone(),
            arrivals,
            metrics,
            admission,
            pace: settings.buffer.readings_per_s.map(Pace::new),
            ingest: ingest.courier(),
            acknowledge: alert.courier(),
            wake: wake.clone(),
            tokens: tokens.clone(),
            run_duty,
            schedule,
            logging: options.logging.clone(),
            views,
            store: store.clone(),
            control: control.clone(),
            registry: registry.clone(),
            control_socket: Some(directory.control_socket()),
            relayed: relay.clone().map(|relay| Arc::new(move |stream, numbers| relay.wait_for(stream, numbers)) as web::AwaitRelay),
            demo,
        }))
        .map_err(while_doing("HTTP surface"))?;
        actix::spawn(running.server);
        let heartbeat = Heartbeat::start(heartbeat::Parts {
            store: store.clone(),
            is_up: store_is_up(&health),
            me: Instance {
                instance: identity.directory_id.to_string(),
                run: uuid::Uuid::now_v7().to_string(),
                host: monitor::instance(),
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                url: running.url.clone(),
                tier: buffer.tier().to_owned(),
            },
            clock: clock.clone(),
            board: instances,
            alerts: alerts.clone(),
            raise: raise(&raiser),
        })
        .map_err(while_doing("the heartbeat's thread"))?;
        let overseer =
            Overseer::start(registry, settings.supervision.hang_after, notifier.clone()).map_err(while_doing("overseer"))?;
        board.reach(Stage::Running);
        notifier.ready(&format!("listening on {}", running.url));
        log::info!(target: "belayd", url = running.url.as_str(), version = env!("CARGO_PKG_VERSION"), tier = buffer.stats().tier, store = store.redacted_url(); "belayd is up");
        Ok(Self {
            url: running.url,
            tokens,
            config,
            clock,
            board,
            buffer,
            drain,
            drain_threads,
            store,
            control,
            heartbeat,
            relay,
            supervisor,
            overseer,
            notifier,
            logging: options.logging,
            reload: options.reload,
            web: running.handle,
            control_socket: directory.control_socket(),
            directory,
        })
    }
}
