//! Languages of the page: which one a browser asks for, and the table of texts of each.

use std::{collections::BTreeMap, sync::OnceLock};

/// A language that the page speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Lang {
    /// English, also where the browser asks for none that we have.
    #[default]
    En,
    /// Korean.
    Ko,
}

/// One text per key; every table has the same keys.
pub(super) type Texts = BTreeMap<String, String>;

impl Lang {
    /// Every language.
    pub const ALL: [Lang; 2] = [Self::En, Self::Ko];

    /// The language of highest weight in an `Accept-Language` header that the page speaks (RFC 9110, 12.5.4); of equal
    /// weights the first.
    pub fn from_accept_language(header: Option<&str>) -> Self {
        let mut best = (0.0, Self::default());
        for part in header.unwrap_or_default().split(',') {
            let mut fields = part.split(';');
            let tag = fields.next().unwrap_or_default().trim();
            let weight = fields.find_map(|field| field.trim().strip_prefix("q=")?.trim().parse::<f32>().ok()).unwrap_or(1.0);
            let primary = tag.split('-').next().unwrap_or_default();
            let known = Self::ALL.into_iter().find(|lang| primary.eq_ignore_ascii_case(lang.tag()));
            if let Some(lang) = known
                && weight > best.0
            {
                best = (weight, lang);
            }
        }
        best.1
    }

    /// The tag for `<html lang>` and `Content-Language`.
    pub fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Ko => "ko",
        }
    }

    /// The table of the overview as JSON, as its script reads it.
    pub(super) fn texts_json(self) -> &'static str {
        match self {
            Self::En => include_str!("text/en.json"),
            Self::Ko => include_str!("text/ko.json"),
        }
    }

    /// What the work pages say beside it. It stands apart because the overview is read more often and must stay light.
    fn work_json(self) -> &'static str {
        match self {
            Self::En => include_str!("text/work.en.json"),
            Self::Ko => include_str!("text/work.ko.json"),
        }
    }

    /// Both tables as one JSON object, as the scripts of the work pages read them.
    pub(super) fn all_texts_json(self) -> String {
        serde_json::to_string(self.texts()).unwrap_or_else(|_| "{}".into())
    }

    /// Both tables.
    pub(super) fn texts(self) -> &'static Texts {
        static EN: OnceLock<Texts> = OnceLock::new();
        static KO: OnceLock<Texts> = OnceLock::new();
        let cell = match self {
            Self::En => &EN,
            Self::Ko => &KO,
        };
        // The tables are part of the binary and a test parses them; were one unreadable, keys would stand for texts.
        let read = |json| serde_json::from_str::<Texts>(json).unwrap_or_default();
        cell.get_or_init(|| read(self.texts_json()).into_iter().chain(read(self.work_json())).collect())
    }

    /// The text of `key`, or the key itself where the table lacks it, so that a slip is seen and harms nothing.
    pub(super) fn text(self, key: &str) -> &str {
        self.texts().get(key).map_or(key, String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_browser_gets_the_language_it_weighs_highest_among_those_we_have() {
        for (header, lang) in [
            (None, Lang::En),
            (Some(""), Lang::En),
            (Some("ko"), Lang::Ko),
            (Some("ko-KR,ko;q=0.9,en;q=0.8"), Lang::Ko),
            (Some("en-GB, ko;q=0.9"), Lang::En),
            (Some("de, fr;q=0.9"), Lang::En),
            (Some("de, KO;q=0.1"), Lang::Ko),
            (Some("en;q=0.2, ko;q=0.7"), Lang::Ko),
            (Some("ko;q=0, de"), Lang::En),
            (Some("ko;q=nonsense"), Lang::Ko),
        ] {
            assert_eq!(Lang::from_accept_language(header), lang, "{header:?}");
        }
    }

    #[test]
    fn every_language_has_every_text_with_the_same_slots() {
        let slots = |text: &str| {
            let mut found: Vec<String> =
                text.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0.to_owned())).collect();
            found.sort();
            found
        };
        let english = Lang::En.texts();
        let korean = Lang::Ko.texts();
        for lang in Lang::ALL {
            let tables =
                [lang.texts_json(), lang.work_json()].map(|json| serde_json::from_str::<Texts>(json).expect("is JSON").len());
            assert!(tables.iter().all(|texts| *texts > 100), "{tables:?}");
            assert_eq!(lang.texts().len(), tables.iter().sum::<usize>(), "no key stands in both tables");
        }
        assert_eq!(english.keys().collect::<Vec<_>>(), korean.keys().collect::<Vec<_>>());
        for (key, text) in english {
            assert_eq!(slots(text), slots(&korean[key]), "{key}");
        }
    }

    #[test]
    fn what_is_dead_is_called_the_same_in_every_place() {
        let dead: Vec<&String> =
            Lang::En.texts().iter().filter(|(_, text)| text.to_lowercase().contains("dead")).map(|(key, _)| key).collect();
        assert!(dead.len() >= 5, "{dead:?}");
        assert!(dead.iter().all(|key| Lang::Ko.text(key).contains("처리 불가")), "{dead:?}");
    }
}
