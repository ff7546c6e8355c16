//! One session in memory: one allocation, shared by the tables that point to it.

use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicI64, Ordering};

use triomphe::ThinArc;

use crate::clock::Millis;
use crate::codec;
use crate::error::Result;
use crate::session::{Content, Expiry, Session, SessionId, UserKey};
use crate::store::StoredSession;

/// What a session costs beside its record: its slots in the table of sessions (9 bytes) and in the index by user
/// (17 bytes), both at the load of about 0.65 that doubling tables have on average.
const SLOTS_BYTES: usize = 40;

/// A session. Its bytes never change; an update puts another record in its place.
///
/// Cloning is a new pointer to the same record, and equality is of the pointers.
#[derive(Clone)]
pub(super) struct Record(ThinArc<Head, u8>);

struct Head {
    /// The bits of an `Expiry`. Written under a lock of the session's shard, shared or not.
    expires: AtomicI64,
    /// Counts the creations of a store: an older session has a smaller one. Kept by updates.
    created: u64,
}

impl Record {
    /// Lays out the length of the packed id, the packed id, and the content as `codec` has it.
    pub(super) fn new(session: &Session<'_>, created: u64) -> Self {
        thread_local! {
            static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        BYTES.with_borrow_mut(|bytes| {
            bytes.clear();
            codec::write_len(session.id.as_bytes().len(), bytes);
            bytes.extend_from_slice(session.id.as_bytes());
            codec::encode(&session.content, bytes);
            let head = Head { expires: AtomicI64::new(session.expires.to_bits()), created };
            let record = Self(ThinArc::from_header_and_slice(head, bytes));
            // One large session should not pin its size for the life of the thread.
            bytes.shrink_to(4096);
            record
        })
    }

    pub(super) fn created(&self) -> u64 {
        self.0.header.header.created
    }

    pub(super) fn expires(&self) -> Expiry {
        Expiry::from_bits(self.0.header.header.expires.load(Ordering::Relaxed))
    }

    pub(super) fn set_expires(&self, expires: Expiry) {
        self.0.header.header.expires.store(expires.to_bits(), Ordering::Relaxed);
    }

    pub(super) fn is_live(&self, now: Millis) -> bool {
        !self.expires().is_past(now)
    }

    /// The packed id.
    pub(super) fn id(&self) -> &[u8] {
        self.parts().0
    }

    pub(super) fn user(&self) -> Option<UserKey<'_>> {
        codec::decode_user(self.parts().1).unwrap_or_default()
    }

    pub(super) fn content(&self) -> Result<Content<'_>> {
        codec::decode(self.parts().1)
    }

    pub(super) fn session_id(&self) -> Result<SessionId> {
        SessionId::from_packed(self.id())
    }

    pub(super) fn to_stored(&self) -> Result<StoredSession> {
        Ok(StoredSession::new(self.session_id()?, self.expires(), self.parts().1))
    }

    /// What the session takes, slots in the tables included.
    pub(super) fn bytes(&self) -> usize {
        // The count of pointers, the head, the length of the slice, the slice.
        let record = size_of::<usize>() + size_of::<Head>() + size_of::<usize>() + self.0.slice.len();
        record.next_multiple_of(16) + SLOTS_BYTES
    }

    /// Reads this pointer, not the record, for the sake of the cache alone.
    pub(super) fn prefetch(&self) {
        std::hint::black_box(self.address());
    }

    fn address(&self) -> usize {
        self.0.heap_ptr().addr()
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        codec::read_len(&self.0.slice).and_then(|(len, rest)| rest.split_at_checked(len)).unwrap_or_default()
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.address() == other.address()
    }
}

impl Eq for Record {}

impl Hash for Record {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address().hash(state);
    }
}

impl PartialOrd for Record {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Record {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.address().cmp(&other.address())
    }
}
