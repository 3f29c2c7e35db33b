//! Which fields of attachments stand twice. A JSON value keeps the last of them, and another reader might take the first: a second look at
//! the text finds them. In: the text of a message. Out: places and names. Nothing of the contents is kept.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// Index and name of each field that an attachment has more than once. Text of another shape has none: that is told by others.
pub(super) fn names(plain: &[u8]) -> Vec<(usize, String)> {
    #[derive(Deserialize)]
    struct Outer {
        #[serde(default)]
        attachments: Vec<Names>,
    }
    let Ok(Outer { attachments }) = serde_json::from_slice(plain) else { return Vec::new() };
    let twice = |Names(names): Names| {
        let mut seen = HashSet::new();
        names.into_iter().filter(move |name| !seen.insert(name.clone())).collect::<Vec<_>>()
    };
    attachments.into_iter().enumerate().flat_map(|(index, names)| twice(names).into_iter().map(move |name| (index, name))).collect()
}

/// The names of an object as they were written.
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an attachment")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some((name, IgnoredAny)) = map.next_entry()? {
                    names.push(name);
                }
                Ok(Names(names))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Names, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Names(Vec::new()))
            }
        }

        deserializer.deserialize_any(All)
    }
}
