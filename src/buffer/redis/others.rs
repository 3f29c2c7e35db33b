//! What the list of streams says of other instances: which have streams there, and which streams have left it without a word.
//!
//! In: the list, about every second. Out: instances; and streams that were listed and are not any more, for whoever can ask the database
//! whether somebody ended them. A crash loses what was seen: a stream that leaves the list while nobody looks is missed by its own
//! instance alone, when that starts again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{core::lock, entry::Registered, tier::RedisBuffer};
use crate::domain::receipt::StreamId;

/// Most other instances that are looked at.
const INSTANCES_MAX: usize = 256;
/// Most of their streams that are remembered; of further ones nobody here notices that they are gone.
const STREAMS_MAX: usize = 4_096;

/// A stream of another instance that is not listed any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlisted {
    /// The stream.
    pub stream: StreamId,
    /// Whose it is.
    pub instance: String,
    /// For how long it has not been listed.
    pub since: Duration,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Others {
    instances: Vec<String>,
    /// Open streams: whose they are, and since when they have not been listed.
    seen: BTreeMap<StreamId, (String, Option<Instant>)>,
}

impl Others {
    /// The list as it is now. `own`: this instance.
    pub(super) fn see(&mut self, listed: &[Registered], own: &str, now: Instant) {
        let lines: BTreeMap<StreamId, &Registered> = listed.iter().map(|line| (line.stream, line)).collect();
        // Whatever is done is being removed by whoever marked it.
        self.seen.retain(|stream, _| lines.get(stream).is_none_or(|line| !line.done));
        for (stream, (_, gone)) in &mut self.seen {
            *gone = if lines.contains_key(stream) { None } else { gone.or(Some(now)) };
        }
        for (stream, line) in lines.iter().filter(|(_, line)| line.instance != own && !line.done) {
            if self.seen.len() < STREAMS_MAX || self.seen.contains_key(stream) {
                self.seen.insert(*stream, (line.instance.clone(), None));
            }
        }
        let others: BTreeSet<&String> = listed.iter().map(|line| &line.instance).filter(|instance| *instance != own).collect();
        self.instances = others.into_iter().take(INSTANCES_MAX).cloned().collect();
    }

    /// It is known what became of a stream.
    pub(super) fn forget(&mut self, stream: StreamId) {
        self.seen.remove(&stream);
    }

    fn unlisted(&self) -> Vec<Unlisted> {
        let gone = |(stream, (instance, gone)): (&StreamId, &(String, Option<Instant>))| {
            Some(Unlisted { stream: *stream, instance: instance.clone(), since: (*gone)?.elapsed() })
        };
        self.seen.iter().filter_map(gone).collect()
    }
}

impl RedisBuffer {
    /// Other instances with streams in Redis.
    pub fn foreign(&self) -> Vec<String> {
        lock(&self.core.others).instances.clone()
    }

    /// Streams of other instances that have left the list of streams since this process looked at it first, without having been marked as done.
    pub fn unlisted(&self) -> Vec<Unlisted> {
        lock(&self.core.others).unlisted()
    }

    /// It is known what became of a stream that has left the list. `lost`: nobody ended it, and its instance does not run.
    pub fn explained(&self, unlisted: &Unlisted, lost: bool) {
        lock(&self.core.others).forget(unlisted.stream);
        if lost {
            self.core.observer.unlisted(unlisted.stream, &unlisted.instance);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_leaves_the_list_is_remembered_unless_it_was_done_or_comes_back() {
        let line = |stream: u128, instance: &str, done: bool| Registered {
            stream: StreamId::from_u128(stream),
            instance: instance.into(),
            done,
        };
        let mut others = Others::default();
        let now = Instant::now();
        others.see(&[line(1, "me", false), line(2, "b", false), line(3, "b", false), line(4, "c", true)], "me", now);
        assert_eq!(others.instances, ["b", "c"]);
        assert_eq!(others.unlisted(), []);
        others.see(&[line(3, "b", true)], "me", now);
        let gone =
            |others: &Others| others.unlisted().into_iter().map(|gone| (gone.stream.as_u128(), gone.instance)).collect::<Vec<_>>();
        assert_eq!(gone(&others), [(2, "b".to_owned())], "neither its own, nor what is done");
        others.see(&[], "me", now);
        assert_eq!(gone(&others), [(2, "b".to_owned())]);
        others.see(&[line(2, "b", false)], "me", now);
        assert_eq!(gone(&others), [], "copied again");
        others.see(&[], "me", now);
        others.forget(StreamId::from_u128(2));
        others.see(&[], "me", now);
        assert_eq!(gone(&others), []);
    }
}
