//! From a checked draft to what is stored: the message, and one delivery for each recipient.

use serde::Serialize;
use uuid::Uuid;

use super::draft::Draft;
use crate::{
    config::Config,
    domain::time::rfc3339_us,
    store::{
        deliveries::NewDelivery,
        messages::{IdempotencyKey, NewMessage},
    },
};

/// What a delivery of a message carries. Sinks read it; the content of attachments is added just before the send.
#[derive(Serialize)]
struct Payload<'a> {
    message: Body<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    id: &'a str,
    subject: &'a str,
    body: &'a str,
    /// Where the sink itself is the receiver: to whom it was meant, for whoever reads it there. Each other delivery has its own recipient.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    to: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    html: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<Attached<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<&'a str>,
    from: &'a str,
    created_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Attached<'a> {
    name: &'a str,
    content_type: &'a str,
    bytes: usize,
    sha256: &'a str,
}

/// The message of a draft that `by` handed in.
pub(super) fn message(draft: Draft, by: &str, config: &Config, now_us: i64) -> NewMessage {
    let id = Uuid::now_v7().to_string();
    let keep_us = i64::try_from(config.retention.idempotency_keys.as_micros()).unwrap_or(i64::MAX);
    let key = draft.key.as_ref().map(|key| IdempotencyKey {
        key: key.clone(),
        content: draft.fingerprint(),
        valid_from_us: now_us.saturating_sub(keep_us),
    });
    let payload = payload(&draft, &id, by, now_us);
    // Where the sink itself is the receiver there is one delivery, to nobody in particular.
    let nobody = [String::new()];
    let recipients: &[String] = if draft.takes_recipients { &draft.to } else { &nobody };
    let deliveries = recipients
        .iter()
        .map(|recipient| NewDelivery {
            id: Uuid::now_v7().to_string(),
            sink: draft.via.clone(),
            lane: lane(recipient, &id),
            subject: id.clone(),
            payload: payload.clone(),
            // A time that has passed is now: what waits since then is none of ours.
            due_at_us: draft.send_at_us.map_or(now_us, |at_us| at_us.max(now_us)),
            max_attempts: config.outbox.max_attempts,
            on_unknown: config.messages.on_unknown,
            recipient: recipient.clone(),
        })
        .collect();
    NewMessage {
        id,
        via: draft.via,
        subject: draft.subject,
        body: draft.body,
        html: draft.html,
        reply_to: draft.reply_to,
        send_at_us: draft.send_at_us,
        created_by: by.to_owned(),
        attachments: draft.attachments,
        deliveries,
        key,
    }
}

/// What goes to one recipient leaves in its order; a sink that is the receiver itself need not wait for one message with the next.
pub fn lane(recipient: &str, message_id: &str) -> String {
    if recipient.is_empty() { message_id.to_owned() } else { format!("to:{recipient}") }
}

fn payload(draft: &Draft, id: &str, by: &str, now_us: i64) -> String {
    let attachments = draft
        .attachments
        .iter()
        .map(|a| Attached { name: &a.name, content_type: &a.content_type, bytes: a.content.len(), sha256: &a.sha256 })
        .collect();
    let message = Body {
        id,
        subject: &draft.subject,
        body: &draft.body,
        to: if draft.takes_recipients { &[] } else { &draft.to },
        html: draft.html.as_deref(),
        attachments,
        reply_to: draft.reply_to.as_deref(),
        from: by,
        created_at: rfc3339_us(now_us),
    };
    // Texts and numbers: this cannot fail.
    serde_json::to_string(&Payload { message }).unwrap_or_else(|_| "{}".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(send_at_us: Option<i64>) -> Draft {
        Draft {
            via: "hook".into(),
            takes_recipients: false,
            to: vec!["a@example.com".into(), "b@example.com".into()],
            subject: "s".into(),
            body: "b".into(),
            html: None,
            send_at_us,
            reply_to: None,
            attachments: Vec::new(),
            key: None,
        }
    }

    #[test]
    fn a_time_that_has_passed_is_now() {
        for (send_at_us, due_at_us) in [(None, 1_000), (Some(7), 1_000), (Some(-5), 1_000), (Some(1_001), 1_001)] {
            let made = message(draft(send_at_us), "kim", &Config::default(), 1_000);
            assert_eq!((made.deliveries[0].due_at_us, made.send_at_us), (due_at_us, send_at_us));
        }
    }

    #[test]
    fn a_sink_that_is_the_receiver_itself_has_one_delivery_and_is_told_for_whom_it_was_meant() {
        let made = message(draft(None), "kim", &Config::default(), 1);
        assert_eq!((made.deliveries.len(), made.deliveries[0].recipient.as_str()), (1, ""));
        assert!(made.deliveries[0].payload.contains(r#""to":["a@example.com","b@example.com"]"#), "{}", made.deliveries[0].payload);
        let each = message(Draft { takes_recipients: true, ..draft(None) }, "kim", &Config::default(), 1);
        assert_eq!(each.deliveries.len(), 2);
        assert!(each.deliveries.iter().all(|one| !one.payload.contains("@example.com")), "nobody is told of the others");
    }
}
