//! The built-in templates, by language. A message is what somebody wrote, in whatever language; ours is only that it may be a repeat.

type Named = (&'static str, &'static str);

macro_rules! of {
    ($lang:literal: $($name:literal),+) => {
        &[$(($name, include_str!(concat!($lang, "/", $name, ".jinja"))),)+]
    };
}

const EN: &[Named] = of!("en": "alert.subject", "alert.text", "alert.html", "alert.slack", "alert.discord",
    "digest.subject", "digest.text", "digest.html", "digest.slack", "digest.discord",
    "message.text", "message.html", "message.slack", "message.discord");
const KO: &[Named] = of!("ko": "alert.subject", "alert.text", "alert.html", "alert.slack", "alert.discord",
    "digest.subject", "digest.text", "digest.html", "digest.slack", "digest.discord",
    "message.text", "message.html", "message.slack", "message.discord");
/// The same in every language.
const MESSAGE: &[Named] = &[("message.subject", "{{ message.subject }}")];

/// Name and text of each; English where the language is none that there is.
pub(super) fn of(lang: &str) -> impl Iterator<Item = Named> {
    let texts = if lang == "ko" { KO } else { EN };
    texts.iter().chain(MESSAGE).copied()
}
