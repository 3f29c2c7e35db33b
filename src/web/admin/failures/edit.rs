//! Setting a delivery right before it goes out again: another recipient, another text. For an admin only; the audit says what was
//! changed, never to what.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    domain::message::{MAX_SUBJECT_CHARS, line_fault, text_fault},
    store::deliveries::{DeliveryRow, Edit},
    web::{
        error::{ApiError, ErrorCode},
        messages::{lane, recipient_fault, ways},
        state::WebState,
    },
};

/// What is to be changed; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EditBody {
    /// To whom
    recipient: Option<String>,
    /// Subject of a message
    subject: Option<String>,
    /// Text of a message; its HTML form is dropped
    body: Option<String>,
    /// The whole payload, an object; instead of subject and body
    #[schema(value_type = Option<Object>)]
    payload: Option<Value>,
}

impl EditBody {
    /// The fields that are changed, for the audit.
    pub(super) fn fields(&self) -> Vec<&'static str> {
        let given = [
            (self.recipient.is_some(), "recipient"),
            (self.subject.is_some(), "subject"),
            (self.body.is_some(), "body"),
            (self.payload.is_some(), "payload"),
        ];
        given.into_iter().filter(|(given, _)| *given).map(|(_, name)| name).collect()
    }

    /// What follows for a delivery.
    ///
    /// # Errors
    /// 400 with every fault at once; 409 for a delivery that has nothing to edit.
    pub(super) fn apply(self, row: &DeliveryRow, state: &WebState) -> Result<Edit, ApiError> {
        if row.sink == crate::store::relay::SINK {
            return Err(ApiError::new(ErrorCode::Conflict, "readings on their way to Kafka cannot be edited"));
        }
        let mut faults = Vec::new();
        let mut check = |field: &str, fault: Option<String>| {
            if let Some(fault) = fault {
                faults.push((format!("edit.{field}"), fault));
            }
        };
        let ways = ways(state);
        let way = ways.iter().find(|way| way.name == row.sink);
        if let Some(recipient) = &self.recipient {
            let fault = match way {
                Some(way) if !way.takes_recipients => Some(format!("the sink {} takes no recipients", row.sink)),
                way => recipient_fault(recipient, way),
            };
            check("recipient", fault);
        }
        check("subject", self.subject.as_deref().and_then(|text| line_fault(text, MAX_SUBJECT_CHARS)));
        check("body", self.body.as_deref().and_then(text_fault));
        let text = self.subject.is_some() || self.body.is_some();
        let mut payload = None;
        if let Some(new) = &self.payload {
            check("payload", (!new.is_object()).then(|| "must be an object".to_owned()));
            check("payload", text.then(|| "stands beside subject or body; change one or the other".to_owned()));
            check("payload", holds_nul(new).then(|| "holds the character NUL".to_owned()));
            payload = Some(new.to_string());
        } else if text {
            match serde_json::from_str::<Value>(&row.payload).ok().filter(|old| old["message"].is_object()) {
                Some(mut old) => {
                    self.rewrite(&mut old);
                    payload = Some(old.to_string());
                }
                None => check(
                    "subject",
                    Some("only messages have subject and body; this delivery is none: change its payload".to_owned()),
                ),
            }
        }
        if !faults.is_empty() {
            return Err(ApiError::fields(&faults));
        }
        let lane = self.recipient.as_ref().map(|recipient| lane(recipient, &row.subject));
        Ok(Edit { lane, recipient: self.recipient, payload })
    }

    fn rewrite(&self, payload: &mut Value) {
        let Some(message) = payload["message"].as_object_mut() else { return };
        if let Some(subject) = &self.subject {
            message.insert("subject".to_owned(), Value::from(subject.as_str()));
        }
        if let Some(body) = &self.body {
            message.insert("body".to_owned(), Value::from(body.as_str()));
            // It says what the text said before.
            message.remove("html");
        }
    }
}

/// PostgreSQL cannot hold the character, and no receiver wants it.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        _ => false,
    }
}
