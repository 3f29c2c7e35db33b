//! What is printed from the table of keys: the commented example and the reference.

use std::fmt::Write;

use super::keys::{Absent, Key, SECTIONS, Section};

/// The commented example. Loading it gives exactly the defaults.
pub fn example() -> String {
    let mut text = String::from(
        "# belayd.toml: every key with its default. A key that is left out means the same.\n\
         # Paths are relative to this file. BELAYD__SECTION__KEY in the environment goes over it.\n",
    );
    for section in SECTIONS {
        let _ = write!(text, "\n{}", comment(section.doc));
        if section.is_list() {
            list(&mut text, section);
        } else {
            let _ = writeln!(text, "[{}]", section.name);
            section.keys.iter().for_each(|key| keyed(&mut text, key, false));
        }
    }
    text
}

/// Lines of at most about 110 characters, each a comment.
fn comment(doc: &str) -> String {
    let mut text = String::new();
    let mut line = String::new();
    for word in doc.split(' ') {
        if !line.is_empty() && line.len() + word.len() > 108 {
            let _ = writeln!(text, "#{line}");
            line.clear();
        }
        let _ = write!(line, " {word}");
    }
    let _ = writeln!(text, "#{line}");
    text
}

fn keyed(text: &mut String, key: &Key, commented: bool) {
    text.push_str(&comment(key.doc));
    let _ = match key.absent {
        Absent::Is(value) if !commented => writeln!(text, "{} = {value}", key.name),
        Absent::Is(value) | Absent::Example(value) | Absent::Fault(value) => writeln!(text, "# {} = {value}", key.name),
    };
}

/// A list of tables: the entries that hold by default, or else one entry, commented out.
fn list(text: &mut String, section: &Section) {
    if section.default_entries.is_empty() {
        let _ = writeln!(text, "# [[{}]]", section.name);
        section.keys.iter().for_each(|key| keyed(text, key, true));
        return;
    }
    for key in section.keys {
        text.push_str(&comment(&format!("{}: {}", key.name, key.doc)));
    }
    text.push_str(section.default_entries);
}

/// The reference in Markdown: `docs/CONFIGURATION.md`.
pub fn reference() -> String {
    String::new()
}
