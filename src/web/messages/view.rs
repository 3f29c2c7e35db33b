//! Messages as the API shows them.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{delivery::DeliveryState, message::MessageStatus, time::rfc3339_us},
    store::messages::{Head, Item, Message, MessageDelivery},
};

/// What became of a message that was handed in.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessageAnswer {
    /// Its name in the API
    pub id: String,
    /// scheduled, ready, sending, sent, retry, uncertain, dead, cancelled or discarded
    #[schema(value_type = String)]
    pub status: MessageStatus,
    /// One for each recipient
    pub deliveries: Vec<DeliveryShort>,
    /// Whether the same idempotencyKey had made it before
    pub repeated: bool,
}

/// A delivery in short.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryShort {
    /// The id that every attempt carries
    pub id: String,
    /// To whom; empty where the sink itself is the receiver
    pub recipient: String,
    /// Where it stands
    pub state: String,
}

impl DeliveryShort {
    /// As it stands.
    pub fn of(delivery: &MessageDelivery) -> Self {
        Self { id: delivery.id.clone(), recipient: delivery.recipient.clone(), state: word(delivery.state()) }
    }
}

fn word(state: Option<DeliveryState>) -> String {
    state.map_or("unknown", DeliveryState::as_str).to_owned()
}

/// A message as it is listed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageItem {
    id: String,
    /// scheduled, ready, sending, sent, retry, uncertain, dead, cancelled or discarded
    #[schema(value_type = String)]
    status: MessageStatus,
    /// The sink
    via: String,
    subject: String,
    /// How many of its deliveries stand where
    #[schema(value_type = Object)]
    deliveries: std::collections::BTreeMap<&'static str, u64>,
    /// When it was to leave, RFC 3339; null for at once
    send_at: Option<String>,
    /// Who asked
    created_by: String,
    /// RFC 3339
    created_at: String,
}

impl From<Item> for MessageItem {
    fn from(item: Item) -> Self {
        let Item { head, status, counts } = item;
        Self {
            status,
            deliveries: counts.into_iter().map(|(state, count)| (state.as_str(), count)).collect(),
            send_at: head.send_at_us.map(rfc3339_us),
            created_at: rfc3339_us(head.created_at_us),
            id: head.id,
            via: head.via,
            subject: head.subject,
            created_by: head.created_by,
        }
    }
}

/// A message in full.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageFull {
    id: String,
    /// scheduled, ready, sending, sent, retry, uncertain, dead, cancelled or discarded
    #[schema(value_type = String)]
    status: MessageStatus,
    via: String,
    subject: String,
    body: String,
    html: Option<String>,
    reply_to: Option<String>,
    send_at: Option<String>,
    created_by: String,
    created_at: String,
    attachments: Vec<AttachmentItem>,
    deliveries: Vec<DeliveryFull>,
    /// Who did what to it, oldest first
    history: Vec<MessageEvent>,
}

/// What goes with a message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentItem {
    name: String,
    content_type: String,
    bytes: i64,
    sha256: String,
}

/// One line of a message's history.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessageEvent {
    at: String,
    /// created, cancelled, retried, edited, marked-sent or discarded
    event: String,
    actor: String,
    reason: Option<String>,
}

/// A delivery of a message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryFull {
    /// The id that every attempt carries
    id: String,
    /// To whom; empty where the sink itself is the receiver
    recipient: String,
    /// scheduled, ready, claimed, sending, sent, retry, uncertain, dead, cancelled or discarded
    state: String,
    /// Attempts begun
    attempts: i32,
    max_attempts: i32,
    /// When it was or is due, RFC 3339
    due_at: String,
    /// What the receiver answered
    answer: Option<String>,
    /// A fixed word for the last failure
    error_type: Option<String>,
    /// The last failure in a sentence
    error: Option<String>,
    /// Whether an earlier attempt may have arrived
    possible_repeat: bool,
    updated_at: String,
    /// When it was over, RFC 3339
    settled_at: Option<String>,
}

impl From<MessageDelivery> for DeliveryFull {
    fn from(row: MessageDelivery) -> Self {
        Self {
            state: word(row.state()),
            possible_repeat: row.possible_repeat(),
            id: row.id,
            recipient: row.recipient,
            attempts: row.attempt,
            max_attempts: row.max_attempts,
            due_at: rfc3339_us(row.due_at_us),
            answer: row.answer,
            error_type: row.last_error_type,
            error: row.last_error,
            updated_at: rfc3339_us(row.updated_at_us),
            settled_at: row.settled_at_us.map(rfc3339_us),
        }
    }
}

impl MessageFull {
    /// A message that stands so.
    pub fn of(message: Message, status: MessageStatus) -> Self {
        let Message { head, reply_to, body, html, attachments, deliveries, events } = message;
        let Head { id, via, subject, send_at_us, created_by, created_at_us } = head;
        Self {
            id,
            status,
            via,
            subject,
            body,
            html,
            reply_to,
            send_at: send_at_us.map(rfc3339_us),
            created_by,
            created_at: rfc3339_us(created_at_us),
            attachments: attachments
                .into_iter()
                .map(|(name, content_type, bytes, sha256)| AttachmentItem { name, content_type, bytes, sha256 })
                .collect(),
            deliveries: deliveries.into_iter().map(Into::into).collect(),
            history: events
                .into_iter()
                .map(|event| MessageEvent {
                    at: rfc3339_us(event.at_us),
                    event: event.event,
                    actor: event.actor,
                    reason: event.reason,
                })
                .collect(),
        }
    }
}

/// What a cancellation came to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CancelAnswer {
    /// The message
    pub id: String,
    /// How it stands now
    #[schema(value_type = String)]
    pub status: MessageStatus,
    /// Deliveries that were called off: they will not be sent
    pub cancelled: Vec<DeliveryShort>,
    /// Deliveries for which it was too late, and where each stands
    pub too_late: Vec<DeliveryShort>,
}
