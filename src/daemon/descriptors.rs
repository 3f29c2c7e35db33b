//! How many files and sockets this process may have open.
//!
//! In: the limits that the process was started with, and what the configuration needs. Out: the soft limit raised to the hard one, and a
//! warning where even that is too low. A crash loses nothing: the limits are the process's own.

use std::io;

use crate::config::Config;

/// What is open beside connections and lanes: libraries' queues, both stores' connections, sinks, sources, the log, the relay's brokers.
const OTHERS: u64 = 200;
/// A lane has its reader and its connection to the database; the segment being written, the next one and the one being scrubbed, and what an
/// integrity pass reads again, are the log's.
const PER_LANE: u64 = 3;

/// Raises the soft limit to the hard one, since some systems give a service 1,024 by default and mean it as no bound.
pub(super) fn raise(settings: &Config) {
    match raise_to_hard() {
        Ok((before, now)) => {
            log::debug!(target: "belayd", before = before, now = now; "limit of open files raised to what the system allows");
            if let Some(text) = too_few(now, settings.server.max_connections as u64, settings.buffer.streams as u64) {
                log::warn!(target: "belayd", "{text}");
            }
        }
        Err(error) => log::warn!(target: "belayd", error:% = error; "the limit of open files cannot be read or raised"),
    }
}

/// The soft limit before and after.
fn raise_to_hard() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes only into `limit`, which lives for the whole call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let before = limit.rlim_cur;
    if before < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the kernel only reads `limit`.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok((before, limit.rlim_cur))
}

/// What to say where so many are too few.
fn too_few(limit: u64, connections: u64, lanes: u64) -> Option<String> {
    let needed = connections + lanes * PER_LANE + OTHERS;
    (limit < needed).then(|| {
        format!(
            "only {limit} files may be open at once, {needed} may be needed (server.max_connections = {connections} and what the buffer and \
             the stores take): raise the hard limit (LimitNOFILE= in the unit, ulimit -Hn) or lower server.max_connections, else new \
             connections and segments are refused when it is reached"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_little_is_said_with_what_to_do() {
        assert_eq!(too_few(65_536, 1_024, 2), None);
        assert_eq!(too_few(1_024 + 2 * PER_LANE + OTHERS, 1_024, 2), None);
        let text = too_few(1_024, 1_024, 2).expect("too few");
        assert!(text.contains("LimitNOFILE=") && text.contains("1230") && text.contains("server.max_connections = 1024"), "{text}");
    }
}
