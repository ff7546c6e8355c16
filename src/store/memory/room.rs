//! Making room for a session in a store with limits.

use super::ledger::{LINE_BYTES, Ledger, Line};
use super::record::Draft;
use super::{MemoryStore, Reason};
use crate::clock::Millis;
use crate::error::{Result, StoreError};

/// What came of making room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Made,
    /// The session has expired already and is not worth a live one.
    NoneForTheDead,
}

/// A session that must go for another to come in.
type Victim = (Line, Reason);

impl MemoryStore {
    /// Ends sessions until `new` fits, in the place of `old` if there is one, or ends none and says why it cannot.
    pub(super) fn make_room(
        &self,
        ledger: &mut Ledger,
        new: &Draft,
        old: Option<&Line>,
        now: Millis,
    ) -> Result<Room> {
        let is_live = new.is_live(now);
        let mut victims = if is_live { self.surplus_of_user(new, old, now) } else { Vec::new() };
        if self.limits.has_capacity()
            && let Err(error) = self.plan_for_store(&mut victims, ledger, new, old, now)
        {
            return if is_live { Err(error) } else { Ok(Room::NoneForTheDead) };
        }
        for (victim, reason) in victims {
            self.remove_line(ledger, &victim, reason);
        }
        Ok(Room::Made)
    }

    /// The user's oldest, where `maxSessionsPerUser` would be exceeded.
    fn surplus_of_user(&self, new: &Draft, old: Option<&Line>, now: Millis) -> Vec<Victim> {
        let (Some(max), Some(user)) = (self.limits.max_sessions_per_user, new.user()) else {
            return Vec::new();
        };
        if self.users.at_most(user) < max.get() {
            return Vec::new();
        }
        let mut others = self.of_user(user, |handle, record| record.line(handle));
        others.retain(|line| line.expires > now && old.is_none_or(|old| old.created != line.created));
        let surplus = (others.len() + 1).saturating_sub(max.get());
        others.sort_unstable_by_key(|line| line.created);
        others.truncate(surplus);
        others.into_iter().map(|line| (line, Reason::Evicted)).collect()
    }

    /// The order of eviction: what has expired, then sessions of no user, then those of users, unless the newcomer
    /// is of no user itself. `victims` are the user's own, to which others are added.
    fn plan_for_store(
        &self,
        victims: &mut Vec<Victim>,
        ledger: &Ledger,
        new: &Draft,
        old: Option<&Line>,
        now: Millis,
    ) -> Result<()> {
        let cost = new.cost() + LINE_BYTES;
        if !self.limits.fits(1, cost) {
            return Err(StoreError::Full("the session alone is larger than maxBytes".into()));
        }
        let live = new.is_live(now);
        let expired = ledger.expired(now).map(|line| (line, Reason::Expired));
        let anonymous = ledger.anonymous(now).filter(|_| live).map(|line| (line, Reason::Evicted));
        let of_users =
            ledger.of_users(now).filter(|_| live && new.user().is_some()).map(|line| (line, Reason::Evicted));
        let mut candidates = expired.chain(anonymous).chain(of_users);
        // No candidate comes twice, so that only the user's own may be among the victims already.
        let own = victims.len();
        let mut sessions = ledger.sessions() + usize::from(old.is_none()) - own;
        let costs = |lines: &[Victim]| lines.iter().map(|(line, _)| line.cost).sum::<usize>();
        let mut bytes = ledger.bytes() + cost - old.map_or(0, |old| old.cost) - costs(victims);
        while !self.limits.fits(sessions, bytes) {
            let (line, reason) = candidates.next().ok_or_else(|| {
                StoreError::Full(
                    "it holds sessions of users only, which an anonymous one must not push out".into(),
                )
            })?;
            let stays = old.into_iter().chain(victims[..own].iter().map(|(victim, _)| victim));
            if stays.into_iter().all(|other| other.created != line.created) {
                (sessions, bytes) = (sessions - 1, bytes - line.cost);
                victims.push((*line, reason));
            }
        }
        Ok(())
    }
}
