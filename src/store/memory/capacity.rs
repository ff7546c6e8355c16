//! Making room for a session in a store with limits.

use std::num::NonZeroUsize;

use super::core::MemoryStore;
use super::eviction::{ENTRY_BYTES, Entry, EvictionList};
use super::limits::Limits;
use super::record::NewRecord;
use crate::clock::Millis;
use crate::error::{Result, StoreError};
use crate::events::Reason;
use crate::store::WhenUserIsFull;

/// Whether a session fits after `make_room`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Fits,
    /// It has expired already, and there is room only if a live session ends. So it is not stored.
    AlreadyExpired,
}

/// The session that a new record replaces.
pub(super) struct Replaced {
    pub(super) entry: Entry,
    pub(super) is_of_same_user: bool,
}

/// A session that goes so that another fits.
type Victim = (Entry, Reason);

impl MemoryStore {
    /// Ends sessions until `new` fits, in place of `old` if that is given.
    ///
    /// # Errors
    /// `Full` if that is impossible. `TooManySessions` if the user has no room for one more. Then no session has ended.
    pub(super) fn make_room(
        &self,
        list: &mut EvictionList,
        new: &NewRecord,
        old: Option<&Replaced>,
        now: Millis,
    ) -> Result<Fit> {
        let is_live = new.is_live(now);
        let mut victims = if is_live { self.surplus_of_user(new, old, now)? } else { Vec::new() };
        let old = old.map(|old| &old.entry);
        if self.limits.has_capacity()
            && let Err(error) = self.plan_for_store(&mut victims, list, new, old, now)
        {
            return if is_live { Err(error) } else { Ok(Fit::AlreadyExpired) };
        }
        for (victim, reason) in victims {
            self.remove_entry(list, &victim, reason);
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
        let may_go = |entry: &Entry| entry.created != new.created || !new.is_live(now);
        while self.bytes(Some(list)) > max.get() {
            let victim = candidates(list, new, now).find(|(entry, _)| may_go(entry));
            let Some((entry, reason)) = victim.map(|(entry, reason)| (*entry, reason)) else { return };
            self.remove_entry(list, &entry, reason);
        }
    }

    /// The user's oldest sessions, as many as are over `maxSessionsPerUser`.
    ///
    /// # Errors
    /// `TooManySessions` where these are to stay, and the user gets one more session.
    fn surplus_of_user(&self, new: &NewRecord, old: Option<&Replaced>, now: Millis) -> Result<Vec<Victim>> {
        let Limits { max_sessions_per_user, when_user_is_full, .. } = self.limits;
        let (Some(max), Some(user)) = (max_sessions_per_user.map(NonZeroUsize::get), new.user()) else {
            return Ok(Vec::new());
        };
        let rejects = when_user_is_full == WhenUserIsFull::Reject;
        if self.users.at_most(user) < max || (rejects && old.is_some_and(|old| old.is_of_same_user)) {
            return Ok(Vec::new());
        }
        let mut others = self.of_user(user, |session, record| Some(Entry::of(record, session)));
        others
            .retain(|entry| entry.expires > now && old.is_none_or(|old| old.entry.created != entry.created));
        let surplus = (others.len() + 1).saturating_sub(max);
        if rejects {
            return if surplus == 0 { Ok(Vec::new()) } else { Err(StoreError::TooManySessions { max }) };
        }
        others.sort_unstable_by_key(|entry| entry.created);
        others.truncate(surplus);
        Ok(others.into_iter().map(|entry| (entry, Reason::Replaced)).collect())
    }

    /// Adds to `victims`, which are the user's own, the sessions that have to go for the store's limits.
    fn plan_for_store(
        &self,
        victims: &mut Vec<Victim>,
        list: &EvictionList,
        new: &NewRecord,
        old: Option<&Entry>,
        now: Millis,
    ) -> Result<()> {
        if !self.limits.fits(1, new.cost_alone() + ENTRY_BYTES) {
            return Err(StoreError::Full("the session alone is larger than maxBytes".into()));
        }
        let mut candidates = candidates(list, new, now);
        // No candidate comes twice. So only the user's own may be among the victims already.
        let own = victims.len();
        let mut sessions = list.sessions() + usize::from(old.is_none()) - own;
        let costs = |victims: &[Victim]| victims.iter().map(|(entry, _)| entry.cost).sum::<usize>();
        // Costs are averages, so that their sum may be more than the bytes.
        let freed = old.map_or(0, |old| old.cost) + costs(victims);
        let mut bytes = (self.bytes(Some(list)) + new.cost() + ENTRY_BYTES).saturating_sub(freed);
        while !self.limits.fits(sessions, bytes) {
            let Some((entry, reason)) = candidates.next() else {
                // If all others may go, the session fits: what is left beside it is memory that goes with them.
                if new.is_live(now) && (new.has_user || list.of_users(now).next().is_none()) {
                    break;
                }
                return Err(StoreError::Full(
                    "only sessions of users are left, and an anonymous one does not end them".into(),
                ));
            };
            let stays = old.into_iter().chain(victims[..own].iter().map(|(victim, _)| victim));
            if stays.into_iter().all(|other| other.created != entry.created) {
                (sessions, bytes) = (sessions - 1, bytes.saturating_sub(entry.cost));
                victims.push((*entry, reason));
            }
        }
        Ok(())
    }
}

/// The sessions that may go for `new`, in the order of eviction: expired ones, then sessions without a user, then those
/// of users unless `new` has no user itself. For an expired `new` no live session goes.
fn candidates<'a>(
    list: &'a EvictionList,
    new: &NewRecord,
    now: Millis,
) -> impl Iterator<Item = (&'a Entry, Reason)> {
    let (is_live, has_user) = (new.is_live(now), new.has_user);
    let expired = list.past(now).map(|entry| (entry, Reason::Expired));
    let anonymous = list.anonymous(now).filter(move |_| is_live);
    let of_users = list.of_users(now).filter(move |_| is_live && has_user);
    expired.chain(anonymous.chain(of_users).map(|entry| (entry, Reason::Evicted)))
}
