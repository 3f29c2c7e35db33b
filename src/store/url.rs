//! Database URLs: which database they mean, what is wrong with them, and how they look without their secrets.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Backend, StoreError, StoreResult};

/// A database URL that has been understood.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// A file.
    Sqlite(PathBuf),
    /// A libpq connection URI, secrets included.
    Postgres(String),
}

impl Target {
    /// Understands `sqlite://PATH` and `postgres://…` (also `postgresql://…`).
    ///
    /// # Errors
    /// [`StoreErrorKind::Invalid`](super::StoreErrorKind::Invalid) for another scheme, a database in memory, or TLS that this
    /// build cannot do.
    pub fn parse(url: &str) -> StoreResult<Self> {
        if let Some(path) = url.strip_prefix("sqlite://") {
            if path.is_empty() || path == ":memory:" {
                return Err(StoreError::invalid("a SQLite store needs a file: sqlite://PATH"));
            }
            return Ok(Self::Sqlite(PathBuf::from(path)));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            if !cfg!(feature = "postgres-tls") && demands_tls(url) {
                return Err(StoreError::invalid(
                    "this build cannot speak TLS to PostgreSQL, which the URL's sslmode demands; build it with --features postgres-tls",
                ));
            }
            return Ok(Self::Postgres(url.to_owned()));
        }
        Err(StoreError::invalid("unknown database URL: expected sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE"))
    }

    /// Which database it is.
    pub fn backend(&self) -> Backend {
        match self {
            Self::Sqlite(_) => Backend::Sqlite,
            Self::Postgres(_) => Backend::Postgres,
        }
    }

    /// The URL without user, password and parameters other than harmless ones: fit for logs and answers.
    pub fn redacted(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite://{}", path.display()),
            Self::Postgres(url) => redact(url),
        }
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.redacted())
    }
}

/// The parameters of a URI, undecoded.
fn parameters(url: &str) -> impl Iterator<Item = (&str, &str)> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    query.split('&').filter_map(|pair| pair.split_once('='))
}

fn demands_tls(url: &str) -> bool {
    parameters(url).any(|(key, value)| {
        (key == "sslmode" && matches!(value, "require" | "verify-ca" | "verify-full")) || (key == "requiressl" && value == "1")
    })
}

/// Keeps scheme, user, hosts, database and `sslmode`; the password and all other parameters become `***`.
fn redact(url: &str) -> String {
    let (base, _) = url.split_once('?').unwrap_or((url, ""));
    let (scheme, rest) = base.split_once("://").unwrap_or(("postgres", base));
    // The last `@` ends the credentials: a password may contain one.
    let shown = match rest.rsplit_once('@') {
        Some((credentials, place)) => match credentials.split_once(':') {
            Some((user, _)) => format!("{user}:***@{place}"),
            None => format!("{credentials}@{place}"),
        },
        None => rest.to_owned(),
    };
    let kept: Vec<String> = parameters(url)
        .map(|(key, value)| match key {
            "sslmode" | "host" | "port" | "dbname" | "application_name" => format!("{key}={value}"),
            _ => format!("{key}=***"),
        })
        .collect();
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    format!("{scheme}://{shown}{query}")
}

/// What is wanted of `TCP_USER_TIMEOUT`, milliseconds: what the user has said, else as long as a statement may take, within reason.
pub(super) fn user_timeout_ms(url: &str, statement_timeout: Duration) -> u32 {
    // What TCP does by itself where somebody wants no bound of ours.
    const SYSTEMS_OWN: u32 = 924_600;
    let said = parameters(url).filter(|(key, _)| *key == USER_TIMEOUT).last().and_then(|(_, value)| value.parse::<u32>().ok());
    match said {
        Some(0) => SYSTEMS_OWN,
        Some(said) => said,
        None => statement_timeout.as_millis().clamp(5_000, 60_000) as u32,
    }
}

/// libpq's parameter for it.
const USER_TIMEOUT: &str = "tcp_user_timeout";

/// Adds what an unattended client needs and the user has not said: a bound on connecting, and a bound on how long a peer that
/// vanished without a word goes unnoticed. `user_timeout_ms` is always added: it names the socket, and is what the user said or hardly more.
pub(super) fn with_timeouts(url: &str, connect_timeout: Duration, user_timeout_ms: u32) -> String {
    // libpq counts in whole seconds and takes 1 for 2.
    let connect_s = connect_timeout.as_secs().max(2);
    let wanted = [
        ("connect_timeout", connect_s.to_string()),
        (USER_TIMEOUT, user_timeout_ms.to_string()),
        ("keepalives_idle", "5".to_owned()),
        ("keepalives_interval", "5".to_owned()),
        ("keepalives_count", "3".to_owned()),
        ("application_name", "belayd".to_owned()),
    ];
    let mut url = url.to_owned();
    for (key, value) in wanted {
        // Of one that is given twice libpq takes the last.
        if key == USER_TIMEOUT || !parameters(&url).any(|(given, _)| given == key) {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(key);
            url.push('=');
            url.push_str(&value);
        }
    }
    url
}

/// The URL of a SQLite file.
pub fn sqlite_url(path: &Path) -> String {
    format!("sqlite://{}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreErrorKind;

    #[test]
    fn a_url_is_shown_without_its_password_and_secret_parameters() {
        let cases = [
            ("postgres://me:secret@db:5432/x", "postgres://me:***@db:5432/x"),
            ("postgres://me:p@ss:w@db/x?sslmode=prefer&sslpassword=k", "postgres://me:***@db/x?sslmode=prefer&sslpassword=***"),
            ("postgres://me@db/x", "postgres://me@db/x"),
            ("postgresql:///x?password=s&host=%2Frun", "postgresql:///x?password=***&host=%2Frun"),
            ("postgres://a,b:5433/x", "postgres://a,b:5433/x"),
        ];
        for (url, shown) in cases {
            assert_eq!(Target::parse(url).expect(url).redacted(), shown);
        }
    }

    #[test]
    fn an_unknown_scheme_and_a_database_in_memory_are_refused() {
        for url in ["mysql://x", "sqlite://:memory:", "sqlite://", "belayd.db"] {
            assert_eq!(Target::parse(url).expect_err(url).kind, StoreErrorKind::Invalid, "{url}");
        }
    }

    #[cfg(not(feature = "postgres-tls"))]
    #[test]
    fn tls_that_the_build_cannot_do_is_a_clear_fault() {
        let error = Target::parse("postgres://db/x?sslmode=verify-full").expect_err("no TLS in this build");
        assert!(error.message.contains("postgres-tls"), "{error}");
        assert!(Target::parse("postgres://db/x?sslmode=prefer").is_ok());
    }

    #[test]
    fn time_outs_are_added_only_where_the_user_has_said_nothing() {
        let url = with_timeouts("postgres://db/x?connect_timeout=9", Duration::from_secs(3), 30_001);
        assert!(url.contains("connect_timeout=9") && !url.contains("connect_timeout=3"), "{url}");
        assert!(url.contains("&tcp_user_timeout=30001") && url.contains("keepalives_count=3"), "{url}");
        let wanted = |url| user_timeout_ms(url, Duration::from_secs(30));
        assert_eq!(wanted("postgres://db/x"), 30_000);
        assert_eq!(wanted("postgres://db/x?tcp_user_timeout=7000"), 7_000);
        assert_eq!(wanted("postgres://db/x?tcp_user_timeout=0"), 924_600);
    }
}
