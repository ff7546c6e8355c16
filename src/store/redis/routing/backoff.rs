//! The delay before the next attempt.

use std::time::Duration;

/// The delay after the first failed attempt. It doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// The delay before the next attempt. It is partly random, so that clients do not all retry together.
pub fn backoff(attempts: u32, chance: f64) -> Duration {
    let longest = FIRST_BACKOFF.saturating_mul(1 << attempts.min(10)).min(MAX_BACKOFF);
    longest.mul_f64(0.5 + chance / 2.0)
}

#[cfg(test)]
mod tests {
    use super::super::super::connection::System;
    use super::*;

    #[test]
    fn backoffs_grow_to_two_seconds_and_differ() {
        for (attempts, longest) in [(0, 50), (1, 100), (5, 1600), (6, 2000), (u32::MAX, 2000)] {
            let backoffs: Vec<_> = (0..20).map(|_| backoff(attempts, System::Real.chance())).collect();
            let longest = Duration::from_millis(longest);
            assert!(
                backoffs.iter().all(|&backoff| backoff >= longest / 2 && backoff <= longest),
                "{backoffs:?}"
            );
            assert!(backoffs.iter().any(|&backoff| backoff != backoffs[0]));
        }
    }
}
