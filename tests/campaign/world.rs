//! One daemon with its oracle, its database and its load, and the checks that end every part of the campaign.

use std::{
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    compare::{Numbers, Verdict, compare},
    database::Database,
    oracle::Oracle,
    sender::{Load, Target, fresh},
};
use crate::support::daemon::{Daemon, Setup};

/// Longest wait for fresh readings to pass after a fault.
pub const FRESH: Duration = Duration::from_secs(30);
/// The same where they must reach Kafka, behind all that waited meanwhile.
const RELAYED: Duration = Duration::from_secs(120);

/// What a finding says of a process that nobody killed and that is gone.
pub const ENDED_ITSELF: &str = "the daemon ended by itself";
/// The same, where it was found while fresh readings were waited for.
pub const HAS_ENDED: &str = "the daemon has ended";

/// How a daemon is set up for the campaign.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The tier, where it is not the campaign's.
    pub tier: Option<Tier>,
    /// Lines under `[buffer]`.
    pub buffer: String,
    /// Further sections.
    pub more: String,
    /// The level that fresh readings must reach.
    pub fresh: &'static str,
    /// Lines under `[server]`.
    pub server: String,
    /// URL of the store as the daemon sees it.
    pub store_url: String,
    /// The same as the comparison sees it; `None`: the SQLite file beside the configuration.
    pub database: Option<Database>,
    /// Environment of the daemon.
    pub env: Vec<(String, String)>,
    /// Senders, beside the one for fresh readings.
    pub senders: usize,
    /// Pause between two pushes of one sender.
    pub pause: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            tier: None,
            buffer: String::new(),
            more: String::new(),
            fresh: "store",
            server: String::new(),
            store_url: "sqlite://belayd.db".into(),
            database: None,
            env: Vec::new(),
            senders: 4,
            pause: Duration::from_millis(2),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct World {
    /// The daemon.
    pub daemon: Daemon,
    /// What was sent.
    pub oracle: Arc<Oracle>,
    /// Where to send.
    pub target: Target,
    /// Where it ends.
    pub database: Database,
    /// What the daemon said of losses when it was last asked.
    pub announced: u64,
    tier: Tier,
    fresh: &'static str,
    pause: Duration,
}

impl World {
    /// Sets up and starts the daemon; nothing is sent yet.
    pub fn start(seed: u64, plan: &Plan) -> Self {
        let tier = plan.tier.unwrap_or_else(super::tier);
        // The smallest journal has the smallest segments: 1 MB, so that one ends and another begins often.
        let size = if tier.name != "memory" { "journal_bytes = \"8MB\"\n" } else { "" };
        let more = format!(
            "[buffer]\ntier = \"{}\"\nflush_interval = \"50ms\"\nack_timeout = \"2s\"\n{size}{}\n[supervision]\nmax_restarts = 100\n{}",
            tier.name, plan.buffer, plan.more
        );
        let mut setup = Setup::with(&more).store(&plan.store_url);
        setup.server.clone_from(&plan.server);
        setup.env.clone_from(&plan.env);
        setup.log = if plan.fresh == "relay" { "warn,belayd::relay=info" } else { "warn" }.into();
        let daemon = setup.start();
        let oracle = Arc::new(Oracle::new(seed, plan.senders + 1, &daemon.dir().join("oracle")));
        let token = daemon.create_token("sender", "ingest");
        let target = Target { address: daemon.address.clone(), token, others: Vec::new(), level: tier.level };
        let database = plan.database.clone().unwrap_or_else(|| Database::Sqlite(daemon.dir().join("belayd.db")));
        Self { daemon, oracle, target, database, announced: 0, tier, fresh: plan.fresh, pause: plan.pause }
    }

    /// Starts the senders.
    pub fn load(&self) -> Load {
        Load::start(&self.oracle, &self.target, self.pause)
    }

    /// 20 fresh readings pass.
    ///
    /// # Errors
    /// They do not.
    pub fn fresh(&mut self) -> Result<Duration, String> {
        let limit = if self.fresh == "relay" { RELAYED } else { FRESH };
        fresh(&self.oracle, &self.target, self.fresh, limit).map_err(|error| {
            let state = if self.daemon.is_running() { "the daemon runs" } else { HAS_ENDED };
            format!("{error}; {state}; its log:\n{}", tail(&self.daemon.log()))
        })
    }

    /// Everything has been drained, the daemon's own account holds and says that nothing was lost.
    ///
    /// # Errors
    /// In words.
    pub fn settled(&mut self) -> Result<(), String> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let buffer = self.daemon.get("/admin/buffer").json();
            let ready = self.daemon.get("/readyz");
            let total = &buffer["total"];
            let number = |name: &str| total[name].as_u64();
            let parts = ["stored", "duplicate", "conflict", "dead", "discarded", "quarantined", "void", "lost", "buffered"];
            let sum: Option<u64> = parts.iter().map(|part| number(part)).sum();
            if sum.is_some() && number("accepted") != sum || ready.json()["checks"]["conservation"] == "failed" {
                return Err(format!("conservation is violated: {buffer} {}", ready.body));
            }
            if number("buffered") == Some(0) && ready.json()["state"] == "ready" {
                self.announced = ["quarantined", "void", "lost"].iter().filter_map(|part| number(part)).sum();
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("not drained and ready within a minute: {buffer} {}", ready.body));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end of a part: fresh readings pass, all is settled, and the database holds what the oracle knows. The daemon must run.
    ///
    /// # Errors
    /// What was found, in words.
    pub fn verify(&mut self) -> Result<Verdict, String> {
        self.fresh()?;
        self.settled()?;
        // What Redis did not answer in time is in the journal as well, under another number; a copy that cannot be gone on with ends its stream.
        let numbers = if ["redis", "triple"].contains(&self.tier.name) { Numbers::MayChange } else { Numbers::Kept };
        let verdict = compare(&self.oracle, &self.database, numbers)?;
        let refusals = self.oracle.refusals.lock().map(|refusals| refusals.clone()).unwrap_or_default();
        if !refusals.is_empty() {
            return Err(format!("answers that no sender should get: {}", refusals.join("; ")));
        }
        Ok(verdict)
    }

    /// [`Self::verify`], and nothing at all is missing, twice or given up.
    ///
    /// # Errors
    /// What was found, in words.
    pub fn verify_clean(&mut self) -> Result<Verdict, String> {
        let verdict = self.verify()?;
        // Tier memory begins a stream at each start; a journal begins another only where it takes its directory for a restored one.
        let lanes = if matches!(self.database, Database::Sqlite(_)) { 1 } else { 2 };
        if self.tier.name == "journal" && verdict.streams > lanes {
            return Err(format!("a stream was begun anew: {verdict}"));
        }
        if !verdict.is_clean() || verdict.given_up > 0 || self.announced > 0 {
            return Err(format!("{verdict}, {} announced as lost", self.announced));
        }
        Ok(verdict)
    }

    /// Waits until the daemon answers at all.
    ///
    /// # Errors
    /// It ended or stays silent.
    pub fn answers(&mut self) -> Result<(), String> {
        let until = Instant::now() + FRESH;
        while self.daemon.get("/healthz").status == 0 {
            if !self.daemon.is_running() {
                return Err(format!("{ENDED_ITSELF} before it answered; its log:\n{}", tail(&self.daemon.log())));
            }
            if Instant::now() > until {
                return Err(format!("the daemon does not answer within {FRESH:?}; its log:\n{}", tail(&self.daemon.log())));
            }
            thread::sleep(Duration::from_millis(3));
        }
        Ok(())
    }

    /// Waits until the daemon takes readings into Redis.
    ///
    /// # Errors
    /// It does not.
    pub fn uses_redis(&self) -> Result<(), String> {
        let until = Instant::now() + FRESH;
        loop {
            let buffer = self.daemon.get("/admin/buffer").json();
            if buffer["redis"]["state"] == "up" {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("Redis is not used within {FRESH:?}: {buffer}; the log:\n{}", tail(&self.daemon.log())));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where the evidence of a failure is kept: a copy of the directory outside.
    pub fn keep(&self, name: &str) -> Option<PathBuf> {
        self.oracle.flush();
        let place = std::env::temp_dir().join(format!("belayd-campaign-{name}"));
        let done = std::process::Command::new("cp").arg("-a").arg(self.daemon.dir()).arg(&place).status();
        done.is_ok_and(|status| status.success()).then_some(place)
    }
}

/// The last lines of a log, without the alerts that the readings raise.
pub fn tail(log: &str) -> String {
    let usual = ["target=belayd::alert ", "msg=\"request failed\""];
    let lines: Vec<_> = log.lines().filter(|line| !usual.iter().any(|text| line.contains(text))).collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// What the tier in use is called and promises.
#[derive(Clone, Copy, Debug)]
pub struct Tier {
    /// `buffer.tier`
    pub name: &'static str,
    /// The lowest level that counts as acknowledged.
    pub level: &'static str,
}

impl Tier {
    /// The tier that the campaign is about where nobody names one.
    pub const JOURNAL: Self = Self { name: "journal", level: "journal" };
    /// While Redis is away readings are acknowledged by the journal.
    pub const REDIS: Self = Self { name: "redis", level: "journal" };
    /// While the database is away readings are acknowledged by the journal.
    pub const TRIPLE: Self = Self { name: "triple", level: "journal" };
    const MEMORY: Self = Self { name: "memory", level: "store" };

    /// The tier by its name.
    ///
    /// # Errors
    /// There is none of this name; with those that there are.
    pub fn named(name: &str) -> Result<Self, String> {
        let all = [Self::JOURNAL, Self::MEMORY, Self::REDIS, Self::TRIPLE];
        let names = all.map(|tier| tier.name).join(", ");
        all.into_iter().find(|tier| tier.name == name).ok_or_else(|| format!("--tier {name}: there is none; known are {names}"))
    }
}
