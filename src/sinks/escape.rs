//! Making text safe for the place where it is shown: a header's line, Slack's mrkdwn, Discord's Markdown. Pure.

/// Longest subject, characters.
pub(super) const SUBJECT_MAX_CHARS: usize = 200;

/// One line without anything that a header or a terminal would act upon, and no longer than so many characters.
pub(super) fn one_line(text: &str, max_chars: usize) -> String {
    let mut line = String::with_capacity(text.len().min(max_chars * 4));
    for c in text.chars() {
        match c {
            c if is_invisible(c) => {}
            c if c.is_whitespace() || c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                if !line.ends_with(' ') && !line.is_empty() {
                    line.push(' ');
                }
            }
            c => line.push(c),
        }
    }
    cut(line.trim_end(), max_chars)
}

/// Marks that turn the order of letters round, or cannot be seen: in a subject they only deceive.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// At most so many characters; what is cut off is marked.
pub(super) fn cut(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        None => text.to_owned(),
        Some(_) => text.chars().take(max_chars.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// For Slack's mrkdwn: the three characters that it takes for its own, so that nobody is called (`<!channel>`) and no link is made.
pub(super) fn mrkdwn(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            c => safe.push(c),
        }
    }
    safe
}

/// For Discord's Markdown: whatever would format, quote, list, link or mention.
pub(super) fn markdown(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 16);
    let mut line_begins = true;
    for c in text.chars() {
        let always = matches!(c, '\\' | '*' | '_' | '~' | '`' | '|' | '<' | '>' | '[' | ']' | '(' | ')' | '@');
        let first = line_begins && matches!(c, '#' | '-' | '+');
        if always || first {
            safe.push('\\');
        }
        safe.push(c);
        line_begins = c == '\n' || line_begins && c.is_whitespace();
    }
    safe
}

/// Pieces of at most so many characters, cut at the ends of lines where there are some, else anywhere but within an entity (`&amp;`); at
/// most so many pieces, the last of which says that there was more.
pub(super) fn pieces(text: &str, max_chars: usize, most: usize) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    let mut rest = text.trim_end();
    while !rest.is_empty() {
        if pieces.len() + 1 == most && rest.chars().nth(max_chars).is_some() {
            let end = end_of(rest, max_chars.saturating_sub(1));
            pieces.push(format!("{}…", &rest[..end]));
            break;
        }
        let end = end_of(rest, max_chars);
        pieces.push(rest[..end].trim_end().to_owned());
        rest = rest[end..].trim_start_matches('\n');
    }
    pieces
}

/// Where a piece of at most so many characters ends; never 0 for a text that has a character.
fn end_of(text: &str, max_chars: usize) -> usize {
    let Some((end, _)) = text.char_indices().nth(max_chars.max(1)) else { return text.len() };
    let piece = &text[..end];
    if let Some(line) = piece.rfind('\n').filter(|line| *line > 0) {
        return line;
    }
    // The longest entity that is written here has five characters.
    match piece.rfind('&') {
        Some(at) if at > 0 && end - at < 6 && !piece[at..].contains(';') => at,
        _ => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_is_in_it() {
        assert_eq!(one_line("a\r\nBcc: x@y\r\n\r\nbody", 99), "a Bcc: x@y body");
        assert_eq!(one_line("\u{0}a\u{2028}b\u{85}c\u{202e}d\t\u{200b}e\u{7}", 99), "a b cd e");
        assert_eq!(one_line("  온도가   높음  ", 99), "온도가 높음");
        assert_eq!(one_line("가나다라마", 4), "가나다…");
        assert_eq!(one_line("", 4), "");
    }

    #[test]
    fn nobody_is_called_and_nothing_is_linked() {
        assert_eq!(mrkdwn("<!channel> a & b <http://x|y>"), "&lt;!channel&gt; a &amp; b &lt;http://x|y&gt;");
        assert_eq!(
            markdown("@everyone **x** [a](http://b)\n# h\n- l\n engine-1"),
            "\\@everyone \\*\\*x\\*\\* \\[a\\]\\(http://b\\)\n\\# h\n\\- l\n engine-1"
        );
        assert_eq!(markdown("a\\"), "a\\\\");
    }

    #[test]
    fn pieces_hold_everything_up_to_the_bound_and_never_half_an_entity() {
        assert_eq!(pieces("one\ntwo\nthree", 8, 9), ["one\ntwo", "three"]);
        assert_eq!(pieces("aaaa&amp;bbbb", 6, 9), ["aaaa", "&amp;b", "bbb"]);
        assert_eq!(pieces("abcdef", 2, 2), ["ab", "c…"]);
        assert_eq!(pieces("", 2, 2), Vec::<String>::new());
        for max in 1..12 {
            let all = pieces("가나&lt;다라\n마바&gt;", max, 100);
            assert!(all.iter().all(|piece| piece.chars().count() <= max.max(1)), "{max}: {all:?}");
        }
    }
}
