//! The built-in templates, by language. A message is what somebody wrote, in whatever language.

type Named = (&'static str, &'static str);

macro_rules! of {
    ($lang:literal: $($name:literal),+) => {
        &[$(($name, include_str!(concat!($lang, "/", $name, ".jinja"))),)+]
    };
}

const EN: &[Named] = of!("en": "alert.subject", "alert.text", "alert.html", "alert.slack", "alert.discord",
    "digest.subject", "digest.text", "digest.html", "digest.slack", "digest.discord");
const KO: &[Named] = of!("ko": "alert.subject", "alert.text", "alert.html", "alert.slack", "alert.discord",
    "digest.subject", "digest.text", "digest.html", "digest.slack", "digest.discord");
const MESSAGE: &[Named] = &[
    ("message.subject", "{{ message.subject }}"),
    ("message.text", "{{ message.body }}"),
    ("message.html", include_str!("message.html.jinja")),
    ("message.slack", "{{ message.body }}"),
    ("message.discord", "{{ message.body }}"),
];

/// Name and text of each; English where the language is none that there is.
pub(super) fn of(lang: &str) -> impl Iterator<Item = Named> {
    let alerts = if lang == "ko" { KO } else { EN };
    alerts.iter().chain(MESSAGE).copied()
}
