//! Alerts, whom they were told, and silences, as the description has them.

use utoipa::ToSchema;

shapes! {
    /// A page of alerts.
    Alerts { items: Vec<AlertItem>, next_cursor: Option<String>, }
    /// One episode.
    AlertItem {
        id: String,
        /// rule or system
        kind: String,
        name: String,
        subject: String,
        /// INFO, WARNING or CRITICAL
        level: String,
        /// firing, acknowledged or resolved
        state: String,
        opened_at: String,
        acknowledged_at: Option<String>,
        acknowledged_by: Option<String>,
        resolved_at: Option<String>,
        value: Option<f64>,
        threshold: Option<f64>,
        text: String,
        count: u64,
        /// Of its rule when it was opened, by name
        labels: serde_json::Value,
    }
    /// One episode with what happened to it and who was told.
    AlertInFull {
        id: String,
        /// rule or system
        kind: String,
        name: String,
        subject: String,
        /// INFO, WARNING or CRITICAL
        level: String,
        /// firing, acknowledged or resolved
        state: String,
        opened_at: String,
        acknowledged_at: Option<String>,
        acknowledged_by: Option<String>,
        resolved_at: Option<String>,
        value: Option<f64>,
        threshold: Option<f64>,
        text: String,
        count: u64,
        /// Of its rule when it was opened, by name
        labels: serde_json::Value,

        /// firing, escalated, acknowledged, resolved: oldest first
        history: Vec<serde_json::Value>,
        notifications: Vec<NotificationItem>,
    }
    /// Whom an alert was told and with which delivery, or why not.
    NotificationItem {
        at: String,
        /// firing, escalated, repeat or resolved
        event: String,
        /// Empty where it was decided for all
        sink: String,
        recipient: String,
        /// Null where nobody was told
        delivery_id: Option<String>,
        /// route (told alone), digest (told with others); silenced, inhibited, acknowledged, no_route, not_told, not_wanted; earlier
        reason: String,
        /// The silence, the CRITICAL, the person; of a digest the delivery that was to tell it alone
        detail: Option<String>,
        /// Where the delivery stands
        state: Option<String>,
        /// What the receiver answered
        answer: Option<String>,
        /// What went wrong last
        error: Option<String>,
    }
    /// A page of silences.
    Silences { items: Vec<SilenceItem>, next_cursor: Option<String>, }
    /// One silence.
    SilenceItem {
        id: String,
        matchers: serde_json::Value,
        /// pending, active or expired
        state: String,
        starts_at: String,
        ends_at: String,
        reason: String,
        created_by: String,
        created_at: String,
        expired_at: Option<String>,
        expired_by: Option<String>,
    }
    /// What a silence would mean.
    SilencePreview { open: MeantOpen, last_week: MeantLastWeek, }
    /// Open alerts, at most 50 of them shown.
    MeantOpen { count: u64, items: Vec<AlertItem>, }
    /// Alerts of the last seven days, at most 50 of them shown; complete is false where there were too many to look at all.
    MeantLastWeek { count: u64, complete: bool, items: Vec<AlertItem>, }
}
