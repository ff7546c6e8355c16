//! The proof that all invalidations of a connection's server have arrived.

use std::time::{Duration, Instant};

/// A proof is renewed when it is older than its maximum age divided by this.
const RENEWAL_DIVISOR: u32 = 2;

/// What the replies on a connection prove.
#[derive(Debug, Default, Clone, Copy)]
pub struct Proof {
    /// When the latest request with a reply was sent. All invalidations of earlier changes have arrived.
    asked_at: Option<Instant>,
    /// When the last probe was sent.
    probed_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    Fresh,
    /// Still fresh, but soon stale.
    ToBeRenewed,
    Stale,
}

impl Proof {
    /// Records a reply to a request that was sent at `sent_at` or later.
    pub fn replied(&mut self, sent_at: Instant) {
        self.asked_at = self.asked_at.max(Some(sent_at));
    }

    /// Records a request that is sent only to renew the proof.
    pub fn probed(&mut self, now: Instant) {
        self.probed_at = Some(now);
    }

    /// Makes the proof older.
    #[cfg(test)]
    pub fn age(&mut self, by: Duration) {
        for at in [&mut self.asked_at, &mut self.probed_at] {
            *at = at.and_then(|at| at.checked_sub(by));
        }
    }

    pub(super) fn freshness(
        &self,
        now: Instant,
        max_staleness: Duration,
        not_before: Option<Instant>,
    ) -> Freshness {
        let Some(asked_at) = self.asked_at.filter(|&asked_at| Some(asked_at) >= not_before) else {
            return Freshness::Stale;
        };
        let age = now.saturating_duration_since(asked_at);
        if age > max_staleness {
            return Freshness::Stale;
        }
        let renew_after = max_staleness / RENEWAL_DIVISOR;
        let is_old = |at: Instant| now.saturating_duration_since(at) >= renew_after;
        if is_old(asked_at) && self.probed_at.is_none_or(is_old) {
            Freshness::ToBeRenewed
        } else {
            Freshness::Fresh
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_counts_from_the_time_of_its_request() {
        let (started, limit) = (Instant::now(), Duration::from_millis(100));
        let at = |millis| started + Duration::from_millis(millis);
        let mut proof = Proof::default();
        let of = |proof: &Proof, millis| proof.freshness(at(millis), limit, None);
        assert_eq!(of(&proof, 0), Freshness::Stale);
        proof.replied(at(10));
        // A late reply to an earlier request changes nothing.
        proof.replied(at(5));
        for (millis, freshness) in [
            (10, Freshness::Fresh),
            (59, Freshness::Fresh),
            (60, Freshness::ToBeRenewed),
            (110, Freshness::ToBeRenewed),
            (111, Freshness::Stale),
        ] {
            assert_eq!(of(&proof, millis), freshness, "{millis}");
        }
        // Not every hit sends a probe.
        proof.probed(at(60));
        assert_eq!(of(&proof, 61), Freshness::Fresh);
        assert_eq!(of(&proof, 110), Freshness::ToBeRenewed);
        assert_eq!(of(&proof, 111), Freshness::Stale);
        // Sessions were ended at 60, so earlier requests do not count.
        assert_eq!(proof.freshness(at(61), limit, Some(at(60))), Freshness::Stale);
        proof.replied(at(60));
        assert_eq!(proof.freshness(at(61), limit, Some(at(60))), Freshness::Fresh);
    }
}
