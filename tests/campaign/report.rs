//! The report of a campaign as a page for people.

use std::fmt::Write;

use super::part::Part;

/// The page.
pub fn markdown(seed: u64, parts: &[Part]) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "| part | faults | what | took |\n|---|---|---|---|");
    for part in parts {
        let _ = writeln!(text, "| {} | {} | {:?} | {:.0} s |", part.name, part.done, part.counts, part.took.as_secs_f64());
    }
    for part in parts {
        for note in &part.notes {
            let _ = writeln!(text, "- {note}");
        }
        for note in &part.left_out {
            let _ = writeln!(text, "- left out in {}: {note}", part.name);
        }
    }
    let _ = writeln!(text, "seed {seed}");
    text
}
