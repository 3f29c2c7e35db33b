//! A delivery as a mail. In: letter and templates. Out: sender, recipient and the bytes between DATA and the point. Pure but for the clock
//! in `Date` and the random boundary.

use lettre::{
    Address, Message,
    message::{
        Attachment, Body, Mailbox, MultiPart,
        header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue},
    },
};

use crate::{
    config::{SmtpConfig, parse_mailbox},
    domain::message::media_type_fault,
    sinks::{
        ErrorClass, Letter, SendError,
        content::Content,
        escape,
        templates::{Part, Templates},
    },
};

/// Longest name of an attachment, characters.
const FILE_NAME_MAX_CHARS: usize = 120;
/// What a mail is called whose template gave nothing.
const NO_SUBJECT: &str = "belayd";

/// A mail on its way.
pub(super) struct Composed {
    pub(super) from: Address,
    pub(super) to: Address,
    pub(super) bytes: Vec<u8>,
}

impl Composed {
    pub(super) fn is_ascii_envelope(&self) -> bool {
        [&self.from, &self.to].iter().all(|address| <Address as AsRef<str>>::as_ref(address).is_ascii())
    }
}

pub(super) fn compose(config: &SmtpConfig, templates: &Templates, letter: &Letter) -> Result<Composed, SendError> {
    let reject = |error_type, message: String| SendError { class: ErrorClass::Reject, error_type, message };
    let from = parse_mailbox(&config.from).map_err(|wrong| SendError {
        class: ErrorClass::Fatal,
        error_type: "sender",
        message: format!("smtp.from {wrong}"),
    })?;
    let to = recipient(config, letter).map_err(|message| reject("recipient", message))?;
    if letter.id.is_empty() || !letter.id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err(reject("invalid_id", format!("the delivery id {:?} cannot stand in a Message-ID", letter.id)));
    }
    let content = Content::read(letter);
    let subject = match templates.render(&content, Part::Subject)? {
        subject if subject.is_empty() => NO_SUBJECT.to_owned(),
        subject => subject,
    };
    let domain = from.email.domain().to_owned();
    let header = |name, value: &str| HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned());
    let mut builder = Message::builder()
        .from(from.clone())
        .to(to.clone())
        .subject(subject)
        .message_id(Some(format!("<{}@{domain}>", letter.id)))
        .raw_header(header("Auto-Submitted", "auto-generated"))
        .raw_header(header("Belayd-Delivery-Id", &letter.id));
    if letter.possible_repeat {
        builder = builder.raw_header(header("Belayd-Possible-Repeat", "true"));
    }
    let reply_to = content.reply_to().or(config.reply_to.as_deref());
    if let Some(reply_to) = reply_to.and_then(|text| parse_mailbox(text).ok()) {
        builder = builder.reply_to(reply_to);
    }
    // Mail programs show what belongs to one alert as one conversation.
    if let Some(alert) = content.alert_id.as_deref().filter(|id| id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')) {
        builder = builder.references(format!("<alert-{alert}@{domain}>"));
    }
    let message = builder.multipart(body(templates, &content, letter)?).map_err(|error| reject("compose", error.to_string()))?;
    let bytes = message.formatted();
    if !has_whole_lines(&bytes) {
        let message = "the mail has a carriage return or a line feed alone, behind which commands could hide; nothing was sent";
        return Err(reject("line_ends", message.to_owned()));
    }
    Ok(Composed { from: from.email, to: to.email, bytes })
}

/// Whether every line ends in CR LF and neither stands anywhere else. Servers that take one of them for a line's end see a mail's end
/// where another sees none.
fn has_whole_lines(bytes: &[u8]) -> bool {
    let mut before = 0;
    for byte in bytes {
        if (*byte == b'\n') != (before == b'\r') {
            return false;
        }
        before = *byte;
    }
    before != b'\r'
}

fn recipient(config: &SmtpConfig, letter: &Letter) -> Result<Mailbox, String> {
    let given = Some(letter.recipient.as_str()).filter(|recipient| !recipient.is_empty()).or(config.to.as_deref());
    let given = given.ok_or("the delivery names no recipient, and smtp.to is not set")?;
    parse_mailbox(given).map_err(|wrong| format!("the recipient {wrong}"))
}

/// Text and HTML as alternatives, with the attachments behind them.
fn body(templates: &Templates, content: &Content, letter: &Letter) -> Result<MultiPart, SendError> {
    let part = |part| templates.render(content, part).map(|text| plain_lines(&text));
    let texts = MultiPart::alternative_plain_html(part(Part::Text)?, part(Part::Html)?);
    if letter.attachments.is_empty() {
        return Ok(texts);
    }
    Ok(letter.attachments.iter().fold(MultiPart::mixed().multipart(texts), |whole, file| {
        let binary = || ContentType::parse("application/octet-stream").unwrap_or(ContentType::TEXT_PLAIN);
        // A type that would have the file taken apart as a mail of its own is none for a file.
        let kind = Some(&file.content_type).filter(|text| media_type_fault(text).is_none());
        let kind = kind.and_then(|text| ContentType::parse(text).ok()).unwrap_or_else(binary);
        whole.singlepart(Attachment::new(file_name(&file.name)).body(encoded(&file.content), kind))
    }))
}

/// Base64 whatever is in it: a file goes byte for byte, and nothing in it can be taken for a line of the dialogue.
fn encoded(content: &[u8]) -> Body {
    let encoding = ContentTransferEncoding::Base64;
    // Every content can stand in base64.
    Body::new_with_encoding(content.to_vec(), encoding).unwrap_or_else(|content| Body::dangerous_pre_encoded(content, encoding))
}

/// A carriage return alone is a line's end to some servers and not to others: nothing may hide behind that.
fn plain_lines(text: &str) -> String {
    let ended = text.replace("\r\n", "\n").replace('\r', "\n");
    // 0x0 is allowed in no mail.
    if ended.contains('\0') { ended.replace('\0', "\u{fffd}") } else { ended }
}

/// A name without a folder.
fn file_name(name: &str) -> String {
    let name: String =
        escape::one_line(name, FILE_NAME_MAX_CHARS).chars().map(|c| if "/\\\"".contains(c) { '_' } else { c }).collect();
    if name.is_empty() { "attachment".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_in_both_or_is_none() {
        for whole in ["", "a", "a\r\n", "a\r\n\r\nb", "\r\n.\r\n"] {
            assert!(has_whole_lines(whole.as_bytes()), "{whole:?}");
        }
        for broken in ["a\nb", "a\rb", "\n", "\r", "a\r\n.\n", "a\n.\r\n", "a\r\r\n", "a\r\n\n", "a\n\r"] {
            assert!(!has_whole_lines(broken.as_bytes()), "{broken:?}");
        }
    }
}
