//! What the comparison of Redis with its books asks of the journal, from which the copies are made.
//!
//! In: a copy with a hole. Out: the order to the copier to make it anew, where the journal still holds all of it. A crash loses the order; the
//! next comparison finds the hole again.

use std::sync::atomic::Ordering;

use redis::cmd;

use super::copier::Desk;
use crate::{
    buffer::{
        Buffer,
        redis::{
            audit::Origin,
            core::lock,
            entry::last_id,
            link::{Link, LinkError},
        },
    },
    domain::receipt::StreamId,
};

impl Desk {
    fn lane(&self, stream: StreamId) -> Option<usize> {
        self.journal.lane_states().iter().position(|state| state.stream == stream)
    }
}

impl Origin for Desk {
    fn end(&self, stream: StreamId) -> Option<u64> {
        Some(self.journal.end(self.lane(stream)?))
    }

    fn copy_anew(&self, stream: StreamId, first: u64, missing: u64) -> bool {
        if self.cannot_remove.load(Ordering::Relaxed) {
            return false;
        }
        let Some(lane) = self.lane(stream) else { return false };
        // What the journal itself has not, damaged for example, no copy can have.
        let has = self.journal.read_again(stream, missing, missing).is_ok_and(|frames| !frames.is_empty());
        if !has || self.journal.first_retained(lane) > first {
            return false;
        }
        *lock(&self.anew[lane]) = Some((stream, first));
        self.bell.ring();
        true
    }
}

/// Removes a copy with holes, so that it is made again from the beginning of the journal, which must hold all of it: unless another instance
/// has sealed it, for that one drains it. Called by the copier alone; it asks Redis afterwards how far the copy is.
///
/// # Errors
/// Redis does not answer, or refuses it for now: throw the link away, which watches the key.
pub(super) fn remove_copy(
    desk: &Desk,
    (lane, stream): (usize, StreamId),
    first: u64,
    link: &mut Link,
    key: &str,
) -> Result<(), LinkError> {
    let refused = |refused: LinkError| {
        if !refused.is_forbidden() {
            // Away, or it passes: the next comparison finds the hole again.
            return Err(refused);
        }
        desk.cannot_remove.store(true, Ordering::Relaxed);
        log::warn!(target: "belayd::buffer", stream:% = stream, error:% = refused; "a copy with holes is not made anew, because Redis refuses what removes it: allow watch, unwatch, multi, exec and unlink, and start again");
        Ok(())
    };
    if let Err(error) = link.ask(cmd("WATCH").arg(key)) {
        return refused(error);
    }
    // From here on the journal lets nothing of it go.
    desk.journal.copied(lane, stream, 0);
    let sealed = last_id(link, key)? == Some(u64::MAX);
    if sealed || desk.journal.first_retained(lane) > first {
        return link.ask(&cmd("UNWATCH")).map(drop).or_else(refused);
    }
    // Sealed in between, EXEC does nothing.
    let answers = link.ask_all(&[cmd("MULTI"), cmd("UNLINK").arg(key).to_owned(), cmd("EXEC")])?;
    // Where the key lives elsewhere nothing was done, and the next comparison finds the hole again.
    answers.into_iter().filter_map(Result::err).find(|error| error.redirect.is_none()).map_or(Ok(()), refused)
}
