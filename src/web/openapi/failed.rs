//! What waits for a person and what is decided about it, as the description has it.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Ref, RefOr,
        schema::{OneOfBuilder, Schema},
    },
};

/// A thing that has one of two forms.
macro_rules! either {
    ($($(#[$doc:meta])* $name:ident: $one:ident, $other:ident;)*) => {$(
        $(#[$doc])*
        pub struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let of = |name: &str| Ref::from_schema_name(name);
                OneOfBuilder::new().item(of(stringify!($one))).item(of(stringify!($other))).into()
            }
        }

        impl ToSchema for $name {
            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                schemas.push((stringify!($one).into(), $one::schema()));
                $one::schemas(schemas);
                schemas.push((stringify!($other).into(), $other::schema()));
                $other::schemas(schemas);
            }
        }
    )*};
}

either! {
    /// One failure.
    FailureItem: ReadingFailureItem, DeliveryFailureItem;
    /// One failure with all that is known of it.
    FailureInFull: ReadingFailureItem, DeliveryEvidence;
}

shapes! {
    /// Readings and deliveries that wait for a person.
    Failures { items: Vec<FailureItem>, next_cursor: Option<String>, }
    /// A reading that was not stored.
    ReadingFailureItem {
        id: String,
        /// reading
        kind: String,
        /// conflict or dead
        cause: String,
        /// open, retried or discarded
        state: String,
        /// Who numbered it
        stream: String,
        /// Its number
        seq: i64,
        engine_id: String,
        observed_at: String,
        /// As it came
        payload: serde_json::Value,
        /// The reading that holds the key, of a conflict; else null
        existing: serde_json::Value,
        /// The database's own code; dead ones only
        error_code: Option<String>,
        message: String,
        attempts: u32,
        /// Why it was last decided so
        reason: Option<String>,
        /// Who decided
        actor: Option<String>,
        created_at: String,
        updated_at: String,
        /// Of a retry: whether it is stored now
        settled: Option<bool>,
    }
    /// A delivery that was not sent, or of which nobody knows.
    DeliveryFailureItem {
        id: String,
        /// delivery
        kind: String,
        /// dead or uncertain; its state where it waits for nobody any more
        cause: String,
        /// scheduled, ready, claimed, sending, sent, retry, uncertain, dead, discarded or cancelled
        state: String,
        /// control or store: where it is kept
        store: String,
        sink: String,
        /// Empty where the sink itself is the receiver
        recipient: String,
        /// The message or alert that it is about
        subject: String,
        /// What goes out
        payload: serde_json::Value,
        attempts: u32,
        max_attempts: u32,
        /// A fixed word for the last failure
        error_code: Option<String>,
        message: Option<String>,
        possible_repeat: bool,
        created_at: String,
        updated_at: String,
    }
    /// All there is to know about a delivery.
    DeliveryEvidence {
        id: String,
        /// delivery
        kind: String,
        /// dead or uncertain; its state where it waits for nobody any more
        cause: String,
        /// scheduled, ready, claimed, sending, sent, retry, uncertain, dead, discarded or cancelled
        state: String,
        /// control or store: where it is kept
        store: String,
        sink: String,
        /// Empty where the sink itself is the receiver
        recipient: String,
        /// The message or alert that it is about
        subject: String,
        /// What goes out
        payload: serde_json::Value,
        attempts: u32,
        max_attempts: u32,
        /// A fixed word for the last failure
        error_code: Option<String>,
        message: Option<String>,
        possible_repeat: bool,
        created_at: String,
        updated_at: String,
        /// What it keeps its order with
        lane: String,
        due_at: String,
        settled_at: Option<String>,
        /// What the receiver said when it took it
        answer: Option<String>,
        /// resend or review
        on_unknown: String,
        /// How often a worker took it
        claims: i64,
        /// The worker that has it
        claimed_by: Option<String>,
        /// Attempts that did not succeed at the first go, oldest first
        history: Vec<AttemptItem>,
    }
    /// One attempt.
    AttemptItem {
        attempt: u32,
        claim: i64,
        worker: String,
        began_at: String,
        ended_at: String,
        /// sent, retry, uncertain, dead, …
        outcome: String,
        error_type: Option<String>,
        error: Option<String>,
        answer: Option<String>,
    }
    /// What failed alike, the most first. away names what could not be asked.
    Causes { items: Vec<CauseItem>, next_cursor: Option<String>, away: Vec<String>, }
    /// Deliveries that failed alike.
    CauseItem {
        /// control, store
        stores: Vec<String>,
        sink: String,
        error_type: Option<String>,
        /// dead or uncertain
        state: String,
        count: u64,
        oldest_at: String,
        newest_at: String,
        sample: CauseSample,
    }
    /// The newest of them.
    CauseSample { id: String, recipient: String, subject: String, message: Option<String>, }
    /// What became of a redrive.
    Redriven { redriven: u32, failed: u32, /// When the last delivery is due; null where none was given a time
        until: Option<String>, }
}
