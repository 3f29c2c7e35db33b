//! The way of a reading and of a delivery: sources, buffer, database, outbox, and the account over all of it.

use serde_json::Value;

use super::{
    super::{
        format::{Say, fixed, items, number, text},
        template::Row,
    },
    alarmed, fact, icon, tone_of,
};

/// The sources that are polled.
pub(super) fn sources(snapshot: &Value, say: Say) -> Vec<Row> {
    items(snapshot, "/ingest/sources")
        .iter()
        .map(|source| {
            let last = text(source, "/lastOkAt");
            let answered =
                if last.is_empty() { say.text("source.never") } else { say.fill("source.last", &[("time", &say.ago(last))]) };
            let error = text(source, "/error");
            let detail = if error.is_empty() { answered } else { format!("{answered}: {error}") };
            party(text(source, "/name"), text(source, "/state"), "source", detail, say)
        })
        .collect()
}

/// The ways out and their circuits.
pub(super) fn sinks(snapshot: &Value, say: Say) -> Vec<Row> {
    items(snapshot, "/outbox/sinks")
        .iter()
        .map(|sink| {
            let backlog = say.fill("sink.backlog", &[("n", &say.count(number(sink, "/backlog")))]);
            party(text(sink, "/name"), text(sink, "/state"), "circuit", backlog, say)
        })
        .collect()
}

/// The circuit breakers of the outside parties.
pub(super) fn circuits(snapshot: &Value, say: Say) -> Vec<Row> {
    let detail = |circuit| say.fill("breaker.since", &[("time", &say.since(text(circuit, "/since")))]);
    let row = |circuit| party(text(circuit, "/party"), text(circuit, "/state"), "breaker", detail(circuit), say);
    items(snapshot, "/circuits").iter().map(row).collect()
}

/// How recovery stands to its service levels.
pub(super) fn recovery(snapshot: &Value, say: Say) -> Vec<Row> {
    let of = |key: &str| number(snapshot, &format!("/recovery/{key}")).unwrap_or_default();
    let seconds = |s: f64| say.span(s.max(1.0) * 1_000.0);
    let percent = |n: f64| format!("{} %", fixed(n, 2));
    let level = |n: String, bound: String| say.fill("recovery.level", &[("n", &n), ("bound", &bound)]);
    let late = |value: f64, bound: f64| if value > bound { "warn" } else { "" };
    let timed = |key: &'static str, value: f64, bound: f64| {
        fact(key, say.text(&format!("recovery.{key}")), level(seconds(value), seconds(bound)), late(value, bound))
    };
    let last = number(snapshot, "/recovery/lastS").map_or_else(|| say.text("unknown"), seconds);
    let (success, wanted) = (of("successPercent"), of("successLevel"));
    vec![
        timed("outbox", of("outboxS"), of("outboxWithinS")),
        timed("buffer", of("bufferS"), of("bufferWithinS")),
        timed("running", of("runningS"), of("withinS")),
        fact("last", say.text("recovery.last"), last, ""),
        fact("success", say.text("recovery.success"), level(percent(success), percent(wanted)), late(wanted, success)),
    ]
}

/// The instances that use the same database; one alone is no news.
pub(super) fn instances(snapshot: &Value, say: Say) -> Vec<Row> {
    let list = items(snapshot, "/instances");
    if list.len() < 2 {
        return Vec::new();
    }
    list.iter()
        .map(|instance| {
            let this = instance.pointer("/this").and_then(Value::as_bool).unwrap_or_default();
            let seen = if this {
                say.text("instance.this")
            } else {
                say.fill("instance.seen", &[("time", &say.ago(text(instance, "/lastSeenAt")))])
            };
            let holds = items(instance, "/holds").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
            let detail = if holds.is_empty() { seen } else { format!("{seen}: {holds}") };
            let pid = number(instance, "/pid").map_or_else(String::new, |pid| fixed(pid, 0));
            let name = format!("{} {pid}", text(instance, "/host"));
            let mut row = party(&name, text(instance, "/state"), "instance", detail, say);
            row[0].1 = text(instance, "/instance").to_owned();
            row
        })
        .collect()
}

fn party(name: &str, state: &str, words: &str, detail: String, say: Say) -> Row {
    let tone = tone_of(state);
    vec![
        ("key", name.to_owned()),
        ("name", name.to_owned()),
        ("tone", tone.to_owned()),
        ("icon", icon(tone)),
        ("state", say.word(words, state)),
        ("detail", detail),
    ]
}

/// What came in.
pub(super) fn ingest(snapshot: &Value, say: Say) -> Vec<Row> {
    let rejected = number(snapshot, "/ingest/rejectedTotal");
    vec![
        fact("accepted", say.text("ingest.accepted"), say.count(number(snapshot, "/ingest/acceptedTotal")), ""),
        fact("rejected", say.text("ingest.rejected"), say.count(rejected), alarmed(rejected, "warn")),
    ]
}

/// How full the buffer is, by rows and by bytes.
pub(super) fn buffer_bars(snapshot: &Value, say: Say) -> Vec<Row> {
    let bar = |key: &'static str, label: &str, used: &str, bound: &str, write: &dyn Fn(Option<f64>) -> String| {
        let (used, bound) = (number(snapshot, used), number(snapshot, bound));
        let share = 100.0 * used.unwrap_or_default() / bound.unwrap_or_default().max(1.0);
        let tone = if share >= 100.0 {
            "bad"
        } else if share >= 80.0 {
            "warn"
        } else {
            ""
        };
        vec![
            ("key", key.to_owned()),
            ("label", say.text(label)),
            ("value", write(used)),
            ("note", say.fill("bound", &[("n", &write(bound))])),
            ("tone", tone.to_owned()),
            ("fill", fixed(share.clamp(0.0, 100.0), 1)),
            ("limit", String::new()),
        ]
    };
    let rows = bar("rows", "buffer.rows", "/buffer/rows", "/buffer/rowsBound", &|value| say.count(value));
    let bytes = bar("bytes", "buffer.bytes", "/buffer/bytes", "/buffer/bytesBound", &|value| say.bytes(value));
    // A journal is bounded by its bytes alone.
    if number(snapshot, "/buffer/rowsBound").is_some() { vec![rows, bytes] } else { vec![bytes] }
}

/// The buffer's medium and what it promises.
pub(super) fn buffer(snapshot: &Value, say: Say) -> Vec<Row> {
    let tier = text(snapshot, "/buffer/tier");
    // The server says it at length and in English; the table says it shortly for the codes it knows.
    let code = text(snapshot, "/buffer/mayLoseCode");
    let short = Some(say.word("mayLose", code)).filter(|short| short != code);
    let may_lose = short.unwrap_or_else(|| text(snapshot, "/buffer/mayLose").to_owned());
    let mut facts = vec![
        fact("tier", say.text("buffer.tier"), tier.to_owned(), ""),
        fact("oldest", say.text("buffer.oldest"), age(number(snapshot, "/buffer/oldestAgeMs"), say), ""),
    ];
    let redis = text(snapshot, "/redis/state");
    if !redis.is_empty() {
        facts.push(fact("redis", say.text("buffer.redis"), say.word("redis", redis), if redis == "up" { "good" } else { "warn" }));
    }
    let uncopied = number(snapshot, "/redis/uncopied");
    if uncopied.is_some() {
        facts.push(fact("uncopied", say.text("buffer.uncopied"), say.count(uncopied), ""));
    }
    if tier != "memory" {
        let full = number(snapshot, "/buffer/fullInMs");
        let written = full.map_or_else(|| say.text("buffer.notFilling"), |ms| say.span(ms));
        let gone =
            ["quarantined", "void", "lost"].map(|term| number(snapshot, &format!("/buffer/account/{term}")).unwrap_or_default());
        let gone = Some(gone.iter().sum::<f64>());
        facts.push(fact("fullIn", say.text("buffer.fullIn"), written, alarmed(full, "warn")));
        facts.push(fact("lanes", say.text("buffer.lanes"), say.count(number(snapshot, "/buffer/lanes")), ""));
        facts.push(fact("gaps", say.text("buffer.gaps"), say.count(gone), alarmed(gone, "bad")));
    }
    facts.push(fact("mayLose", say.text("buffer.mayLose"), may_lose, ""));
    facts
}

/// The database.
pub(super) fn store(snapshot: &Value, say: Say) -> Vec<Row> {
    let down = text(snapshot, "/store/state") == "down";
    let state = if down {
        say.fill("store.down", &[("time", &say.since(text(snapshot, "/store/downSince")))])
    } else {
        say.text("store.up")
    };
    let weak = text(snapshot, "/store/weak");
    let mut facts = vec![
        fact("backend", say.text("store.backend"), text(snapshot, "/store/backend").to_owned(), ""),
        fact("state", say.text("store.state"), state, if down { "bad" } else { "good" }),
        fact("size", say.text("store.size"), say.bytes(number(snapshot, "/store/sizeBytes")), ""),
    ];
    facts.extend(disk(snapshot, say));
    let ended = text(snapshot, "/store/integrity/endedAt");
    let (rows, faults) = (number(snapshot, "/store/integrity/rows"), number(snapshot, "/store/integrity/faults"));
    let checked = match faults {
        None => say.text("store.unchecked"),
        Some(0.0) => say.fill("store.sound", &[("n", &say.count(rows)), ("time", &say.since(ended))]),
        Some(_) => say.fill("store.unsound", &[("n", &say.count(faults)), ("time", &say.since(ended))]),
    };
    facts.push(fact("integrity", say.text("store.integrity"), checked, alarmed(faults, "bad")));
    if !weak.is_empty() {
        facts.push(fact("weak", say.text("store.weak"), weak.to_owned(), "bad"));
    }
    facts
}

/// What takes how much on the disk; what is not known is left out.
fn disk(snapshot: &Value, say: Say) -> Vec<Row> {
    let kinds = ["readings", "deliveries", "ledger", "index", "free", "control"];
    let mut facts: Vec<Row> = kinds
        .iter()
        .filter_map(|kind| {
            let bytes = number(snapshot, &format!("/store/disk/{kind}Bytes"))?;
            Some(fact(kind, say.text(&format!("disk.{kind}")), say.bytes(Some(bytes)), ""))
        })
        .collect();
    if let Some(partitions) = number(snapshot, "/store/disk/partitions").filter(|partitions| *partitions > 0.0) {
        facts.push(fact("partitions", say.text("disk.partitions"), say.count(Some(partitions)), ""));
    }
    let oldest = text(snapshot, "/store/disk/oldestReadingAt");
    if !oldest.is_empty() {
        facts.push(fact("oldest", say.text("disk.oldest"), say.fill("disk.ago", &[("time", &say.since(oldest))]), ""));
    }
    if let Some(free) = number(snapshot, "/store/diskFreeBytes") {
        let full = number(snapshot, "/store/diskFullInMs");
        let written = match full {
            None => say.bytes(Some(free)),
            Some(ms) => say.fill("disk.filling", &[("n", &say.bytes(Some(free))), ("time", &say.span(ms))]),
        };
        facts.push(fact("diskFree", say.text("disk.diskFree"), written, alarmed(full, "warn")));
    }
    facts
}

/// The deliveries by state.
pub(super) fn outbox(snapshot: &Value, say: Say) -> Vec<Row> {
    let states = [
        ("ready", "delivery.ready", "/outbox/ready", ""),
        ("scheduled", "delivery.scheduled", "/outbox/scheduled", ""),
        ("claimed", "delivery.claimed", "/outbox/claimed", ""),
        ("sending", "delivery.sending", "/outbox/sending", ""),
        ("retry", "delivery.retry", "/outbox/retry", "warn"),
        ("uncertain", "delivery.uncertain", "/outbox/uncertain", "warn"),
        ("dead", "delivery.dead", "/outbox/dead", "bad"),
        ("sent", "delivery.sent", "/outbox/sentTotal", ""),
    ];
    let mut rows: Vec<Row> = states
        .into_iter()
        .map(|(key, label, pointer, tone)| {
            let n = number(snapshot, pointer);
            fact(key, say.text(label), say.count(n), alarmed(n, tone))
        })
        .collect();
    let oldest = number(snapshot, "/outbox/oldestAgeS").map(|seconds| seconds * 1_000.0);
    rows.push(fact("oldest", say.text("delivery.oldest"), age(oldest, say), ""));
    rows
}

/// A waiting time; nothing waits where it is zero or missing.
fn age(ms: Option<f64>, say: Say) -> String {
    ms.filter(|ms| *ms > 0.0).map_or_else(|| say.text("unknown"), |ms| say.span(ms))
}

/// accepted = stored + … + buffered, the terms that may stay away left out while they are zero.
pub(super) fn account(snapshot: &Value, say: Say) -> Vec<Row> {
    let terms: [(&'static str, bool, &str); 10] = [
        ("accepted", true, ""),
        ("stored", true, ""),
        ("duplicate", true, ""),
        ("conflict", true, "warn"),
        ("dead", true, "bad"),
        ("discarded", false, ""),
        ("quarantined", false, "bad"),
        ("void", false, "bad"),
        ("lost", false, "bad"),
        ("buffered", true, ""),
    ];
    let mut rows = Vec::with_capacity(terms.len());
    for (term, always, tone) in terms {
        let n = number(snapshot, &format!("/buffer/account/{term}"));
        if !always && n.unwrap_or_default() == 0.0 {
            continue;
        }
        let mut row = fact(term, say.text(&format!("account.{term}")), say.count(n), alarmed(n, tone));
        let sign = ["", "=", "+"][rows.len().min(2)];
        row.push(("sign", sign.to_owned()));
        rows.push(row);
    }
    rows
}

/// Whether the account is even.
pub(super) fn verdict(snapshot: &Value, say: Say) -> Row {
    let difference = number(snapshot, "/buffer/difference").unwrap_or_default();
    let (tone, mark, label) = if difference == 0.0 {
        ("good", "done", say.text("account.even"))
    } else {
        ("bad", "bad", say.fill("account.off", &[("n", &say.count(Some(difference)))]))
    };
    vec![("key", "verdict".to_owned()), ("tone", tone.to_owned()), ("icon", icon(mark)), ("label", label)]
}

/// What waits for a person, by kind.
pub(super) fn failure_counts(snapshot: &Value, say: Say) -> Vec<Row> {
    [
        ("conflict", "failures.conflict", "/buffer/account/conflict", "warn"),
        ("dead", "failures.dead", "/buffer/account/dead", "bad"),
        ("deliveries", "failures.deliveries", "/outbox/dead", "bad"),
        ("uncertain", "failures.uncertain", "/outbox/uncertain", "warn"),
    ]
    .into_iter()
    .map(|(key, label, pointer, tone)| {
        let n = number(snapshot, pointer);
        fact(key, say.text(label), say.count(n), alarmed(n, tone))
    })
    .collect()
}
