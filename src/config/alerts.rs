//! What the configuration says of alerts: routes, what holds for all of them, and the ping that says that belayd works.

use std::time::Duration;

use super::{
    model::{Config, OnUnknown},
    sinks::SinkInfo,
};
use crate::domain::{
    alert::{Alert, AlertKind, Labels, Level},
    silence::has_labels,
};

/// What every alert has beside labels; no label is called so, and routes group by these as by labels, but for the level, which may
/// rise while an alert is open.
pub(super) const ALERT_FIELDS: [&str; 4] = ["kind", "name", "subject", "level"];

/// One of `[[routes]]`: which alerts go to which sinks. Empty lists match everything.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfig {
    /// Levels that match.
    pub levels: Vec<Level>,
    /// Kinds that match.
    pub kinds: Vec<AlertKind>,
    /// Rule or condition names that match.
    pub names: Vec<String>,
    /// Subjects (engine ids, parts) that match.
    pub subjects: Vec<String>,
    /// Labels that must be there; `*` in a value stands for any characters.
    pub labels: Labels,
    /// Sink names: `log`, or the name of a webhook.
    pub sinks: Vec<String>,
    /// To whom, at sinks that take recipients.
    pub recipients: Vec<String>,
    /// What to do when an outcome is unknown.
    pub on_unknown: OnUnknown,
    /// Whether the end of an alert is told too.
    pub notify_resolved: bool,
    /// What divides its alerts into groups: `kind`, `name`, `subject`, or a label. Empty: one group.
    pub group_by: Vec<String>,
    /// How long what follows within a second of another notice of its group waits for more.
    pub group_wait: Duration,
    /// From one digest of a group to the next.
    pub group_interval: Duration,
    /// Most notices of a group that wait and are told one by one.
    pub group_max: usize,
    /// After so long an alert that still fires and that nobody has taken on is told again; `None`: never.
    pub repeat_interval: Option<Duration>,
}

impl RouteConfig {
    /// The route to these sinks that matches everything, with every other key as it is by default.
    pub fn to(sinks: Vec<String>) -> Self {
        Self {
            levels: Vec::new(),
            kinds: Vec::new(),
            names: Vec::new(),
            subjects: Vec::new(),
            labels: Labels::new(),
            sinks,
            recipients: Vec::new(),
            on_unknown: OnUnknown::Resend,
            notify_resolved: true,
            group_by: Vec::new(),
            group_wait: Duration::from_millis(40),
            group_interval: Duration::from_secs(5),
            group_max: 10,
            repeat_interval: Some(Duration::from_secs(4 * 3_600)),
        }
    }

    /// Whether it takes this alert.
    pub fn matches(&self, alert: &Alert) -> bool {
        fn any<T: PartialEq>(wanted: &[T], is: &T) -> bool {
            wanted.is_empty() || wanted.contains(is)
        }
        any(&self.levels, &alert.level)
            && any(&self.kinds, &alert.kind)
            && any(&self.names, &alert.name)
            && any(&self.subjects, &alert.subject)
            && has_labels(&self.labels, &alert.labels)
    }

    /// The group of this alert: the values of `group_by`, empty where there is but one.
    pub fn group_of(&self, alert: &Alert) -> String {
        let value = |field: &String| match field.as_str() {
            "kind" => alert.kind.as_str(),
            "name" => &alert.name,
            "subject" => &alert.subject,
            label => alert.labels.get(label).map_or("", String::as_str),
        };
        self.group_by.iter().map(value).collect::<Vec<_>>().join("\u{1f}")
    }
}

/// `[alerts]`
#[derive(Clone, Debug, PartialEq)]
pub struct AlertsConfig {
    /// How long an alert's delivery may wait before it is copied to the fallback of its sink.
    pub fallback_after: Duration,
    /// How long a delivery that is due may stay untouched, while nothing explains it, before that is told.
    pub overdue_after: Duration,
}

impl Config {
    /// Sinks with the sink that is told in place of each while it stays down.
    pub fn fallbacks(&self) -> Vec<(String, String)> {
        let of = |sink: SinkInfo<'_>| Some((sink.name.to_owned(), sink.settings.fallback.clone()?));
        self.sinks().into_iter().filter_map(of).collect()
    }
}

/// `[deadman]`
#[derive(Clone, PartialEq)]
pub struct DeadmanConfig {
    /// Where the ping goes; secret.
    pub url: String,
    /// From one ping to the next.
    pub interval: Duration,
    /// For one whole answer.
    pub timeout: Duration,
    /// Whether link-local and metadata addresses may be asked.
    pub allow_link_local: bool,
}
