//! Puts pages together: the shell, the first state of every list, and the data that the script starts from.

use serde_json::Value;

use super::{
    Visitor,
    assets::asset_url,
    format::{Say, instant_ms, text},
    lang::Lang,
    template::{ROWS, embed_json, escape, fill, fill_rows},
    view,
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

/// The sign-in form: it posts the field `token` to `/login`. `error` is a sentence for a person, shown above the form.
pub fn render_login(lang: Lang, error: Option<&str>) -> String {
    fill(LOGIN, lang, |slot| match slot {
        "error" => {
            Some(error.map_or_else(String::new, |error| format!("<p class=\"problem\" role=\"alert\">{}</p>", escape(error))))
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
fn shared(slot: &str, lang: Lang) -> Option<String> {
    match slot {
        "lang" => Some(lang.tag().to_owned()),
        "head" => Some(fill(HEAD, lang, |slot| (slot == "style").then(|| asset_url("style.css")))),
        "icons" => Some(ICONS.to_owned()),
        _ => None,
    }
}

fn session(lang: Lang, visitor: Visitor<'_>) -> String {
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
