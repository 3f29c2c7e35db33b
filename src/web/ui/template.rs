//! Markup with slots: `{name}` is replaced, everything else is copied. The script fills the same row templates by the same
//! rule, so a row looks the same whoever made it.

use std::borrow::Cow;

use super::lang::Lang;

/// The slots of one row and their texts, not yet escaped. Every row has a `key`, by which the script finds it again.
pub(super) type Row = Vec<(&'static str, String)>;

/// Every row template of the page.
pub(super) const ROWS: &str = include_str!("rows.html");

/// Copies `template` and replaces each slot for which `value` has markup; `{t:KEY}` becomes the text of that key. A slot
/// that `value` does not know is copied, braces included: row templates stay whole when they are sent to the script.
pub(super) fn fill(template: &str, lang: Lang, mut value: impl FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        let after = &rest[open + 1..];
        let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, ':' | '.' | '-' | '_'))).unwrap_or(after.len());
        let filled = after[end..].starts_with('}').then(|| match after[..end].strip_prefix("t:") {
            Some(key) => Some(escape(lang.text(key)).into_owned()),
            None => value(&after[..end]),
        });
        match filled.flatten() {
            Some(markup) => {
                out.push_str(&markup);
                rest = &after[end + 1..];
            }
            None => {
                out.push('{');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// The rows of one list, one after the other without a gap: an empty list stays `:empty` for the style sheet.
pub(super) fn fill_rows(id: &str, lang: Lang, rows: &[Row]) -> String {
    let template = row_template(id);
    rows.iter()
        .map(|row| {
            fill(template, lang, |slot| {
                let text = row.iter().find(|(name, _)| *name == slot).map_or("", |(_, text)| text);
                Some(escape(text).into_owned())
            })
        })
        .collect()
}

/// The markup inside `<template id="row-ID">`; empty where there is none, which a test rules out.
pub(super) fn row_template(id: &str) -> &'static str {
    let open = format!("<template id=\"row-{id}\">");
    let Some((_, after)) = ROWS.split_once(&open) else { return "" };
    after.split_once("</template>").map_or("", |(inside, _)| inside)
}

/// `text` for element content and double-quoted attributes.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    Cow::Owned(out)
}

/// `json` so that no text inside can end the script element it stands in.
pub(super) fn embed_json(json: &str) -> String {
    json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_filled_and_what_is_not_a_slot_is_copied() {
        let filled = fill("a {x} {y} {t:ack} { {} {x", Lang::En, |slot| (slot == "x").then(|| "1".to_owned()));
        assert_eq!(filled, "a 1 {y} Acknowledge { {} {x");
    }

    #[test]
    fn a_row_cannot_break_out_of_its_slots() {
        let row = vec![("key", "\"><script>".to_owned()), ("label", "<b>{key}</b>".to_owned())];
        let html = fill_rows("fact", Lang::En, &[row]);
        assert!(html.contains("data-key=\"&quot;&gt;&lt;script&gt;\""), "{html}");
        assert!(html.contains("&lt;b&gt;{key}&lt;/b&gt;"), "{html}");
    }

    #[test]
    fn embedded_json_cannot_end_its_script_element() {
        assert!(!embed_json(r#"{"text": "</script><!--"}"#).contains('<'));
    }
}
