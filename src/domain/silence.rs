//! Silences: which alerts are not told for a while, and by whose word. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::alert::{Alert, AlertKind, Labels, Level};

/// Longest silence: a year. What should never be told is a matter of routes.
pub const LONGEST_US: i64 = 366 * 86_400 * 1_000_000;
/// Longest pattern, in characters.
pub const PATTERN_MAX_CHARS: usize = 200;
/// Most labels in one silence.
pub const LABELS_MAX: usize = 16;

/// What an alert must be to be meant; what is left out matches everything. In texts `*` stands for any characters, also none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Matchers {
    /// Rule or system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<AlertKind>,
    /// The rule's name, or the system condition's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The engine id, or the part of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The level, exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// Labels that must be there, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
}

impl Matchers {
    /// Whether nothing is asked for, so that every alert would be meant.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this alert is meant.
    pub fn matches(&self, alert: &Alert) -> bool {
        self.kind.is_none_or(|kind| kind == alert.kind)
            && self.level.is_none_or(|level| level == alert.level)
            && self.name.as_deref().is_none_or(|pattern| glob(pattern, &alert.name))
            && self.subject.as_deref().is_none_or(|pattern| glob(pattern, &alert.subject))
            && has_labels(&self.labels, &alert.labels)
    }

    /// What is wrong with it: field and reason; `None` where it can be taken.
    pub fn fault(&self) -> Option<(&'static str, String)> {
        if self.is_empty() {
            let reason = "must say which alerts are meant; for all of them write \"name\": \"*\"".to_owned();
            return Some(("matchers", reason));
        }
        if self.labels.len() > LABELS_MAX {
            return Some(("matchers.labels", format!("more than {LABELS_MAX} labels")));
        }
        let texts = [("matchers.name", self.name.as_deref()), ("matchers.subject", self.subject.as_deref())];
        let texts = texts.into_iter().filter_map(|(field, text)| Some((field, text?)));
        let labels = self.labels.iter().flat_map(|(name, value)| [("matchers.labels", &**name), ("matchers.labels", &**value)]);
        texts.chain(labels).find_map(|(field, text)| Some((field, pattern_fault(text)?)))
    }
}

fn pattern_fault(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("must not be empty".into());
    }
    if text.chars().count() > PATTERN_MAX_CHARS {
        return Some(format!("longer than {PATTERN_MAX_CHARS} characters"));
    }
    text.chars().any(char::is_control).then(|| "must not contain control characters".into())
}

/// Whether every wanted label is there with a value that fits; `*` in the wanted value stands for any characters.
pub fn has_labels(wanted: &Labels, there: &Labels) -> bool {
    wanted.iter().all(|(name, pattern)| there.get(name).is_some_and(|value| glob(pattern, value)))
}

/// Whether `text` fits `pattern`, in which `*` stands for any characters, also none. In linear space, and in time of their product.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, taken)) = star {
            // The last star takes one character more.
            star = Some((at, taken + 1));
            (p, t) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::alert::AlertState;

    fn alert() -> Alert {
        Alert {
            id: "a".into(),
            kind: AlertKind::Rule,
            name: "overheat".into(),
            subject: "north-7".into(),
            level: Level::Warning,
            state: AlertState::Firing,
            opened_at_us: 1,
            acknowledged_at_us: None,
            acknowledged_by: None,
            resolved_at_us: None,
            value: None,
            threshold: None,
            text: String::new(),
            count: 1,
            labels: Labels::from([("site".into(), "north".into())]),
        }
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text, fits) in [
            ("", "", true),
            ("", "a", false),
            ("a", "a", true),
            ("a", "A", false),
            ("*", "", true),
            ("*", "anything", true),
            ("north-*", "north-", true),
            ("north-*", "north-7", true),
            ("north-*", "south-7", false),
            ("*-7", "north-7", true),
            ("*-7", "north-77", false),
            ("n*t*7", "north-7", true),
            ("n**7", "north-7", true),
            ("n*x*7", "north-7", false),
            ("a*ab", "aaab", true),
            ("*ü*", "Prüfstand", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn a_pattern_of_stars_costs_no_more_than_its_product_with_the_text() {
        let (pattern, text) = ("*a".repeat(100), "a".repeat(64) + "b");
        assert!(!glob(&pattern, &text));
    }

    #[test]
    fn what_is_asked_for_must_fit_and_what_is_left_out_fits() {
        let fits = |json: &str| serde_json::from_str::<Matchers>(json).expect("matchers").matches(&alert());
        assert!(fits("{}"));
        assert!(fits(r#"{"kind":"rule","name":"over*","subject":"north-*","level":"WARNING","labels":{"site":"n*h"}}"#));
        for other in [
            r#"{"kind":"system"}"#,
            r#"{"name":"over"}"#,
            r#"{"subject":"south-*"}"#,
            r#"{"level":"CRITICAL"}"#,
            r#"{"labels":{"site":"south"}}"#,
            r#"{"labels":{"room":"*"}}"#,
        ] {
            assert!(!fits(other), "{other}");
        }
    }

    #[test]
    fn a_silence_says_what_it_means() {
        assert_eq!(Matchers::default().fault().map(|(field, _)| field), Some("matchers"));
        let name = |text: &str| Matchers { name: Some(text.into()), ..Matchers::default() };
        assert_eq!(name("*").fault(), None);
        assert!(name("").fault().is_some() && name("a\nb").fault().is_some() && name(&"x".repeat(201)).fault().is_some());
        let labels = (0..17).map(|n| (n.to_string(), "*".to_owned())).collect();
        assert!(Matchers { labels, ..Matchers::default() }.fault().is_some());
    }
}
