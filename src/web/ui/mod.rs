//! The pages: the overview that a person sees at `GET /`, and those to work on beside it (`work`).
//!
//! In: the snapshot that the stream sends too, the visitor's language and rights. Out: HTML that is readable before any
//! script runs, and the style sheet and modules that keep it live. It holds no state; a crash loses nothing.
//!
//! Nothing is built and nothing is fetched from elsewhere: the files lie beside this one and are part of the binary.
//! One markup serves both sides: `page.html` carries the row templates, Rust fills them for the first state and the
//! script fills the same ones afterwards, so the two cannot drift apart in shape. Work pages come with their headings, filters
//! and rights; what they list is fetched by their scripts from the API that everybody else uses.

mod assets;
mod format;
mod http;
mod lang;
mod page;
mod template;
mod view;
mod work;

pub use assets::{Asset, asset, asset_url};
pub use http::{CONTENT_SECURITY_POLICY, serve_asset, serve_html};
pub use lang::Lang;
pub use page::{render_document, render_login, render_page};
pub use work::{Place, WorkPage, render_work};

/// Who looks at the page, as far as the page must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visitor<'a> {
    /// Shown beside the sign-out button.
    pub name: &'a str,
    /// Whether acknowledge, retry and discard are offered: role operator or above. The server decides again at each call.
    pub may_operate: bool,
    /// Whether setting a delivery right before a retry is offered: role admin.
    pub may_edit: bool,
}
