//! What an operator looks at first: the key figures, alerts, engines, and in the demo what was delivered.

use std::cmp::Reverse;

use serde_json::Value;

use super::{
    super::{
        format::{Say, fixed, instant_ms, items, number, text},
        template::Row,
    },
    icon,
};

/// Engines shown until the visitor asks for all: the worst alarms come first, so that the rest can wait.
const ENGINES_SHOWN: usize = 12;
/// Most alerts shown, and most resolved ones among them.
const ALERTS_SHOWN: usize = 40;
const RESOLVED_SHOWN: usize = 15;

/// Alerts by state: all there are, not only those that the snapshot has room for.
#[derive(Debug)]
pub(super) struct AlertCounts {
    open: f64,
    pub(super) critical: f64,
    resolved: f64,
    more: bool,
}

impl AlertCounts {
    /// As the snapshot counts them.
    pub(super) fn of(snapshot: &Value) -> Self {
        let of = |name: &str| number(snapshot, &format!("/alertCounts/{name}")).unwrap_or_default();
        let more = snapshot.pointer("/alertCounts/resolvedMore").and_then(Value::as_bool).unwrap_or_default();
        Self { open: of("open"), critical: of("critical"), resolved: of("resolved"), more }
    }

    /// The note beside the heading.
    pub(super) fn note(&self, say: Say) -> String {
        let resolved = say.count(Some(self.resolved)) + if self.more { "+" } else { "" };
        say.fill("alerts.note", &[("open", &say.count(Some(self.open))), ("resolved", &resolved)])
    }
}

fn rank(level: &str) -> u8 {
    match level {
        "CRITICAL" => 3,
        "WARNING" => 2,
        "INFO" => 1,
        _ => 0,
    }
}

/// A buffer in memory is bounded by its readings, a journal by its bytes.
fn buffer_note(snapshot: &Value, say: Say) -> String {
    match number(snapshot, "/buffer/rowsBound") {
        Some(bound) => say.fill("figure.buffer.note", &[("n", &say.count(Some(bound)))]),
        None => say.fill("figure.buffer.disk", &[("n", &say.bytes(number(snapshot, "/buffer/bytes")))]),
    }
}

/// The strip of key figures.
pub(super) fn figures(snapshot: &Value, counts: &AlertCounts, say: Say) -> Vec<Row> {
    let figure = |key: &'static str, value: String, note: String, tone: &str| {
        vec![
            ("key", key.to_owned()),
            ("label", say.text(&format!("figure.{key}"))),
            ("value", value),
            ("note", note),
            ("tone", tone.to_owned()),
        ]
    };
    let noted = |key: &str, n: String| say.fill(&format!("figure.{key}.note"), &[("n", &n)]);
    let waiting: f64 = ["scheduled", "ready", "claimed", "sending", "retry"]
        .into_iter()
        .filter_map(|state| number(snapshot, &format!("/outbox/{state}")))
        .sum();
    let rate = number(snapshot, "/ingest/ratePerS");
    let alert_tone = match (counts.critical > 0.0, counts.open > 0.0) {
        (false, false) => "",
        (false, true) => "warn",
        (true, _) => "bad",
    };
    let uptime = number(snapshot, "/system/process/uptimeS");
    vec![
        figure("alerts", say.count(Some(counts.open)), noted("alerts", say.count(Some(counts.critical))), alert_tone),
        figure(
            "engines",
            say.count(number(snapshot, "/engines/total")),
            noted("engines", say.count(number(snapshot, "/engines/alarmed"))),
            "",
        ),
        figure(
            "rate",
            say.number(rate, u8::from(rate.unwrap_or_default() < 100.0)),
            noted("rate", say.count(number(snapshot, "/ingest/acceptedTotal"))),
            "",
        ),
        figure("buffer", say.count(number(snapshot, "/buffer/rows")), buffer_note(snapshot, say), ""),
        figure("outbox", say.count(Some(waiting)), noted("outbox", say.count(number(snapshot, "/outbox/sentTotal"))), ""),
        figure(
            "uptime",
            uptime.map_or_else(|| say.text("unknown"), |seconds| say.span(seconds.max(1.0) * 1_000.0)),
            noted("uptime", text(snapshot, "/version").to_owned()),
            "",
        ),
    ]
}

/// Open alerts, worst and then newest first, then the resolved ones by when they ended.
pub(super) fn alerts(snapshot: &Value, say: Say) -> Vec<Row> {
    let resolved = |alert: &&Value| text(alert, "/state") == "resolved";
    let mut open: Vec<&Value> = items(snapshot, "/alerts").iter().filter(|alert| !resolved(alert)).collect();
    open.sort_by_key(|alert| Reverse((rank(text(alert, "/level")), instant_ms(text(alert, "/openedAt")))));
    let mut done: Vec<&Value> = items(snapshot, "/alerts").iter().filter(resolved).collect();
    done.sort_by_key(|alert| Reverse(instant_ms(text(alert, "/resolvedAt"))));
    open.into_iter().chain(done.into_iter().take(RESOLVED_SHOWN)).take(ALERTS_SHOWN).map(|alert| alert_row(alert, say)).collect()
}

fn alert_row(alert: &Value, say: Say) -> Row {
    let (level, state) = (text(alert, "/level"), text(alert, "/state"));
    let (name, subject, opened) = (text(alert, "/name"), text(alert, "/subject"), text(alert, "/openedAt"));
    let count = number(alert, "/count").filter(|count| *count > 1.0);
    let status = match state {
        "acknowledged" => {
            let by = text(alert, "/acknowledgedBy");
            let who = if by.is_empty() { "–" } else { by };
            say.fill("alert.acknowledged", &[("who", who), ("time", &say.since(text(alert, "/acknowledgedAt")))])
        }
        "resolved" => {
            let lasted = instant_ms(text(alert, "/resolvedAt")).zip(instant_ms(opened)).map(|(end, start)| end - start);
            #[expect(clippy::cast_precision_loss, reason = "a length in milliseconds is far below 2^53")]
            let lasted = say.span(lasted.unwrap_or_default().max(1_000) as f64);
            say.fill("alert.resolved", &[("time", &lasted)])
        }
        _ => say.fill("alert.firing", &[("time", &say.since(opened))]),
    };
    vec![
        ("key", text(alert, "/id").to_owned()),
        ("level", level.to_owned()),
        ("state", state.to_owned()),
        ("icon", icon(if state == "resolved" { "done" } else { level })),
        ("levelLabel", say.word("level", level)),
        ("name", name.to_owned()),
        ("subject", subject.to_owned()),
        ("count", count.map_or_else(String::new, |count| format!("× {}", say.count(Some(count))))),
        ("text", text(alert, "/text").to_owned()),
        ("openedIso", opened.to_owned()),
        ("opened", say.clock(opened)),
        ("status", status),
        ("ack", if state == "firing" { "1" } else { "" }.to_owned()),
        ("ackLabel", say.fill("ack.label", &[("name", name), ("subject", subject)])),
    ]
}

/// The engines, worst alarm first, then by name: an order that does not jump about as readings arrive.
pub(super) fn engines(snapshot: &Value, say: Say) -> Vec<Row> {
    let mut sorted: Vec<&Value> = items(snapshot, "/engines/items").iter().collect();
    sorted.sort_by_cached_key(|engine| (Reverse(rank(text(engine, "/alarm"))), natural(text(engine, "/engineId"))));
    sorted.into_iter().take(ENGINES_SHOWN).map(|engine| engine_row(engine, say)).collect()
}

/// How many of how many are shown.
pub(super) fn engines_note(snapshot: &Value, shown: usize, say: Say) -> String {
    let total = say.count(number(snapshot, "/engines/total"));
    say.fill("engines.note", &[("shown", &shown.to_string()), ("total", &total)])
}

/// The key by which `e2` comes before `e10`: each run of digits padded to 12.
fn natural(id: &str) -> String {
    let mut out = String::with_capacity(id.len() + 24);
    let mut digits = String::new();
    for c in id.chars().chain(std::iter::once('\0')) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        if !digits.is_empty() {
            out.push_str(&format!("{digits:0>12}"));
            digits.clear();
        }
        out.push(c);
    }
    out
}

fn engine_row(engine: &Value, say: Say) -> Row {
    let (id, alarm, status, seen) =
        (text(engine, "/engineId"), text(engine, "/alarm"), text(engine, "/status"), text(engine, "/observedAt"));
    let level = if rank(alarm) > 0 { alarm } else { "" };
    let (state, beside) = if level.is_empty() {
        (if status.is_empty() { say.text("unknown") } else { status.to_owned() }, "")
    } else {
        (say.word("level", level), status)
    };
    let old = instant_ms(seen).is_none_or(|then| say.now_ms - then >= 30_000);
    vec![
        ("key", id.to_owned()),
        ("engineId", id.to_owned()),
        ("level", level.to_owned()),
        ("old", if old { "1" } else { "" }.to_owned()),
        ("icon", icon(if level.is_empty() { "none" } else { level })),
        ("state", state),
        ("status", beside.to_owned()),
        ("temperature", say.number(number(engine, "/temperature"), 1)),
        ("rpm", say.number(number(engine, "/rpm"), 0)),
        ("pressure", say.number(number(engine, "/pressure"), 2)),
        ("fuelFlow", say.number(number(engine, "/fuelFlow"), 2)),
        ("sparkT", spark(items(engine, "/trend/temperature"))),
        ("sparkR", spark(items(engine, "/trend/rpm"))),
        ("seenIso", seen.to_owned()),
        ("seen", say.ago(seen)),
    ]
}

/// A line through the samples in a box of 72 by 18, newest at the right edge. The scale spans at least 2 % of the value, so
/// that noise does not look like drama.
fn spark(samples: &[Value]) -> String {
    let values: Vec<f64> = samples.iter().filter_map(Value::as_f64).collect();
    if values.len() < 2 {
        return String::new();
    }
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let middle = (low + high) / 2.0;
    let span = (high - low).max(middle.abs() * 0.02).max(1e-9);
    let step = 70.0 / f64::from(u32::try_from(values.len() - 1).unwrap_or(u32::MAX));
    let mut x = 71.0 - step * f64::from(u32::try_from(values.len() - 1).unwrap_or(u32::MAX));
    let mut path = String::with_capacity(values.len() * 10);
    for (i, value) in values.iter().enumerate() {
        let y = 9.0 - (value - middle) / span * 15.0;
        path.push(if i == 0 { 'M' } else { 'L' });
        path.push_str(&fixed(x, 1));
        path.push(' ');
        path.push_str(&fixed(y, 1));
        x += step;
    }
    path
}

/// What the demo's catcher received, newest first.
pub(super) fn inbox(snapshot: &Value, say: Say) -> Vec<Row> {
    let mut seen: Vec<String> = Vec::new();
    items(snapshot, "/inbox")
        .iter()
        .map(|mail| {
            let at = text(mail, "/at");
            let base = format!("{at}|{}|{}", text(mail, "/via"), text(mail, "/title"));
            let twins = seen.iter().filter(|known| **known == base).count();
            let key = if twins == 0 { base.clone() } else { format!("{base}#{twins}") };
            seen.push(base);
            vec![
                ("key", key),
                ("via", text(mail, "/via").to_owned()),
                ("title", text(mail, "/title").to_owned()),
                ("body", text(mail, "/body").to_owned()),
                ("atIso", at.to_owned()),
                ("at", say.clock(at)),
            ]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::super::lang::Lang, *};

    #[test]
    fn engines_come_by_worst_alarm_and_then_by_number() {
        let engine = |id: &str, alarm: Option<&str>| json!({"engineId": id, "alarm": alarm});
        let snapshot = json!({"engines": {"items": [
            engine("e10", None), engine("e2", None), engine("e3", Some("WARNING")), engine("e9", Some("CRITICAL")), engine("e1", Some("WARNING")),
        ]}});
        let rows = engines(&snapshot, Say { lang: Lang::En, now_ms: 0 });
        let ids: Vec<&str> = rows.iter().map(|row| row[0].1.as_str()).collect();
        assert_eq!(ids, ["e9", "e1", "e3", "e2", "e10"]);
    }

    #[test]
    fn a_trend_ends_at_the_right_edge_and_stays_in_its_box() {
        let path = spark(&[json!(1.0), json!(null), json!(2.0), json!(1.5)]);
        assert_eq!(path, "M1.0 16.5L36.0 1.5L71.0 9.0");
        assert_eq!(spark(&[json!(5.0), json!(5.0)]), "M1.0 9.0L71.0 9.0");
        assert_eq!(spark(&[json!(5.0)]), "");
    }

    #[test]
    fn open_alerts_come_before_resolved_ones_and_the_worst_first() {
        let alert = |id: &str, level: &str, state: &str, second: u32| {
            let at = format!("2026-01-01T00:00:{second:02}Z");
            json!({"id": id, "level": level, "state": state, "openedAt": at, "resolvedAt": (state == "resolved").then_some(&at)})
        };
        let snapshot = json!({"alerts": [
            alert("old", "CRITICAL", "resolved", 1), alert("new", "CRITICAL", "resolved", 9), alert("warn", "WARNING", "firing", 8),
            alert("crit", "CRITICAL", "acknowledged", 2),
        ]});
        let rows = alerts(&snapshot, Say { lang: Lang::En, now_ms: 0 });
        let ids: Vec<&str> = rows.iter().map(|row| row[0].1.as_str()).collect();
        assert_eq!(ids, ["crit", "warn", "new", "old"]);
    }

    #[test]
    fn counts_are_of_all_alerts_and_engines_and_not_of_those_that_are_listed() {
        let say = Say { lang: Lang::En, now_ms: 0 };
        let snapshot = json!({
            "alerts": [{"id": "a", "level": "WARNING", "state": "firing"}],
            "alertCounts": {"open": 1304, "critical": 303, "resolved": 200, "resolvedMore": true},
            "engines": {"total": 1306, "alarmed": 305, "items": [{"engineId": "e", "alarm": "WARNING"}]},
        });
        let counts = AlertCounts::of(&snapshot);
        assert_eq!(counts.note(say), "1,304 open, 200+ resolved");
        let rows = figures(&snapshot, &counts, say);
        let told = |row: usize| {
            rows[row].iter().filter(|(key, _)| ["value", "note"].contains(key)).map(|(_, text)| &**text).collect::<Vec<_>>()
        };
        assert_eq!((told(0), told(1)), (vec!["1,304", "303 critical"], vec!["1,306", "305 in alarm"]));
    }
}
