//! Issues: opened once, added to, moved only as the table says: the same on both databases.

use belayd::{
    domain::{
        alert::Level,
        issue::{IssueEvent, IssueState},
    },
    store::{
        StoreErrorKind, StoreResult,
        issues::{self, AlertNews, COLLECT_FROM, Followed, Issue, IssueFilter, NewIssue},
    },
};

use super::{TestStore, on_both};

on_both!(
    an_alert_opens_one_issue_and_adds_to_it_and_comes_again_without_a_trace,
    an_alert_that_comes_back_after_its_issue_was_closed_opens_another,
    a_storm_of_one_rule_is_collected_in_one_issue,
    people_move_an_issue_as_the_table_says_and_no_other_way,
    reopening_gives_way_to_the_issue_that_is_worked_on,
    two_instances_that_see_one_alert_open_one_issue,
    pages_go_from_the_newest_to_the_oldest_and_closed_ones_are_dropped_in_time,
);

fn news(delivery: &str, subject: &str, resolved: bool) -> AlertNews {
    AlertNews {
        delivery_id: delivery.into(),
        alert_id: format!("alert-{subject}"),
        resolved,
        kind: "rule".into(),
        name: "overheat".into(),
        subject: subject.into(),
        level: Level::Critical,
        text: format!("{subject} is hot"),
    }
}

fn follow(store: &TestStore, news: &AlertNews, now_us: i64) -> StoreResult<Followed> {
    store.with(|conn| issues::follow_alert(conn, news, now_us))
}

fn opened(followed: StoreResult<Followed>) -> String {
    match followed {
        Ok(Followed::Opened(id)) => id,
        other => panic!("no issue was opened: {other:?}"),
    }
}

fn all(store: &TestStore) -> Vec<Issue> {
    let filter = IssueFilter { limit: 1_000, ..IssueFilter::default() };
    store.with(|conn| issues::list(conn, &filter)).expect("a list").items
}

fn act(store: &TestStore, id: &str, event: IssueEvent) -> StoreResult<Issue> {
    store.with(|conn| issues::act(conn, id, event, "kim", "because", 50))
}

fn an_alert_opens_one_issue_and_adds_to_it_and_comes_again_without_a_trace(store: &TestStore) {
    let id = opened(follow(store, &news("d1", "e1", false), 10));
    assert_eq!(follow(store, &news("d1", "e1", false), 11).expect("taken"), Followed::Nothing);
    assert_eq!(follow(store, &news("d2", "e1", false), 12).expect("taken"), Followed::Added(id.clone()));
    assert_eq!(follow(store, &news("d3", "e1", true), 13).expect("taken"), Followed::Added(id.clone()));
    assert_eq!(follow(store, &news("d4", "e2", true), 14).expect("taken"), Followed::Nothing, "the end of what nobody works on");
    let (issue, events) = store.with(|conn| issues::look(conn, &id, true)).expect("there");
    assert_eq!((issue.state, issue.views, issue.level), (IssueState::Open, 1, Some(Level::Critical)));
    assert_eq!((issue.title.as_str(), issue.subject.as_deref(), issue.updated_at_us), ("overheat e1", Some("e1"), 13));
    let said: Vec<_> = events.iter().map(|line| (line.event.as_str(), line.at_us)).collect();
    assert_eq!(said, [("opened", 10), ("alert", 12), ("alert_resolved", 13)]);
    assert_eq!(all(store).len(), 1);
}

fn an_alert_that_comes_back_after_its_issue_was_closed_opens_another(store: &TestStore) {
    let first = opened(follow(store, &news("d1", "e1", false), 10));
    act(store, &first, IssueEvent::Start).expect("moves");
    assert_eq!(follow(store, &news("d2", "e1", false), 11).expect("taken"), Followed::Added(first.clone()), "it is worked on");
    act(store, &first, IssueEvent::Resolve).expect("moves");
    let second = opened(follow(store, &news("d3", "e1", false), 12));
    assert_ne!(first, second);
}

fn a_storm_of_one_rule_is_collected_in_one_issue(store: &TestStore) {
    for n in 0..COLLECT_FROM + 30 {
        follow(store, &news(&format!("d{n}"), &format!("e{n}"), false), 10 + n).expect("taken");
    }
    let issues = all(store);
    assert_eq!(issues.len(), COLLECT_FROM as usize + 1);
    let collects = &issues[0];
    assert_eq!(collects.subject.as_deref(), Some("*"));
    let events = store.with(|conn| issues::events(conn, &collects.id)).expect("events");
    assert_eq!(events.len(), 30, "each of the others stands there");
    // Another rule is not concerned.
    let other = AlertNews { name: "overspeed".into(), ..news("x", "e1", false) };
    assert_eq!(all(store).len(), COLLECT_FROM as usize + 1);
    opened(follow(store, &other, 99));
}

fn people_move_an_issue_as_the_table_says_and_no_other_way(store: &TestStore) {
    let new = NewIssue { title: "pump".into(), opened_by: "kim".into(), ..NewIssue::default() };
    let id = store.with(|conn| issues::open(conn, &new, 5)).expect("opened").id;
    let refused = |event| {
        let error = act(store, &id, event).expect_err("no such move");
        assert_eq!(error.kind, StoreErrorKind::Conflict, "{error}");
        error.message
    };
    assert_eq!(refused(IssueEvent::Reopen), "an issue that is OPEN cannot be reopened");
    let issue = act(store, &id, IssueEvent::Start).expect("moves");
    assert_eq!((issue.state, issue.resolved_at_us, issue.closed_at_us), (IssueState::InProgress, None, None));
    refused(IssueEvent::Start);
    assert_eq!(act(store, &id, IssueEvent::Resolve).expect("moves").resolved_at_us, Some(50));
    let issue = act(store, &id, IssueEvent::Close).expect("moves");
    assert_eq!((issue.resolved_at_us, issue.closed_at_us), (Some(50), Some(50)));
    refused(IssueEvent::Resolve);
    let issue = act(store, &id, IssueEvent::Reopen).expect("moves");
    assert_eq!((issue.state, issue.resolved_at_us, issue.closed_at_us), (IssueState::Open, None, None));
    let issue = store.with(|conn| issues::comment(conn, &id, "lee", "세 번째 펌프\n'; DROP TABLE issues; --", 60)).expect("said");
    assert_eq!((issue.comment_count, issue.updated_at_us), (1, 60));
    let events = store.with(|conn| issues::events(conn, &id)).expect("events");
    let words: Vec<_> = events.iter().map(|line| line.event.as_str()).collect();
    assert_eq!(words, ["opened", "start", "resolve", "close", "reopen", "comment"]);
    assert_eq!((events[5].actor.as_str(), events[5].text.as_deref()), ("lee", Some("세 번째 펌프\n'; DROP TABLE issues; --")));
    for error in [
        act(store, "nothing", IssueEvent::Close).expect_err("unknown"),
        store.with(|conn| issues::comment(conn, "nothing", "kim", "x", 1)).expect_err("unknown"),
        store.with(|conn| issues::look(conn, "nothing", true)).expect_err("unknown"),
    ] {
        assert_eq!(error.kind, StoreErrorKind::NotFound);
    }
}

fn reopening_gives_way_to_the_issue_that_is_worked_on(store: &TestStore) {
    let first = opened(follow(store, &news("d1", "e1", false), 10));
    act(store, &first, IssueEvent::Close).expect("moves");
    let second = opened(follow(store, &news("d2", "e1", false), 11));
    let error = act(store, &first, IssueEvent::Reopen).expect_err("one at a time");
    assert!(error.kind == StoreErrorKind::Conflict && error.message.contains(&second), "{error}");
    act(store, &second, IssueEvent::Resolve).expect("moves");
    assert_eq!(act(store, &first, IssueEvent::Reopen).expect("now it may").state, IssueState::Open);
}

fn two_instances_that_see_one_alert_open_one_issue(store: &TestStore) {
    let workers: Vec<_> = (0..4)
        .map(|n| {
            let store = store.store.clone();
            std::thread::spawn(move || {
                // As the outbox does: what is refused for now comes again.
                for _ in 0..100 {
                    match store.with(|conn| issues::follow_alert(conn, &news(&format!("d{n}"), "e1", false), 10)) {
                        Ok(followed) => return followed,
                        Err(error) if error.kind == StoreErrorKind::Conflict || error.is_transient() => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                panic!("never taken");
            })
        })
        .collect();
    let followed: Vec<_> = workers.into_iter().map(|worker| worker.join().expect("no panic")).collect();
    assert_eq!(followed.iter().filter(|one| matches!(one, Followed::Opened(_))).count(), 1, "{followed:?}");
    let issues = all(store);
    assert_eq!(issues.len(), 1);
    assert_eq!(store.with(|conn| issues::events(conn, &issues[0].id)).expect("events").len(), 4);
}

fn pages_go_from_the_newest_to_the_oldest_and_closed_ones_are_dropped_in_time(store: &TestStore) {
    let ids: Vec<String> = (0..5)
        .map(|n| {
            let new = NewIssue { title: format!("issue {n}"), opened_by: "kim".into(), ..NewIssue::default() };
            store.with(|conn| issues::open(conn, &new, n)).expect("opened").id
        })
        .collect();
    let page = |cursor: Option<String>, state| {
        store.with(|conn| issues::list(conn, &IssueFilter { state, cursor, limit: 2 })).expect("a page")
    };
    let first = page(None, None);
    let second = page(first.next_cursor.clone(), None);
    let third = page(second.next_cursor.clone(), None);
    let seen: Vec<String> = [first.items, second.items, third.items].concat().into_iter().map(|issue| issue.id).collect();
    assert_eq!(seen, ids.iter().rev().cloned().collect::<Vec<_>>());
    assert_eq!(third.next_cursor, None);
    act(store, &ids[0], IssueEvent::Close).expect("moves");
    act(store, &ids[1], IssueEvent::Resolve).expect("moves");
    assert_eq!(page(None, Some(IssueState::Closed)).items.len(), 1);
    assert_eq!(store.with(|conn| issues::prune(conn, 50, 10)).expect("nothing is old"), 0);
    assert_eq!(store.with(|conn| issues::prune(conn, 51, 10)).expect("one is"), 1);
    assert_eq!(all(store).len(), 4);
}
