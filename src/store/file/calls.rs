//! Blocking calls: they return when the operation is complete.

use std::ops::ControlFlow;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::apply::Write;
use super::pending::ReadAttempt;
use super::queue::{Reader, Waiter};
use super::record::Record;
use super::tickets::delete_by_user;
use super::{FileStore, writer};
use crate::clock::Millis;
use crate::error::{Outcome, Result, StoreError};
use crate::events::{Event, SWEEPS};
use crate::scratch::with_buffer;
use crate::session::{Expiry, Session, SessionId, UserKey};
use crate::store::{Cursor, Page, SessionStore, Stats, StoredSession};

/// The maximum number of records that one page of ids or sessions reads.
const PAGE: usize = 1000;

impl FileStore {
    /// Waits for all writes that were queued before.
    ///
    /// # Errors
    /// `Timeout`.
    pub fn flush(&self) -> Result<()> {
        self.queue.last().map_or(Ok(()), |number| self.wait_for(number, self.deadline()))
    }

    /// The deadline of a call that starts now.
    pub fn deadline(&self) -> Instant {
        self.queue.deadline()
    }

    /// Checks the deadline of a call that has not started.
    ///
    /// # Errors
    /// `Timeout`.
    pub fn check_time(&self, deadline: Instant) -> Result<()> {
        if Instant::now() < deadline { Ok(()) } else { Err(self.queue.late(Outcome::NotDone)) }
    }

    /// The maximum duration of a call.
    pub fn command_timeout(&self) -> Duration {
        self.queue.timeout()
    }

    /// [`SessionStore::get_by_user`] with a deadline.
    ///
    /// # Errors
    /// As for [`SessionStore::get_by_user`].
    pub fn get_by_user_until(&self, user: UserKey<'_>, deadline: Instant) -> Result<Vec<StoredSession>> {
        self.check_time(deadline)?;
        let (pending, begun) = (&self.queue.pending, self.queue.last());
        let Some(begun) = begun else { return self.find_by_user(user) };
        if !pending.affects(pending.hash(user)) {
            let ended = pending.ended();
            let found = self.find_by_user(user)?;
            let is_written = |session: &StoredSession| pending.last_write_of_session(&session.id).is_some();
            // Otherwise a write may have ended one of these sessions between the read and the check for pending
            // writes.
            if !found.iter().any(is_written) && pending.ended() == ended {
                return Ok(found);
            }
        }
        self.wait_for(begun, deadline)?;
        self.find_by_user(user)
    }

    /// The live sessions of a user on disk, oldest first.
    fn find_by_user(&self, user: UserKey<'_>) -> Result<Vec<StoredSession>> {
        let environment = self.environment();
        let (now, lifetime) = (environment.clock.now(), environment.limits.max_lifetime);
        let tag = environment.encryption.tag(user);
        let mut sessions = Vec::new();
        environment.each_row_of_user(tag, |key, row| {
            let record = Record::parse(row)?;
            let (created, expires) = (record.header.created, record.header.end(lifetime));
            if expires.is_past(now) {
                return Ok(());
            }
            // Two users may have the same tag, because it is a hash. So compare the user.
            if let Some(session) = environment.stored_session(key, record)?
                && session.content()?.user == Some(user)
            {
                sessions.push((created, session));
            }
            Ok(())
        })?;
        sessions.sort_unstable_by_key(|(created, _)| *created);
        Ok(sessions.into_iter().map(|(_, session)| session).collect())
    }

    /// Queues a write and waits for its result.
    pub(super) fn write(&self, write: Write) -> Result<u64> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.queue.push(write, Waiter::Thread(sender))?;
        self.queue.wake();
        self.result(&receiver)
    }

    /// Waits until the write with this number, and all before it, have ended.
    fn wait_for(&self, number: u64, deadline: Instant) -> Result<()> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let reader = Reader { after: number, session: None, waiter: Waiter::Thread(sender), deadline };
        if self.queue.wait(reader)?.is_some() {
            return Ok(());
        }
        self.queue.wake();
        self.result(&receiver).map(drop)
    }

    /// Waits for the result of a queued call. While it waits, it ends every call whose deadline has passed.
    fn result(&self, receiver: &mpsc::Receiver<Result<u64>>) -> Result<u64> {
        loop {
            let next = self.queue.next_deadline().unwrap_or_else(Instant::now);
            match receiver.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(result) => return result,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(StoreError::Closed),
                Err(mpsc::RecvTimeoutError::Timeout) => _ = self.expire(),
            }
        }
    }
}

impl SessionStore for FileStore {
    fn create(&self, session: &Session<'_>) -> Result<()> {
        self.write(Write::Create(self.new_record(session)?)).map(drop)
    }

    fn create_at(&self, session: &Session<'_>, created: Millis) -> Result<()> {
        self.write(Write::Create(self.new_record_at(session, created)?)).map(drop)
    }

    fn get(&self, id: &SessionId) -> Result<Option<StoredSession>> {
        let stored = |expires, content: &[u8]| Ok(StoredSession::new(id.clone(), expires, content));
        let mut seen = self.try_read(id, stored)?;
        loop {
            match seen {
                ReadAttempt::Ready(found) => return Ok(found),
                ReadAttempt::WaitFor(number) => self.wait_for(number, self.deadline())?,
            }
            // This read does not have to wait for later writes of the session.
            seen = writer::try_read(self.environment(), &self.queue, id, stored)?;
        }
    }

    fn update(&self, session: &Session<'_>) -> Result<bool> {
        self.write(Write::Update(self.new_record(session)?)).map(|updated| updated > 0)
    }

    fn touch(&self, id: &SessionId, expires: Expiry) -> Result<bool> {
        self.write(Write::Touch { id: id.clone(), expires, enough: None }).map(|touched| touched > 0)
    }

    fn prolong(&self, id: &SessionId, expires: Expiry, enough: Millis) -> Result<bool> {
        let enough = Some(enough);
        self.write(Write::Touch { id: id.clone(), expires, enough }).map(|touched| touched > 0)
    }

    fn delete(&self, id: &SessionId) -> Result<()> {
        if self.must_delete(id)? {
            self.write(Write::Delete { id: id.clone() })?;
        }
        Ok(())
    }

    fn clean(&self) -> Result<u64> {
        self.sweep()
            .inspect_err(|error| self.events().publish(SWEEPS, || Event::SweepFailed(error.to_string())))
    }

    fn get_by_user(&self, user: UserKey<'_>) -> Result<Vec<StoredSession>> {
        self.get_by_user_until(user, self.deadline())
    }

    fn delete_by_user(&self, user: UserKey<'_>, except: Option<&SessionId>) -> Result<u64> {
        self.write(delete_by_user(user, except))
    }

    fn size(&self) -> Result<u64> {
        let environment = self.environment();
        if environment.must_scan_to_count()? {
            self.redo().drain_now()?;
        }
        let _base = self.redo().hold_base()?;
        environment.live_sessions()
    }

    /// Ordered by key. A session never changes its key.
    fn ids(&self, after: Cursor) -> Result<(Vec<SessionId>, Option<Cursor>)> {
        let environment = self.environment();
        let (now, lifetime) = (environment.clock.now(), environment.limits.max_lifetime);
        if after.as_bytes().is_empty() {
            // Pages come from the data file, so drain the log first.
            self.redo().drain_now()?;
        }
        let (mut ids, mut last, mut seen) = (Vec::new(), None, 0);
        environment.each_row_after(after.as_bytes(), PAGE, |key, row| {
            (last, seen) = (Some(Cursor::from_bytes(key)), seen + 1);
            // Skip an unreadable record, because its id is unknown.
            let record = row.and_then(|row| Record::parse(row).ok());
            if let Some(record) = record.filter(|record| !record.header.end(lifetime).is_past(now)) {
                ids.extend(with_buffer(|buffer| {
                    let contents = environment.encryption.decrypt(key, record, buffer).ok()??;
                    SessionId::from_packed(contents.id).ok()
                }));
            }
            ControlFlow::Continue(())
        })?;
        Ok((ids, last.filter(|_| seen == PAGE)))
    }

    /// Ordered by key, like `ids`. Each page has its own view, which ends with the call.
    fn sessions(&self, after: Cursor) -> Result<Page> {
        let environment = self.environment();
        let (now, lifetime) = (environment.clock.now(), environment.limits.max_lifetime);
        if after.as_bytes().is_empty() {
            self.redo().drain_now()?;
        }
        let (mut page, mut rows, mut last) = (Page::default(), 0, Cursor::default());
        environment.each_row_after(after.as_bytes(), PAGE, |key, row| {
            rows += 1;
            match row.map(Record::parse) {
                None => {}
                Some(Ok(record)) if record.header.end(lifetime).is_past(now) => {}
                Some(record) => {
                    let session = record.and_then(|record| environment.stored_session(key, record));
                    if let Some(session) = session.transpose() {
                        page.add(session);
                    }
                }
            }
            if page.is_full() || rows == PAGE {
                last = Cursor::from_bytes(key);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        page.next = Some(last).filter(|last| !last.as_bytes().is_empty());
        Ok(page)
    }

    fn clear(&self) -> Result<()> {
        self.write(Write::Clear).map(drop)
    }

    fn stats(&self) -> Result<Stats> {
        let log = self.redo().stats();
        let _base = self.redo().hold_base()?;
        let stats = self.environment().stats()?;
        let in_log = log.map_or(0, |log| log.used);
        Ok(Stats { bytes: stats.bytes.map(|bytes| bytes + in_log), log, ..stats })
    }
}
