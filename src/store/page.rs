//! Some sessions of a walk through a whole store: no more than are quickly read and sent on.

use super::{Cursor, StoredSession};
use crate::error::Result;

/// The most sessions of a page.
pub const MAX_PAGE_SESSIONS: usize = 256;

/// A page ends after so many bytes of content.
pub const MAX_PAGE_BYTES: usize = 256 << 10;

/// What [`SessionStore::sessions`](super::SessionStore::sessions) returns.
#[derive(Debug, Default)]
pub struct Page {
    pub sessions: Vec<StoredSession>,
    /// How many live sessions the store had to leave out, as they cannot be read.
    pub unreadable: u64,
    /// Where the next page begins. `None` after the last one.
    pub next: Option<Cursor>,
    bytes: usize,
}

impl Page {
    /// Adds a session, or counts one that cannot be read.
    pub(super) fn add(&mut self, session: Result<StoredSession>) {
        match session.and_then(|session| session.content().map(drop).map(|()| session)) {
            Ok(session) => {
                self.bytes += session.content.len();
                self.sessions.push(session);
            }
            Err(_) => self.unreadable += 1,
        }
    }

    /// How many sessions may be added.
    pub(super) fn room(&self) -> usize {
        if self.bytes >= MAX_PAGE_BYTES { 0 } else { MAX_PAGE_SESSIONS.saturating_sub(self.sessions.len()) }
    }

    pub(super) fn is_full(&self) -> bool {
        self.room() == 0
    }
}
