//! What the handlers work with: handles given by `daemon.rs`, and the few things that the surface keeps for itself.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, atomic::AtomicI64},
};

use actix_web::{HttpRequest, web::Data};
use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, oneshot};

use super::{
    auth::Throttle,
    error::{ApiError, ErrorCode},
    messages::Ways,
    quota::Quotas,
};
use crate::{
    clock::{ArrivalClock, SharedClock},
    config::Config,
    domain::receipt::StreamId,
    event::Metrics,
    ingest::{admission::Admission, pace::Pace},
    logging::Logging,
    monitor::Views,
    protocol::{AcknowledgeAlert, Ingest, RunDuty, Wake},
    schedule::ScheduleBoard,
    store::{Store, tokens::TokenBook},
    supervise::{ActorRegistry, Courier},
};

/// Resolves when what there is to relay of these numbers of a stream, first and last, is in Kafka; closed where nobody will know.
pub type AwaitRelay = Arc<dyn Fn(StreamId, (u64, u64)) -> oneshot::Receiver<()> + Send + Sync>;

/// What `daemon.rs` gives to [`serve`](super::serve).
pub struct Parts {
    /// The configuration in force.
    pub config: Arc<ArcSwap<Config>>,
    /// Wall clock.
    pub clock: SharedClock,
    /// Gives readings without a timestamp theirs.
    pub arrivals: Arc<ArrivalClock>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The budget of bytes in the works.
    pub admission: Admission,
    /// The rate that pushes keep; `None` where there is no limit.
    pub pace: Option<Pace>,
    /// To `IngestActor`.
    pub ingest: Courier<Ingest>,
    /// To `AlertActor`.
    pub acknowledge: Courier<AcknowledgeAlert>,
    /// To `OutboxActor`.
    pub wake: Courier<Wake>,
    /// To `ScheduleActor`.
    pub run_duty: Courier<RunDuty>,
    /// Periodic duties and the last statistics.
    pub schedule: Arc<ScheduleBoard>,
    /// Tokens and sessions.
    pub tokens: Arc<TokenBook>,
    /// The log's ring and filter.
    pub logging: Logging,
    /// Everything that can be looked at.
    pub views: Arc<Views>,
    /// The database.
    pub store: Store,
    /// The control store.
    pub control: Store,
    /// Actors.
    pub registry: Arc<ActorRegistry>,
    /// Where the control socket is to lie; `None` opens none.
    pub control_socket: Option<PathBuf>,
    /// Waits until Kafka has committed a number; `None` without a relay.
    pub relayed: Option<AwaitRelay>,
    /// Demo only: a sign-in by `/?token=` is taken.
    pub demo: bool,
}

/// Shared by all HTTP workers.
pub struct WebState {
    /// What was given.
    pub parts: Parts,
    /// Places for live streams.
    pub(super) streams: Arc<Semaphore>,
    /// Failed sign-ins.
    pub(super) throttle: Throttle,
    /// How much each caller has asked.
    pub(super) quotas: Quotas,
    /// Where messages can go.
    pub(super) ways: Ways,
    /// When a push that was refused for its role was last written to the audit, microseconds since the epoch.
    pub(super) refused_push_at_us: AtomicI64,
}

impl std::ops::Deref for WebState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl fmt::Debug for WebState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebState").field("views", &self.parts.views).finish_non_exhaustive()
    }
}

impl WebState {
    /// Adds what the surface keeps for itself.
    pub fn new(parts: Parts) -> Self {
        let max_streams = parts.config.load().server.max_streams;
        Self {
            parts,
            streams: Arc::new(Semaphore::new(max_streams)),
            throttle: Throttle::default(),
            quotas: Quotas::default(),
            ways: Ways::default(),
            refused_push_at_us: AtomicI64::new(i64::MIN),
        }
    }

    /// The state of the application that a request belongs to.
    ///
    /// # Errors
    /// Never in a served application; a handler outside one gets 500.
    pub fn of(request: &HttpRequest) -> Result<&Data<WebState>, ApiError> {
        request.app_data::<Data<WebState>>().ok_or_else(|| ApiError::new(ErrorCode::Internal, "the application has no state"))
    }
}
