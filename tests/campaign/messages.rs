//! Messages of three instances on one PostgreSQL, half by mail and half by webhook, and alerts by mail beside them. An instance is killed,
//! or halted beyond its lease, over and over, and now and then the database is killed, crashed or stopped and started again; all the
//! while messages come in and leave. Receivers count by delivery id; the mail server now and then refuses for a while, or hangs up in the
//! middle of a mail or instead of its last answer.
//!
//! Before anybody decides: whatever was acknowledged was received and is `sent`, or is `uncertain`. By mail only what was in flight at a
//! fault is uncertain, or what the server hung up on; none of it was received twice, and nothing is `sent` that the server does not have.
//! What its route says is sent again (alerts, and a third of the messages) bears the mark when it is: all but one of those received. (A
//! halted instance may end its dialogue when another has sent the marked one already.) Then a person decides over the API, with the mail
//! server's own list in hand, and everything has arrived.

mod flight;
mod hook;
mod posters;
mod verdict;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use self::{
    flight::{InFlight, in_flight, notices_in_flight, quiet, worker},
    hook::Hook,
    posters::Posters,
};
use super::{
    dice::{Dice, mix},
    part::{Campaign, Part},
};
use crate::support::{
    daemon::{Daemon, Setup},
    postgres::{Postgres, is_installed},
    smtp_server::{Act, SmtpServer},
};

const INSTANCES: usize = 3;
/// Fewest messages of a short and of a long campaign.
const MESSAGES: (u64, u64) = (4_000, 100_000);
/// Messages a second that are handed in at most: so few that faults meet them all the way.
const PACE: f64 = 165.0;
/// Mails at once of one instance.
const CONCURRENCY: u64 = 6;
/// How long a claim lasts.
const LEASE: Duration = Duration::from_secs(4);
/// Longest wait until everything has come to an end after the last fault.
const AGAIN: Duration = Duration::from_secs(600);
/// How often a person decides at most: the server hangs up on few of what is sent again.
const DECISIONS_MAX: u32 = 20;

/// Until the part is over.
pub fn run(campaign: &Campaign, part: &mut Part) {
    if !is_installed() {
        part.left_out.push("PostgreSQL is not installed".into());
        return;
    }
    let mut dice = part.dice(campaign, 0);
    let least = if campaign.long { MESSAGES.1 } else { MESSAGES.0 };
    part.attempt("messages", |part| history(part, &mut dice, least, None));
}

/// What the database does behind the daemons' back, as a broken daemon would; the comparison must find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// What is uncertain is sent again.
    SentAgain,
    /// What is uncertain is called sent.
    CalledSent,
}

impl Harm {
    fn done_to(self, url: &str) -> Result<(), String> {
        let (state, more) = match self {
            Self::SentAgain => ("ready", "NEW.settled_at_us := NULL;"),
            Self::CalledSent => ("sent", ""),
        };
        flight::execute(
            url,
            &format!(
                "CREATE FUNCTION harm() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.state := '{state}'; {more} RETURN NEW; END $$; \
                 CREATE TRIGGER harm BEFORE UPDATE ON deliveries FOR EACH ROW WHEN (NEW.state = 'uncertain') EXECUTE FUNCTION harm()"
            ),
        )
    }
}

/// Everything there is.
struct Site {
    server: Postgres,
    url: String,
    mail: SmtpServer,
    hook: Hook,
    instances: Vec<Instance>,
    flight: InFlight,
}

/// One daemon.
struct Instance {
    daemon: Daemon,
    /// The name under which it claims.
    worker: String,
    /// The name of its connections to the database.
    application: String,
}

impl Site {
    fn start(dice: &mut Dice) -> Result<Self, String> {
        let server = Postgres::start(&[]);
        let url = server.new_database("messages");
        let seed = dice.next();
        let mail = SmtpServer::start(move |n| act(seed, n));
        let hook = Hook::start();
        let instances = (0..INSTANCES).map(|n| Instance::start(n, &url, &mail, &hook)).collect::<Result<Vec<_>, _>>()?;
        for instance in &instances {
            let up = |daemon: &Daemon| daemon.get("/readyz").json()["state"] == "ready";
            instance.daemon.wait_for("ready", AGAIN, up);
        }
        Ok(Self { server, url, mail, hook, instances, flight: InFlight::default() })
    }

    /// What this instance had in flight when it ended, from the two databases that it left.
    fn note_ended(&mut self, at: usize) -> Result<(), String> {
        let one = &self.instances[at];
        quiet(&self.url, &one.application, true)?;
        let (ids, notices) = (in_flight(&self.url, Some(&one.worker))?, notices_in_flight(&one.daemon)?);
        self.flight.note(&ids, CONCURRENCY)?;
        self.flight.note(&notices, CONCURRENCY)
    }

    fn kill(&mut self, part: &mut Part, dice: &mut Dice, at: usize) -> Result<(), String> {
        part.count("mails in dialogue at a kill", self.mail.open());
        self.instances[at].daemon.kill();
        self.note_ended(at)?;
        if dice.one_in(5) {
            // Longer than its lease: the others take over what it had.
            thread::sleep(Duration::from_millis(dice.below(7_000)));
        }
        self.instances[at].daemon.spawn();
        part.fault("an instance killed");
        Ok(())
    }

    fn halt(&mut self, part: &mut Part, dice: &mut Dice, at: usize) -> Result<(), String> {
        let length = Duration::from_millis(500 + dice.below(8_500));
        let since = Instant::now();
        self.instances[at].daemon.signal(libc::SIGSTOP);
        let one = &self.instances[at];
        quiet(&self.url, &one.application, false)?;
        // Of its own notices nobody else takes anything over: what it was sending it goes on with.
        let ids = in_flight(&self.url, Some(&one.worker))?;
        self.flight.note(&ids, CONCURRENCY)?;
        thread::sleep(length.saturating_sub(since.elapsed()));
        self.instances[at].daemon.signal(libc::SIGCONT);
        part.count("halted for longer than the lease", u64::from(length > LEASE));
        part.fault("an instance halted");
        Ok(())
    }

    /// The database goes away. While it comes back the instances are held still for a moment, so that what it says of their claims is what
    /// it knew when it went.
    fn restart_database(&mut self, part: &mut Part, dice: &mut Dice) -> Result<(), String> {
        let what = match dice.below(3) {
            0 => {
                self.server.kill();
                "PostgreSQL killed"
            }
            1 => {
                self.server.crash();
                "PostgreSQL crashed"
            }
            _ => {
                self.server.stop();
                "PostgreSQL stopped"
            }
        };
        thread::sleep(Duration::from_millis(if dice.one_in(4) { dice.below(8_000) } else { dice.below(1_500) }));
        let running: Vec<usize> = (0..INSTANCES).filter(|at| self.instances[*at].daemon.is_running()).collect();
        running.iter().for_each(|at| self.instances[*at].daemon.signal(libc::SIGSTOP));
        self.server.restart();
        let ids = in_flight(&self.url, None);
        running.iter().for_each(|at| self.instances[*at].daemon.signal(libc::SIGCONT));
        self.flight.note(&ids?, CONCURRENCY * INSTANCES as u64)?;
        part.fault(what);
        Ok(())
    }

    fn fault(&mut self, part: &mut Part, dice: &mut Dice) -> Result<(), String> {
        let at = dice.below(INSTANCES as u64) as usize;
        if !self.instances[at].daemon.is_running() {
            // Its overseer may end a process that was halted; whoever started it starts it again.
            self.note_ended(at)?;
            self.instances[at].daemon.spawn();
            part.count("ended by itself and was started again", 1);
            return Ok(());
        }
        match dice.below(10) {
            0 => self.restart_database(part, dice),
            1..=3 => self.halt(part, dice, at),
            _ => self.kill(part, dice, at),
        }
    }

    /// The logs' last lines.
    fn logs(&self) -> String {
        let last = |one: &Instance| one.daemon.log().lines().rev().take(20).collect::<Vec<_>>().join("\n");
        self.instances.iter().map(last).collect::<Vec<_>>().join("\n---\n")
    }
}

impl Instance {
    fn start(n: usize, url: &str, mail: &SmtpServer, hook: &Hook) -> Result<Self, String> {
        let application = format!("belayd-{n}");
        // What comes over the third's API is sent again where nobody knows.
        let on_unknown = if n == 2 { "resend" } else { "review" };
        let more = format!(
            "[outbox]\nlease = \"{}s\"\nretry_base = \"50ms\"\nretry_max = \"500ms\"\nmax_attempts = 1000\n\
             [messages]\non_unknown = \"{on_unknown}\"\n[limits]\nmessages_per_minute = 0\nrequests_per_minute = 0\n\
             [smtp]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nfrom = \"belayd <belayd@example.org>\"\n\
             hello = \"belayd.example.org\"\nconcurrency = {CONCURRENCY}\n[[webhooks]]\nname = \"{}\"\nurl = \"{}\"\n\
             [[rules]]\nname = \"overheat\"\nmetric = \"temperature\"\nop = \">\"\nthreshold = 350.0\n\
             [[routes]]\nnames = [\"overheat\"]\nsinks = [\"smtp\"]\nrecipients = [\"ops@example.org\"]\ngroup_by = [\"subject\"]\n\
             on_unknown = \"resend\"\n",
            LEASE.as_secs(),
            mail.port,
            hook::NAME,
            hook.url,
        );
        let mut daemon = Setup::with(&more).store(&format!("{url}?application_name={application}")).lay_out();
        let worker = worker(&daemon)?;
        daemon.spawn();
        Ok(Self { daemon, worker, application })
    }
}

/// What the mail server does with its `n`th mail: most are taken, some after a moment, so that faults find many of which the last word
/// is still to come.
fn act(seed: u64, n: u64) -> Act {
    let thrown = mix(seed ^ mix(n));
    match thrown % 3_000 {
        0 | 1 => Act::Defer,
        2 => Act::TakeAndCut,
        3 => Act::CutMidway,
        4..400 => Act::Take(Duration::from_millis((thrown >> 32) % 80)),
        _ => Act::Take(Duration::ZERO),
    }
}

/// One site, with `least` messages at least.
pub fn history(part: &mut Part, dice: &mut Dice, least: u64, harm: Option<Harm>) -> Result<(), String> {
    let mut site = Site::start(dice)?;
    harm.map_or(Ok(()), |harm| harm.done_to(&site.url))?;
    let over = Arc::new(AtomicBool::new(false));
    let posters = Posters::start(&site, least, PACE, &over);
    let began = Instant::now();
    let mut trouble = Ok(());
    // Faults all through: as long as messages are handed in.
    while trouble.is_ok() && (part.goes_on() || (posters.is_short() && !part.is_given_up())) {
        thread::sleep(Duration::from_millis(300 + dice.below(2_500)));
        trouble = site.fault(part, dice);
    }
    over.store(true, Ordering::Relaxed);
    part.count("seconds of faults", began.elapsed().as_secs());
    for one in &mut site.instances {
        if !one.daemon.is_running() {
            one.daemon.spawn();
        }
    }
    let posted = posters.join(part)?;
    trouble?;
    let count = posted.messages.len() as u64;
    if count < least {
        part.left_out.push(format!("{} of {least} messages: it was ended before they were handed in", least - count));
    }
    verdict::settle(&site)?;
    verdict::before_decisions(part, &site, &posted)?;
    // The server may hang up on one that is sent again: then it is asked once more.
    for _ in 0..DECISIONS_MAX {
        if verdict::decide(part, &site)? == 0 {
            break;
        }
        verdict::settle(&site)?;
    }
    verdict::after_decisions(part, &site)
}
