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
