//! What must hold between the ways out, and between them and routes.

use std::{collections::BTreeSet, net::IpAddr};

use super::{meant, text};
use crate::{
    config::{
        alerts::RouteConfig,
        model::Config,
        resolve::{Entry, Report, Resolved},
        sinks::LOG_SINK,
        texts::nearest,
        value::{Value, Wrong},
    },
    domain::{
        alert::{AlertKind, Level},
        silence::has_labels,
    },
};

/// The name under which readings are relayed: nobody routes there, and nobody else may be called so.
const KAFKA_SINK: &str = "kafka";
/// Sinks of which there is one, with the key that switches each on and an example of it.
const SINGLE: [(&str, &str, &str); 3] = [
    ("smtp", "host", r#"host = "mail.example.org""#),
    ("slack", "url", r#"url_file = "slack-url""#),
    ("discord", "url", r#"url_file = "discord-url""#),
];
/// Lists of sinks that have a name of their own.
const NAMED: [&str; 2] = ["webhooks", "bots"];

/// A sink as written: its name and its table.
type Written<'a> = (&'a str, &'a Entry);

/// Checks everything about sinks that more than one key decides.
pub(super) fn check(resolved: &Resolved, report: &mut Report) {
    names(resolved, report);
    for (section, key, example) in SINGLE {
        let Some(entry) = resolved.one(section) else { continue };
        if entry.value(key).is_none()
            && !entry.wrong.contains(&key)
            && let Some(other) = meant(entry)
        {
            let wrong = Wrong::hint(format!("is missing, and {other} is given"), format!("add for example: {example}"));
            report.add(&entry.place, entry.key_path(key), wrong);
        }
    }
    if let Some(smtp) = resolved.one("smtp") {
        mail(smtp, report);
    }
    let written = written(resolved);
    routes(resolved, &written, report);
    fallbacks(&written, report);
}

/// Sinks that are on, beside the log.
fn written(resolved: &Resolved) -> Vec<Written<'_>> {
    let single = SINGLE.into_iter().filter_map(|(section, key, _)| {
        let entry = resolved.one(section)?;
        entry.value(key).is_some().then_some((section, entry))
    });
    let named = NAMED.into_iter().flat_map(|section| resolved.entries(section));
    single.chain(named.filter_map(|entry| Some((text(entry, "name")?, entry)))).collect()
}

fn names(resolved: &Resolved, report: &mut Report) {
    let own: Vec<&str> = [LOG_SINK, KAFKA_SINK].into_iter().chain(SINGLE.map(|(section, ..)| section)).collect();
    let mut seen = BTreeSet::new();
    for entry in NAMED.into_iter().flat_map(|section| resolved.entries(section)) {
        let Some(name) = text(entry, "name") else { continue };
        let (message, hint) = if own.contains(&name) {
            (format!("\"{name}\" is the name of belayd's own sink"), "choose another")
        } else if !seen.insert(name) {
            (format!("\"{name}\" names another sink already"), "give each a name of its own")
        } else {
            continue;
        };
        report.add(entry.place_of("name"), entry.key_path("name"), Wrong::hint(message, hint));
    }
}

fn mail(smtp: &Entry, report: &mut Report) {
    let Some(host) = text(smtp, "host") else { return };
    let mut wrong = |key: &str, wrong: Wrong| report.add(smtp.place_of(key), smtp.key_path(key), wrong);
    if smtp.value("from").is_none() && !smtp.wrong.contains(&"from") {
        wrong("from", Wrong::hint("is missing", r#"add for example: from = "belayd <belayd@example.org>""#));
    }
    let (user, password) = (smtp.value("username").is_some(), smtp.value("password").is_some());
    if user != password {
        let (has, lacks) = if user { ("username", "password") } else { ("password", "username") };
        let add = if user { "add password_file" } else { "add username" };
        wrong(has, Wrong::hint(format!("is given without {lacks}"), add));
    }
    let here = host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if text(smtp, "tls") == Some("none") && password && !here {
        let message = "the password would cross the network in the clear";
        wrong("tls", Wrong::hint(message, "use starttls or tls, or sign in with no password"));
    }
}

fn routes(resolved: &Resolved, written: &[Written<'_>], report: &mut Report) {
    let known: Vec<&str> = std::iter::once(LOG_SINK).chain(written.iter().map(|(name, _)| *name)).collect();
    for route in resolved.entries("routes") {
        let Some(Value::Texts(sinks)) = route.value("sinks") else { continue };
        if sinks.is_empty() {
            report.add(
                route.place_of("sinks"),
                route.key_path("sinks"),
                Wrong::hint("is empty", "name a sink, for example \"log\""),
            );
        }
        for sink in sinks.iter().filter(|sink| !known.contains(&sink.as_str())) {
            report.add(route.place_of("sinks"), route.key_path("sinks"), unknown(sink, &known));
        }
        let nobody = |smtp: &Entry| smtp.value("to").is_none() && !smtp.wrong.contains(&"to");
        if sinks.iter().any(|sink| sink == "smtp")
            && !route.is_given("recipients")
            && written.iter().any(|(name, smtp)| *name == "smtp" && nobody(smtp))
        {
            let wrong = Wrong::hint("names smtp, and nobody to write to", "add for example to [smtp]: to = \"ops@example.org\"");
            report.add(route.place_of("sinks"), route.key_path("sinks"), wrong);
        }
    }
}

fn unknown(sink: &str, known: &[&str]) -> Wrong {
    let single = SINGLE.into_iter().find(|(section, ..)| *section == sink);
    let hint = match (single, nearest(sink, known.iter().copied())) {
        (Some((section, _, example)), _) => format!("switch it on: [{section}] with {example}"),
        (None, Some(near)) => format!("did you mean \"{near}\"?"),
        (None, None) => format!("known are: {}", known.join(", ")),
    };
    Wrong::hint(format!("there is no sink \"{sink}\""), hint)
}

/// A fallback is another sink, and going from one to the next comes to an end.
fn fallbacks(written: &[Written<'_>], report: &mut Report) {
    let known: Vec<&str> = std::iter::once(LOG_SINK).chain(written.iter().map(|(name, _)| *name)).collect();
    let of = |name: &str| written.iter().find(|(known, _)| *known == name).and_then(|(_, entry)| text(entry, "fallback"));
    for (name, entry) in written {
        let Some(first) = text(entry, "fallback") else { continue };
        let mut add = |wrong| report.add(entry.place_of("fallback"), entry.key_path("fallback"), wrong);
        if !known.contains(&first) {
            add(unknown(first, &known));
            continue;
        }
        // As many steps as there are sinks lead round a circle, or to an end.
        let (mut path, mut at) = (vec![*name], first);
        while at != *name && path.len() <= known.len() {
            path.push(at);
            match of(at) {
                Some(next) => at = next,
                None => break,
            }
        }
        if at == *name {
            path.push(at);
            add(Wrong::hint(format!("goes round in a circle: {}", path.join(", ")), "let one of them end at \"log\", or nowhere"));
        }
    }
}

/// What is allowed and yet probably not meant.
pub(super) fn notes(config: &Config) -> Vec<String> {
    let routed: BTreeSet<&str> = config.routes.iter().flat_map(|route| &route.sinks).map(String::as_str).collect();
    let fallbacks: BTreeSet<&str> = config.sinks().iter().filter_map(|sink| sink.settings.fallback.as_deref()).collect();
    let lonely = |name: &str| name != LOG_SINK && !routed.contains(name) && !fallbacks.contains(name);
    let sinks = config.sinks().into_iter().filter(|sink| lonely(sink.name));
    let mut notes: Vec<String> =
        sinks.map(|sink| format!("{} \"{}\" is named by no route: no alert goes there", sink.kind.as_str(), sink.name)).collect();
    notes.extend(untold(config));
    notes
}

/// Alerts that no route takes: the first route takes the place of telling every sink everything, belayd's own alerts included.
fn untold(config: &Config) -> Vec<String> {
    let routes = &config.routes;
    if routes.is_empty() {
        return Vec::new();
    }
    fn any<T: PartialEq>(wanted: &[T], is: &T) -> bool {
        wanted.is_empty() || wanted.contains(is)
    }
    let takes = |route: &RouteConfig, kind, level| any(&route.kinds, &kind) && any(&route.levels, &level);
    // The daemon's own have no labels, and their names and subjects are many: only a route without such words takes them all.
    let wide = |route: &RouteConfig| route.names.is_empty() && route.subjects.is_empty() && route.labels.is_empty();
    let own = [(Level::Critical, "database-down, journal-disk-full"), (Level::Warning, "cpu-high, source-failing")];
    let mut notes = Vec::new();
    for (level, examples) in own {
        if !routes.iter().any(|route| wide(route) && takes(route, AlertKind::System, level)) {
            notes.push(format!(
                "no route takes every alert of kind system and level {level}: of those that none takes ({examples} and others) nobody is \
                 told; add one with kinds = [\"system\"]"
            ));
        }
    }
    let thresholds = config.rules.iter().map(|rule| (&rule.name, rule.level, &rule.labels));
    let anomalies = config.anomaly_rules.iter().map(|rule| (&rule.name, rule.level, &rule.labels));
    let lonely: Vec<&str> = thresholds
        .chain(anomalies)
        .filter(|(name, level, labels)| {
            let meant = |route: &RouteConfig| {
                takes(route, AlertKind::Rule, *level) && any(&route.names, name) && has_labels(&route.labels, labels)
            };
            !routes.iter().any(meant)
        })
        .map(|(name, ..)| name.as_str())
        .collect();
    if let Some(first) = lonely.first() {
        let more = if lonely.len() > 1 { format!(" and {} more", lonely.len() - 1) } else { String::new() };
        notes.push(format!("no route takes alerts of rule \"{first}\"{more}: nobody is told of them"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_that_no_route_takes_are_noted() {
        let notes = |routes: &str| {
            let rule = "[[rules]]\nname = \"hot\"\nmetric = \"temperature\"\nop = \">\"\nthreshold = 1\nlevel = \"CRITICAL\"\n";
            let second = rule.replace("hot", "cold").replace("CRITICAL", "WARNING");
            untold(&crate::config::parse(&format!("{rule}{second}{routes}")).expect("no fault"))
        };
        assert_eq!(notes(""), Vec::<String>::new(), "without a route everybody is told everything");
        let by_name = notes("[[routes]]\nnames = [\"hot\"]\nsinks = [\"log\"]\n");
        assert_eq!(by_name.len(), 3, "{by_name:?}");
        assert!(by_name[0].contains("system and level CRITICAL") && by_name[1].contains("system and level WARNING"), "{by_name:?}");
        assert!(by_name[2].contains("rule \"cold\""), "{by_name:?}");
        let critical = notes("[[routes]]\nlevels = [\"CRITICAL\"]\nsinks = [\"log\"]\n");
        assert!(critical.len() == 2 && critical[0].contains("level WARNING") && critical[1].contains("\"cold\""), "{critical:?}");
        assert_eq!(notes("[[routes]]\nsinks = [\"log\"]\n"), Vec::<String>::new());
    }
}
