//! Non-blocking calls. Each `begin_…` starts the call of [`SessionStore`](crate::store::SessionStore) with that name.
//! It reports the result to `Completions`, with the ticket of the call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::apply::{NewRecord, Write};
use super::environment::decoded;
use super::pending::ReadAttempt;
use super::queue::{self, Reader, Waiter};
use super::record::Record;
use super::{FileStore, writer};
use crate::clock::Millis;
use crate::error::Result;
use crate::session::{Content, Expiry, Session, SessionId, UserKey};
use crate::store::Completions;

impl FileStore {
    /// Calls `read` with the expiry and content of a live session, like `get` without the copy. If a write of the
    /// session is pending, returns a ticket for [`FileStore::begin_get`] instead. `read` must not call the store.
    ///
    /// # Errors
    /// As for `get`.
    pub fn try_get<T>(
        &self,
        id: &SessionId,
        read: impl FnOnce(Expiry, Content<'_>) -> T,
    ) -> Result<Result<Option<T>, MustWait>> {
        Ok(match self.try_read(id, decoded(read))? {
            ReadAttempt::Ready(found) => Ok(found),
            ReadAttempt::WaitFor(number) => Err(MustWait(number)),
        })
    }

    /// Starts a `get` that has to wait for a write. Reports the session to `to`.
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
            let ended = queue::EndedCalls { readers: vec![reader], ..queue::EndedCalls::default() };
            writer::deliver(self.environment(), &self.queue, ended);
        }
        Ok(())
    }

    pub(super) fn try_read<T>(
        &self,
        id: &SessionId,
        read: impl FnOnce(Expiry, &[u8]) -> Result<T>,
    ) -> Result<ReadAttempt<Option<T>>> {
        match self.queue.pending.last_write_of_session(id) {
            Some(number) => Ok(ReadAttempt::WaitFor(number)),
            None => writer::try_read(self.environment(), &self.queue, id, read),
        }
    }

    /// Starts `create`. The write is queued until `wake`. Reports 1 to `to`.
    ///
    /// # Errors
    /// `TooLarge`. `Busy` if too many writes are queued. Nothing was queued in either case.
    pub fn begin_create(&self, session: &Session<'_>, to: &Arc<dyn Completions>, ticket: u32) -> Result<()> {
        self.begin(Write::Create(self.new_record(session)?), to, ticket)
    }

    /// Starts `create_at`. Reports 1 to `to`.
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
        self.begin(Write::Create(self.new_record_at(session, created)?), to, ticket)
    }

    /// Starts `update`. Reports 1 to `to` if the session was live, otherwise 0.
    ///
    /// # Errors
    /// As for `begin_create`.
    pub fn begin_update(&self, session: &Session<'_>, to: &Arc<dyn Completions>, ticket: u32) -> Result<()> {
        self.begin(Write::Update(self.new_record(session)?), to, ticket)
    }

    /// Starts `touch`, or `prolong` if `enough` is given. Reports 1 to `to` if the session was live, otherwise 0.
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

    /// Starts `delete`. Returns `false` and queues nothing if there is nothing to delete.
    ///
    /// # Errors
    /// Those of a read. `Busy`.
    pub fn begin_delete(&self, id: &SessionId, to: &Arc<dyn Completions>, ticket: u32) -> Result<bool> {
        let found = self.must_delete(id)?;
        if found {
            self.begin(Write::Delete { id: id.clone() }, to, ticket)?;
        }
        Ok(found)
    }

    /// Starts `delete_by_user`. Reports to `to` how many live sessions it ended.
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

    /// Starts `clear`.
    ///
    /// # Errors
    /// `Busy`.
    pub fn begin_clear(&self, to: &Arc<dyn Completions>, ticket: u32) -> Result<()> {
        self.begin(Write::Clear, to, ticket)
    }

    /// Wakes the writer to write the queued calls.
    pub fn wake(&self) {
        self.queue.wake();
    }

    /// Ends the calls whose deadline has passed with `Timeout`. Returns the time until the next deadline.
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

    pub(super) fn new_record_at(&self, session: &Session<'_>, created: Millis) -> Result<NewRecord> {
        let mut record = self.new_record(session)?;
        record.created_at = Some(created);
        Ok(record)
    }

    /// Whether the session is live or has a pending write. A session that is past `max_lifetime` counts as live: for a
    /// process with a longer one it is, and must not come back there.
    pub(super) fn must_delete(&self, id: &SessionId) -> Result<bool> {
        // Check pending writes first: a write stays pending until it is in the file.
        if self.queue.pending.last_write_of_session(id).is_some() {
            return Ok(true);
        }
        let environment = self.environment();
        // Delete an unreadable record too.
        let is_past = |record: Record<'_>| environment.clock.is_past(record.header.expires.millis());
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
