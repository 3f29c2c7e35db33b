//! Duty: NDJSON, one reading a line. A broken line is refused by itself; a last line that is cut refuses the whole body, because
//! its sender did not get to the end.

use super::{
    json::{Fault, Scanner, Syntax},
    parse::{Collector, describe},
    reason::{BodyError, Reason},
};

/// Reads every line of `body` into `collector`. Blank lines do not count as items, but as lines in messages.
pub(super) fn read(body: &[u8], collector: &mut Collector<'_>) -> Result<(), BodyError> {
    let mut lines = body.split(|byte| *byte == b'\n').enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        // What follows the last line break is a line that has not ended.
        let unended = lines.peek().is_none();
        collector.begin_item()?;
        let place = || format!("line {}", number + 1);
        let text = match std::str::from_utf8(line) {
            Ok(text) => text,
            Err(error) if unended && error.error_len().is_none() => return Err(cut(&place())),
            Err(error) => {
                let column = error.valid_up_to() + 1;
                collector.refuse(Reason::BadEncoding, format!("{}, byte {column}: not UTF-8", place()));
                continue;
            }
        };
        match read_line(text, collector) {
            Ok(()) => {}
            Err(Syntax { fault: Fault::Cut, .. }) if unended => return Err(cut(&place())),
            Err(Syntax { fault: Fault::Cut, .. }) => {
                collector.refuse(Reason::BadJson, format!("{}: the line ends inside a value", place()));
            }
            Err(syntax) => {
                let (code, message) = describe(syntax, text);
                collector.refuse(code, format!("{}, {message}", place()));
            }
        }
    }
    Ok(())
}

fn read_line(text: &str, collector: &mut Collector<'_>) -> Result<(), Syntax> {
    let mut scanner = Scanner::new(text);
    let item = collector.read(&mut scanner)?;
    if scanner.peek().is_some() {
        return Err(scanner.wrong("the end of the line after the reading"));
    }
    collector.settle(item);
    Ok(())
}

fn cut(place: &str) -> BodyError {
    BodyError::new(Reason::CutBody, format!("{place} ends inside a value and without a line break: the body is cut"))
}
