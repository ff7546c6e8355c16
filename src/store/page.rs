//! A page of a scan through a whole store. It is small enough to be read and delivered quickly.

use super::{Cursor, StoredSession};
use crate::error::Result;

/// The maximum number of sessions in a page.
pub const MAX_PAGE_SESSIONS: usize = 256;

/// A page ends after this many bytes of content.
pub const MAX_PAGE_BYTES: usize = 256 << 10;

/// The result of [`SessionStore::sessions`](super::SessionStore::sessions).
#[derive(Debug, Default)]
pub struct Page {
    pub sessions: Vec<StoredSession>,
    /// How many unreadable live sessions were skipped.
    pub unreadable: u64,
    /// The cursor of the next page. `None` after the last one.
    pub next: Option<Cursor>,
    bytes: usize,
}

impl Page {
    /// Adds a session, or counts an unreadable one.
    pub(super) fn add(&mut self, session: Result<StoredSession>) {
        match session.and_then(|session| session.content().map(drop).map(|()| session)) {
            Ok(session) => {
                self.bytes += session.content.len();
                self.sessions.push(session);
            }
            Err(_) => self.unreadable += 1,
        }
    }

    /// Returns how many sessions may still be added.
    pub(super) fn room(&self) -> usize {
        if self.bytes >= MAX_PAGE_BYTES { 0 } else { MAX_PAGE_SESSIONS.saturating_sub(self.sessions.len()) }
    }

    pub(super) fn is_full(&self) -> bool {
        self.room() == 0
    }
}
