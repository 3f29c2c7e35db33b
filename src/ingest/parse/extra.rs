//! Duty: the further metrics of one reading, gathered without an allocation each and written as canonical JSON: keys sorted,
//! numbers in their shortest form, no white space. The same metrics are thus the same text, whatever their order was.

use std::ops::Range;

use crate::domain::reading::EXTRA_MAX;

/// Why a further metric cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotAdded {
    TooMany,
    Duplicate,
}

/// Reused from reading to reading.
#[derive(Debug, Default)]
pub(super) struct Extras {
    names: String,
    items: Vec<(Range<usize>, f64)>,
    json: Vec<u8>,
}

impl Extras {
    pub(super) fn clear(&mut self) {
        self.names.clear();
        self.items.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds a metric whose name is valid and whose value is finite.
    pub(super) fn add(&mut self, name: &str, value: f64) -> Result<(), NotAdded> {
        if self.items.iter().any(|(range, _)| &self.names[range.clone()] == name) {
            return Err(NotAdded::Duplicate);
        }
        if self.items.len() == EXTRA_MAX {
            return Err(NotAdded::TooMany);
        }
        let start = self.names.len();
        self.names.push_str(name);
        self.items.push((start..self.names.len(), value));
        Ok(())
    }

    /// The text of the JSON object; `None` where there are no metrics.
    pub(super) fn json(&mut self) -> Option<&str> {
        if self.items.is_empty() {
            return None;
        }
        let Self { names, items, json } = self;
        items.sort_unstable_by(|(a, _), (b, _)| names[a.clone()].cmp(&names[b.clone()]));
        json.clear();
        for (range, value) in items.iter() {
            json.push(if json.is_empty() { b'{' } else { b',' });
            json.push(b'"');
            // Valid names need no escapes.
            json.extend_from_slice(names[range.clone()].as_bytes());
            json.extend_from_slice(b"\":");
            // Writing to memory does not fail.
            let _ = serde_json::to_writer(&mut *json, value);
        }
        json.push(b'}');
        std::str::from_utf8(json).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_does_not_depend_on_the_order() {
        let mut extras = Extras::default();
        for order in [["oil", "b", "a:1"], ["a:1", "oil", "b"]] {
            extras.clear();
            for name in order {
                assert_eq!(extras.add(name, if name == "oil" { 1e300 } else { 0.1 }), Ok(()));
            }
            assert_eq!(extras.json(), Some(r#"{"a:1":0.1,"b":0.1,"oil":1e+300}"#));
        }
    }

    #[test]
    fn repeats_and_the_thirty_third_are_refused() {
        let mut extras = Extras::default();
        assert_eq!(extras.json(), None);
        for number in 0..EXTRA_MAX {
            assert_eq!(extras.add(&format!("m{number}"), 1.0), Ok(()));
        }
        assert_eq!(extras.add("m0", 2.0), Err(NotAdded::Duplicate));
        assert_eq!(extras.add("m32", 2.0), Err(NotAdded::TooMany));
    }
}
