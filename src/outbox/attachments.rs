//! What goes with a message, read just before it is sent: until then it lies in the store once, however many recipients there are.
//!
//! In: a delivery whose payload names attachments. Out: their content, or why the attempt is not made. A crash loses nothing.

use super::state::{Outbox, Side};
use crate::{
    sinks::{Attachment, ErrorClass, SendError},
    store::{deliveries::DeliveryRow, messages},
};

/// How the payload of a message with attachments reads. Within a text every quote has a backslash before it, so this stands nowhere else.
const NAMED: &str = "\"attachments\":[{";

impl Outbox {
    /// The attachments of a delivery; most have none, and nothing is asked for them.
    pub(super) async fn attached(&self, side: &Side, row: &DeliveryRow) -> Result<Vec<Attachment>, SendError> {
        if !row.payload.starts_with("{\"message\":{") || !row.payload.contains(NAMED) {
            return Ok(Vec::new());
        }
        let id = row.subject.clone();
        let failed = |class, error_type, message: String| SendError { class, error_type, message };
        let found = side.store.call(move |conn| messages::attachments(conn, &id)).await.map_err(|error| {
            failed(ErrorClass::Retry { after: None }, "attachments_unread", format!("the attachments could not be read: {error}"))
        })?;
        if found.is_empty() {
            let message = "the attachments of the message are gone; edit the delivery, or discard it".to_owned();
            return Err(failed(ErrorClass::Reject, "attachments_gone", message));
        }
        Ok(found
            .into_iter()
            .map(|(name, content_type, content)| Attachment { name, content_type, content: content.into() })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arc_swap::ArcSwap;

    use super::*;
    use crate::{
        clock::SystemClock,
        config::{Config, OnUnknown},
        event::Metrics,
        outbox::OutboxParts,
        store::{
            Store,
            control::tests::scratch,
            deliveries::{self, NewDelivery},
            messages::{Attachment as Stored, NewMessage},
        },
    };

    fn message(id: &str, payload: &str, attachments: Vec<Stored>) -> NewMessage {
        let delivery = NewDelivery {
            id: format!("{id}-1"),
            sink: "log".into(),
            lane: id.into(),
            subject: id.into(),
            payload: payload.into(),
            due_at_us: 0,
            max_attempts: 1,
            on_unknown: OnUnknown::Review,
            recipient: String::new(),
        };
        NewMessage {
            id: id.into(),
            via: "log".into(),
            subject: "s".into(),
            body: "b".into(),
            html: None,
            reply_to: None,
            send_at_us: None,
            created_by: "test".into(),
            attachments,
            deliveries: vec![delivery],
            key: None,
        }
    }

    #[tokio::test]
    async fn what_a_payload_names_is_read_and_what_a_text_says_is_not_believed() {
        let (dir, control) = scratch();
        let mut config = Config::default();
        config.store.url = format!("sqlite://{}", dir.path().join("store.db").display());
        let store = Store::open(&config.store).expect("a valid URL");
        store.migrate().expect("migrations run");
        let outbox = Outbox::new(OutboxParts {
            control,
            store: Some((store.clone(), Box::new(|| true))),
            config: Arc::new(ArcSwap::from_pointee(config)),
            sinks: Vec::new(),
            own_sinks: Vec::new(),
            clock: Arc::new(SystemClock),
            metrics: Arc::new(Metrics::new().expect("the catalogue is sound")),
            worker: "w".into(),
        });
        let with = r#"{"message":{"id":"m1","attachments":[{"name":"a.txt"}]}}"#;
        let file = Stored { name: "a.txt".into(), content_type: "text/plain".into(), sha256: "-".into(), content: b"hi".to_vec() };
        let said = serde_json::json!({"message": {"id": "m2", "body": "\"attachments\":[{"}}).to_string();
        for new in [message("m1", with, vec![file]), message("m2", &said, Vec::new()), message("m3", with, Vec::new())] {
            store.with(|conn| crate::store::messages::create(conn, &new, 1)).expect("made");
        }
        let attached = async |id: &str| {
            let id = format!("{id}-1");
            let row = store.with(|conn| deliveries::get(conn, &id)).expect("reads").expect("is there");
            outbox.attached(&outbox.sides[1], &row).await
        };
        let found = attached("m1").await.expect("read");
        assert_eq!((found.len(), found[0].name.as_str(), &*found[0].content), (1, "a.txt", b"hi".as_slice()));
        assert_eq!(attached("m2").await, Ok(Vec::new()), "only words");
        assert_eq!(
            attached("m3").await.map_err(|error| (error.class, error.error_type)),
            Err((ErrorClass::Reject, "attachments_gone"))
        );
    }
}
