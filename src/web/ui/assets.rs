//! The files that the page loads, embedded in the binary and compressed once.
//!
//! All of them live under one path that carries a hash over all of them: modules can import each other by relative names,
//! and a browser may keep each file for ever, because a changed file has another path.

use std::{io::Write, sync::OnceLock};

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

/// One file as it is served.
#[derive(Debug)]
pub struct Asset {
    /// The value of `Content-Type`.
    pub content_type: &'static str,
    /// The bytes.
    pub body: &'static [u8],
    /// The same bytes, gzipped.
    pub gzip: Vec<u8>,
    /// The value of `ETag`, quotes included.
    pub etag: String,
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// Name, content type and bytes of every file.
pub(super) const FILES: &[(&str, &str, &[u8])] = &[
    ("style.css", CSS, include_bytes!("style.css")),
    ("app.js", JAVASCRIPT, include_bytes!("app.js")),
    ("actions.js", JAVASCRIPT, include_bytes!("actions.js")),
    ("api.js", JAVASCRIPT, include_bytes!("api.js")),
    ("format.js", JAVASCRIPT, include_bytes!("format.js")),
    ("lists.js", JAVASCRIPT, include_bytes!("lists.js")),
    ("stream.js", JAVASCRIPT, include_bytes!("stream.js")),
    ("view.js", JAVASCRIPT, include_bytes!("view.js")),
    ("work.css", CSS, include_bytes!("work/work.css")),
    ("dom.js", JAVASCRIPT, include_bytes!("work/dom.js")),
    ("ask.js", JAVASCRIPT, include_bytes!("work/ask.js")),
    ("desk.js", JAVASCRIPT, include_bytes!("work/desk.js")),
    ("failures.js", JAVASCRIPT, include_bytes!("work/failures.js")),
    ("messages.js", JAVASCRIPT, include_bytes!("work/messages.js")),
    ("alerts.js", JAVASCRIPT, include_bytes!("work/alerts.js")),
    ("silences.js", JAVASCRIPT, include_bytes!("work/silences.js")),
    ("issues.js", JAVASCRIPT, include_bytes!("work/issues.js")),
    ("sinks.js", JAVASCRIPT, include_bytes!("work/sinks.js")),
];

/// Those that the overview loads; the others are for the work pages.
#[cfg(test)]
pub(super) const OVERVIEW: &[&str] =
    &["style.css", "app.js", "actions.js", "api.js", "format.js", "lists.js", "stream.js", "view.js"];

struct Bundle {
    /// First 12 hex digits of the hash over all files.
    hash: String,
    assets: Vec<(&'static str, Asset)>,
}

fn bundle() -> &'static Bundle {
    static BUNDLE: OnceLock<Bundle> = OnceLock::new();
    BUNDLE.get_or_init(|| {
        let mut all = Sha256::new();
        let mut assets = Vec::with_capacity(FILES.len());
        for &(name, content_type, body) in FILES {
            all.update(name);
            all.update(body);
            let etag = format!("\"{}\"", &hex::encode(Sha256::digest(body))[..16]);
            assets.push((name, Asset { content_type, body, gzip: gzip(body), etag }));
        }
        Bundle { hash: hex::encode(all.finalize())[..12].to_owned(), assets }
    })
}

/// The file at a request path such as `/assets/0123456789ab/style.css`; `None` for any other name or hash.
pub fn asset(path: &str) -> Option<&'static Asset> {
    let (hash, name) = path.strip_prefix("/assets/")?.split_once('/')?;
    let bundle = bundle();
    (hash == bundle.hash).then_some(())?;
    bundle.assets.iter().find(|(known, _)| *known == name).map(|(_, asset)| asset)
}

/// The path under which the file `name` (`style.css`) is served.
pub fn asset_url(name: &str) -> String {
    format!("/assets/{}/{name}", bundle().hash)
}

/// `body`, gzipped at the default level.
pub(super) fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 3), Compression::default());
    // Writing into memory cannot fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_found_by_its_own_url_and_by_no_other() {
        for (name, content_type, body) in FILES {
            let asset = asset(&asset_url(name)).expect(name);
            assert_eq!((asset.content_type, asset.body), (*content_type, *body));
        }
        for path in
            ["/assets/style.css", "/assets/000000000000/style.css", "/assets/", "/", "style.css", &asset_url("../style.css")]
        {
            assert!(asset(path).is_none(), "{path}");
        }
    }
}
