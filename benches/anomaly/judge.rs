//! What episodes are worth: warned in time, or false alarms.

/// Readings before the end of an engine's life in which a warning is wanted.
pub(crate) const WINDOW: usize = 30;

/// What the rule did with one engine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    pub(crate) readings: usize,
    /// Indexes of the readings at which an alert began; an episode that became graver counts again.
    pub(crate) starts: Vec<usize>,
    /// The same without those that became graver.
    pub(crate) first_starts: Vec<usize>,
    /// For each reading, whether an alert was open after it.
    pub(crate) open: Vec<bool>,
}

/// Sums over engines.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    engines: usize,
    early: usize,
    loose: usize,
    strict: usize,
    strict_plain: usize,
    false_starts: usize,
    false_starts_plain: usize,
    early_open: usize,
    /// Readings before the end at which the first alert began.
    leads: Vec<usize>,
}

impl Judgement {
    pub(crate) fn of<'a>(lives: impl IntoIterator<Item = &'a Life>) -> Self {
        let mut sum = Self::default();
        for life in lives {
            let end = life.readings.saturating_sub(WINDOW);
            let early = |starts: &[usize]| starts.iter().filter(|at| **at < end).count();
            sum.engines += 1;
            sum.early += end;
            sum.loose += usize::from(life.open[end..].contains(&true));
            sum.strict += usize::from(early(&life.starts) < life.starts.len());
            sum.strict_plain += usize::from(early(&life.first_starts) < life.first_starts.len());
            sum.false_starts += early(&life.starts);
            sum.false_starts_plain += early(&life.first_starts);
            sum.early_open += life.open[..end].iter().filter(|open| **open).count();
            sum.leads.extend(life.starts.first().map(|at| life.readings - at));
        }
        sum.leads.sort_unstable();
        sum
    }

    pub(crate) fn print(&self, name: &str) {
        let percent = |part: usize| 100.0 * part as f64 / self.engines.max(1) as f64;
        let per_mille = |part: usize| 1000.0 * part as f64 / self.early.max(1) as f64;
        let lead = |part: usize| self.leads.get(self.leads.len() * part / 20).copied().unwrap_or(0);
        println!("{name}: {} engines, {} readings before their last {WINDOW}", self.engines, self.early);
        println!("  warned (an alert begins or is open in the last {WINDOW})       {:5.0} %", percent(self.loose));
        println!("  strict (an alert begins in the last {WINDOW})                  {:5.0} %", percent(self.strict));
        println!("  strict, graver ones not counted as begun            {:5.0} %", percent(self.strict_plain));
        println!("  alerts begun earlier, a 1,000 earlier readings      {:5.1}", per_mille(self.false_starts));
        println!("  the same, graver ones not counted                   {:5.1}", per_mille(self.false_starts_plain));
        println!("  earlier readings with an alert open, a 1,000        {:5.1}", per_mille(self.early_open));
        println!("  first alert, readings before the end (5, 50, 95 %)  {}, {}, {}\n", lead(1), lead(10), lead(19));
    }
}
