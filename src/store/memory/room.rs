//! Making room for a session in a store with limits.

use super::ledger::{Ledger, Line};
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

/// What must go for a session to come in.
struct Plan {
    victims: Vec<(Line, Reason)>,
    /// What the store would hold then.
    sessions: usize,
    bytes: usize,
}

impl Plan {
    fn add(&mut self, line: &Line, reason: Reason) {
        self.sessions -= 1;
        self.bytes -= line.cost;
        self.victims.push((*line, reason));
    }
}

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
        let mut plan = Plan {
            victims: Vec::new(),
            sessions: ledger.sessions() + usize::from(old.is_none()),
            bytes: ledger.bytes() + new.cost() - old.map_or(0, |old| old.cost),
        };
        if is_live {
            self.plan_for_user(&mut plan, ledger, new, old, now);
        }
        if let Err(error) = self.plan_for_store(&mut plan, ledger, new, old, now) {
            return if is_live { Err(error) } else { Ok(Room::NoneForTheDead) };
        }
        for (victim, reason) in plan.victims {
            self.remove_line(ledger, &victim, reason);
        }
        Ok(Room::Made)
    }

    /// The user's oldest go where `maxSessionsPerUser` would be exceeded.
    fn plan_for_user(&self, plan: &mut Plan, ledger: &Ledger, new: &Draft, old: Option<&Line>, now: Millis) {
        let (Some(max), Some(user)) = (self.limits.max_sessions_per_user, new.user()) else { return };
        if self.users.at_most(user) < max.get() {
            return;
        }
        let mut others = self.of_user(user, |record| record.created());
        others.retain(|created| old.is_none_or(|old| old.created != *created));
        let mut others: Vec<&Line> = others.into_iter().filter_map(|created| ledger.line(created)).collect();
        others.retain(|line| line.expires > now);
        let Some(surplus) = (others.len() + 1).checked_sub(max.get()) else { return };
        others.sort_unstable_by_key(|line| line.created);
        for line in &others[..surplus] {
            plan.add(line, Reason::Evicted);
        }
    }

    /// The order of eviction: what has expired, then sessions of no user, then those of users, unless the newcomer
    /// is of no user itself.
    fn plan_for_store(
        &self,
        plan: &mut Plan,
        ledger: &Ledger,
        new: &Draft,
        old: Option<&Line>,
        now: Millis,
    ) -> Result<()> {
        if !self.limits.fits(1, new.cost()) {
            return Err(StoreError::Full("the session alone is larger than maxBytes".into()));
        }
        let live = new.is_live(now);
        let expired = ledger.expired(now).map(|line| (line, Reason::Expired));
        let anonymous = ledger.anonymous(now).filter(|_| live).map(|line| (line, Reason::Evicted));
        let of_users =
            ledger.of_users(now).filter(|_| live && new.user().is_some()).map(|line| (line, Reason::Evicted));
        let mut candidates = expired.chain(anonymous).chain(of_users);
        // No candidate comes twice, so that only the user's own may be in the plan already.
        let own = plan.victims.len();
        while !self.limits.fits(plan.sessions, plan.bytes) {
            let (line, reason) = candidates.next().ok_or_else(|| {
                StoreError::Full(
                    "it holds sessions of users only, which an anonymous one must not push out".into(),
                )
            })?;
            if Some(line) != old && !plan.victims[..own].iter().any(|(victim, _)| victim == line) {
                plan.add(line, reason);
            }
        }
        Ok(())
    }
}
