//! Mail addresses, as far as they can be told right from their text: `local@domain`. Pure.
//!
//! Taken are the plain forms that every mail server takes. Quoted local parts and addresses in brackets are not: they are almost always
//! an attempt to have a header or a command understood otherwise.

/// Longest local part and longest address, in bytes (RFC 5321, 4.5.3.1).
const MAX_LOCAL: usize = 64;
const MAX_ADDRESS: usize = 254;
const MAX_LABEL: usize = 63;

/// What is wrong with an address, in words; `None` where nothing is.
pub fn fault(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("is empty");
    }
    if text.len() > MAX_ADDRESS {
        return Some("is longer than 254 bytes");
    }
    let Some((local, domain)) = text.rsplit_once('@') else {
        return Some("is no mail address: it has no @");
    };
    if local.is_empty() || local.len() > MAX_LOCAL || local.split('.').any(|atom| atom.is_empty() || !atom.bytes().all(is_atext)) {
        return Some(
            "is no mail address: before the @ stand 1 to 64 letters, digits and !#$%&'*+/=?^_`{|}~- with single dots between them",
        );
    }
    if !domain.is_ascii() {
        return Some("is no mail address that every server takes: write its domain in the xn-- form");
    }
    let label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !domain.split('.').all(label) {
        return Some("is no mail address: behind the @ stands the name of a host");
    }
    None
}

fn is_atext(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&b)
}

/// The form in which two spellings of an address or room are the same.
pub fn folded(text: &str) -> String {
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_addresses_are_taken() {
        for address in ["ops@example.com", "a.b+c@x-y.example", "root@localhost", "o'neil@example.com", "x@xn--bcher-kva.example"] {
            assert_eq!(fault(address), None, "{address}");
        }
    }

    #[test]
    fn what_is_no_address_or_could_mean_something_else_is_refused() {
        let long = format!("{}@example.com", "x".repeat(65));
        let longer = format!("x@{}example.com", "y.".repeat(130));
        for address in [
            "",
            "ops",
            "@example.com",
            "ops@",
            "a@b@c",
            "a b@example.com",
            ".a@example.com",
            "a.@example.com",
            "a..b@example.com",
            "a@-example.com",
            "a@example-.com",
            "a@example..com",
            "a@.com",
            "a@[127.0.0.1]",
            "\"a b\"@example.com",
            "<a@example.com>",
            "A <a@example.com>",
            "a@example.com, b@example.com",
            "a@example.com\r\nBcc: b@example.com",
            "a\u{0}@example.com",
            "a@exämple.com",
            "ä@example.com",
            "a@example.com ",
            "a(comment)@example.com",
            "a@exam_ple.com",
            "a\u{202e}@example.com",
            long.as_str(),
            longer.as_str(),
        ] {
            assert!(fault(address).is_some(), "{address:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_is_one_printable_word_with_one_at(text in ".{0,40}@.{0,40}") {
            if fault(&text).is_none() {
                prop_assert!(text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"' | b',' | b';' | b':' | b'\\')));
                prop_assert_eq!(text.matches('@').count(), 1);
            }
        }

        #[test]
        fn what_is_taken_the_mailer_takes_too(local in "[a-z0-9.+_-]{1,20}", domain in "[a-z0-9.-]{1,20}") {
            let address = format!("{local}@{domain}");
            if fault(&address).is_none() {
                prop_assert!(address.parse::<lettre::Address>().is_ok(), "{}", address);
            }
        }
    }
}
