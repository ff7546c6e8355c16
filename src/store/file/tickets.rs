//! Calls that return at once. Their results go to `Completions`, by ticket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::apply::{NewRecord, Write};
use super::environment::decoded;
use super::pending::Seen;
use super::queue::{self, Reader, Waiter};
use super::record::Record;
use super::{FileStore, writer};
use crate::clock::Millis;
use crate::error::Result;
use crate::session::{Content, Expiry, Session, SessionId, UserKey};
use crate::store::{Completions, SessionStore};

impl FileStore {
    /// Calls `read` with a live session's expiry and content: [`SessionStore::get`] without the copy. If a write of the
    /// session is under way, it gives a ticket for [`FileStore::begin_get`] instead. `read` must not call the store.
    ///
    /// # Errors
    /// As for `get`.
    pub fn try_get<T>(
        &self,
        id: &SessionId,
        read: impl FnOnce(Expiry, Content<'_>) -> T,
    ) -> Result<Result<Option<T>, MustWait>> {
        Ok(match self.see(id, decoded(read))? {
            Seen::Now(found) => Ok(found),
            Seen::After(number) => Err(MustWait(number)),
        })
    }

    /// Begins a `get` that has to wait for a write. `to` receives the session.
    ///
    /// # Errors
    /// `Busy`.
    pub fn begin_get(
        &self,
        id: &SessionId,
        wait: MustWait,
        to: &Arc<dyn Completions>,
        ticket: u32,
    ) -> Result<()> {
        let reader = Reader {
            after: wait.0,
            session: Some(id.clone()),
            waiter: Waiter::Ticket { to: Arc::clone(to), ticket },
            deadline: self.queue.deadline(),
        };
        if let Some(reader) = self.queue.wait(reader)? {
            let ended = queue::Ended { readers: vec![reader], ..queue::Ended::default() };
            writer::deliver(self.environment(), &self.queue, ended);
        }
        Ok(())
    }

    pub(super) fn see<T>(
        &self,
        id: &SessionId,
        read: impl FnOnce(Expiry, &[u8]) -> Result<T>,
    ) -> Result<Seen<Option<T>>> {
        match self.queue.pending.of_session(id) {
            Some(number) => Ok(Seen::After(number)),
            None => writer::see(self.environment(), &self.queue, id, read),
        }
    }

    /// Begins [`SessionStore::create`]: queues it until `wake`. `to` receives 1.
    ///
    /// # Errors
    /// `TooLarge`; `Busy` if too many writes wait. Nothing is queued then.
    pub fn begin_create(&self, session: &Session<'_>, to: &Arc<dyn Completions>, ticket: u32) -> Result<()> {
        self.begin(Write::Create(self.new_record(session)?), to, ticket)
    }

    /// Begins [`SessionStore::create_at`]. `to` receives 1.
    ///
    /// # Errors
    /// As for `begin_create`.
    pub fn begin_create_at(
        &self,
        session: &Session<'_>,
        created: Millis,
        to: &Arc<dyn Completions>,
        ticket: u32,
    ) -> Result<()> {
        self.begin(Write::Create(self.dated_record(session, created)?), to, ticket)
    }

    /// Begins [`SessionStore::update`]. `to` receives 1 if there was a live session, else 0.
    ///
    /// # Errors
    /// As for `begin_create`.
    pub fn begin_update(&self, session: &Session<'_>, to: &Arc<dyn Completions>, ticket: u32) -> Result<()> {
        self.begin(Write::Update(self.new_record(session)?), to, ticket)
    }

    /// Begins [`SessionStore::touch`], or `prolong` where `enough` is given. `to` receives 1 if there was a live session,
    /// else 0.
    ///
    /// # Errors
    /// `Busy`.
    pub fn begin_touch(
        &self,
        id: &SessionId,
        expires: Expiry,
        enough: Option<Millis>,
        to: &Arc<dyn Completions>,
        ticket: u32,
    ) -> Result<()> {
        self.begin(Write::Touch { id: id.clone(), expires, enough }, to, ticket)
    }

    /// Begins [`SessionStore::delete`]; gives `false` and queues nothing if there is nothing to delete.
    ///
    /// # Errors
    /// Those of a read; `Busy`.
    pub fn begin_delete(&self, id: &SessionId, to: &Arc<dyn Completions>, ticket: u32) -> Result<bool> {
        let found = self.must_delete(id)?;
        if found {
            self.begin(Write::Delete { id: id.clone() }, to, ticket)?;
        }
        Ok(found)
    }

    /// Begins [`SessionStore::delete_by_user`]. `to` receives how many live sessions it ended.
    ///
    /// # Errors
    /// `Busy`.
    pub fn begin_delete_by_user(
        &self,
        user: UserKey<'_>,
        except: Option<&SessionId>,
        to: &Arc<dyn Completions>,
        ticket: u32,
    ) -> Result<()> {
        self.begin(delete_by_user(user, except), to, ticket)
    }

    /// Begins [`SessionStore::clear`].
    ///
    /// # Errors
    /// `Busy`.
    pub fn begin_clear(&self, to: &Arc<dyn Completions>, ticket: u32) -> Result<()> {
        self.begin(Write::Clear, to, ticket)
    }

    /// Has the writer begin with what is queued.
    pub fn wake(&self) {
        self.queue.wake();
    }

    /// Ends the calls whose time is over with `Timeout`; gives the time until the next one is.
    pub fn expire(&self) -> Option<Duration> {
        writer::deliver(self.environment(), &self.queue, self.queue.expire(Instant::now()));
        self.queue.next_deadline().map(|next| next.saturating_duration_since(Instant::now()))
    }

    fn begin(&self, write: Write, to: &Arc<dyn Completions>, ticket: u32) -> Result<()> {
        self.queue.push(write, Waiter::Ticket { to: Arc::clone(to), ticket })
    }

    pub(super) fn new_record(&self, session: &Session<'_>) -> Result<NewRecord> {
        session.check_size(self.max_session_bytes())?;
        Ok(NewRecord::new(session))
    }

    pub(super) fn dated_record(&self, session: &Session<'_>, created: Millis) -> Result<NewRecord> {
        let mut record = self.new_record(session)?;
        record.created_at = Some(created);
        Ok(record)
    }

    /// Whether there is a live session of this id, or a write to it under way.
    pub(super) fn must_delete(&self, id: &SessionId) -> Result<bool> {
        // In this order: a write is no longer under way once it is in the file.
        if self.queue.pending.of_session(id).is_some() {
            return Ok(true);
        }
        let environment = self.environment();
        // An unreadable record is there all the same.
        let lifetime = environment.limits.max_lifetime;
        let is_past = |record: Record<'_>| environment.clock.is_past(record.header.end(lifetime).millis());
        let is_live = |row: &[u8]| !Record::parse(row).is_ok_and(is_past);
        environment.read_row(&environment.encryption.key(id), is_live).map(|found| found.unwrap_or(false))
    }
}

/// The number of the write that a `get` has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MustWait(u64);

pub(super) fn delete_by_user(user: UserKey<'_>, except: Option<&SessionId>) -> Write {
    Write::DeleteByUser { user: user.to_buf(), except: except.cloned(), max: usize::MAX }
}
