//! Puts pages together: the shell, the first state of every list, and the data that the script starts from.

use serde_json::Value;

use super::{
    Visitor,
    assets::asset_url,
    format::{Say, instant_ms, text},
    lang::Lang,
    template::{ROWS, embed_json, escape, fill, fill_rows},
    view,
    work::nav,
};

const PAGE: &str = include_str!("page.html");
const LOGIN: &str = include_str!("login.html");
const DOCUMENT: &str = include_str!("document.html");
const HEAD: &str = include_str!("head.html");
const ICONS: &str = include_str!("icons.html");

/// Beyond so many engines the first state carries no trends: they come with the first event, a second later, and would
/// be most of the page's weight.
const ENGINES_WITH_TRENDS: usize = 24;

/// The page, complete and readable without a script. `snapshot` is the JSON that the stream's `state` event carries;
/// fields that are missing are shown as unknown. Without a `visitor` there is no sign-out.
pub fn render_page(snapshot: &Value, lang: Lang, visitor: Option<Visitor<'_>>) -> String {
    let lightened = lighten(snapshot);
    let snapshot = lightened.as_ref().unwrap_or(snapshot);
    let say = Say { lang, now_ms: instant_ms(text(snapshot, "/now")).unwrap_or_default() };
    let view = view::View::of(snapshot, say);
    fill(PAGE, lang, |slot| {
        if let Some(list) = slot.strip_prefix("rows:") {
            let (name, row) = list.split_once(':')?;
            return Some(fill_rows(row, lang, view.list(name)));
        }
        Some(match slot {
            "title" => escape(&view.title).into_owned(),
            "operate" => if visitor.is_some_and(|visitor| visitor.may_operate) { "1" } else { "" }.to_owned(),
            "nav" => visitor.map_or_else(String::new, |visitor| nav(None, lang, visitor)),
            "inbox" => if snapshot["inbox"].is_array() { "1" } else { "" }.to_owned(),
            "asOf" => escape(&say.fill("asOf", &[("at", &say.clock(text(snapshot, "/now")))])).into_owned(),
            "session" => visitor.map_or_else(String::new, |visitor| session(lang, visitor)),
            "app" => asset_url("app.js"),
            "templates" => fill(ROWS, lang, |_| None),
            "texts" => embed_json(lang.texts_json()),
            "stateJson" => embed_json(&snapshot.to_string()),
            other => return view.text(other).map(|text| escape(text).into_owned()).or_else(|| shared(other, lang)),
        })
    })
}

/// The sign-in form: it posts the field `token` to `/login`, and `next` where that says which page was asked for. `error` is a sentence for a
/// person, shown above the form.
pub fn render_login(lang: Lang, error: Option<&str>, next: Option<&str>) -> String {
    fill(LOGIN, lang, |slot| match slot {
        "error" => {
            Some(error.map_or_else(String::new, |error| format!("<p class=\"problem\" role=\"alert\">{}</p>", escape(error))))
        }
        "next" => {
            Some(next.map_or_else(String::new, |next| format!("<input type=\"hidden\" name=\"next\" value=\"{}\">", escape(next))))
        }
        other => shared(other, lang),
    })
}

/// A plain document in the page's style, such as the readable form of the API description. `body_html` is trusted markup;
/// without inline styles or scripts, which the policy refuses.
pub fn render_document(lang: Lang, title: &str, body_html: &str) -> String {
    fill(DOCUMENT, lang, |slot| match slot {
        "title" => Some(escape(title).into_owned()),
        "body" => Some(body_html.to_owned()),
        other => shared(other, lang),
    })
}

/// The slots that every page has.
pub(super) fn shared(slot: &str, lang: Lang) -> Option<String> {
    match slot {
        "lang" => Some(lang.tag().to_owned()),
        "head" => Some(fill(HEAD, lang, |slot| (slot == "style").then(|| asset_url("style.css")))),
        "icons" => Some(ICONS.to_owned()),
        _ => None,
    }
}

pub(super) fn session(lang: Lang, visitor: Visitor<'_>) -> String {
    let markup =
        "<form class=\"session\" method=\"post\" action=\"/logout\"><span>{name}</span><button>{t:signOut}</button></form>";
    fill(markup, lang, |slot| (slot == "name").then(|| escape(visitor.name).into_owned()))
}

/// A copy without the trends, where there are many engines.
fn lighten(snapshot: &Value) -> Option<Value> {
    let engines = snapshot.pointer("/engines/items")?.as_array()?;
    if engines.len() <= ENGINES_WITH_TRENDS {
        return None;
    }
    let mut light = snapshot.clone();
    for engine in light.pointer_mut("/engines/items")?.as_array_mut()? {
        if let Some(fields) = engine.as_object_mut() {
            fields.remove("trend");
        }
    }
    Some(light)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::web::ui::{
        assets::{OVERVIEW, asset, gzip},
        template::row_template,
    };

    const MAX_GZIP_BYTES: usize = 40 * 1024;

    fn snapshot(engines: usize) -> Value {
        let at = "2026-11-20T18:22:05.123456Z";
        let engine = |i: usize| {
            let samples: Vec<f64> = (0..30).map(|k| 310.25 + f64::from(k * 7 % 11) + i as f64 / 8.0).collect();
            json!({"engineId": format!("engine-{i}"), "observedAt": at, "status": "ok", "temperature": 310.25 + i as f64, "rpm": 4200.5,
                "pressure": 2.125, "fuelFlow": null, "alarm": (i % 50 == 1).then_some("CRITICAL"), "trend": {"temperature": samples, "rpm": samples}})
        };
        let usage = json!({"percent": 61.25, "limit": 90.0, "usedBytes": 4_900_000_000_u64, "totalBytes": 8_000_000_000_u64});
        json!({"now": at, "version": "0.1.0", "startedAt": at, "readiness": "ready", "instance": "host </script><b>", "demo": true,
            "system": {"cpu": {"percent": 12.5, "limit": 80.0}, "memory": usage, "disk": usage,
                "process": {"rssBytes": 1, "privateBytes": 1, "uptimeS": 60}},
            "ingest": {"acceptedTotal": 1234, "rejectedTotal": 1, "ratePerS": 6.0,
                "sources": [{"name": "simulator", "state": "failing", "lastOkAt": at, "error": "refused <it>"}]},
            "buffer": {"tier": "memory", "mayLose": "…", "mayLoseCode": "memory", "rows": 1, "rowsBound": 10, "bytes": 1, "bytesBound": 10, "oldestAgeMs": 1,
                "account": {"accepted": 3, "stored": 1, "lost": 1}, "difference": 1},
            "store": {"backend": "sqlite", "state": "down", "downSince": at, "sizeBytes": null,
                "disk": {"readingsBytes": 1_000_000, "deliveriesBytes": 2_000, "ledgerBytes": 3_000, "indexBytes": null, "controlBytes": 9_000,
                    "partitions": 3, "oldestReadingAt": at}, "diskFreeBytes": 5_000_000_000_u64, "diskFullInMs": 7_200_000, "weak": "fsync = off"},
            "circuits": [{"party": "database", "state": "half-open", "since": at}],
            "recovery": {"outboxS": 3.0, "outboxWithinS": 2.0, "bufferS": 0.0, "bufferWithinS": 60.0, "runningS": 0.0, "withinS": 300.0,
                "lastS": 4.0, "successPercent": 99.95, "successLevel": 99.9},
            "instances": [
                {"instance": "i1", "state": "alive", "this": true, "host": "a", "pid": 1, "lastSeenAt": at, "holds": ["duty/retention"]},
                {"instance": "i2", "state": "dead", "this": false, "host": "b", "pid": 2, "lastSeenAt": at, "holds": []}],
            "outbox": {"ready": 1, "sinks": [{"name": "log", "state": "half-open", "backlog": 0}]},
            "actors": [{"name": "IngestActor", "state": "running", "restarts": 1, "mailboxDepth": 1, "mailboxBound": 4, "lastProgressMs": 3}],
            "engines": {"total": engines, "items": (0..engines).map(engine).collect::<Vec<_>>()},
            "alerts": [{"id": "a", "name": "overheat", "subject": "engine-1", "level": "CRITICAL", "state": "firing", "openedAt": at, "text": "<hot>", "count": 2}],
            "inbox": [{"at": at, "via": "webhook", "title": "t", "body": "b"}, {"at": at, "via": "webhook", "title": "t", "body": "b"}]})
    }

    const VISITOR: Visitor<'_> = Visitor { name: "kim <kim>", may_operate: true, may_edit: true };

    #[test]
    fn the_page_with_all_that_it_loads_stays_below_40_kb_even_with_200_engines() {
        let assets: usize = OVERVIEW.iter().filter_map(|name| asset(&asset_url(name))).map(|asset| asset.gzip.len()).sum();
        for lang in Lang::ALL {
            for engines in [0, 24, 200] {
                let page = gzip(render_page(&snapshot(engines), lang, Some(VISITOR)).as_bytes()).len();
                assert!(assets + page <= MAX_GZIP_BYTES, "{assets} + {page} bytes with {engines} engines");
            }
        }
    }

    #[test]
    fn what_others_wrote_stays_text() {
        let html = render_page(&snapshot(3), Lang::En, Some(VISITOR));
        for wild in ["</script><b>", "<it>", "<hot>", "<kim>"] {
            assert!(!html.contains(wild), "{wild}");
        }
        assert!(!render_login(Lang::En, Some("<b>"), Some("/alerts?\"><b>")).contains("<b>"));
    }

    #[test]
    fn no_slot_stays_open_and_nothing_is_inline() {
        for lang in Lang::ALL {
            for html in [
                render_page(&snapshot(30), lang, Some(VISITOR)),
                render_page(&json!({}), lang, None),
                render_login(lang, None, Some("/alerts?state=firing")),
                render_document(lang, "API", "<p>x</p>"),
            ] {
                let (body, _) = html.split_once("<template").unwrap_or((&html, ""));
                assert!(!body.contains("{t:") && !body.contains("{rows:"), "{body}");
                assert!(!html.contains("{t:"));
                for inline in [" style=", " onclick=", "<script>", "javascript:", "<style"] {
                    assert!(!html.contains(inline), "{inline}");
                }
            }
        }
    }

    #[test]
    fn what_takes_how_much_of_the_disk_and_what_is_left_stands_on_the_page() {
        let whole = snapshot(3);
        let html = render_page(&whole, Lang::En, Some(VISITOR));
        for fact in ["readings", "deliveries", "ledger", "control", "partitions", "oldest", "diskFree"] {
            let words = Lang::En.texts().get(&format!("disk.{fact}")).expect("a text");
            assert!(html.contains(words.as_str()), "{fact}: {words}");
        }
        for bytes in ["1.0 MB", "2.0 kB", "3.0 kB", "9.0 kB", "5.0 GB"] {
            assert!(html.contains(bytes), "{bytes}");
        }
        let mut unknown = whole;
        unknown["store"]["diskFreeBytes"] = json!(null);
        assert!(!render_page(&unknown, Lang::En, Some(VISITOR)).contains(">Disk free<"), "what is not known is left out");
    }

    #[test]
    fn every_slot_of_a_row_is_filled_by_its_list() {
        let view = view::View::of(&snapshot(3), Say { lang: Lang::En, now_ms: 0 });
        for (list, row) in PAGE.match_indices("{rows:").map(|(at, _)| {
            let inside = PAGE[at + 6..].split('}').next().unwrap_or_default();
            inside.split_once(':').expect("list and row")
        }) {
            let first = view.list(list).first().unwrap_or_else(|| panic!("{list} has rows in the sample"));
            let slots = row_template(row).split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
            for slot in slots.filter(|slot| !slot.starts_with("t:")) {
                assert!(first.iter().any(|(name, _)| *name == slot), "{list}: {{{slot}}}");
            }
        }
    }

    #[test]
    fn every_text_that_is_asked_for_by_name_is_in_the_table() {
        let sources = [
            include_str!("app.js"),
            include_str!("actions.js"),
            include_str!("api.js"),
            include_str!("format.js"),
            include_str!("view.js"),
            PAGE,
            LOGIN,
            ROWS,
        ];
        let mut asked = 0;
        for source in sources {
            for (open, close) in [("t(\"", '"'), ("{t:", '}')] {
                for (at, _) in source.match_indices(open) {
                    // Not the end of another name, such as `fact("`.
                    if source[..at].ends_with(char::is_alphanumeric) {
                        continue;
                    }
                    let key = source[at + open.len()..].split(close).next().unwrap_or_default();
                    assert!(Lang::En.texts().contains_key(key), "{key}");
                    asked += 1;
                }
            }
        }
        assert!(asked > 100, "{asked}");
    }
}
