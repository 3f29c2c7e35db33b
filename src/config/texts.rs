//! Texts with a form of their own: URLs, hosts, headers, names, times of day; and the nearest known word. Pure.
//!
//! No message repeats a URL or a header's value: they may hold secrets.

use base64::{
    Engine,
    prelude::{BASE64_STANDARD as STANDARD, BASE64_STANDARD_NO_PAD as STANDARD_NO_PAD},
};
use url::Url;

use super::value::Wrong;
use crate::domain::reading::{NAMED_METRICS, is_name};

/// Headers that the HTTP client itself decides about.
const RESERVED_HEADERS: [&str; 5] = ["host", "content-length", "transfer-encoding", "connection", "accept-encoding"];

/// The known word that was probably meant, ignoring case and the difference between `batchRows`, `batch-rows` and `batch_rows`.
pub(super) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = bare(given);
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&given, &bare(word)), word.len().abs_diff(given.len()), word))
        // A third of the letters may differ: enough for slips, too little to suggest nonsense.
        .filter(|(distance, _, word)| *distance <= (word.len() / 3).max(1) && *distance < given.len())
        .min_by_key(|(distance, longer, _)| (*distance, *longer))
        .map(|(_, _, word)| word)
}

/// The letters and digits in lower case; signs count only where there is nothing else. Cut, so that comparing stays cheap.
fn bare(text: &str) -> String {
    let letters: String = text.chars().take(80).filter(char::is_ascii_alphanumeric).collect();
    if letters.is_empty() { text.chars().take(80).collect() } else { letters.to_ascii_lowercase() }
}

/// The SQL name of a metric, from either spelling.
pub(super) fn metric_name(text: &str) -> Option<String> {
    let name = if text == "fuelFlow" { "fuel_flow" } else { text };
    is_name(name).then(|| name.to_owned())
}

/// The field of a reading in its SQL spelling: `engine_id`, `timestamp`, `status`, or a metric.
pub(super) fn field_name(text: &str) -> Option<String> {
    if text == "engineId" { Some("engine_id".to_owned()) } else { metric_name(text) }
}

/// A named metric that `metric` is a near miss of: an extra metric of that name is possible, but unlikely to be meant.
pub(super) fn metric_slip(metric: &str) -> Option<&'static str> {
    if NAMED_METRICS.contains(&metric) { None } else { nearest(metric, NAMED_METRICS) }
}

/// What is wrong with the URL of a source or receiver.
pub(super) fn http_url_fault(text: &str) -> Option<Wrong> {
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => return Some(Wrong::hint(format!("not a URL: {error}"), "write http://HOST/PATH or https://HOST/PATH")),
    };
    if !matches!(url.scheme(), "http" | "https") {
        return Some(Wrong::hint(format!("scheme \"{}\" is not served", url.scheme()), "write http:// or https://"));
    }
    if url.fragment().is_some() {
        return Some("a URL that is asked has no fragment; remove the part from # on".into());
    }
    None
}

/// What is wrong with the URL of the store.
pub(super) fn store_url_fault(text: &str) -> Option<Wrong> {
    if let Some(path) = text.strip_prefix("sqlite://") {
        return sqlite_path_fault(path);
    }
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    if !matches!(scheme, "postgres" | "postgresql") {
        let what = if scheme.is_empty() { "has no scheme".to_owned() } else { format!("scheme {:?} is not served", short(scheme)) };
        return Some(Wrong::hint(what, "write sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE"));
    }
    let (address, query) = text.split_once('?').unwrap_or((text, ""));
    // libpq takes several hosts (`h1:5432,h2:5432`), which no other URL does.
    if !address.contains(',')
        && let Err(error) = Url::parse(address)
    {
        return Some(Wrong::hint(format!("not a URL: {error}"), "write postgres://USER:PASSWORD@HOST/DATABASE"));
    }
    let tls = query
        .split('&')
        .any(|pair| matches!(pair, "sslmode=require" | "sslmode=verify-ca" | "sslmode=verify-full" | "requiressl=1"));
    if tls && !cfg!(feature = "postgres-tls") {
        return Some(Wrong::hint(
            "this build has no TLS to PostgreSQL",
            "build with --features postgres-tls, or use a local socket or tunnel",
        ));
    }
    None
}

/// What keeps a text from being a URL of Redis; never the text itself.
pub(super) fn redis_url_fault(text: &str) -> Option<Wrong> {
    const HINT: &str = "write redis://USER:PASSWORD@HOST:PORT/DB, or rediss:// for TLS";
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => return Some(Wrong::hint(format!("not a URL: {error}"), HINT)),
    };
    if !matches!(url.scheme(), "redis" | "rediss") {
        return Some(Wrong::hint(format!("scheme {:?} is not served", short(url.scheme())), HINT));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Some(Wrong::hint("names no host", HINT));
    }
    let db = url.path().trim_start_matches('/');
    if !db.is_empty() && db.parse::<u16>().is_err() {
        return Some(Wrong::hint("what follows the host is no number of a database", HINT));
    }
    url.fragment().map(|_| Wrong::hint("a URL of Redis has no #", HINT))
}

fn sqlite_path_fault(path: &str) -> Option<Wrong> {
    if path.is_empty() {
        return Some(Wrong::hint("names no file", "write sqlite://PATH, for example sqlite://belayd-data/belayd.db"));
    }
    if path == ":memory:" {
        return Some(Wrong::hint("a database in memory keeps nothing", "write sqlite://PATH"));
    }
    None
}

fn short(text: &str) -> String {
    text.chars().take(20).collect()
}

/// What is wrong with an accepted Host header.
pub(super) fn host_fault(text: &str) -> Option<Wrong> {
    if text.contains("://") {
        return Some(Wrong::hint(format!("{text:?} is a URL"), "write the host name alone"));
    }
    let address = text.trim_start_matches('[').trim_end_matches(']');
    if address.parse::<std::net::IpAddr>().is_ok() {
        return None;
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && port.bytes().all(|b| b.is_ascii_digit())
    {
        return Some(Wrong::hint(format!("{text:?} has a port"), format!("did you mean \"{host}\"?")));
    }
    let good = text.len() <= 253 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if good { None } else { Some(format!("{text:?} is not a host name or address").into()) }
}

/// What is wrong with the secret that webhooks are signed with; never the secret itself.
pub(super) fn signing_secret_fault(text: &str) -> Option<Wrong> {
    let hint = "make one with: echo whsec_$(head -c 24 /dev/urandom | base64)";
    match signing_key(text) {
        None => Some(Wrong::hint("is not base64 behind whsec_", hint)),
        Some(key) if key.len() < SIGNING_KEY_MIN_BYTES => {
            Some(Wrong::hint(format!("is shorter than {SIGNING_KEY_MIN_BYTES} bytes, which can be guessed"), hint))
        }
        Some(_) => None,
    }
}

/// Shortest key that webhooks may be signed with.
const SIGNING_KEY_MIN_BYTES: usize = 16;

/// The key of a webhook's secret: what is behind `whsec_` is base64, anything else is the key itself.
pub fn signing_key(secret: &str) -> Option<Vec<u8>> {
    match secret.strip_prefix("whsec_") {
        Some(encoded) => STANDARD.decode(encoded).or_else(|_| STANDARD_NO_PAD.decode(encoded)).ok(),
        None => Some(secret.as_bytes().to_vec()),
    }
}

/// What is wrong with a list of brokers.
pub(super) fn brokers_fault(text: &str) -> Option<Wrong> {
    let hint = "write HOST:PORT, several separated by commas";
    for broker in text.split(',').map(str::trim) {
        if broker.contains("://") {
            return Some(Wrong::hint(format!("{broker:?} is a URL"), hint));
        }
        let Some((host, port)) = broker.rsplit_once(':') else {
            return Some(Wrong::hint(format!("{broker:?} has no port"), hint));
        };
        if host_fault(host).is_some() {
            return Some(Wrong::hint(format!("{host:?} is not a host name or address"), hint));
        }
        if !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Some(Wrong::hint(format!("{port:?} is not a port"), hint));
        }
    }
    None
}

/// What is wrong with a request header; its value is never repeated.
pub(super) fn header_fault(name: &str, value: &str) -> Option<Wrong> {
    if reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Some(format!("{name:?} is not a header name").into());
    }
    if RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
        return Some(Wrong::hint(format!("header {name:?} is set by belayd itself"), "remove it"));
    }
    reqwest::header::HeaderValue::from_str(value).err().map(|_| format!("header {name:?} has a value that cannot be sent").into())
}

/// Minutes after midnight.
pub(super) fn time_of_day(text: &str) -> Result<u16, String> {
    let parse = || {
        let (hours, minutes) = text.split_once(':')?;
        let digits = |part: &str| part.parse::<u16>().ok().filter(|_| part.len() == 2 && !part.starts_with('+'));
        let (hours, minutes) = (digits(hours)?, digits(minutes)?);
        (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
    };
    parse().ok_or_else(|| format!("{text:?} is not a time of day; write HH:MM, for example \"03:00\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_across_case_and_separators() {
        let known = ["batch_rows", "flush_interval", "memory_rows"];
        for (given, expected) in [
            ("batchrows", Some("batch_rows")),
            ("batchRows", Some("batch_rows")),
            ("batch-rows", Some("batch_rows")),
            ("flush_intervall", Some("flush_interval")),
            ("memroy_rows", Some("memory_rows")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, known), expected, "{given}");
        }
    }

    #[test]
    fn no_message_repeats_a_url() {
        for text in ["ftp://user:hunter2@host/", "http://user:hunter2@ho st/", "http://h/#hunter2", "hunter2"] {
            let wrong = http_url_fault(text).expect("a fault");
            assert!(!format!("{wrong:?}").contains("hunter2"), "{wrong:?}");
            let wrong = store_url_fault(text).expect("a fault");
            assert!(!format!("{wrong:?}").contains("hunter2"), "{wrong:?}");
        }
    }

    #[test]
    fn store_urls_are_sqlite_or_postgres() {
        for good in [
            "sqlite://a.db",
            "sqlite:///var/a.db",
            "postgres://u:p@h/db",
            "postgresql:///db?host=/run/postgresql",
            "postgres://u@h1:5432,h2:5432/db",
        ] {
            assert!(store_url_fault(good).is_none(), "{good}");
        }
        for bad in ["sqlite://", "sqlite://:memory:", "mysql://h/db", "a.db", "postgres://h:port/db"] {
            assert!(store_url_fault(bad).is_some(), "{bad}");
        }
        assert_eq!(store_url_fault("postgres://h/db?sslmode=require").is_none(), cfg!(feature = "postgres-tls"));
    }

    #[test]
    fn urls_of_redis_name_a_host_and_at_most_a_database() {
        for good in ["redis://h", "redis://:p@h:6380/3", "rediss://u:p@h/"] {
            assert!(redis_url_fault(good).is_none(), "{good}");
        }
        for bad in ["redis://", "http://u:hunter2@h", "h:6379", "redis://u:hunter2@h/x", "rediss://u:hunter2@h#insecure"] {
            let wrong = redis_url_fault(bad).expect("a fault");
            assert!(!format!("{wrong:?}").contains("hunter2"), "{wrong:?}");
        }
    }

    #[test]
    fn a_signing_secret_is_long_enough_and_never_repeated() {
        for good in ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "a secret of my own", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLQ"] {
            assert!(signing_secret_fault(good).is_none(), "{good}");
        }
        for bad in ["hunter2", "whsec_hunter2", "whsec_hunter2!hunter2!hunter2!"] {
            let wrong = signing_secret_fault(bad).expect("a fault");
            assert!(!format!("{wrong:?}").contains("hunter2"), "{wrong:?}");
        }
        assert_eq!(signing_key("whsec_AAEC").expect("base64"), [0, 1, 2]);
    }

    #[test]
    fn hosts_are_names_or_addresses_without_port() {
        for good in ["localhost", "127.0.0.1", "::1", "[::1]", "belayd.example.org"] {
            assert!(host_fault(good).is_none(), "{good}");
        }
        for bad in ["localhost:7070", "http://localhost", "*", "a b"] {
            assert!(host_fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_time_of_day_has_two_digits_each() {
        assert_eq!(time_of_day("03:30"), Ok(210));
        for bad in ["3:30", "24:00", "03:60", "0330", "+3:00", "03:30:00"] {
            assert!(time_of_day(bad).is_err(), "{bad}");
        }
    }
}
