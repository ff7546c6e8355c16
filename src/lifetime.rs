//! The maximum lifetime of a session.

use crate::clock::Millis;
use crate::iso::MAX_MILLIS;
use crate::session::Expiry;

/// The option `maxLifetime`: a session ends at most this long after its creation, whatever its expiry says.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime(Option<Millis>);

impl Lifetime {
    /// No limit: sessions end at their expiry.
    pub const UNLIMITED: Self = Self(None);

    /// A limit in milliseconds, or none.
    pub fn new(max: Option<u64>) -> Self {
        // The largest difference of two JavaScript dates.
        Self(max.map(|max| max.min(2 * MAX_MILLIS as u64) as Millis))
    }

    /// The limit in milliseconds.
    pub fn max(self) -> Option<u64> {
        self.0.map(|max| max as u64)
    }

    pub fn is_limited(self) -> bool {
        self.0.is_some()
    }

    /// Returns the latest end of a session that was created at this time.
    pub fn last(self, created: Millis) -> Millis {
        self.0.map_or(Millis::MAX, |max| created.saturating_add(max))
    }

    /// Returns the end of a session with this expiry and creation time.
    pub fn end(self, expires: Expiry, created: Millis) -> Expiry {
        let last = self.last(created);
        if expires.millis() <= last {
            return expires;
        }
        // Clamp to the first JavaScript date, which is past in any case.
        Expiry::moved_to(last.max(-MAX_MILLIS)).unwrap_or(expires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_session_ends_after_its_lifetime(
            max in 1..=u64::MAX,
            created in -MAX_MILLIS..=MAX_MILLIS,
            expires in -MAX_MILLIS..=MAX_MILLIS,
        ) {
            let expires = Expiry::new(expires).unwrap();
            let end = Lifetime::new(Some(max)).end(expires, created);
            let last = i128::from(created) + i128::from(max);
            prop_assert_eq!(i128::from(end.millis()), last.min(i128::from(expires.millis())));
            prop_assert_eq!(end.was_moved(), end != expires);
            prop_assert_eq!(Lifetime::UNLIMITED.end(expires, created), expires);
        }
    }
}
