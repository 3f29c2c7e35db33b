//! Which database it is, and the macro for diesel text that both understand but the enum cannot carry.

use std::fmt;

/// The databases that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// SQLite, built in.
    Sqlite,
    /// PostgreSQL, through libpq.
    Postgres,
}

impl Backend {
    /// The word in answers, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Runs the same diesel expression against the connection inside a [`Conn`](crate::store::Conn). The expression is compiled once
/// for each database, so everything that both of them can do is available: batch insert, `on_conflict`, `as_returning`.
///
/// ```ignore
/// on_backend!(conn, |c| diesel::insert_into(streams::table).values(&rows).on_conflict_do_nothing().execute(c))?;
/// ```
#[macro_export]
macro_rules! on_backend {
    ($conn:expr, |$c:ident| $body:expr) => {
        match $conn {
            $crate::store::Conn::Sqlite($c) => $body,
            $crate::store::Conn::Pg($c) => $body,
        }
    };
}
