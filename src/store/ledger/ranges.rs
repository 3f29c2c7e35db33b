//! Numbers within one ledger row, as short text: `3,7-9,40` counts from the row's first number.

/// Ascending ranges of offsets, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Ranges(Vec<(i64, i64)>);

impl Ranges {
    /// The offsets of ascending `numbers` from `first`.
    pub(in crate::store) fn from_sorted(first: i64, numbers: &[i64]) -> Self {
        let mut ranges: Vec<(i64, i64)> = Vec::new();
        for offset in numbers.iter().map(|number| number - first) {
            match ranges.last_mut() {
                Some((_, end)) if *end + 1 == offset => *end = offset,
                _ => ranges.push((offset, offset)),
            }
        }
        Self(ranges)
    }

    /// The text; `None` where there is nothing to say.
    pub(in crate::store) fn text(&self) -> Option<String> {
        let parts: Vec<String> =
            self.0.iter().map(|(start, end)| if start == end { start.to_string() } else { format!("{start}-{end}") }).collect();
        (!parts.is_empty()).then(|| parts.join(","))
    }

    /// Reads its own text; parts that are none are left out.
    pub(in crate::store) fn parse(text: &str) -> Self {
        let range = |part: &str| {
            let (start, end) = part.split_once('-').unwrap_or((part, part));
            Some((start.parse().ok()?, end.parse().ok()?))
        };
        Self(text.split(',').filter_map(range).collect())
    }

    /// First and last number of each, where the row begins at `first`.
    pub(in crate::store) fn numbers(&self, first: u64) -> Vec<(u64, u64)> {
        self.0.iter().map(|(start, end)| (first + start.unsigned_abs(), first + end.unsigned_abs())).collect()
    }

    /// Whether `offset` lies in one of them.
    pub(in crate::store) fn contains(&self, offset: i64) -> bool {
        let after = self.0.partition_point(|(start, _)| *start <= offset);
        after > 0 && self.0[after - 1].1 >= offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_survive_their_text_and_find_what_they_hold() {
        let ranges = Ranges::from_sorted(100, &[103, 107, 108, 109, 140]);
        assert_eq!(ranges.text().as_deref(), Some("3,7-9,40"));
        let read = Ranges::parse("3,7-9,40");
        assert_eq!(read, ranges);
        let held: Vec<i64> = (0..50).filter(|offset| read.contains(*offset)).collect();
        assert_eq!(held, [3, 7, 8, 9, 40]);
        assert_eq!(read.numbers(100), [(103, 103), (107, 109), (140, 140)]);
        assert_eq!(Ranges::from_sorted(1, &[]).text(), None);
    }
}
