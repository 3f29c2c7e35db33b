//! What people do with alerts: silence, take on, look why; and what a graver alert does to a lesser one. All of it while the database is
//! away, because none of it needs one.

use std::fs;

use super::{LIMIT, Receiver, alert, push, reasons, to_hook};
use crate::support::daemon::{Daemon, Setup};

/// A daemon whose database cannot be reached, ever: a file stands where its folder should be.
fn without_database(more: &str) -> Daemon {
    let mut daemon = Setup::with(more).store("sqlite://nowhere/belayd.db").lay_out();
    fs::write(daemon.dir().join("nowhere"), "").expect("a file");
    daemon.spawn();
    daemon.wait_for("up", LIMIT, |daemon| daemon.get("/readyz").status == 200);
    daemon
}

fn after(seconds: i64) -> String {
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_micros() as i64;
    belayd::domain::time::rfc3339_us(at + seconds * 1_000_000)
}

#[test]
fn a_silence_is_previewed_made_seen_and_ended_and_what_still_fires_is_told_then() {
    let receiver = Receiver::start(204);
    let rules =
        "[[rules]]\nname = \"overheat\"\nmetric = \"temperature\"\nop = \">\"\nthreshold = 350.0\nlabels = { site = \"north\" }\n";
    let daemon = without_database(&format!("{rules}{}", to_hook(&receiver, "")));
    push(&daemon, "e0", "temperature", 400.0);
    daemon.wait_for("told", LIMIT, |_| receiver.count("firing e0") == 1);
    let first = alert(&daemon, "overheat", "e0");
    assert_eq!((&first["labels"]["site"], reasons(&first)), (&"north".into(), vec!["firing route".to_owned()]), "{first}");
    assert_eq!(daemon.get("/api/alerts?label=site=north").json()["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(daemon.get("/api/alerts?label=site=south").json()["items"].as_array().map(Vec::len), Some(0));

    let matchers = r#""matchers":{"kind":"rule","subject":"e*","labels":{"site":"n*"}}"#;
    let preview = daemon.post("/api/silences/preview", &format!("{{{matchers}}}"));
    assert_eq!(preview.status, 200, "{preview:?}");
    assert_eq!((&preview.json()["open"]["count"], &preview.json()["lastWeek"]["count"]), (&1.into(), &1.into()), "{preview:?}");
    let body = format!(r#"{{{matchers},"endsAt":"{}","reason":"works at the north site"}}"#, after(3_600));
    let whole = daemon.post("/api/silences/preview", &body);
    assert_eq!((whole.status, whole.json()), (200, preview.json()), "what is previewed can be sent as it is");
    assert_eq!(daemon.get("/api/silences").json()["items"].as_array().map(Vec::len), Some(0), "a look makes nothing");
    let made = daemon.post("/api/silences", &body);
    assert_eq!((made.status, &made.json()["state"]), (201, &"active".into()), "{made:?}");
    let id = made.json()["id"].as_str().expect("an id").to_owned();

    push(&daemon, "e1", "temperature", 400.0);
    daemon.wait_for("recorded", LIMIT, |daemon| daemon.metric("belayd_alert_notices_total{outcome=\"silenced\"}") == 1.0);
    let held = alert(&daemon, "overheat", "e1");
    assert_eq!(reasons(&held), ["firing silenced"]);
    assert_eq!(held["notifications"][0]["detail"], id.as_str());
    push(&daemon, "x1", "temperature", 400.0);
    daemon.wait_for("told of another", LIMIT, |_| receiver.count("firing x1") == 1);
    assert_eq!(receiver.count("firing e1"), 0);

    let ended = daemon.request("DELETE", &format!("/api/silences/{id}"), &[], "");
    assert_eq!((ended.status, &ended.json()["state"]), (200, &"expired".into()), "{ended:?}");
    let again = daemon.request("DELETE", &format!("/api/silences/{id}"), &[], "");
    assert_eq!((again.status, again.code().as_str()), (409, "conflict"), "{again:?}");
    daemon.wait_for("told now", LIMIT, |_| receiver.count("firing e1") == 1);
    assert_eq!(reasons(&alert(&daemon, "overheat", "e1")), ["firing silenced", "firing route"]);
    let listed = daemon.get("/api/silences").json();
    assert_eq!((&listed["items"][0]["id"], &listed["items"][0]["expiredBy"]), (&id.as_str().into(), &"test".into()), "{listed}");
    assert_eq!(daemon.get(&format!("/api/silences/{id}")).json(), listed["items"][0]);
    let audit = daemon.get("/admin/audit").json();
    let actions: Vec<_> = audit["items"].as_array().into_iter().flatten().filter(|row| row["subject"] == id.as_str()).collect();
    assert_eq!(
        actions.iter().map(|row| row["action"].as_str()).collect::<Vec<_>>(),
        [Some("silence.expire"), Some("silence.create")],
        "what changed nothing has no row"
    );
}

#[test]
fn silences_that_mean_nothing_are_refused_with_the_field() {
    let daemon = Setup::default().start();
    let (soon, past, never) = (after(60), after(-60), after(400 * 86_400));
    for (body, field) in [
        (format!(r#"{{"matchers":{{}},"endsAt":"{soon}","reason":"x"}}"#), "matchers"),
        (format!(r#"{{"matchers":{{"name":""}},"endsAt":"{soon}","reason":"x"}}"#), "matchers.name"),
        (format!(r#"{{"matchers":{{"name":"*"}},"endsAt":"{past}","reason":"x"}}"#), "endsAt"),
        (format!(r#"{{"matchers":{{"name":"*"}},"endsAt":"{never}","reason":"x"}}"#), "endsAt"),
        (format!(r#"{{"matchers":{{"name":"*"}},"startsAt":"{soon}","endsAt":"{soon}","reason":"x"}}"#), "endsAt"),
        (format!(r#"{{"matchers":{{"name":"*"}},"startsAt":"now","endsAt":"{soon}","reason":"x"}}"#), "startsAt"),
        (format!(r#"{{"matchers":{{"name":"*"}},"startsAt":"{never}","endsAt":"{never}","reason":"x"}}"#), "startsAt"),
    ] {
        for path in ["/api/silences", "/api/silences/preview"] {
            let answer = daemon.post(path, &body);
            assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_field"), "{path} {body}: {answer:?}");
            assert!(answer.body.contains(field), "{path} {body}: {answer:?}");
        }
    }
    for body in [
        format!(r#"{{"matchers":{{"name":"*"}},"endsAt":"{soon}"}}"#),
        format!(r#"{{"matchers":{{"colour":"red"}},"endsAt":"{soon}","reason":"x"}}"#),
        format!(r#"{{"matchers":{{"level":"LOUD"}},"endsAt":"{soon}","reason":"x"}}"#),
        r#"{"matchers":{"name":"*"},"reason":"x"}"#.to_owned(),
        "[]".to_owned(),
    ] {
        assert_eq!(daemon.post("/api/silences", &body).status, 400, "{body}");
    }
    assert_eq!(daemon.get("/api/silences").json()["items"].as_array().map(Vec::len), Some(0));
    for (method, path) in [("GET", "/api/silences/none"), ("DELETE", "/api/silences/none")] {
        assert_eq!(daemon.request(method, path, &[], "").status, 404, "{method}");
    }
    for query in ["label=north", "label==x", "name=a&name=b&colour=1"] {
        assert_eq!(daemon.get(&format!("/api/alerts?{query}")).status, 400, "{query}");
    }
}

#[test]
fn a_graver_alert_holds_a_lesser_one_of_its_engine_back_and_the_end_lets_it_go() {
    let receiver = Receiver::start(204);
    let daemon = without_database(&to_hook(&receiver, ""));
    push(&daemon, "e1", "temperature", 400.0);
    daemon.wait_for("told", LIMIT, |_| receiver.count("firing e1") == 1);
    push(&daemon, "e1", "rpm", 9_000.0);
    daemon.wait_for("recorded", LIMIT, |daemon| daemon.metric("belayd_alert_notices_total{outcome=\"inhibited\"}") == 1.0);
    let critical = alert(&daemon, "overheat", "e1");
    let held = alert(&daemon, "overspeed", "e1");
    assert_eq!(reasons(&held), ["firing inhibited"]);
    assert_eq!(held["notifications"][0]["detail"], critical["id"]);
    push(&daemon, "e1", "temperature", 20.0);
    daemon.wait_for("told of the other", LIMIT, |_| receiver.count("firing e1") == 2);
    assert_eq!(receiver.count("resolved e1"), 1);
    assert_eq!(reasons(&alert(&daemon, "overspeed", "e1")), ["firing inhibited", "firing route"]);
}

#[test]
fn a_receiver_that_stays_away_is_stood_in_for_by_its_fallback() {
    let (away, other) = (Receiver::start(503), Receiver::start(204));
    let more = format!(
        "[alerts]\nfallback_after = \"1s\"\n{}[[webhooks]]\nname = \"other\"\nurl = \"{}\"\n",
        to_hook(&away, "").replace("[[routes]]", "fallback = \"other\"\n[[routes]]"),
        other.url
    );
    let daemon = without_database(&more);
    push(&daemon, "e1", "temperature", 400.0);
    daemon.wait_for("told elsewhere", LIMIT, |_| other.count("firing e1") == 1);
    let copy = other.all().remove(0);
    assert_eq!(
        (copy.body["fallbackFrom"]["sink"].as_str(), copy.body["fallbackFrom"]["reason"].as_str()),
        (Some("hook"), Some("waiting"))
    );
    assert_eq!(daemon.metric("belayd_alert_fallbacks_total{sink=\"hook\"}"), 1.0);
    away.says(204);
    daemon.wait_for("back", LIMIT, |daemon| alert(daemon, "overheat", "e1")["notifications"][0]["state"] == "sent");
    assert_eq!(other.all().len(), 1, "once");
}

#[test]
fn an_alert_is_told_again_until_somebody_has_it() {
    let receiver = Receiver::start(204);
    let daemon = without_database(&to_hook(&receiver, "repeat_interval = \"1s\""));
    push(&daemon, "mine", "temperature", 400.0);
    push(&daemon, "nobodys", "temperature", 400.0);
    daemon.wait_for("told again", LIMIT, |_| receiver.count("repeat mine") >= 1 && receiver.count("repeat nobodys") >= 1);
    let id = alert(&daemon, "overheat", "mine")["id"].as_str().expect("an id").to_owned();
    for _ in 0..2 {
        let taken = daemon.post(&format!("/api/alerts/{id}/ack"), r#"{"reason":"on it"}"#);
        assert_eq!((taken.status, &taken.json()["state"]), (200, &"acknowledged".into()), "{taken:?}");
    }
    // What was on its way has left once the other has been told twice more.
    let twice = |more: usize| {
        let before = receiver.count("repeat nobodys");
        daemon.wait_for("told twice more", LIMIT, |_| receiver.count("repeat nobodys") >= before + more);
    };
    twice(2);
    let so_far = receiver.count("repeat mine");
    twice(2);
    assert_eq!(receiver.count("repeat mine"), so_far);
    let shown = alert(&daemon, "overheat", "mine");
    assert_eq!(reasons(&shown).last().map(String::as_str), Some("repeat acknowledged"), "{shown}");
    push(&daemon, "mine", "temperature", 20.0);
    daemon.wait_for("told of the end", LIMIT, |_| receiver.count("resolved mine") == 1);
}
