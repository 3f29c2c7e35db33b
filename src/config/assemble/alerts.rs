//! The part of alerts: routes, what holds for all of them, the ping.

use std::time::Duration;

use super::{Entry, Missing, on_unknown};
use crate::{
    config::alerts::{AlertsConfig, DeadmanConfig, RouteConfig},
    domain::alert::{AlertKind, Level},
};

pub(super) fn route(e: &Entry) -> Result<RouteConfig, Missing> {
    let levels: Vec<String> = e.option("levels").unwrap_or_default();
    let kinds: Vec<String> = e.option("kinds").unwrap_or_default();
    let kind = |word: &String| if word == AlertKind::Rule.as_str() { AlertKind::Rule } else { AlertKind::System };
    Ok(RouteConfig {
        levels: levels.iter().map(|word| word.parse::<Level>()).collect::<Result<_, _>>().map_err(|_| e.key_path("levels"))?,
        kinds: kinds.iter().map(kind).collect(),
        names: e.option("names").unwrap_or_default(),
        subjects: e.option("subjects").unwrap_or_default(),
        labels: e.option("labels").unwrap_or_default(),
        sinks: e.get("sinks")?,
        recipients: e.option("recipients").unwrap_or_default(),
        on_unknown: on_unknown(e)?,
        notify_resolved: e.get("notify_resolved")?,
        group_by: e.option("group_by").unwrap_or_default(),
        group_wait: e.get("group_wait")?,
        group_interval: e.get("group_interval")?,
        group_max: e.get("group_max")?,
        repeat_interval: Some(e.get::<Duration>("repeat_interval")?).filter(|interval| !interval.is_zero()),
    })
}

pub(super) fn alerts(e: &Entry) -> Result<AlertsConfig, Missing> {
    Ok(AlertsConfig { fallback_after: e.get("fallback_after")?, overdue_after: e.get("overdue_after")? })
}

pub(super) fn deadman(e: &Entry) -> Result<Option<DeadmanConfig>, Missing> {
    let Some(url) = e.option("url") else { return Ok(None) };
    let (interval, timeout, allow_link_local) = (e.get("interval")?, e.get("timeout")?, e.get("allow_link_local")?);
    Ok(Some(DeadmanConfig { url, interval, timeout, allow_link_local }))
}
