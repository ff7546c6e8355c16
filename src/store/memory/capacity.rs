//! Making room for a session in a store with limits.

use std::num::NonZeroUsize;

use super::candidates::{NO_KEY, Order, expiry_key};
use super::core::MemoryStore;
use super::eviction::{EvictionList, Total};
use super::last_use::LastUse;
use super::limits::Limits;
use super::record::{NewRecord, Record};
use super::slot::SessionRef;
use crate::clock::Millis;
use crate::error::{Result, StoreError};
use crate::events::Reason;
use crate::store::WhenUserIsFull;

/// An early scan comes after so many uses at least. The model checker has few uses.
const MIN_USES: usize = if cfg!(feature = "shuttle") { 1 } else { 64 };

/// Whether a session fits after `make_room`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Fits,
    /// It has expired already, and there is room only if a live session ends. So it is not stored.
    AlreadyExpired,
}

/// The session that a new record replaces.
pub(super) struct Replaced {
    pub(super) created: u64,
    pub(super) has_user: bool,
    pub(super) cost: usize,
    pub(super) is_of_same_user: bool,
}

/// A session of a user that goes so that another of the same user fits.
struct Surplus {
    hash: u64,
    created: u64,
    cost: usize,
}

/// How many sessions the store will hold, and how many bytes.
struct Plan {
    sessions: usize,
    bytes: usize,
}

impl Plan {
    fn fits(&self, limits: &Limits) -> bool {
        limits.fits(self.sessions, self.bytes)
    }

    /// Without some sessions. Costs are averages, so that their sum may be more than the bytes.
    fn without(&self, gone: Total) -> Self {
        Self { sessions: self.sessions - gone.sessions, bytes: self.bytes.saturating_sub(gone.cost) }
    }
}

impl MemoryStore {
    /// Ends sessions until `new` fits, in place of `old` if that is given.
    ///
    /// # Errors
    /// `Full` if that is impossible. `TooManySessions` if the user has no room for one more. Then no live session has
    /// ended.
    pub(super) fn make_room(
        &self,
        list: &mut EvictionList,
        new: &NewRecord,
        old: Option<&Replaced>,
        now: Millis,
    ) -> Result<Fit> {
        let surplus = if new.is_live(now) { self.surplus_of_user(new, old, now)? } else { Vec::new() };
        let mut plan = None;
        if self.limits.has_capacity() {
            let fitting = self.make_room_of_past(list, new, old, &surplus, now);
            match fitting {
                Err(_) if !new.is_live(now) => return Ok(Fit::AlreadyExpired),
                fitting => plan = Some(fitting?),
            }
        }
        for session in surplus {
            self.remove_created(list, session.hash, session.created, Reason::Replaced);
        }
        let Some(mut plan) = plan else { return Ok(Fit::Fits) };
        while !plan.fits(&self.limits) {
            let kept = old.map(|old| old.has_user);
            // If all others may go, the session fits: what is left beside it is memory that goes with them.
            let Some(cost) = self.remove_first(list, new, kept, now) else { break };
            plan = plan.without(Total { sessions: 1, cost });
        }
        Ok(Fit::Fits)
    }

    /// Ends sessions after `new` was stored, until `maxBytes` is kept.
    ///
    /// `make_room` plans with what sessions take on average. A new chunk or a larger index may take more at once, and a
    /// removed record frees no chunk that has others.
    pub(super) fn trim(&self, list: &mut EvictionList, new: &NewRecord, now: Millis) {
        let Some(max) = self.limits.max_bytes else { return };
        // An expired session evicts no live one. It goes itself.
        let kept = new.is_live(now).then_some(new.has_user);
        while self.bytes(Some(list)) > max.get() {
            if self.remove_first(list, new, kept, now).is_none() {
                return self.trim_list(list);
            }
        }
    }

    /// Frees the candidates if they take more than `maxBytes` leaves. A scan that makes no room for a session calls this.
    pub(super) fn trim_list(&self, list: &mut EvictionList) {
        if self.limits.max_bytes.is_some_and(|max| self.bytes(Some(list)) > max.get()) {
            list.free_candidates();
        }
    }

    /// Scans one shard of a store that is about to be full, and puts off the next scan by as many uses as the shard has
    /// sessions.
    ///
    /// Without this, one eviction after many uses would find that the candidates of all shards were used.
    #[cold]
    pub(super) fn scan_early(&self, at: LastUse) {
        // A writer has the list. The next use tries again.
        let Some(mut list) = self.try_lock_list() else { return };
        if !self.uses.is_scan_due(at) {
            return;
        }
        let almost = |max: Option<NonZeroUsize>, now| max.is_some_and(|max| now >= max.get() / 8 * 7);
        let Limits { max_sessions, max_bytes, .. } = self.limits;
        if almost(max_sessions, list.sessions()) || almost(max_bytes, self.bytes(Some(&list))) {
            let shard = list.next_scanned();
            let table = self.shards[shard].read();
            list.scan_early(shard, table.slab());
            self.trim_list(&mut list);
            self.uses.put_off_scan(at, table.len().max(MIN_USES));
        } else {
            self.uses.put_off_scan(at, list.sessions() / 8 + MIN_USES);
        }
    }

    /// The user's oldest sessions, as many as are over `maxSessionsPerUser`.
    ///
    /// # Errors
    /// `TooManySessions` where these are to stay, and the user gets one more session.
    fn surplus_of_user(&self, new: &NewRecord, old: Option<&Replaced>, now: Millis) -> Result<Vec<Surplus>> {
        let Limits { max_sessions_per_user, when_user_is_full, .. } = self.limits;
        let (Some(max), Some(user)) = (max_sessions_per_user.map(NonZeroUsize::get), new.user()) else {
            return Ok(Vec::new());
        };
        let rejects = when_user_is_full == WhenUserIsFull::Reject;
        if self.users.at_most(user) < max || (rejects && old.is_some_and(|old| old.is_of_same_user)) {
            return Ok(Vec::new());
        }
        let live_others = |_: SessionRef, record: Record<'_>| {
            (record.is_live(now) && record.id() != new.id()).then(|| Surplus {
                hash: self.hash(record.id()),
                created: record.created(),
                cost: record.cost(),
            })
        };
        let mut others = self.of_user(user, live_others);
        let surplus = (others.len() + 1).saturating_sub(max);
        if rejects {
            return if surplus == 0 { Ok(Vec::new()) } else { Err(StoreError::TooManySessions { max }) };
        }
        others.sort_unstable_by_key(|session| session.created);
        others.truncate(surplus);
        Ok(others)
    }

    /// Ends past sessions until `new` fits, or until no past session is left. Returns what the store will hold if
    /// `surplus` goes too.
    ///
    /// # Errors
    /// `Full` if `new` does not fit then, and may not end as many live sessions as it takes.
    fn make_room_of_past(
        &self,
        list: &mut EvictionList,
        new: &NewRecord,
        old: Option<&Replaced>,
        surplus: &[Surplus],
        now: Millis,
    ) -> Result<Plan> {
        if !self.limits.fits(1, new.cost_alone()) {
            return Err(StoreError::Full("the session alone is larger than maxBytes".into()));
        }
        let cost = surplus.iter().map(|session| session.cost).chain(old.map(|old| old.cost)).sum();
        let with_all = Plan {
            sessions: list.sessions() + usize::from(old.is_none()),
            bytes: self.bytes(Some(list)) + new.cost(),
        };
        let mut plan = with_all.without(Total { sessions: surplus.len(), cost });
        while !plan.fits(&self.limits)
            && let Some(cost) = self.remove_past(list, now)
        {
            plan = plan.without(Total { sessions: 1, cost });
        }
        let others = |has_user: bool| {
            let all = list.total(has_user);
            match old.filter(|old| old.has_user == has_user) {
                Some(old) => Total { sessions: all.sessions - 1, cost: all.cost - old.cost },
                None => all,
            }
        };
        let may_evict_all = new.is_live(now) && (new.has_user || others(true).sessions == 0);
        let may_evict = if new.is_live(now) { others(false) } else { Total::default() };
        if may_evict_all || plan.without(may_evict).fits(&self.limits) {
            return Ok(plan);
        }
        Err(StoreError::Full(
            "only sessions of users are left, and an anonymous one does not end them".into(),
        ))
    }

    /// Removes the session that goes first for `new`: an expired one, then one without a user, then one of a user unless
    /// `new` has no user itself. For an expired `new` no live session goes. Returns the cost of the removed session.
    ///
    /// The session of `new`'s id stays if `kept` is given, which says whether that session has a user.
    fn remove_first(
        &self,
        list: &mut EvictionList,
        new: &NewRecord,
        kept: Option<bool>,
        now: Millis,
    ) -> Option<usize> {
        if let Some(cost) = self.remove_past(list, now) {
            return Some(cost);
        }
        let has_users: &[bool] = match new.is_live(now) {
            false => &[],
            true if new.has_user => &[false, true],
            true => &[false],
        };
        has_users.iter().find_map(|&has_user| {
            let kept = kept.filter(|kept| *kept == has_user).map(|_| new.id());
            // Without this check the search would not end.
            if list.total(has_user).sessions == usize::from(kept.is_some()) {
                return None;
            }
            self.remove_first_of(list, Order::of_users(has_user), NO_KEY, kept, now)
        })
    }

    /// Removes a session that has ended or expired. Returns its cost.
    fn remove_past(&self, list: &mut EvictionList, now: Millis) -> Option<usize> {
        self.remove_first_of(list, Order::Expiry, expiry_key(now), None, now)
    }

    /// Removes the first session of an order, except that of an id. Returns its cost. `None` if no key is `max` or lower.
    fn remove_first_of(
        &self,
        list: &mut EvictionList,
        order: Order,
        max: u64,
        kept: Option<&[u8]>,
        now: Millis,
    ) -> Option<usize> {
        loop {
            let (shard, lowest) = list.first_shard(order, max)?;
            let mut table = self.shards[shard].write();
            // Not there: the first session of another shard may go before those of this one.
            let Some(slot) = list.take_first(order, shard, table.slab(), lowest) else { continue };
            let record = table.slab().get(slot);
            let hash = self.hash(record.id());
            if kept == Some(record.id()) {
                // It is about to be used. Another one goes before it.
                let last_use = table.slab().set_used(slot, self.uses.next());
                list.used(last_use, self.session_ref(hash, slot));
                continue;
            }
            let cost = record.cost();
            let reason = if record.is_live(now) { Reason::Evicted } else { Reason::Expired };
            self.remove(&mut table, Some(list), hash, slot, reason);
            return Some(cost);
        }
    }
}
