//! The pages to work on: failures, messages, alerts, issues, sinks.
//!
//! In: who looks, and in which language. Out: the shell with the navigation, headings and filters. Lists and entries are fetched by the
//! page's module: each decision changes them, and the API is the one place that says what somebody may see.

use super::{
    Visitor,
    assets::asset_url,
    lang::Lang,
    page::{session, shared},
    template::{embed_json, escape, fill},
};

const SHELL: &str = include_str!("work/shell.html");
const LIST: &str = include_str!("work/list.html");
const ENTRY: &str = include_str!("work/entry.html");

/// A page beside the overview.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkPage {
    /// What waits for a person.
    Failures,
    /// What was sent through belayd.
    Messages,
    /// Alerts and silences.
    Alerts,
    /// What people work on.
    Issues,
    /// The ways out.
    Sinks,
}

impl WorkPage {
    /// Every page, in the order of the navigation.
    pub const ALL: [WorkPage; 5] = [Self::Alerts, Self::Failures, Self::Messages, Self::Issues, Self::Sinks];

    /// The name of path, module and texts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::Messages => "messages",
            Self::Alerts => "alerts",
            Self::Issues => "issues",
            Self::Sinks => "sinks",
        }
    }

    /// Whether only those who may operate can see what it lists.
    fn needs_operator(self) -> bool {
        matches!(self, Self::Failures | Self::Messages | Self::Sinks)
    }

    fn content(self) -> &'static str {
        match self {
            Self::Failures => include_str!("work/failures.html"),
            Self::Messages => include_str!("work/messages.html"),
            Self::Alerts => include_str!("work/alerts.html"),
            Self::Issues => include_str!("work/issues.html"),
            Self::Sinks => include_str!("work/sinks.html"),
        }
    }
}

/// The links to every page that `visitor` can use; `here` is marked, `None` is the overview.
pub(super) fn nav(here: Option<WorkPage>, lang: Lang, visitor: Visitor<'_>) -> String {
    let link = |path: &str, name: &str, current: bool| {
        let mark = if current { " aria-current=\"page\"" } else { "" };
        format!("<a href=\"/{path}\"{mark}>{}</a>", escape(lang.text(&format!("nav.{name}"))))
    };
    let mut links = link("", "overview", here.is_none());
    for page in WorkPage::ALL.into_iter().filter(|page| visitor.may_operate || !page.needs_operator()) {
        links.push_str(&link(page.name(), page.name(), here == Some(page)));
    }
    format!("<nav class=\"nav\" aria-label=\"{}\">{links}</nav>", escape(lang.text("nav")))
}

/// What a page says of the daemon that it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The name of the host.
    pub instance: &'a str,
    /// The ways that a message can go, as JSON: `[{"name", "takesRecipients", "isDefault"}]`.
    pub ways: &'a str,
}

/// One of the pages, for `visitor`.
pub fn render_work(page: WorkPage, place: Place<'_>, lang: Lang, visitor: Visitor<'_>) -> String {
    let key = format!("nav.{}", page.name());
    let title = lang.text(&key);
    let one_or_none = |yes: bool| if yes { "1" } else { "" }.to_owned();
    let list = |name: &str, label: &str| {
        fill(LIST, lang, |slot| match slot {
            "list" => Some(name.to_owned()),
            "label" => Some(escape(label).into_owned()),
            _ => None,
        })
    };
    let content = fill(page.content(), lang, |slot| match slot {
        "list" => Some(list("list", title)),
        "second" => Some(list("silences", lang.text("silences"))),
        "entry" => Some(fill(ENTRY, lang, |_| None)),
        _ => None,
    });
    fill(SHELL, lang, |slot| match slot {
        "title" => Some(escape(title).into_owned()),
        "instance" => Some(escape(place.instance).into_owned()),
        "workStyle" => Some(asset_url("work.css")),
        "module" => Some(asset_url(&format!("{}.js", page.name()))),
        "operate" => Some(one_or_none(visitor.may_operate)),
        "edit" => Some(one_or_none(visitor.may_edit)),
        "nav" => Some(nav(Some(page), lang, visitor)),
        "session" => Some(session(lang, visitor)),
        "content" => Some(content.clone()),
        "ways" => Some(embed_json(place.ways)),
        "texts" => Some(embed_json(&lang.all_texts_json())),
        other => shared(other, lang),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::ui::assets::{asset, gzip};

    const VISITOR: Visitor<'_> = Visitor { name: "kim <kim>", may_operate: true, may_edit: false };
    const PLACE: Place<'_> = Place { instance: "host <b>", ways: r#"[{"name": "</script><b>"}]"# };
    const SHARED: [&str; 6] = ["style.css", "work.css", "api.js", "dom.js", "ask.js", "desk.js"];
    /// More than the overview may weigh, because the texts of all work pages come along; they change rarely and nothing is streamed.
    const MAX_GZIP_BYTES: usize = 40 * 1024;

    fn every() -> impl Iterator<Item = (WorkPage, Lang)> {
        WorkPage::ALL.into_iter().flat_map(|page| Lang::ALL.map(|lang| (page, lang)))
    }

    #[test]
    fn no_slot_stays_open_nothing_is_inline_and_names_stay_text() {
        for (page, lang) in every() {
            let html = render_work(page, PLACE, lang, VISITOR);
            let (body, _) = html.split_once("<script type=\"application/json\"").expect("texts");
            assert!(!body.contains('{') && !body.contains('}'), "{page:?}: {body}");
            assert!(!html.contains("<kim>") && !html.contains("<b>h") && !html.contains("host <b>"));
            for inline in [" style=", " onclick=", "<script>", "javascript:", "<style"] {
                assert!(!html.contains(inline), "{page:?}: {inline}");
            }
        }
    }

    #[test]
    fn a_page_with_all_that_it_loads_stays_light() {
        for (page, lang) in every() {
            let module = format!("{}.js", page.name());
            let names = SHARED.into_iter().chain(["format.js", "silences.js", &module]);
            let assets: usize = names.map(|name| asset(&asset_url(name)).expect(name).gzip.len()).sum();
            let page = gzip(render_work(page, PLACE, lang, VISITOR).as_bytes()).len();
            assert!(assets + page <= MAX_GZIP_BYTES, "{assets} + {page}");
        }
    }

    #[test]
    fn the_navigation_marks_where_one_is_and_leaves_out_what_one_may_not_see() {
        let links = nav(Some(WorkPage::Alerts), Lang::En, VISITOR);
        assert_eq!(links.matches("<a ").count(), WorkPage::ALL.len() + 1);
        assert!(links.contains("<a href=\"/alerts\" aria-current=\"page\">Alerts</a>"), "{links}");
        assert_eq!(links.matches("aria-current").count(), 1);
        let looking = nav(None, Lang::Ko, Visitor { may_operate: false, ..VISITOR });
        assert!(!["/failures", "/sinks", "/messages"].iter().any(|path| looking.contains(path)), "{looking}");
        assert!(looking.contains("/alerts") && looking.contains("/issues"), "{looking}");
        assert!(looking.contains("<a href=\"/\" aria-current=\"page\">"), "{looking}");
    }

    #[test]
    fn every_text_that_is_asked_for_by_name_is_in_the_table() {
        let modules = [
            include_str!("work/alerts.js"),
            include_str!("work/ask.js"),
            include_str!("work/desk.js"),
            include_str!("work/dom.js"),
            include_str!("work/failures.js"),
            include_str!("work/issues.js"),
            include_str!("work/messages.js"),
            include_str!("work/silences.js"),
            include_str!("work/sinks.js"),
        ];
        let mut asked = 0;
        for module in modules {
            for open in [
                "t(\"",
                "section(\"",
                "button(\"",
                "label: \"",
                "ok: \"",
                "[\"alerts.",
                "[\"failures.",
                "[\"issues.",
                "[\"messages.",
                "[\"sinks.",
            ] {
                for (at, _) in module.match_indices(open) {
                    if module[..at].ends_with(char::is_alphanumeric) {
                        continue;
                    }
                    let from = at + open.find('"').unwrap_or_default() + 1;
                    let key = module[from..].split('"').next().unwrap_or_default();
                    assert!(Lang::En.texts().contains_key(key), "{key}");
                    asked += 1;
                }
            }
        }
        assert!(asked > 100, "{asked}");
        for page in WorkPage::ALL {
            let html = render_work(page, PLACE, Lang::En, VISITOR);
            assert!(!html.contains(">nav."), "a key that has no text stands for itself");
        }
    }
}
