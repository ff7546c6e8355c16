//! The limits of sessions and users in a store.

use crate::lifetime::Lifetime;
use crate::store::UserLimit;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub max_session_bytes: usize,
    pub per_user: UserLimit,
    pub max_lifetime: Lifetime,
}
