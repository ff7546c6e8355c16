//! Making room for a session in a store with limits.

use super::ledger::Ledger;
use super::record::Record;
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
    victims: Vec<(Record, Reason)>,
    /// What the store would hold then.
    sessions: usize,
    bytes: usize,
}

impl Plan {
    fn add(&mut self, record: &Record, reason: Reason) {
        self.sessions -= 1;
        self.bytes -= record.bytes();
        self.victims.push((record.clone(), reason));
    }
}

impl MemoryStore {
    /// Ends sessions until `new` fits, in the place of `old` if there is one, or ends none and says why it cannot.
    pub(super) fn make_room(
        &self,
        ledger: &mut Ledger,
        new: &Record,
        old: Option<&Record>,
        now: Millis,
    ) -> Result<Room> {
        let is_live = new.is_live(now);
        let mut plan = Plan {
            victims: Vec::new(),
            sessions: ledger.sessions() + usize::from(old.is_none()),
            bytes: ledger.bytes() + new.bytes() - old.map_or(0, Record::bytes),
        };
        if is_live {
            self.plan_for_user(&mut plan, new, old, now);
        }
        if let Err(error) = self.plan_for_store(&mut plan, ledger, new, old, now) {
            return if is_live { Err(error) } else { Ok(Room::NoneForTheDead) };
        }
        for (victim, reason) in plan.victims {
            self.remove_record(Some(ledger), &victim, reason);
        }
        Ok(Room::Made)
    }

    /// The user's oldest go where `maxSessionsPerUser` would be exceeded.
    fn plan_for_user(&self, plan: &mut Plan, new: &Record, old: Option<&Record>, now: Millis) {
        let (Some(max), Some(user)) = (self.limits.max_sessions_per_user, new.user()) else { return };
        let mut others = self.users.records(user);
        others.retain(|record| Some(record) != old && record.is_live(now));
        let Some(surplus) = (others.len() + 1).checked_sub(max.get()) else { return };
        others.sort_unstable_by_key(Record::created);
        for record in &others[..surplus] {
            plan.add(record, Reason::Evicted);
        }
    }

    /// The order of eviction: what has expired, then sessions of no user, then those of users, unless the newcomer
    /// is of no user itself.
    fn plan_for_store(
        &self,
        plan: &mut Plan,
        ledger: &Ledger,
        new: &Record,
        old: Option<&Record>,
        now: Millis,
    ) -> Result<()> {
        if !self.limits.fits(1, new.bytes()) {
            return Err(StoreError::Full("the session alone is larger than maxBytes".into()));
        }
        let live = new.is_live(now);
        let expired = ledger.expired(now).map(|record| (record, Reason::Expired));
        let anonymous = ledger.anonymous(now).filter(|_| live).map(|record| (record, Reason::Evicted));
        let of_users = ledger
            .of_users(now)
            .filter(|_| live && new.user().is_some())
            .map(|record| (record, Reason::Evicted));
        let mut candidates = expired.chain(anonymous).chain(of_users);
        // No candidate comes twice, so that only the user's own may be in the plan already.
        let own = plan.victims.len();
        while !self.limits.fits(plan.sessions, plan.bytes) {
            let (record, reason) = candidates.next().ok_or_else(|| {
                StoreError::Full(
                    "it holds sessions of users only, which an anonymous one must not push out".into(),
                )
            })?;
            if Some(record) != old && !plan.victims[..own].iter().any(|(victim, _)| victim == record) {
                plan.add(record, reason);
            }
        }
        Ok(())
    }
}
