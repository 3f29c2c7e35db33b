//! Whom to tell: the routes pick sinks and recipients. Pure.

use crate::{
    config::{Config, OnUnknown, RouteConfig},
    domain::alert::{Alert, AlertKind, Labels, Level, Transition},
    sinks,
};

/// One receiver of an alert, as the first route that names it says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    /// The sink.
    pub(super) sink: String,
    /// To whom at that sink; empty where the sink itself is the receiver.
    pub(super) recipient: String,
    /// The route's place in the configuration, which tells its groups from those of others.
    pub(super) index: usize,
    /// The route.
    pub(super) route: RouteConfig,
}

impl Target {
    /// Where its notices are counted and folded: the route, the sink, the recipient.
    pub(super) fn channel(&self) -> String {
        format!("{}/{}/{}", self.index, self.sink, self.recipient)
    }
}

/// What a rule says of its alerts. The daemon's own conditions have no labels.
pub(super) fn labels_of(config: &Config, transition: &Transition) -> Labels {
    if transition.kind != AlertKind::Rule {
        return Labels::new();
    }
    let threshold = config.rules.iter().find(|rule| rule.name == transition.name).map(|rule| &rule.labels);
    let anomaly = || config.anomaly_rules.iter().find(|rule| rule.name == transition.name).map(|rule| &rule.labels);
    threshold.or_else(anomaly).cloned().unwrap_or_default()
}

/// Receivers by the routes, or, with no route configured, every sink. The first route that names a receiver decides about it.
pub(super) fn targets(config: &Config, alert: &Alert) -> Vec<Target> {
    let everything;
    let routes = if config.routes.is_empty() {
        everything = [RouteConfig::to(sinks::known(config))];
        &everything[..]
    } else {
        &config.routes[..]
    };
    let mut targets: Vec<Target> = Vec::new();
    for (index, route) in routes.iter().enumerate().filter(|(_, route)| route.matches(alert)) {
        for sink in &route.sinks {
            let to = if sinks::takes_recipients(config, sink) && !route.recipients.is_empty() {
                &route.recipients[..]
            } else {
                &[String::new()]
            };
            for recipient in to {
                if !targets.iter().any(|known| known.sink == *sink && known.recipient == *recipient) {
                    targets.push(Target { sink: sink.clone(), recipient: recipient.clone(), index, route: route.clone() });
                }
            }
        }
    }
    // A sink is not told about itself; the log always is.
    if alert.kind == AlertKind::System && ABOUT_SINKS.contains(&alert.name.as_str()) {
        targets.retain(|target| target.sink != alert.subject);
        if !targets.iter().any(|target| target.sink == sinks::log::NAME) {
            let route = RouteConfig { on_unknown: OnUnknown::Resend, ..RouteConfig::to(vec![sinks::log::NAME.to_owned()]) };
            targets.push(Target { sink: sinks::log::NAME.to_owned(), recipient: String::new(), index: usize::MAX, route });
        }
    }
    targets
}

/// A receiver that was told of an alert and that the routes do not name for it now: as the route says that named him at another level,
/// else as a route says that has nothing but him. `None` where his sink is gone.
pub(super) fn former(config: &Config, alert: &Alert, sink: &str, recipient: &str) -> Option<Target> {
    let at_level = |level| targets(config, &Alert { level, ..alert.clone() });
    let named = |target: &Target| target.sink == sink && target.recipient == recipient;
    Level::ALL.into_iter().find_map(|level| at_level(level).into_iter().find(named)).or_else(|| {
        let route = RouteConfig::to(vec![sink.to_owned()]);
        let target = || Target { sink: sink.to_owned(), recipient: recipient.to_owned(), index: usize::MAX, route };
        sinks::known(config).iter().any(|known| known == sink).then(target)
    })
}

/// Conditions whose subject is a sink.
const ABOUT_SINKS: [&str; 3] = [sinks::SINK_DOWN, sinks::DELIVERY_FAILED, super::round::DELIVERY_OVERDUE];
