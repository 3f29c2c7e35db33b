//! One event as one line: logfmt, JSON, or logfmt for the journal. In: an entry. Out: bytes that end in the only line break.

use std::io::{self, Write};

use log::Level;
use serde_json::Value;

use super::entry::{Flat, LogEntry};
use crate::config::LogFormat;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineFormat {
    pub(super) format: LogFormat,
    /// systemd reads: a priority in front, and no time because the journal has its own.
    pub(super) journal: bool,
}

impl LineFormat {
    pub(super) fn write(self, out: &mut impl Write, entry: &LogEntry) -> io::Result<()> {
        if self.journal {
            write!(out, "<{}>", priority(entry.level))?;
        }
        match self.format {
            LogFormat::Logfmt => self.write_logfmt(out, entry),
            LogFormat::Json => {
                serde_json::to_writer(&mut *out, &Flat(entry))?;
                writeln!(out)
            }
        }
    }

    fn write_logfmt(self, out: &mut impl Write, entry: &LogEntry) -> io::Result<()> {
        if !self.journal {
            write!(out, "time={} ", entry.time())?;
        }
        write!(out, "level={} target=", entry.level_name())?;
        write_text(out, &entry.target)?;
        write!(out, " msg=")?;
        write_quoted(out, &entry.message)?;
        for (key, value) in entry.fields.iter() {
            write!(out, " ")?;
            write_key(out, key)?;
            write!(out, "=")?;
            match value {
                Value::String(text) => write_text(out, text)?,
                other => write!(out, "{other}")?,
            }
        }
        writeln!(out)
    }
}

/// syslog(3): 3 error, 4 warning, 6 informational, 7 debug.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// A name stays readable by every logfmt parser: what does not belong into one becomes `_`.
fn write_key(out: &mut impl Write, key: &str) -> io::Result<()> {
    if key.is_empty() {
        return write!(out, "_");
    }
    for c in key.chars() {
        let c = if c.is_alphanumeric() || matches!(c, '_' | '-' | '.') { c } else { '_' };
        write!(out, "{c}")?;
    }
    Ok(())
}

/// Bare where that is unambiguous, else quoted.
fn write_text(out: &mut impl Write, text: &str) -> io::Result<()> {
    let bare = |c: char| !(c.is_whitespace() || c.is_control() || matches!(c, '"' | '=' | '\\'));
    if !text.is_empty() && text.chars().all(bare) { write!(out, "{text}") } else { write_quoted(out, text) }
}

/// Quoted, with JSON's escapes; what some readers take for a line break (U+0085, U+2028, U+2029) is escaped too, and so are other
/// control characters, so that no text can forge a line or reach the terminal as a command.
fn write_quoted(out: &mut impl Write, text: &str) -> io::Result<()> {
    write!(out, "\"")?;
    for c in text.chars() {
        match c {
            '"' => write!(out, "\\\"")?,
            '\\' => write!(out, "\\\\")?,
            '\n' => write!(out, "\\n")?,
            '\r' => write!(out, "\\r")?,
            '\t' => write!(out, "\\t")?,
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => write!(out, "\\u{:04x}", u32::from(c))?,
            c => write!(out, "{c}")?,
        }
    }
    write!(out, "\"")
}

#[cfg(test)]
mod tests {
    use log::{Record, kv::Value as KvValue};

    use super::*;

    fn line(format: LogFormat, journal: bool, message: &str, pairs: &[(&str, KvValue<'_>)]) -> String {
        let entry = LogEntry::new(
            &Record::builder().args(format_args!("{message}")).target("belayd::outbox").key_values(&pairs).build(),
            1,
        );
        let mut out = Vec::new();
        LineFormat { format, journal }.write(&mut out, &entry).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn logfmt_quotes_what_needs_it() {
        let pairs = [
            ("deliveryId", "d-1".into()),
            ("attempt", 2_i32.into()),
            ("empty", "".into()),
            ("text", "a b".into()),
            ("eq", "a=b".into()),
            ("quote", "say \"hi\" \\".into()),
            ("bad key", true.into()),
        ];
        assert_eq!(
            line(LogFormat::Logfmt, false, "delivery sent", &pairs),
            "time=1970-01-01T00:00:00.000001Z level=info target=belayd::outbox msg=\"delivery sent\" deliveryId=d-1 attempt=2 \
             empty=\"\" text=\"a b\" eq=\"a=b\" quote=\"say \\\"hi\\\" \\\\\" bad_key=true\n"
        );
    }

    #[test]
    fn no_value_can_forge_a_second_line() {
        let evil = "x\nlevel=error\r\u{2028}\u{85}\u{1b}[2J";
        for format in [LogFormat::Logfmt, LogFormat::Json] {
            let text = line(format, false, evil, &[("reason", evil.into())]);
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(!text.contains('\u{1b}'), "{text}");
        }
    }

    #[test]
    fn json_is_flat_and_the_journal_gets_a_priority() {
        let text = line(LogFormat::Json, false, "sent", &[("attempt", 2_i32.into())]);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["attempt"], 2);
        assert_eq!(value["message"], "sent");
        assert!(line(LogFormat::Logfmt, true, "sent", &[]).starts_with("<6>level=info target=belayd::outbox msg=\"sent\"\n"));
        assert_eq!([Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace].map(priority), [3, 4, 6, 7, 7]);
    }

    /// Reads a quoted text back.
    fn unquote(text: &str) -> String {
        serde_json::from_str(text).unwrap()
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_one_line_and_can_be_read_back(text in "\\PC*|[\\x00-\\x7f]*|\\u{2028}.*", key in ".{0,12}") {
            let line = line(LogFormat::Logfmt, false, &text, &[(&key, "v".into())]);
            proptest::prop_assert_eq!(line.matches(['\n', '\r', '\u{2028}', '\u{85}']).count(), 1);
            let (_, rest) = line.trim_end().split_once(" msg=").unwrap();
            let (quoted, field) = rest.rsplit_once(' ').unwrap();
            proptest::prop_assert_eq!(unquote(quoted), text);
            proptest::prop_assert!(field.ends_with("=v"), "{}", field);
        }
    }
}
