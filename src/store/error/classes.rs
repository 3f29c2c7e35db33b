//! The verdict on each class of codes, for both databases: one table, which the code asks and `docs/DATABASE.md` shows.

use super::StoreErrorKind::{self, Conflict, Corrupt, Invalid, Other, Unavailable};

/// What a class of codes means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    /// Codes that begin so; the first class that fits wins.
    pub(super) prefix: &'static str,
    pub(super) kind: StoreErrorKind,
    /// Whether the same call may succeed later without anybody changing the data.
    pub(super) transient: bool,
    /// Whether it speaks of the row: then, and only then, a reading may become a dead letter.
    row: bool,
    #[cfg_attr(not(test), expect(dead_code, reason = "a test prints the reference page"))]
    meaning: &'static str,
}

const fn away(prefix: &'static str, kind: StoreErrorKind, meaning: &'static str) -> Class {
    Class { prefix, kind, transient: true, row: false, meaning }
}

const fn row(prefix: &'static str, kind: StoreErrorKind, meaning: &'static str) -> Class {
    Class { prefix, kind, transient: false, row: true, meaning }
}

const fn stuck(prefix: &'static str, kind: StoreErrorKind, meaning: &'static str) -> Class {
    Class { prefix, kind, transient: false, row: false, meaning }
}

/// SQLSTATE classes: PostgreSQL's documentation, appendix A. SQLite's result codes: <https://sqlite.org/rescode.html>.
const CLASSES: &[Class] = &[
    away("SQLITE_BUSY", Unavailable, "another connection holds the write lock"),
    away("SQLITE_LOCKED", Unavailable, "a table is locked"),
    away("SQLITE_FULL", Unavailable, "the disk is full"),
    away("SQLITE_IOERR", Unavailable, "the disk failed"),
    away("SQLITE_CANTOPEN", Unavailable, "the file cannot be opened"),
    away("SQLITE_READONLY", Unavailable, "the file is read-only"),
    away("SQLITE_NOMEM", Unavailable, "out of memory"),
    away("SQLITE_INTERRUPT", Unavailable, "the statement was interrupted"),
    away("SQLITE_PROTOCOL", Unavailable, "the locks of the write-ahead log are contended"),
    stuck("SQLITE_CORRUPT", Corrupt, "the file is damaged"),
    stuck("SQLITE_NOTADB", Corrupt, "the file is no database"),
    row("SQLITE_CONSTRAINT_UNIQUE", Conflict, "another row holds a unique value"),
    row("SQLITE_CONSTRAINT", Invalid, "a CHECK, NOT NULL, type or foreign key, or a trigger's `RAISE`"),
    row("SQLITE_MISMATCH", Invalid, "a value of the wrong type"),
    row("SQLITE_TOOBIG", Invalid, "a value that is too large"),
    stuck("SQLITE_ERROR", Other, "a missing table or column"),
    away("08", Unavailable, "the connection failed or broke"),
    stuck("0A", Other, "the server lacks a feature"),
    row("22", Invalid, "a value out of range or not of its type, a zero byte in a text"),
    row("23505", Conflict, "another row holds a unique value"),
    row("23", Invalid, "a CHECK, NOT NULL, foreign key or exclusion"),
    away("25006", Unavailable, "the server is read-only"),
    away("25P03", Unavailable, "the transaction idled too long"),
    away("28", Unavailable, "the sign-in was refused"),
    away("3D", Unavailable, "the database is missing"),
    away("40", Other, "a deadlock or a serialization failure"),
    stuck("42", Other, "a missing table, column or right"),
    away("53", Unavailable, "the disk is full, out of memory, too many connections"),
    row("54", Invalid, "a value too large for an index or a row"),
    away("55P03", Other, "a lock was not to be had in time"),
    away("57014", Other, "the statement took too long or was cancelled"),
    away("57", Unavailable, "the server stops, starts or crashed"),
    away("58", Unavailable, "the server's disk failed"),
    row("P0001", Invalid, "a trigger's `RAISE EXCEPTION`"),
    stuck("XX001", Corrupt, "a damaged table"),
    stuck("XX002", Corrupt, "a damaged index"),
    stuck("XX", Other, "a fault within the server"),
];

pub(super) fn class_of(code: &str) -> Option<&'static Class> {
    CLASSES.iter().find(|class| code.starts_with(class.prefix))
}

/// Whether a code speaks of the row that was written, and not of the database.
pub(in crate::store) fn blames_row(code: &str) -> bool {
    class_of(code).is_some_and(|class| class.row)
}

/// What SQLite says of itself where diesel hands out no code, beyond the texts that are known by name. What is none of these are the
/// words of a trigger's `RAISE`.
const SQLITES_OWN: &[&str] = &[
    "no such ",
    "has no column",
    "syntax error",
    "SQL logic error",
    "bad parameter or other API misuse",
    "too many SQL variables",
    "interrupted",
    "query aborted",
    "not authorized",
    "authorization denied",
    "access permission denied",
    "locking protocol",
    "database schema has changed",
    "abort due to ROLLBACK",
    "large file support",
    "unknown error",
    "unknown operation",
    "transaction",
    "savepoint",
    "prohibited",
    "unsafe use of",
    "malformed",
    "corrupt",
    "too many",
    "too complex",
    "out of memory",
    "out of range",
];

/// Whether SQLite's message can only be the words of a trigger.
pub(in crate::store) fn is_triggers_own(message: &str) -> bool {
    !message.is_empty() && !SQLITES_OWN.iter().any(|words| message.contains(words))
}

/// The table as Markdown, for `docs/DATABASE.md`.
#[cfg(test)]
fn reference() -> String {
    let mut text = String::from("| code | meaning | what becomes of the readings |\n|---|---|---|\n");
    for Class { prefix, kind, transient, row, meaning } in CLASSES {
        let fate = match (row, transient, kind) {
            (true, ..) => "the one row becomes a dead letter, its neighbours are stored",
            (_, true, _) => "they wait and are tried again",
            (_, _, Corrupt) => "they wait until the database is mended or restored",
            _ => "they wait until a person has mended the schema or the rights",
        };
        let more = if prefix.len() < 5 { "…" } else { "" };
        text.push_str(&format!("| `{prefix}{more}` | {meaning} | {fate} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_classes_are_those_of_the_code() {
        const BEGIN: &str = "<!-- error classes: printed from src/store/error/classes.rs -->\n";
        const END: &str = "<!-- end of error classes -->";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/DATABASE.md");
        let page = std::fs::read_to_string(path).expect("docs/DATABASE.md is there");
        let (before, rest) = page.split_once(BEGIN).expect("the place of the table");
        let (table, after) = rest.split_once(END).expect("its end");
        if std::env::var_os("BELAYD_WRITE_DOCS").is_some() {
            std::fs::write(path, format!("{before}{BEGIN}{}{END}{after}", reference())).expect("docs/ is writable");
            return;
        }
        assert_eq!(table, reference(), "print it anew with BELAYD_WRITE_DOCS=1");
    }

    #[test]
    fn nothing_that_passes_by_itself_can_become_a_dead_letter() {
        for class in CLASSES {
            assert!(!(class.transient && class.row), "{}", class.prefix);
            assert!(!(class.row && class.kind == Unavailable), "{}", class.prefix);
        }
        for code in
            ["40001", "40P01", "53100", "53300", "57014", "57P01", "08006", "25006", "SQLITE_FULL", "SQLITE_BUSY", "42P01", "ZZ"]
        {
            assert!(!blames_row(code), "{code}");
        }
        for code in ["22003", "22P05", "23505", "23514", "54000", "P0001", "SQLITE_CONSTRAINT_CHECK", "SQLITE_TOOBIG"] {
            assert!(blames_row(code), "{code}");
        }
    }

    #[test]
    fn no_class_hides_a_later_one() {
        for (n, class) in CLASSES.iter().enumerate() {
            let first = CLASSES.iter().position(|earlier| class.prefix.starts_with(earlier.prefix));
            assert_eq!(first, Some(n), "{} is never reached", class.prefix);
        }
    }

    #[test]
    fn a_triggers_words_are_told_from_sqlites_own() {
        assert!(is_triggers_own("rpm 666 is not wanted here"));
        for own in ["no such column: rpm", "table readings has no column named x", "interrupted", "near \"FROM\": syntax error", ""]
        {
            assert!(!is_triggers_own(own), "{own}");
        }
    }
}
