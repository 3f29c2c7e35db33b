//! The tables of the shared store as diesel knows them, written by hand: they are the same on both databases.
//! `docs/` describes every table and column; the twin migrations make them.

#![allow(missing_docs, reason = "the columns are described with their migrations and in docs/")]

diesel::table! {
    /// What engines measured. `updated_at_us` is null while a row is as it was created.
    readings (engine_id, observed_at_us) {
        engine_id -> Text,
        observed_at_us -> BigInt,
        status -> Nullable<Text>,
        temperature -> Nullable<Double>,
        rpm -> Nullable<Double>,
        pressure -> Nullable<Double>,
        fuel_flow -> Nullable<Double>,
        extra -> Nullable<Text>,
        stream_no -> BigInt,
        seq -> BigInt,
        created_at_us -> BigInt,
        updated_at_us -> Nullable<BigInt>,
    }
}

diesel::table! {
    /// The numbered sequences of accepted readings, their cursors, and the running sums of their ledger rows.
    streams (no) {
        no -> BigInt,
        stream -> Text,
        tier -> Text,
        instance -> Text,
        cursor_seq -> BigInt,
        cursor_chain -> BigInt,
        pruned_seq -> BigInt,
        watched_from -> BigInt,
        stored -> BigInt,
        duplicate -> BigInt,
        conflict -> BigInt,
        dead -> BigInt,
        discarded -> BigInt,
        quarantined -> BigInt,
        void -> BigInt,
        lost -> BigInt,
        opened_at_us -> BigInt,
        closed_at_us -> Nullable<BigInt>,
        closing -> Nullable<Text>,
    }
}

diesel::table! {
    /// Readings that were deleted, by stream and range of 65,536 numbers. PostgreSQL may have several rows for one of them.
    removed_readings (stream_no, part) {
        stream_no -> BigInt,
        part -> BigInt,
        gone -> BigInt,
    }
}

diesel::table! {
    /// The ledger: one row for each transaction that drained readings.
    batches (stream, first_seq) {
        stream -> Text,
        first_seq -> BigInt,
        last_seq -> BigInt,
        stored -> BigInt,
        duplicate -> BigInt,
        conflict -> BigInt,
        dead -> BigInt,
        discarded -> BigInt,
        exceptions -> Nullable<Text>,
        gap -> Nullable<Text>,
        missing -> BigInt,
        relay -> Integer,
        created_at_us -> BigInt,
        updated_at_us -> BigInt,
        delivery -> Nullable<Text>,
    }
}

diesel::table! {
    /// Readings that were not stored: another value was there (conflict), or the database can never take them (dead).
    reading_failures (id) {
        id -> Text,
        kind -> Text,
        state -> Text,
        stream -> Text,
        seq -> BigInt,
        engine_id -> Text,
        observed_at_us -> BigInt,
        payload -> Text,
        existing -> Nullable<Text>,
        error_code -> Nullable<Text>,
        message -> Text,
        attempts -> Integer,
        reason -> Nullable<Text>,
        actor -> Nullable<Text>,
        created_at_us -> BigInt,
        updated_at_us -> BigInt,
    }
}

diesel::table! {
    /// The readings of deliveries to Kafka that are not settled.
    delivery_bodies (delivery_id) {
        delivery_id -> Text,
        lane -> Text,
        first_seq -> BigInt,
        last_seq -> BigInt,
        readings -> BigInt,
        body -> Binary,
    }
}

diesel::table! {
    /// Over how many partitions of a topic an engine's readings are spread.
    relay_engines (topic, engine_id) {
        topic -> Text,
        engine_id -> Text,
        partitions -> Integer,
    }
}

diesel::table! {
    /// Messages to people, as they were asked for.
    messages (id) {
        id -> Text,
        via -> Text,
        subject -> Text,
        send_at_us -> Nullable<BigInt>,
        created_by -> Text,
        created_at_us -> BigInt,
        reply_to -> Nullable<Text>,
        body -> Text,
        html -> Nullable<Text>,
    }
}

diesel::table! {
    /// Which deliveries are a message's.
    message_deliveries (message_id, no) {
        message_id -> Text,
        no -> BigInt,
        delivery_id -> Text,
        recipient -> Text,
        created_at_us -> BigInt,
    }
}

diesel::table! {
    /// What goes with a message.
    message_attachments (message_id, no) {
        message_id -> Text,
        no -> BigInt,
        name -> Text,
        content_type -> Text,
        bytes -> BigInt,
        sha256 -> Text,
        content -> Binary,
    }
}

diesel::table! {
    /// Who asked for a message, and who called it off.
    message_events (message_id, no) {
        message_id -> Text,
        no -> BigInt,
        at_us -> BigInt,
        event -> Text,
        actor -> Text,
        reason -> Nullable<Text>,
    }
}

diesel::table! {
    /// The same key of the same caller makes one message.
    idempotency_keys (owner, key) {
        owner -> Text,
        key -> Text,
        content -> Text,
        message_id -> Text,
        created_at_us -> BigInt,
    }
}

diesel::allow_tables_to_appear_in_same_query!(readings, streams, batches, reading_failures);

use super::control_schema::deliveries;
diesel::table! {
    /// What people work on.
    issues (id) {
        id -> Text,
        title -> Text,
        body -> Text,
        state -> Text,
        level -> Nullable<Text>,
        kind -> Nullable<Text>,
        name -> Nullable<Text>,
        subject -> Nullable<Text>,
        opened_by -> Text,
        views -> BigInt,
        comments -> BigInt,
        created_at_us -> BigInt,
        updated_at_us -> BigInt,
        resolved_at_us -> Nullable<BigInt>,
        closed_at_us -> Nullable<BigInt>,
    }
}

diesel::table! {
    /// What happened to issues.
    issue_events (id) {
        id -> BigInt,
        issue_id -> Text,
        at_us -> BigInt,
        event -> Text,
        actor -> Text,
        text -> Nullable<Text>,
        alert_id -> Nullable<Text>,
        delivery_id -> Nullable<Text>,
    }
}

diesel::allow_tables_to_appear_in_same_query!(message_deliveries, deliveries);
