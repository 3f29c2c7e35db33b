//! What a reload (SIGHUP) may change. In: the configuration that runs and the one just read. Out: what changed, or why it cannot
//! be applied while running; then the old one stays whole.

use std::fmt;

use super::{
    keys::Section,
    model::Config,
    view::{Tables, values},
};

/// What differs between two configurations, all of it applicable while running.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// `[[sources]]` differ.
    pub sources: bool,
    /// `[[rules]]` differ.
    pub rules: bool,
    /// A way out, or the texts that go there, differ.
    pub sinks: bool,
    /// `[[routes]]`, `[alerts]` or `[deadman]` differ.
    pub routes: bool,
    /// `[readings]` differs.
    pub readings: bool,
    /// `[messages]` or `[limits]` differ.
    pub messages: bool,
    /// `[retention]` differs.
    pub retention: bool,
    /// Thresholds in `[monitor]` or `[recovery]` differ.
    pub monitor: bool,
    /// `log.level` differs.
    pub log_level: bool,
    /// The keys that differ (`retention.readings`); the section's name for lists of tables.
    pub keys: Vec<String>,
}

/// Sections of ways out.
const SINKS: [&str; 6] = ["smtp", "slack", "discord", "webhooks", "bots", "templates"];

impl Changes {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn add(&mut self, section: &str, key: String) {
        let flag = match section {
            "sources" => &mut self.sources,
            "rules" => &mut self.rules,
            _ if SINKS.contains(&section) => &mut self.sinks,
            "routes" | "alerts" | "deadman" => &mut self.routes,
            "readings" => &mut self.readings,
            "messages" | "limits" => &mut self.messages,
            "retention" => &mut self.retention,
            "monitor" | "recovery" => &mut self.monitor,
            // The only live key there; a test holds the table to it.
            _ => &mut self.log_level,
        };
        *flag = true;
        self.keys.push(key);
    }
}

/// A key that differs and cannot change while running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReloadable {
    /// `server.listen`
    pub key: String,
    /// Why.
    pub reason: &'static str,
}

impl fmt::Display for NotReloadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: cannot change while running: {}; restart belayd to apply it", self.key, self.reason)
    }
}

/// What changes from `old` to `new`.
///
/// # Errors
/// Every key that differs and needs a restart. Nothing is applied then: half a configuration is no configuration.
pub fn diff(old: &Config, new: &Config) -> Result<Changes, Vec<NotReloadable>> {
    let mut changes = Changes::default();
    let mut refused = Vec::new();
    for ((section, old), (_, new)) in values(old).into_iter().zip(values(new)) {
        if section.is_list() {
            if old != new {
                changes.add(section.name, section.name.to_owned());
            }
            continue;
        }
        for key in differing(section, &old, &new) {
            let path = format!("{}.{}", section.name, key.name);
            if key.live {
                changes.add(section.name, path);
            } else {
                refused.push(NotReloadable { key: path, reason: section.restart });
            }
        }
    }
    if refused.is_empty() { Ok(changes) } else { Err(refused) }
}

fn differing(section: &Section, old: &Tables, new: &Tables) -> impl Iterator<Item = &'static super::keys::Key> {
    section.keys.iter().filter(move |key| {
        let value = |tables: &Tables| tables.first().and_then(|table| table.get(key.name)).cloned();
        value(old) != value(new)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{keys::SECTIONS, parse};

    fn changes(new: &str) -> Result<Changes, Vec<NotReloadable>> {
        diff(&Config::default(), &parse(new).expect("no fault"))
    }

    #[test]
    fn the_same_configuration_changes_nothing() {
        assert!(changes("").expect("applicable").is_empty());
    }

    #[test]
    fn each_live_part_is_told_apart() {
        let all = changes(
            "[readings]\nmax_ahead = \"1h\"\n[[sources]]\nname = \"s\"\nurl = \"http://h\"\n[[rules]]\nname = \"r\"\nmetric = \"rpm\"\n\
             op = \">\"\nthreshold = 1\n[[webhooks]]\nname = \"w\"\nurl = \"http://h\"\n[limits]\nmessages_per_minute = 1\n[retention]\naudit = \"1d\"\n[monitor]\n\
             cpu_percent = 50\n[log]\nlevel = \"debug\"\n",
        );
        let keys = [
            "readings.max_ahead",
            "sources",
            "rules",
            "webhooks",
            "routes",
            "limits.messages_per_minute",
            "retention.audit",
            "monitor.cpu_percent",
            "log.level",
        ];
        let expected = Changes {
            sources: true,
            rules: true,
            sinks: true,
            routes: true,
            readings: true,
            messages: true,
            retention: true,
            monitor: true,
            log_level: true,
            keys: keys.map(str::to_owned).to_vec(),
        };
        assert_eq!(all, Ok(expected));
    }

    #[test]
    fn what_needs_a_restart_is_refused_with_its_reason_and_all_of_it() {
        let refused = changes("[server]\nworkers = 7\n[log]\nformat = \"json\"\nlevel = \"debug\"\n").expect_err("refused");
        let keys: Vec<_> = refused.iter().map(|one| one.key.as_str()).collect();
        assert_eq!(keys, ["server.workers", "log.format"]);
        assert_eq!(
            refused[1].to_string(),
            "log.format: cannot change while running: the log is opened once, at start; restart belayd to apply it"
        );
    }

    #[test]
    fn a_changed_secret_is_seen() {
        let with = |secret: &str| parse(&format!("[[webhooks]]\nname = \"w\"\nurl = \"http://h/{secret}\"\n")).expect("no fault");
        assert!(diff(&with("a"), &with("b")).expect("applicable").sinks);
    }

    #[test]
    fn every_key_is_either_live_or_its_section_says_why_not() {
        for section in SECTIONS {
            let lists = ["sources", "rules", "webhooks", "bots", "routes"];
            assert_eq!(section.is_list(), lists.contains(&section.name));
            for key in section.keys {
                assert!(key.live || !section.restart.is_empty(), "{}.{}", section.name, key.name);
                let flagged = section.is_list()
                    || SINKS.contains(&section.name)
                    || ["alerts", "deadman", "readings", "messages", "limits", "retention", "monitor", "recovery"]
                        .contains(&section.name);
                assert!(!key.live || flagged || (section.name, key.name) == ("log", "level"), "{}.{}", section.name, key.name);
            }
        }
    }
}
