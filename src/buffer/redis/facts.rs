//! What a Redis says of itself: whether it keeps its data on disk, how soon, how much memory it may use and what it does at that bound.
//!
//! In: its own answers, asked again every half minute, because `CONFIG SET` may change them. Out: the level that an acknowledgement may
//! name, and in words what may be lost. Where CONFIG is forbidden, INFO is believed.

use redis::Value;
use serde::Serialize;

use super::link::{Link, LinkError, text};
use crate::domain::ack::AckLevel;

/// How soon Redis syncs its append-only file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fsync {
    /// Before it answers.
    Always,
    /// Every second.
    Everysec,
    /// When the kernel likes.
    No,
    /// It does not tell.
    Unknown,
    /// There is no append-only file.
    Off,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// `7.0.15`
    pub version: String,
    /// When its data is on its disk.
    pub append_fsync: Fsync,
    /// Bytes in use.
    pub used_memory: u64,
    /// Most bytes; 0 where there is no bound.
    pub max_memory: u64,
    /// What it does at that bound.
    pub memory_policy: String,
    /// Replicas that are connected.
    pub replicas: u64,
}

impl Facts {
    /// Asks.
    ///
    /// # Errors
    /// It does not answer, or is older than 6.2.
    pub fn ask(link: &mut Link) -> Result<Self, LinkError> {
        let info = link.ask(&redis::cmd("INFO"))?;
        let info = text(&info).unwrap_or_default().to_owned();
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let number = |name: &str| field(name).and_then(|value| value.parse().ok()).unwrap_or(0);
        let version = field("redis_version").unwrap_or_default().to_owned();
        if version_of(&version) < (6, 2) {
            return Err(LinkError::ours("error", format!("Redis {version} is too old; streams with XAUTOCLAIM need 6.2")));
        }
        let fsync = if field("aof_enabled") == Some("1") {
            match config(link, "appendfsync")?.as_deref() {
                Some("always") => Fsync::Always,
                Some("everysec") => Fsync::Everysec,
                Some("no") => Fsync::No,
                _ => Fsync::Unknown,
            }
        } else {
            Fsync::Off
        };
        Ok(Self {
            append_fsync: fsync,
            used_memory: number("used_memory"),
            max_memory: number("maxmemory"),
            memory_policy: field("maxmemory_policy").unwrap_or("unknown").to_owned(),
            replicas: number("connected_slaves"),
            version,
        })
    }

    /// Whether it throws keys without an end of life away when its memory is full.
    pub fn evicts(&self) -> bool {
        self.max_memory > 0 && self.memory_policy.starts_with("allkeys")
    }

    /// Whether its memory ends before `redis.stream_bytes` does: it refuses batches then, or evicts, where belayd still counts on room.
    pub fn is_smaller_than(&self, stream_bytes: u64) -> bool {
        self.max_memory > 0 && self.max_memory < stream_bytes
    }

    /// The level that its answer stands for.
    pub fn level(&self) -> AckLevel {
        if self.append_fsync == Fsync::Off || self.evicts() { AckLevel::Memory } else { AckLevel::Redis }
    }

    /// The same as a word, for translations.
    pub fn may_lose_code(&self) -> &'static str {
        match (self.append_fsync, self.evicts()) {
            (_, true) => "redis-evicts",
            (Fsync::Off, _) => "redis-off",
            (Fsync::Always, _) => "redis-always",
            (Fsync::Everysec, _) => "redis-everysec",
            (Fsync::No | Fsync::Unknown, _) => "redis-no",
        }
    }

    /// What may be lost of what was acknowledged.
    pub fn may_lose(&self) -> &'static str {
        match (self.append_fsync, self.evicts()) {
            (_, true) => "whatever Redis evicts: its maxmemory-policy throws streams away when its memory is full; set noeviction",
            (Fsync::Off, _) => "everything that Redis holds and the database has not, when Redis ends: appendonly is off",
            (Fsync::Always, _) => {
                "nothing that was acknowledged, unless the disk of Redis is lost, lies about syncs, or a replica takes over that lacks the newest"
            }
            (Fsync::Everysec, _) => {
                "up to 2 s of what was acknowledged when the host of Redis loses power (more, where a sync takes longer), when Redis is killed \
                 during a sync, or a replica takes over (appendfsync everysec)"
            }
            (Fsync::No | Fsync::Unknown, _) => {
                "what the kernel had not written (half a minute, say) when the host of Redis loses power (appendfsync no)"
            }
        }
    }
}

fn version_of(text: &str) -> (u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// One setting; `None` where it may not be asked.
fn config(link: &mut Link, name: &str) -> Result<Option<String>, LinkError> {
    match link.ask(redis::cmd("CONFIG").arg("GET").arg(name)) {
        Ok(Value::Array(pair)) => Ok(pair.get(1).and_then(text).map(str::to_owned)),
        Ok(_) => Ok(None),
        Err(refused) if refused.definite => Ok(None),
        Err(failed) => Err(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(fsync: Fsync, max_memory: u64, policy: &str) -> Facts {
        let memory_policy = policy.to_owned();
        Facts { version: "7.0.15".into(), append_fsync: fsync, used_memory: 1, max_memory, memory_policy, replicas: 0 }
    }

    #[test]
    fn a_redis_that_forgets_reaches_no_more_than_memory() {
        assert_eq!(facts(Fsync::Always, 0, "noeviction").level(), AckLevel::Redis);
        assert_eq!(facts(Fsync::Everysec, 100, "volatile-lru").level(), AckLevel::Redis, "our keys have no end of life");
        assert_eq!(facts(Fsync::Off, 0, "noeviction").level(), AckLevel::Memory);
        assert_eq!(facts(Fsync::Always, 100, "allkeys-lru").level(), AckLevel::Memory);
        assert_eq!(facts(Fsync::Always, 0, "allkeys-lru").level(), AckLevel::Redis, "without a bound nothing is evicted");
        assert!(facts(Fsync::Everysec, 0, "noeviction").may_lose().contains("2 s"));
    }

    #[test]
    fn memory_that_ends_before_the_streams_may_is_too_small_and_no_bound_is_none() {
        let of = |max_memory| facts(Fsync::Always, max_memory, "noeviction");
        assert!(of(99).is_smaller_than(100));
        assert!(!of(100).is_smaller_than(100) && !of(0).is_smaller_than(100));
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(version_of("10.0.1") > version_of("7.4") && version_of("6.0.9") < (6, 2));
    }
}
