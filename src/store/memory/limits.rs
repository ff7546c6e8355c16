//! The limits of a `MemoryStore`.

use std::num::NonZeroUsize;

use crate::lifetime::Lifetime;
use crate::store::{DEFAULT_MAX_SESSION_BYTES, WhenUserIsFull};

/// The limits of a store. `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest session, in bytes of its JSON text.
    pub max_session_bytes: usize,
    /// How many live sessions a user may have.
    pub max_sessions_per_user: Option<NonZeroUsize>,
    pub when_user_is_full: WhenUserIsFull,
    /// How many sessions the store holds.
    pub max_sessions: Option<NonZeroUsize>,
    /// How many bytes the sessions may take, as `Stats::bytes` counts them.
    pub max_bytes: Option<NonZeroUsize>,
    /// How long a session may live after its creation.
    pub max_lifetime: Lifetime,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_session_bytes: DEFAULT_MAX_SESSION_BYTES,
            max_sessions_per_user: None,
            when_user_is_full: WhenUserIsFull::default(),
            max_sessions: None,
            max_bytes: None,
            max_lifetime: Lifetime::UNLIMITED,
        }
    }
}

impl Limits {
    /// Whether the store as a whole can be full.
    pub(super) fn has_capacity(&self) -> bool {
        self.max_sessions.is_some() || self.max_bytes.is_some()
    }

    pub(super) fn fits(&self, sessions: usize, bytes: usize) -> bool {
        self.max_sessions.is_none_or(|max| sessions <= max.get())
            && self.max_bytes.is_none_or(|max| bytes <= max.get())
    }

    /// Whether a new session may end another one.
    pub(super) fn can_evict(&self) -> bool {
        self.has_capacity() || self.max_sessions_per_user.is_some()
    }
}
