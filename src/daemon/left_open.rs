//! Alerts that an earlier run left open and that nothing in this one would end: what is told of a moment, and what this configuration does
//! not have any more. A condition that this run can judge is left alone: it ends when it is seen to be over, not because of a start.
//!
//! In: the alerts that are open at the start. Out: transitions that end some of them, raised before anything can open them anew. A crash
//! loses nothing: the next start looks again.

use super::{
    drain::{BUFFER_UNREADABLE, DIRECTORY_RESTORED, STORE_RESTORED},
    left_behind::JOURNAL_GONE,
};
use crate::{
    config::{Config, Tier},
    domain::alert::{Alert, AlertKind, Transition},
    sinks,
    store::relay,
};

/// Told of a moment: whoever has not looked by the next start finds it in the history.
const MOMENTS: [&str; 6] =
    [STORE_RESTORED, DIRECTORY_RESTORED, JOURNAL_GONE, "redis-data-lost", "redis-copy-missing", "alert-refused"];
/// What only tiers with a Redis can judge.
const REDIS: [&str; 6] =
    ["redis-down", "redis-forgets", "redis-full", "redis-small", "redis-incomplete", "redis-unrelayed-removed"];
/// What the journal alone can judge.
const JOURNAL: [&str; 5] = ["journal-disk-full", "journal-failed", "journal-sync-failed", "journal-damaged", "journal-incomplete"];

/// What a start ends.
pub(super) fn ended_by_start(open: &[Alert], config: &Config, now_us: i64) -> Vec<Transition> {
    let system = open.iter().filter(|alert| alert.kind == AlertKind::System);
    system
        .filter_map(|alert| {
            let (name, tier) = (alert.name.as_str(), config.buffer.tier);
            let why = if MOMENTS.contains(&name) {
                "belayd was started again"
            } else if !tier.uses_redis() && REDIS.contains(&name) {
                "readings do not wait in Redis any more"
            } else if tier == Tier::Memory && (JOURNAL.contains(&name) || name == BUFFER_UNREADABLE) {
                "readings do not wait in the journal any more"
            } else if matches!(name, "redis-full" | "redis-unrelayed-removed") {
                // Told again where it is so again; a start begins as if there were room.
                "belayd was started again"
            } else if name == sinks::SINK_DOWN && !has_sink(config, &alert.subject) {
                "there is no such sink any more"
            } else {
                return None;
            };
            Some(over(alert, why, now_us))
        })
        .collect()
}

/// Lanes whose alert is open, a bit each, and the ends of those of lanes that are not there any more.
pub(super) fn unreadable(open: &[Alert], lanes: usize, now_us: i64) -> (u64, Vec<Transition>) {
    let (mut bits, mut gone) = (0, Vec::new());
    for alert in open.iter().filter(|alert| alert.kind == AlertKind::System && alert.name == BUFFER_UNREADABLE) {
        match alert.subject.parse::<usize>() {
            Ok(lane) if lane < lanes => bits |= 1 << (lane % 64),
            _ => gone.push(over(alert, "the buffer has no such lane any more", now_us)),
        }
    }
    (bits, gone)
}

fn has_sink(config: &Config, name: &str) -> bool {
    sinks::build(config).iter().any(|sink| sink.name() == name) || (config.kafka.is_some() && name == relay::SINK)
}

fn over(alert: &Alert, why: &str, now_us: i64) -> Transition {
    Transition {
        kind: alert.kind,
        name: alert.name.clone(),
        subject: alert.subject.clone(),
        level: alert.level,
        firing: false,
        observed_at_us: now_us,
        arrived_at_us: now_us,
        value: None,
        threshold: None,
        text: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::alert::{AlertState, Level};

    fn open(name: &str, subject: &str) -> Alert {
        Alert {
            id: name.into(),
            kind: AlertKind::System,
            name: name.into(),
            subject: subject.into(),
            level: Level::Critical,
            state: AlertState::Firing,
            opened_at_us: 1,
            acknowledged_at_us: None,
            acknowledged_by: None,
            resolved_at_us: None,
            value: None,
            threshold: None,
            text: String::new(),
            count: 1,
            labels: Default::default(),
        }
    }

    fn ended(tier: Tier) -> Vec<String> {
        let mut config = Config::default();
        config.buffer.tier = tier;
        let subjects = [("sink-down", "log"), ("sink-down", "gone"), ("sink-down", "kafka"), ("database-down", "database")];
        let names = MOMENTS.iter().chain(&REDIS).chain(&JOURNAL).map(|name| (*name, "it"));
        let mut all: Vec<Alert> = names.chain(subjects).map(|(name, subject)| open(name, subject)).collect();
        all.push(Alert { kind: AlertKind::Rule, ..open(STORE_RESTORED, "a rule may have this name") });
        let over = ended_by_start(&all, &config, 7);
        assert!(over.iter().all(|one| !one.firing && one.observed_at_us == 7 && !one.text.is_empty()));
        over.into_iter().map(|one| format!("{}/{}", one.name, one.subject)).collect()
    }

    #[test]
    fn a_start_ends_what_was_a_moment_and_what_nothing_would_judge_any_more_and_nothing_else() {
        let moments = [
            "store-restored/it",
            "directory-restored/it",
            "journal-gone/it",
            "redis-data-lost/it",
            "redis-copy-missing/it",
            "alert-refused/it",
        ];
        let sinks = ["sink-down/gone", "sink-down/kafka"];
        let with =
            |more: &[&str]| -> Vec<String> { moments.iter().chain(more).chain(&sinks).map(|name| (*name).to_owned()).collect() };
        assert_eq!(ended(Tier::Redis), with(&["redis-full/it", "redis-unrelayed-removed/it"]));
        assert_eq!(ended(Tier::Triple), ended(Tier::Redis));
        let redis = [
            "redis-down/it",
            "redis-forgets/it",
            "redis-full/it",
            "redis-small/it",
            "redis-incomplete/it",
            "redis-unrelayed-removed/it",
        ];
        assert_eq!(ended(Tier::Journal), with(&redis));
        let journal =
            ["journal-disk-full/it", "journal-failed/it", "journal-sync-failed/it", "journal-damaged/it", "journal-incomplete/it"];
        assert_eq!(ended(Tier::Memory), with(&[&redis[..], &journal].concat()));
    }

    #[test]
    fn a_lane_that_could_not_be_read_is_over_when_it_can_or_when_it_is_gone() {
        let all = [open(BUFFER_UNREADABLE, "1"), open(BUFFER_UNREADABLE, "4"), open("database-down", "0")];
        let (bits, gone) = unreadable(&all, 2, 7);
        assert_eq!(bits, 0b10);
        assert_eq!(gone.iter().map(|one| (one.subject.as_str(), one.firing)).collect::<Vec<_>>(), [("4", false)]);
    }
}
