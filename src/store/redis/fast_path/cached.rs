//! `get` calls that are answered from the near cache.

use std::time::{Duration, Instant};

use super::super::cache::{CacheStats, Freshness, PROBE, key};
use super::super::connection::Filled;
use super::super::resp::slot_of;
use super::super::session::Op;
use super::FastPath;
use super::primary::Call;
use super::routes::Destination;
use crate::clock::since_boot;
use crate::session::{Content, Expiry, SessionId};
use std::sync::atomic::Ordering;

/// How many bytes of replies may wait for the next turn. Beyond that a `get` goes to the server, like those before
/// it.
const MAX_UNREAD: usize = 256 * 1024;

/// How long an empty socket is assumed to stay empty. No reply arrives faster, so no caller can know of a change
/// within this time.
const EMPTY_FOR: Duration = Duration::from_micros(2);

/// What the caller must do after a `get` was answered from the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hit {
    Done,
    /// Call `submit`, and read `next_deadline` again. Either replies were read that no poll will report, or a request
    /// must be sent.
    HasWork,
}

impl FastPath {
    /// The counters of the cache, if there is one.
    pub fn cache_stats(&self) -> Option<CacheStats> {
        let mut stats = self.cache.as_ref()?.stats();
        if !self.is_wanted {
            stats.off = Some("this platform has no event loop that can wait for a connection".into());
        }
        Some(stats)
    }

    /// Calls `read` with the session, if the cache has it and it is fresh. Otherwise starts nothing. Only the last
    /// call of `read` counts, and only if this returns a hit.
    pub fn try_get(&mut self, id: &SessionId, mut read: impl FnMut(Expiry, Content<'_>)) -> Option<Hit> {
        let (cache, cipher) = (self.cache.as_mut()?, self.cipher.as_ref()?);
        // The worker counts them before this thread is notified of them.
        cache.note_mass_ends(self.store.counters.mass_ends.load(Ordering::Relaxed), Instant::now);
        let now = Instant::now();
        cache.note_time(now, since_boot());
        let key = key(cipher, id)?;
        let at = if self.routes.is_one_server() {
            0
        } else {
            match self.routes.destination(slot_of(&self.store.names.session(&cipher.member(id)))) {
                Destination::To(at) => at,
                Destination::After(_) | Destination::Unknown => return None,
            }
        };
        let primary = &mut self.primaries[at];
        let open = primary.open.as_mut().filter(|open| open.is_tracked && open.is_usable())?;
        let freshness = cache.freshness(&open.proof, now);
        if freshness == Freshness::Stale || !cache.copy(&key, &mut read) {
            return None;
        }
        let mut has_read = false;
        while now.saturating_duration_since(open.empty_at) > EMPTY_FOR {
            match open.fill(Some(&mut *cache), &self.store.names) {
                Ok(Filled::Nothing) => open.empty_at = now,
                Ok(Filled::Whole | Filled::Some) if open.socket.unread() <= MAX_UNREAD => has_read = true,
                Ok(Filled::Whole | Filled::Some) => {
                    primary.has_buffered = true;
                    return None;
                }
                // The next turn handles the replies before the end, then finds the end again.
                Ok(Filled::Ended) | Err(_) => {
                    cache.drop_all();
                    primary.has_buffered = true;
                    return None;
                }
            }
        }
        let has_replies = open.socket.unread() > 0;
        primary.has_buffered |= has_replies;
        if has_read && !cache.copy(&key, &mut read) {
            return None;
        }
        cache.hit();
        if freshness == Freshness::ToBeRenewed {
            open.proof.probed(now);
            let call = Call::new(Op::Get(id.clone()), PROBE, now + self.store.command_timeout);
            self.renew(at, call);
            return Some(Hit::HasWork);
        }
        self.store.counters.looked_up(true);
        Some(if has_replies { Hit::HasWork } else { Hit::Done })
    }

    /// Sends a `get` without a caller. It counts as the hit that caused it.
    fn renew(&mut self, at: usize, call: Call) {
        if self.primaries[at].queued.is_empty() && self.has_room(at) {
            self.send(at, call);
        }
    }
}
