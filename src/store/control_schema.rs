//! The tables of the control store, and the outbox table that both stores have, as diesel knows them.
//! `docs/` describes every table and column; the migrations make them.

#![allow(missing_docs, reason = "the columns are described with their migrations and in docs/")]

diesel::table! {
    /// Who this data directory is.
    identity (id) {
        id -> BigInt,
        directory_id -> Text,
        created_at_us -> BigInt,
    }
}

diesel::table! {
    /// Tokens, by their hash.
    tokens (id) {
        id -> Text,
        name -> Text,
        role -> Text,
        sha256 -> Text,
        created_at_us -> BigInt,
        expires_at_us -> Nullable<BigInt>,
        revoked_at_us -> Nullable<BigInt>,
        last_used_at_us -> Nullable<BigInt>,
    }
}

diesel::table! {
    /// Signed-in pages, by the hash of their cookie.
    sessions (sha256) {
        sha256 -> Text,
        token_id -> Text,
        created_at_us -> BigInt,
        expires_at_us -> BigInt,
    }
}

diesel::table! {
    /// Who did what, when and why.
    audit (id) {
        id -> BigInt,
        at_us -> BigInt,
        actor -> Text,
        action -> Text,
        subject -> Text,
        reason -> Nullable<Text>,
        outcome -> Text,
    }
}

diesel::table! {
    /// Episodes of alerts.
    alerts (id) {
        id -> Text,
        kind -> Text,
        name -> Text,
        subject -> Text,
        level -> Text,
        state -> Text,
        text -> Text,
        value -> Nullable<Double>,
        threshold -> Nullable<Double>,
        count -> BigInt,
        opened_at_us -> BigInt,
        updated_at_us -> BigInt,
        acknowledged_at_us -> Nullable<BigInt>,
        acknowledged_by -> Nullable<Text>,
        resolved_at_us -> Nullable<BigInt>,
        labels -> Text,
        withheld -> Nullable<Text>,
        look_at_us -> Nullable<BigInt>,
    }
}

diesel::table! {
    /// What happened to an alert, in order.
    alert_events (id) {
        id -> BigInt,
        alert_id -> Text,
        at_us -> BigInt,
        event -> Text,
        level -> Text,
        value -> Nullable<Double>,
        actor -> Nullable<Text>,
        reason -> Nullable<Text>,
        text -> Nullable<Text>,
    }
}

diesel::table! {
    /// With which delivery an alert was told to whom, or why it was not.
    alert_notices (id) {
        id -> BigInt,
        alert_id -> Text,
        at_us -> BigInt,
        event -> Text,
        sink -> Text,
        recipient -> Text,
        delivery_id -> Nullable<Text>,
        reason -> Text,
        detail -> Nullable<Text>,
    }
}

diesel::table! {
    /// What each group of a route has told lately.
    alert_groups (channel, name) {
        channel -> Text,
        name -> Text,
        last_at_us -> BigInt,
        window_from_us -> BigInt,
        told -> BigInt,
        waiting -> Text,
        digest_id -> Nullable<Text>,
        digest_at_us -> BigInt,
    }
}

diesel::table! {
    /// Which alerts are not told for a while.
    silences (id) {
        id -> Text,
        matchers -> Text,
        starts_at_us -> BigInt,
        ends_at_us -> BigInt,
        reason -> Text,
        created_by -> Text,
        created_at_us -> BigInt,
        expired_at_us -> Nullable<BigInt>,
        expired_by -> Nullable<Text>,
    }
}

diesel::table! {
    /// Deliveries of alerts that were copied to the fallback of their sink.
    delivery_fallbacks (delivery_id) {
        delivery_id -> Text,
        copy_id -> Text,
        at_us -> BigInt,
    }
}

diesel::table! {
    /// The phase of each rule for each engine.
    rule_state (rule, engine_id) {
        rule -> Text,
        engine_id -> Text,
        phase -> Text,
        updated_at_us -> BigInt,
    }
}

diesel::table! {
    /// What each anomaly rule learned of each engine.
    rule_baselines (rule, engine_id) {
        rule -> Text,
        engine_id -> Text,
        baseline -> Text,
        updated_at_us -> BigInt,
    }
}

diesel::table! {
    /// What a periodic duty keeps over a restart.
    duty_notes (name) {
        name -> Text,
        note -> Text,
        updated_at_us -> BigInt,
    }
}

diesel::table! {
    /// When each periodic duty ran last.
    duty_runs (name) {
        name -> Text,
        last_run_at_us -> BigInt,
        outcome -> Text,
    }
}

diesel::table! {
    /// The outbox, in the control store and in the store alike.
    deliveries (seq) {
        seq -> BigInt,
        id -> Text,
        sink -> Text,
        lane -> Text,
        subject -> Text,
        payload -> Text,
        state -> Text,
        attempt -> Integer,
        max_attempts -> Integer,
        due_at_us -> BigInt,
        epoch -> BigInt,
        claimed_by -> Nullable<Text>,
        last_error_type -> Nullable<Text>,
        last_error -> Nullable<Text>,
        on_unknown -> Text,
        possible_repeat -> Integer,
        created_at_us -> BigInt,
        updated_at_us -> BigInt,
        settled_at_us -> Nullable<BigInt>,
        recipient -> Text,
        answer -> Nullable<Text>,
    }
}

diesel::table! {
    /// Attempts of deliveries, in the control store and in the store alike.
    delivery_attempts (delivery_id, epoch) {
        delivery_id -> Text,
        epoch -> BigInt,
        attempt -> Integer,
        worker -> Text,
        began_at_us -> BigInt,
        ended_at_us -> BigInt,
        outcome -> Text,
        error_type -> Nullable<Text>,
        error -> Nullable<Text>,
        answer -> Nullable<Text>,
    }
}

diesel::allow_tables_to_appear_in_same_query!(tokens, sessions);
diesel::allow_tables_to_appear_in_same_query!(alert_notices, deliveries);
