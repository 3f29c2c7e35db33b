//! A message to people: its bounds, and how it stands, which is told by its deliveries alone.
//!
//! [`TELLING`] is the one place that says what the deliveries of a message make of it. `docs/STATES.md` draws the same table, and a test
//! keeps them equal.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{ack::UnknownWord, delivery::DeliveryState};

/// Most recipients of one message; each has a delivery of its own.
pub const MAX_RECIPIENTS: usize = 100;
/// Longest subject, in characters.
pub const MAX_SUBJECT_CHARS: usize = 200;
/// Most bytes of a body and its HTML form together.
pub const MAX_BODY_BYTES: usize = 1_000_000;
/// Most bytes of text over all deliveries of one message: each carries the text, so that each can be sent, shown and edited by itself.
pub const MAX_TEXT_BYTES: usize = 16_000_000;
/// Most attachments of one message.
pub const MAX_ATTACHMENTS: usize = 10;
/// Most bytes of all attachments of one message.
pub const MAX_ATTACHMENT_BYTES: usize = 5_000_000;
/// Longest name of an attachment, in characters.
pub const MAX_NAME_CHARS: usize = 200;
/// Longest recipient that is no mail address (a room), in characters.
pub const MAX_RECIPIENT_CHARS: usize = 200;
/// Longest idempotency key, in characters.
pub const MAX_KEY_CHARS: usize = 255;
/// How far ahead a message may be timed, microseconds: a year.
pub const MAX_AHEAD_US: i64 = 366 * 86_400 * 1_000_000;

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageStatus {
    /// Not due yet.
    Scheduled,
    /// Due; its turn has not come.
    Ready,
    /// Taken up by a worker.
    Sending,
    /// Everything that was not called off or given up has arrived.
    Sent,
    /// An attempt failed for now; another follows.
    Retry,
    /// Of a delivery nobody knows whether it arrived; a person decides.
    Uncertain,
    /// A delivery cannot be made; a person decides.
    Dead,
    /// Called off before anything was sent.
    Cancelled,
    /// Given up.
    Discarded,
}

/// What tells, the worst first: a message has the first of these of which it has a delivery. What waits for a person comes before what
/// is on its way, and that before what is over.
pub const TELLING: [(MessageStatus, &[DeliveryState]); 9] = [
    (MessageStatus::Dead, &[DeliveryState::Dead]),
    (MessageStatus::Uncertain, &[DeliveryState::Uncertain]),
    (MessageStatus::Retry, &[DeliveryState::Retry]),
    (MessageStatus::Sending, &[DeliveryState::Claimed, DeliveryState::Sending]),
    (MessageStatus::Ready, &[DeliveryState::Ready]),
    (MessageStatus::Scheduled, &[DeliveryState::Scheduled]),
    (MessageStatus::Sent, &[DeliveryState::Sent]),
    (MessageStatus::Discarded, &[DeliveryState::Discarded]),
    (MessageStatus::Cancelled, &[DeliveryState::Cancelled]),
];

/// How a message stands whose deliveries stand so. `None` where it has none any more: what is left of it is about to go.
pub fn status(states: &[DeliveryState]) -> Option<MessageStatus> {
    TELLING.iter().find(|(_, telling)| states.iter().any(|state| telling.contains(state))).map(|(status, _)| *status)
}

impl MessageStatus {
    /// Every status, in the order of [`TELLING`].
    pub const ALL: [MessageStatus; 9] = {
        let mut all = [Self::Dead; 9];
        let mut at = 0;
        while at < all.len() {
            all[at] = TELLING[at].0;
            at += 1;
        }
        all
    };

    /// The word in JSON and parameters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Ready => "ready",
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Retry => "retry",
            Self::Uncertain => "uncertain",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Discarded => "discarded",
        }
    }
}

impl fmt::Display for MessageStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for MessageStatus {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|status| status.as_str() == text);
        found.ok_or_else(|| UnknownWord::new(text, &Self::ALL.map(Self::as_str)))
    }
}

/// What is wrong with one line of text (a subject, a name, a room), in words.
pub fn line_fault(text: &str, max_chars: usize) -> Option<String> {
    if text.trim().is_empty() {
        return Some("is empty".to_owned());
    }
    if text.chars().count() > max_chars {
        return Some(format!("is longer than {max_chars} characters"));
    }
    let bad = text.chars().find(|c| is_no_line(*c))?;
    Some(format!("holds the control character U+{:04X}: it must be one line", u32::from(bad)))
}

/// Whether a character has no place in one line: it ends the line, or turns the order of what follows round, which only deceives.
pub fn is_no_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What is wrong with a text of several lines, in words.
pub fn text_fault(text: &str) -> Option<String> {
    if text.trim().is_empty() {
        return Some("is empty".to_owned());
    }
    if text.len() > MAX_BODY_BYTES {
        return Some(format!("is longer than {MAX_BODY_BYTES} bytes"));
    }
    let bad = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))?;
    Some(format!("holds the control character U+{:04X}; only tab and line breaks are taken", u32::from(bad)))
}

/// What is wrong with the name of an attachment, in words.
pub fn name_fault(name: &str) -> Option<String> {
    if let Some(fault) = line_fault(name, MAX_NAME_CHARS) {
        return Some(fault);
    }
    let path = name.contains(['/', '\\']) || matches!(name.trim(), "." | "..");
    path.then(|| "is a path; give the name of the file alone".to_owned())
}

/// What is wrong with a media type such as `application/pdf`, in words.
pub fn media_type_fault(text: &str) -> Option<String> {
    let token = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'!' | b'#' | b'$' | b'&' | b'-' | b'^' | b'_' | b'.' | b'+'))
    };
    let right = text.len() <= 127 && text.split_once('/').is_some_and(|(main, sub)| token(main) && token(sub));
    if !right {
        return Some("is no media type such as application/pdf".to_owned());
    }
    // Such a part is a mail within the mail: readers take it apart, and servers refuse one whose inside is none.
    let main = text.split('/').next().unwrap_or_default().to_ascii_lowercase();
    matches!(main.as_str(), "multipart" | "message").then(|| format!("is {main}/…, which is no file; use application/octet-stream"))
}

/// What is wrong with an idempotency key, in words.
pub fn key_fault(key: &str) -> Option<String> {
    if key.is_empty() || key.len() > MAX_KEY_CHARS {
        return Some(format!("must have 1 to {MAX_KEY_CHARS} characters"));
    }
    (!key.bytes().all(|b| b.is_ascii_graphic())).then(|| "may hold visible ASCII characters only".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The drawing in the documentation, read back: `| | status | states |` below its heading.
    fn drawn() -> Vec<(String, Vec<String>)> {
        let page = include_str!("../../docs/STATES.md");
        let (_, section) = page.split_once("# Status of a message").expect("the section is there");
        section
            .lines()
            .filter_map(|line| {
                let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
                let &[_, status, states, _] = cells.as_slice() else { return None };
                status.parse::<MessageStatus>().ok()?;
                Some((status.to_owned(), states.split(" or ").map(|state| state.trim_matches('`').to_owned()).collect()))
            })
            .collect()
    }

    #[test]
    fn the_drawing_has_the_table_of_the_code_in_its_order() {
        let coded: Vec<_> = TELLING
            .iter()
            .map(|(status, states)| (status.to_string(), states.iter().map(ToString::to_string).collect::<Vec<_>>()))
            .collect();
        assert_eq!(drawn(), coded);
    }

    #[test]
    fn every_state_of_a_delivery_tells_exactly_once() {
        let mut told: Vec<DeliveryState> = TELLING.iter().flat_map(|(_, states)| states.iter().copied()).collect();
        told.sort_unstable();
        let mut all = DeliveryState::ALL.to_vec();
        all.sort_unstable();
        assert_eq!(told, all);
    }

    #[test]
    fn every_set_of_states_has_the_status_of_the_worst_in_it() {
        assert_eq!(status(&[]), None);
        for set in 1_u32..1 << DeliveryState::ALL.len() {
            let mut states: Vec<DeliveryState> = DeliveryState::ALL
                .into_iter()
                .enumerate()
                .filter(|(bit, _)| set & (1 << bit) != 0)
                .map(|(_, state)| state)
                .collect();
            let found = status(&states).expect("a status");
            let rank = |wanted: DeliveryState| TELLING.iter().position(|(_, states)| states.contains(&wanted)).expect("tells");
            let worst = states.iter().map(|state| rank(*state)).min().expect("not empty");
            assert_eq!(found, TELLING[worst].0, "{states:?}");
            // Neither order nor number matters.
            states.reverse();
            states.extend(states.clone());
            assert_eq!(status(&states), Some(found));
            // Over only where every delivery is: nobody takes a message for done while something of it is on its way or undecided.
            let over = matches!(found, MessageStatus::Sent | MessageStatus::Discarded | MessageStatus::Cancelled);
            assert_eq!(over, states.iter().all(|state| state.is_final()), "{states:?}");
        }
    }

    #[test]
    fn words_read_back_as_the_status_that_they_name() {
        for status in MessageStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        assert!("lost".parse::<MessageStatus>().is_err());
    }

    #[test]
    fn what_could_become_a_header_or_a_path_is_refused() {
        for subject in
            ["", " \t", "a\r\nBcc: x@y", "a\nb", "a\u{0}b", "a\u{1b}[2J", "a\u{85}b", "a\u{2028}b", "a\u{202e}b", &"x".repeat(201)]
        {
            assert!(line_fault(subject, MAX_SUBJECT_CHARS).is_some(), "{subject:?}");
        }
        assert_eq!(line_fault("{{ 7 * 7 }} 점검 <b>✓</b>", MAX_SUBJECT_CHARS), None);
        for body in ["", "\n\n", "a\u{0}b", "a\u{7}", &"x".repeat(MAX_BODY_BYTES + 1)] {
            assert!(text_fault(body).is_some());
        }
        assert_eq!(text_fault("one\r\n\ttwo\n"), None);
        for name in ["../x", "a/b", "a\\b", "..", " . ", "a\nb", ""] {
            assert!(name_fault(name).is_some(), "{name:?}");
        }
        assert_eq!(name_fault("보고서 1.pdf"), None);
        for media in ["", "text", "text/", "/x", "text/plain; charset=x", "text/pl ain", "text/plain\r\nX: y", "a/b/c"] {
            assert!(media_type_fault(media).is_some(), "{media:?}");
        }
        for mail in ["multipart/mixed", "Multipart/Alternative", "message/rfc822", "MESSAGE/partial"] {
            assert!(media_type_fault(mail).is_some_and(|fault| fault.contains("no file")), "{mail}");
        }
        assert_eq!(media_type_fault("application/vnd.ms-excel"), None);
        for key in ["", "a b", "ä", "a\n", &"x".repeat(256)] {
            assert!(key_fault(key).is_some(), "{key:?}");
        }
        assert_eq!(key_fault("order-17/2026"), None);
    }
}
