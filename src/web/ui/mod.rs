//! The page: what a person sees at `GET /`.
//!
//! In: the snapshot that the stream sends too, the visitor's language and rights. Out: HTML that is readable before any
//! script runs, and the style sheet and modules that keep it live. It holds no state; a crash loses nothing.
//!
//! Nothing is built and nothing is fetched from elsewhere: the files lie beside this one and are part of the binary.
//! One markup serves both sides: `page.html` carries the row templates, Rust fills them for the first state and the
//! script fills the same ones afterwards, so the two cannot drift apart in shape.

mod assets;
mod http;
mod lang;

pub use assets::{Asset, asset, asset_url};
pub use http::{CONTENT_SECURITY_POLICY, serve_asset, serve_html};
pub use lang::Lang;

/// Who looks at the page, as far as the page must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visitor<'a> {
    /// Shown beside the sign-out button.
    pub name: &'a str,
    /// Whether acknowledge, retry and discard are offered: role operator or above. The server decides again at each call.
    pub may_operate: bool,
}

/// The page, complete and readable without a script. `snapshot` is the JSON that the stream's `state` event carries;
/// fields that are missing are shown as unknown. Without a `visitor` there is no sign-out.
pub fn render_page(snapshot: &serde_json::Value, lang: Lang, visitor: Option<Visitor<'_>>) -> String {
    let _ = (snapshot, lang, visitor);
    String::new()
}

/// The sign-in form: it posts the field `token` to `/login`. `error` is a sentence for a person, shown above the form.
pub fn render_login(lang: Lang, error: Option<&str>) -> String {
    let _ = (lang, error);
    String::new()
}

/// A plain document in the page's style, such as the readable form of the API description. `body_html` is trusted markup;
/// without inline styles or scripts, which the policy refuses.
pub fn render_document(lang: Lang, title: &str, body_html: &str) -> String {
    let _ = (lang, title, body_html);
    String::new()
}
