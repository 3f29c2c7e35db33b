//! What can go wrong in a database, with a verdict: is it worth trying again?
//!
//! diesel hides the databases' own codes, so they are recovered here: from its error kind where it has one, else from the text.
//! SQLite is built in and its texts are fixed with it; PostgreSQL's are matched where its messages are English and otherwise fall
//! back to "other", which callers that must not lose anything (the drain) retry as well.

mod classes;

use std::fmt;

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use classes::class_of;
pub(super) use classes::{blames_row, is_triggers_own};

/// What a store function returns.
pub type StoreResult<T> = Result<T, StoreError>;

/// What kind of trouble it is; callers decide by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// The database cannot be reached, is starting, full, locked or read-only. It heals or is healed; nothing is wrong with the data.
    Unavailable,
    /// Another row or another writer was there first.
    Conflict,
    /// The database refuses this value, now and later.
    Invalid,
    /// The stream's cursor is not where this writer thinks; nothing was stored. Its position has to be asked for.
    Moved,
    /// There is no such row.
    NotFound,
    /// The database's files are damaged.
    Corrupt,
    /// Anything else, for example a missing table.
    Other,
}

/// A failure in the store. It holds no statement parameters and no URL, so it may be logged and shown to operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// What kind of trouble it is.
    pub kind: StoreErrorKind,
    /// SQLSTATE (`23505`) or SQLite's name for it (`SQLITE_BUSY`), where known.
    pub code: Option<String>,
    /// One sentence for a person.
    pub message: String,
    transient: bool,
}

impl StoreError {
    /// A failure of `kind`; only [`StoreErrorKind::Unavailable`] counts as transient.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, code: None, message: message.into(), transient: kind == StoreErrorKind::Unavailable }
    }

    /// The database cannot be reached.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Unavailable, message)
    }

    /// Another row, state or writer is in the way.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Conflict, message)
    }

    /// The stream's cursor stands elsewhere.
    pub fn moved(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Moved, message)
    }

    /// A value that can never be taken.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Invalid, message)
    }

    /// No such row.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::NotFound, message)
    }

    /// Anything else.
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Other, message)
    }

    /// A failure that the database named with `code`.
    pub fn from_code(code: &str, message: impl Into<String>) -> Self {
        let (kind, transient) = class_of(code).map_or((StoreErrorKind::Other, false), |class| (class.kind, class.transient));
        Self { kind, code: Some(code.to_owned()), message: message.into(), transient }
    }

    /// The same failure, its message preceded by what was being done.
    pub fn context(mut self, doing: &str) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// Whether a table or column is missing: the schema is older than this build, and its migrations are still to run.
    pub fn lacks_tables(&self) -> bool {
        match self.code.as_deref() {
            Some("42P01" | "42703") => true,
            Some("SQLITE_ERROR") => self.message.contains("no such table") || self.message.contains("no such column"),
            _ => false,
        }
    }

    /// Whether the same call may succeed later without anybody changing the data.
    pub fn is_transient(&self) -> bool {
        self.transient
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "{} ({code})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<DieselError> for StoreError {
    fn from(error: DieselError) -> Self {
        match error {
            DieselError::DatabaseError(kind, information) => {
                let mut message = information.message().trim().to_owned();
                if let Some(details) = information.details().map(str::trim).filter(|details| !details.is_empty()) {
                    // PostgreSQL's details of a constraint quote the values of the row: readings, never secrets.
                    message = format!("{message}: {details}");
                }
                match code_of_kind(kind, &message).or_else(|| code_of_text(&message)) {
                    Some(code) => Self::from_code(code, message),
                    None => Self::other(message),
                }
            }
            DieselError::NotFound => Self::not_found("no such row"),
            DieselError::BrokenTransactionManager => {
                Self::from_code("08006", "the connection broke within a transaction; nothing of it was stored")
            }
            DieselError::RollbackErrorOnCommit { commit_error, .. } => Self::from(*commit_error),
            DieselError::InvalidCString(_) => Self::from_code("22021", "a text contains a zero byte"),
            other => Self::other(other.to_string()),
        }
    }
}

impl From<diesel::ConnectionError> for StoreError {
    fn from(error: diesel::ConnectionError) -> Self {
        match error {
            diesel::ConnectionError::BadConnection(text) => {
                let text = text.trim().replace('\n', "; ");
                let code = code_of_text(&text);
                Self { kind: StoreErrorKind::Unavailable, code: code.map(str::to_owned), message: text, transient: true }
            }
            diesel::ConnectionError::CouldntSetupConfiguration(error) => Self::from(error),
            other => Self::unavailable(other.to_string()),
        }
    }
}

/// The code behind diesel's kinds. A unique violation has another name in each database: SQLite's text begins with `UNIQUE`.
fn code_of_kind(kind: DatabaseErrorKind, message: &str) -> Option<&'static str> {
    let sqlite = message.contains("constraint failed");
    Some(match kind {
        DatabaseErrorKind::UniqueViolation if sqlite => "SQLITE_CONSTRAINT_UNIQUE",
        DatabaseErrorKind::UniqueViolation => "23505",
        DatabaseErrorKind::ForeignKeyViolation if sqlite => "SQLITE_CONSTRAINT_FOREIGNKEY",
        DatabaseErrorKind::ForeignKeyViolation => "23503",
        DatabaseErrorKind::NotNullViolation if sqlite => "SQLITE_CONSTRAINT_NOTNULL",
        DatabaseErrorKind::NotNullViolation => "23502",
        DatabaseErrorKind::CheckViolation if sqlite => "SQLITE_CONSTRAINT_CHECK",
        DatabaseErrorKind::CheckViolation => "23514",
        DatabaseErrorKind::RestrictViolation => "23001",
        DatabaseErrorKind::ExclusionViolation => "23P01",
        DatabaseErrorKind::SerializationFailure => "40001",
        DatabaseErrorKind::ReadOnlyTransaction => "25006",
        DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => "08006",
        _ => return None,
    })
}

/// Texts and the codes they stand for; the first that occurs in the message wins.
const TEXTS: &[(&str, &str)] = &[
    // SQLite, fixed by the built-in version.
    ("database is locked", "SQLITE_BUSY"),
    ("database table is locked", "SQLITE_LOCKED"),
    ("database schema is locked", "SQLITE_LOCKED"),
    ("database or disk is full", "SQLITE_FULL"),
    ("disk I/O error", "SQLITE_IOERR"),
    ("unable to open database file", "SQLITE_CANTOPEN"),
    ("attempt to write a readonly database", "SQLITE_READONLY"),
    ("database disk image is malformed", "SQLITE_CORRUPT"),
    ("file is not a database", "SQLITE_NOTADB"),
    ("string or blob too big", "SQLITE_TOOBIG"),
    ("datatype mismatch", "SQLITE_MISMATCH"),
    ("cannot store ", "SQLITE_CONSTRAINT_DATATYPE"),
    ("constraint failed", "SQLITE_CONSTRAINT"),
    ("no such table", "SQLITE_ERROR"),
    // PostgreSQL.
    ("due to statement timeout", "57014"),
    ("due to lock timeout", "55P03"),
    ("canceling statement due to user request", "57014"),
    ("deadlock detected", "40P01"),
    ("could not serialize access", "40001"),
    ("terminating connection", "57P01"),
    ("the database system is", "57P03"),
    ("too many clients", "53300"),
    ("too many connections", "53300"),
    ("remaining connection slots", "53300"),
    ("No space left on device", "53100"),
    ("could not extend file", "53100"),
    ("could not write", "58030"),
    ("out of shared memory", "53200"),
    ("out of memory", "53200"),
    ("in a read-only transaction", "25006"),
    ("authentication failed", "28P01"),
    ("no pg_hba.conf entry", "28000"),
    ("invalid byte sequence", "22021"),
    ("value too long", "22001"),
    ("out of range", "22003"),
    ("invalid page", "XX001"),
    ("could not read block", "XX001"),
    ("server closed the connection", "08006"),
    ("could not receive data", "08006"),
    ("could not send data", "08006"),
    ("Connection refused", "08001"),
    ("timeout expired", "08001"),
    ("could not translate host name", "08001"),
];

fn code_of_text(message: &str) -> Option<&'static str> {
    TEXTS.iter().find(|(text, _)| message.contains(text)).map(|(_, code)| *code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database_error(kind: DatabaseErrorKind, text: &str) -> StoreError {
        DieselError::DatabaseError(kind, Box::new(text.to_owned())).into()
    }

    #[test]
    fn an_outage_is_transient_and_a_bad_value_is_not() {
        let cases = [
            ("database is locked", StoreErrorKind::Unavailable, true),
            ("database or disk is full", StoreErrorKind::Unavailable, true),
            ("database disk image is malformed", StoreErrorKind::Corrupt, false),
            ("NOT NULL constraint failed: readings.engine_id", StoreErrorKind::Invalid, false),
            ("canceling statement due to statement timeout", StoreErrorKind::Other, true),
            ("invalid byte sequence for encoding \"UTF8\": 0x00", StoreErrorKind::Invalid, false),
            ("terminating connection due to administrator command", StoreErrorKind::Unavailable, true),
            ("relation \"readings\" does not exist", StoreErrorKind::Other, false),
        ];
        for (text, kind, transient) in cases {
            let error = database_error(DatabaseErrorKind::Unknown, text);
            assert_eq!((error.kind, error.is_transient()), (kind, transient), "{text}");
        }
    }

    #[test]
    fn a_unique_violation_is_a_conflict_in_either_database() {
        let sqlite = database_error(DatabaseErrorKind::UniqueViolation, "UNIQUE constraint failed: streams.stream");
        let postgres = database_error(DatabaseErrorKind::UniqueViolation, "duplicate key value violates unique constraint");
        assert_eq!(sqlite.kind, StoreErrorKind::Conflict);
        assert_eq!(postgres.kind, StoreErrorKind::Conflict);
        assert_eq!(sqlite.code.as_deref(), Some("SQLITE_CONSTRAINT_UNIQUE"));
        assert_eq!(postgres.code.as_deref(), Some("23505"));
    }
}
