//! The limits that all processes of a store should share.
//!
//! Each process applies its own limits to its own writes. If they differ, the process that serves a login decides how
//! many sessions the user may have. The store warns about that.

use std::num::NonZeroUsize;

use super::{UserLimit, WhenUserIsFull};

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommonLimits {
    pub per_user: UserLimit,
    /// In milliseconds.
    pub max_lifetime: Option<u64>,
}

/// The limits of this process, and the different limits of another process that has the store open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LimitsDiffer {
    pub own: CommonLimits,
    pub other: CommonLimits,
}

/// The largest encodable limit. Larger limits are encoded as this one.
const MAX_CODE: u64 = (1 << 37) - 1;

impl CommonLimits {
    /// Encodes the limit per user as a 38-bit number.
    pub fn user_code(self) -> u64 {
        let UserLimit { max, when_full } = self.per_user;
        max.map_or(0, |max| {
            (max.get() as u64).min(MAX_CODE) << 1 | u64::from(when_full == WhenUserIsFull::Reject)
        })
    }

    /// Encodes the lifetime as a 37-bit number.
    pub fn lifetime_code(self) -> u64 {
        self.max_lifetime.map_or(0, |max| max.min(MAX_CODE))
    }

    pub fn from_codes(user: u64, lifetime: u64) -> Self {
        let max = NonZeroUsize::new((user >> 1) as usize);
        let when_full = if user & 1 == 1 { WhenUserIsFull::Reject } else { WhenUserIsFull::EndOldest };
        Self {
            per_user: UserLimit { max, when_full },
            max_lifetime: Some(lifetime).filter(|lifetime| *lifetime > 0),
        }
    }

    /// Returns the options as JSON. An unset option is `null`.
    fn to_json(self) -> String {
        let number = |number: Option<u64>| number.map_or("null".into(), |number| number.to_string());
        let UserLimit { max, when_full } = self.per_user;
        let when_full = max.map_or("null".into(), |_| format!("{:?}", when_full.name()));
        format!(
            r#"{{"maxSessionsPerUser":{},"whenUserIsFull":{when_full},"maxLifetime":{}}}"#,
            number(max.map(|max| max.get() as u64)),
            number(self.max_lifetime),
        )
    }
}

impl LimitsDiffer {
    /// Returns both as JSON: `{ own, other }`.
    pub fn to_json(self) -> String {
        format!(r#"{{"own":{},"other":{}}}"#, self.own.to_json(), self.other.to_json())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(max: usize, when_full: WhenUserIsFull, lifetime: u64) -> CommonLimits {
        let per_user = UserLimit { max: NonZeroUsize::new(max), when_full };
        CommonLimits { per_user, max_lifetime: Some(lifetime).filter(|lifetime| *lifetime > 0) }
    }

    #[test]
    fn codes_encode_the_limits() {
        let all = [
            CommonLimits::default(),
            limits(1, WhenUserIsFull::EndOldest, 1),
            limits(1, WhenUserIsFull::Reject, 0),
            limits(3, WhenUserIsFull::Reject, 86_400_000),
            limits(MAX_CODE as usize, WhenUserIsFull::Reject, MAX_CODE),
        ];
        for one in all {
            assert_eq!(CommonLimits::from_codes(one.user_code(), one.lifetime_code()), one);
            assert!(one.user_code() < 1 << 38 && one.lifetime_code() < 1 << 38);
        }
        let far = limits(usize::MAX, WhenUserIsFull::Reject, u64::MAX);
        assert_eq!((far.user_code(), far.lifetime_code()), (all[4].user_code(), all[4].lifetime_code()));
    }

    #[test]
    fn json_names_the_options() {
        let differ =
            LimitsDiffer { own: limits(3, WhenUserIsFull::Reject, 5), other: CommonLimits::default() };
        let json = r#"{"own":{"maxSessionsPerUser":3,"whenUserIsFull":"reject","maxLifetime":5},"other":{"maxSessionsPerUser":null,"whenUserIsFull":null,"maxLifetime":null}}"#;
        assert_eq!(differ.to_json(), json);
    }
}
