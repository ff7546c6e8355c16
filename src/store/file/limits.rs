//! The limits of sessions and users in a store.

use std::num::NonZeroUsize;

use crate::lifetime::Lifetime;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub max_session_bytes: usize,
    pub max_sessions_per_user: Option<NonZeroUsize>,
    pub max_lifetime: Lifetime,
}
