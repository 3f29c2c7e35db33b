//! Episodes: opened once, counted, acknowledged, resolved, pruned.

use super::*;
use crate::{
    domain::alert::{AlertKind, Level},
    store::control::tests::scratch,
};

fn transition(subject: &str, firing: bool, at_us: i64) -> Transition {
    Transition {
        kind: AlertKind::Rule,
        name: "overheat".into(),
        subject: subject.into(),
        level: Level::Warning,
        firing,
        observed_at_us: at_us,
        arrived_at_us: at_us + 1,
        value: Some(360.0),
        threshold: Some(350.0),
        text: format!("{subject} is hot"),
    }
}

fn take(conn: &mut Conn, transition: &Transition) -> StoreResult<Option<Change>> {
    Ok(take_over(conn, transition, &Labels::new(), 1_000)?.map(|(_, change)| change))
}

#[test]
fn an_episode_opens_once_escalates_and_ends_once() {
    let (_dir, store) = scratch();
    store
        .with(|conn| {
            assert_eq!(take(conn, &transition("e1", false, 5))?, None, "nothing to resolve");
            assert_eq!(take(conn, &transition("e1", true, 10))?, Some(Change::Opened));
            assert_eq!(take(conn, &transition("e1", true, 11))?, Some(Change::Repeated));
            let worse = Transition { level: Level::Critical, ..transition("e1", true, 12) };
            assert_eq!(take(conn, &worse)?, Some(Change::Escalated));
            let now = open(conn)?;
            assert_eq!((now.len(), now[0].count, now[0].level), (1, 3, Level::Critical));
            assert_eq!(take(conn, &transition("e1", false, 20))?, Some(Change::Resolved));
            assert_eq!(take(conn, &transition("e1", false, 21))?, None);
            assert_eq!(open(conn)?, []);
            assert_eq!(take(conn, &transition("e1", true, 30))?, Some(Change::Opened), "a new episode");
            assert_eq!(newest(conn, 10)?.len(), 2);
            let words: Vec<String> = history(conn, &now[0].id)?.into_iter().map(|event| event.event).collect();
            assert_eq!(words, ["firing", "escalated", "resolved"]);
            Ok(())
        })
        .expect("works");
}

#[test]
fn acknowledging_twice_is_harmless_and_a_resolved_alert_cannot_be_taken_on() {
    let (_dir, store) = scratch();
    store
        .with(|conn| {
            assert_eq!(acknowledge(conn, "none", "kim", None, 1)?, Acknowledged::NotFound);
            let (alert, _) = take_over(conn, &transition("e1", true, 10), &Labels::new(), 10)?.expect("opened");
            for by in ["kim", "lee"] {
                let Acknowledged::Yes(alert) = acknowledge(conn, &alert.id, by, Some("on it"), 50)? else { panic!("open") };
                assert_eq!((alert.state, alert.acknowledged_by.as_deref()), (AlertState::Acknowledged, Some("kim")));
            }
            assert_eq!(take(conn, &transition("e1", true, 60))?, Some(Change::Repeated));
            assert_eq!(open(conn)?[0].state, AlertState::Acknowledged, "a repeat does not undo it");
            take(conn, &transition("e1", false, 70))?;
            assert_eq!(acknowledge(conn, &alert.id, "kim", None, 80)?, Acknowledged::Resolved);
            Ok(())
        })
        .expect("works");
}

#[test]
fn lists_are_filtered_and_paged_newest_first() {
    let (_dir, store) = scratch();
    store
        .with(|conn| {
            for n in 0..5 {
                take(conn, &transition(&format!("e{n}"), true, 10 + n))?;
            }
            take(conn, &transition("e4", false, 90))?;
            let (page, before) = list(conn, &AlertFilter::default(), 2)?;
            assert_eq!(page.iter().map(|alert| alert.subject.as_str()).collect::<Vec<_>>(), ["e4", "e3"]);
            assert_eq!(before, Some((page[1].opened_at_us, page[1].id.clone())));
            let (next, _) = list(conn, &AlertFilter { before, ..AlertFilter::default() }, 2)?;
            assert_eq!(next.iter().map(|alert| alert.subject.as_str()).collect::<Vec<_>>(), ["e2", "e1"]);
            let firing = AlertFilter { state: Some(AlertState::Firing), ..AlertFilter::default() };
            assert_eq!((list(conn, &firing, 10)?.0.len(), list(conn, &firing, 10)?.1), (4, None));
            let one = AlertFilter { subject: Some("e2".into()), level: Some(Level::Warning), ..AlertFilter::default() };
            assert_eq!(list(conn, &one, 10)?.0.len(), 1);
            assert_eq!((prune(conn, 90, 10)?, prune(conn, 91, 10)?), (0, 1));
            assert_eq!(newest(conn, 10)?.len(), 4);
            Ok(())
        })
        .expect("works");
}
