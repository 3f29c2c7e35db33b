//! Lets an actor's messages gather for a moment, where so many come that waking its thread for each costs more than handling them.
//!
//! A wake from another thread is two system calls and a switch, which on a small virtual machine cost several times what a message of the
//! hot path does (docs/PERFORMANCE.md). So between the rates where that matters and where a queue forms by itself, the actor's thread sleeps
//! for three quarters of a millisecond, and whoever sends meanwhile wakes nobody. It sleeps as a whole, because its timers count whole
//! milliseconds and would make up to two of it; what else runs on it waits for as long. What it hands on, it hands on in groups: those behind
//! it are woken less often too, and the journal syncs once for each group.
//!
//! What brings much work with it ([`brings_much`]) does not count: beside that a wake is cheap.
//!
//! Few senders that each wait for their answer would only be held up by that: no more messages come while they wait. Nobody says so, so it
//! is tried, once a second: where messages come more than a quarter more slowly with waiting than without, there is none.
//!
//! ```text
//!            a turn, and the rate pays                  the sleep is over: poll if anything was sent
//!   open ───────────────────────────────► closed ──────────────────────────────────────────────────► open
//!   a message wakes the thread            a message is noted, and waits
//! ```
//! In: how many messages each turn handled that did not bring much. Out: whether the actor is to be polled. A crash loses nothing here:
//! messages wait in the mailbox.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context as TaskContext, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;

/// Messages a second between which waiting may pay: below, a wake for each is cheap; above, messages queue while others are handled.
const BETWEEN: std::ops::Range<f64> = 1_000.0..8_000.0;
/// How long messages gather. The kernel adds some 60 us, and the journal's thread waits 100 us for the last of a group: together less than a
/// millisecond.
const GATHER: Duration = Duration::from_micros(750);

/// How often the rate is taken.
const WINDOW: Duration = Duration::from_millis(20);
/// After so many windows it is tried anew whether waiting holds senders up.
const TRIAL_EVERY: u32 = 50;
/// Windows of a trial in which nobody waits, and those up to its end, in which everybody does.
const OPEN: u32 = 3;
const TRIAL: u32 = 6;
/// Of the rate without waiting: less than this with waiting, and senders are held up. Chance alone moves the two by a tenth.
const HELD_UP: f64 = 0.75;

thread_local! {
    /// Messages of this turn that brought much.
    static MUCH: Cell<u32> = const { Cell::new(0) };
}

/// The message in hand brings so much work that waking a thread for it costs little beside that: others need not gather with it. For an
/// actor whose messages gather, within the handling of a message; elsewhere it does nothing.
pub fn brings_much() {
    MUCH.set(MUCH.get().wrapping_add(1));
}

/// How many messages of this thread have brought much since the last call.
pub(super) fn brought_much() -> u32 {
    MUCH.take()
}

/// What stands between the mailbox and the thread.
struct Gate {
    closed: AtomicBool,
    woken: AtomicBool,
    thread: AtomicWaker,
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // In this order, against `Linger::turned`, which opens the gate before it looks: one of the two sees the other.
        self.woken.store(true, SeqCst);
        if !self.closed.load(SeqCst) {
            self.thread.wake();
        }
    }
}

/// How fast messages come, with and without waiting.
struct Pace {
    /// The rate of the window that was last taken, as a decaying mean.
    per_s: f64,
    counted: u32,
    since: Instant,
    /// Since the last trial began.
    window: u32,
    /// The best rate of the trial's windows without waiting, and of those with: a stall of the machine lowers one window, not the best.
    open: f64,
    held: f64,
    pays: bool,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { per_s: 0.0, counted: 0, since: now, window: 0, open: 0.0, held: 0.0, pays: false }
    }

    fn count(&mut self, messages: u32, at: Instant) {
        self.counted += messages;
        let took = at.saturating_duration_since(self.since);
        if took < WINDOW {
            return;
        }
        let now = f64::from(self.counted) / took.as_secs_f64();
        // Four windows to follow, so that one burst decides nothing.
        self.per_s += (now - self.per_s) / 4.0;
        (self.counted, self.since) = (0, at);
        match self.window {
            0 => (self.open, self.held) = (now, 0.0),
            1..OPEN => self.open = self.open.max(now),
            OPEN..TRIAL => self.held = self.held.max(now),
            _ => {}
        }
        self.window = (self.window + 1) % TRIAL_EVERY;
        if self.window == TRIAL {
            self.pays = self.held >= self.open * HELD_UP;
        }
    }

    fn says_wait(&self) -> bool {
        let waits = match self.window {
            0..OPEN => false,
            OPEN..TRIAL => true,
            _ => self.pays,
        };
        waits && BETWEEN.contains(&self.per_s)
    }
}

/// See the module.
pub(super) struct Linger {
    gate: Arc<Gate>,
    waker: Waker,
    pace: Pace,
}

impl Linger {
    /// With an open gate, and the first turn due.
    pub(super) fn new() -> Self {
        let gate = Arc::new(Gate { closed: AtomicBool::new(false), woken: AtomicBool::new(true), thread: AtomicWaker::new() });
        let waker = Waker::from(gate.clone());
        Self { gate, waker, pace: Pace::new(Instant::now()) }
    }

    /// What the actor is to be polled with.
    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Whether nothing has come since the last look: then there is nothing to poll the actor for.
    pub(super) fn is_idle(&self, cx: &mut TaskContext<'_>) -> bool {
        self.gate.thread.register(cx.waker());
        !self.gate.woken.swap(false, SeqCst)
    }

    /// The next look finds something to do.
    pub(super) fn stir(&self) {
        self.gate.woken.store(true, SeqCst);
    }

    /// The actor has been polled and handled so many messages: where it pays, sleeps while others gather.
    pub(super) fn turned(&mut self, messages: u32, cx: &mut TaskContext<'_>) {
        self.pace.count(messages, Instant::now());
        if messages == 0 || !self.pace.says_wait() {
            return;
        }
        self.gate.closed.store(true, SeqCst);
        thread::sleep(GATHER);
        self.gate.closed.store(false, SeqCst);
        if self.gate.woken.load(SeqCst) {
            cx.waker().wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// Messages at an even rate for so long, turn by turn: with waiting a turn takes 1.5 ms, else each message has its own. Returns in how
    /// many of the turns behind the first second the thread is told to wait.
    fn offered(pace: &mut Pace, per_s: f64, seconds: u64) -> (u32, u32) {
        let began = pace.since;
        let (mut at, mut sent, mut turns, mut waits) = (began, 0.0, 0, 0);
        while at < began + Duration::from_secs(seconds) {
            let wait = pace.says_wait();
            at += if wait { Duration::from_micros(1_500) } else { Duration::from_secs_f64(1.0 / per_s) };
            let due = at.duration_since(began).as_secs_f64() * per_s;
            let came = (due - sent).floor();
            sent += came;
            pace.count(came as u32, at);
            if at > began + Duration::from_secs(1) {
                (turns, waits) = (turns + 1, waits + u32::from(wait));
            }
        }
        (turns, waits)
    }

    #[test]
    fn the_thread_waits_between_the_rates_only() {
        let (_, waits) = offered(&mut Pace::new(Instant::now()), 500.0, 5);
        assert_eq!(waits, 0, "few messages wake the thread for each");
        let (turns, waits) = offered(&mut Pace::new(Instant::now()), 4_000.0, 5);
        assert!(waits * 10 > turns * 7, "but for trials it waits: {waits} of {turns} turns");
        let (_, waits) = offered(&mut Pace::new(Instant::now()), 20_000.0, 5);
        assert_eq!(waits, 0, "so many find it awake");
    }

    #[test]
    fn senders_who_wait_for_their_answers_are_not_held_up() {
        let began = Instant::now();
        let (mut pace, mut at, mut handled) = (Pace::new(began), began, 0);
        // Four of them, answered 0.6 ms after their turn, or 1.4 ms later where the thread waits for more.
        while at < began + Duration::from_secs(10) {
            at += Duration::from_micros(if pace.says_wait() { 2_000 } else { 600 });
            pace.count(4, at);
            handled += 4;
        }
        assert!(handled > 60_000, "{handled} of 66,666 in 10 s: only trials hold them up");
    }

    #[test]
    fn a_stall_in_a_trial_does_not_make_waiting_look_well() {
        let began = Instant::now();
        let (mut pace, mut at, mut handled) = (Pace::new(began), began, 0);
        while at < began + Duration::from_secs(10) {
            at += Duration::from_micros(if pace.says_wait() { 2_000 } else { 600 });
            if pace.window == 1 && pace.counted == 0 {
                at += Duration::from_millis(100);
            }
            pace.count(4, at);
            handled += 4;
        }
        assert!(handled > 50_000, "{handled}, with a tenth of the time stalled");
    }

    #[test]
    fn what_gathers_wakes_nobody_and_is_handled_when_the_sleep_ends() {
        let thread = Arc::new(Woken::default());
        let waker = Waker::from(thread.clone());
        let cx = &mut TaskContext::from_waker(&waker);
        let mut linger = Linger::new();
        assert!(!linger.is_idle(cx), "the first turn needs no message");
        linger.turned(1, cx);
        assert!(linger.is_idle(cx), "nothing has been sent since");
        linger.waker().wake();
        assert_eq!(thread.0.load(SeqCst), 1, "an open gate lets a wake through");
        assert!(!linger.is_idle(cx));

        (linger.pace.per_s, linger.pace.window, linger.pace.pays) = (4_000.0, TRIAL, true);
        // Sent while the gate is closed, as by another thread.
        linger.gate.closed.store(true, SeqCst);
        linger.waker().wake();
        assert_eq!(thread.0.load(SeqCst), 1, "a closed one does not");
        let began = Instant::now();
        linger.turned(1, cx);
        assert!(began.elapsed() >= GATHER, "{:?}", began.elapsed());
        assert_eq!(thread.0.load(SeqCst), 2, "whoever slept comes again for what was sent");
        assert!(!linger.gate.closed.load(SeqCst) && !linger.is_idle(cx));

        linger.turned(1, cx);
        assert_eq!(thread.0.load(SeqCst), 2, "nothing was sent");
        assert!(linger.is_idle(cx));
        linger.stir();
        assert!(!linger.is_idle(cx), "what must not wait is looked at");
    }

    #[test]
    fn what_brings_much_is_told_once() {
        brings_much();
        brings_much();
        assert_eq!((brought_much(), brought_much()), (2, 0));
    }
}
