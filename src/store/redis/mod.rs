//! Sessions in Redis or Valkey: one server, one that sentinels watch, or a cluster.
//!
//! A session is a string that the server ends itself at the session's expiry, and what must happen in one step happens
//! in a script there. The sessions of a user are named by an index, which may name more than there are, and never less
//! (see `index`); so it may be on another node of a cluster than they are.
//!
//! All stores of a process have one thread, on which their connections are (see `runtime`). A call hands its work over,
//! and is told its end: those of one turn of JavaScript go to the server together, and their ends come back together.

mod calls;
mod commands;
mod core;
mod errors;
mod index;
mod lane;
mod lines;
mod link;
mod options;
mod record;
mod resp;
mod runtime;
mod seal;
mod server;
mod tls;
mod topology;
mod vault;
mod walks;

#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::Instant;

use self::core::{Core, Op, Shared, Times, Waiter};
use self::link::Replication;
use self::server::Dialler;
use self::topology::Topology;
use self::vault::{Draft, Names};
use super::{Answer, Cursor, SessionStore, Stats, StoredSession};
use crate::clock::{Clock, Millis, SystemClock};
use crate::error::{Result, StoreError};
use crate::session::{Expiry, Session, SessionId, UserKey};
use crate::store::DEFAULT_MAX_SESSION_BYTES;

pub use self::core::Answers;
pub use crate::keyring::Secret;
pub use lane::{AT_ONCE, Ends, Interest, Lane, Line};
pub use options::{Address, Login, RedisOptions, Servers};
#[cfg(fuzzing)]
pub use resp::check_replies;
pub use tls::TlsOptions;

/// A store in Redis. Calls that were begun end, even if the store is let go of meanwhile.
pub struct RedisStore {
    shared: Arc<Shared>,
    names: Names,
    times: Times,
    command_timeout: Duration,
    max_session_bytes: usize,
    max_sessions_per_user: Option<NonZeroUsize>,
    can_have_lanes: bool,
}

impl RedisStore {
    /// Opens a store, which connects in the background: calls wait for that, each until its deadline.
    ///
    /// # Errors
    /// `InvalidOption`; `Unavailable` if the system has no thread for it.
    pub fn open(options: &RedisOptions) -> Result<Arc<Self>> {
        Self::start(options, Times { clock: Arc::new(SystemClock), kept_for: None })
    }

    /// Opens it with a clock of its own, which the servers do not know: they keep each session for the time given, and
    /// `clean` removes what has expired.
    ///
    /// # Errors
    /// As for [`RedisStore::open`].
    pub fn open_at(options: &RedisOptions, clock: Arc<dyn Clock>, kept_for: Duration) -> Result<Arc<Self>> {
        Self::start(options, Times { clock, kept_for: Some(kept_for) })
    }

    fn start(options: &RedisOptions, times: Times) -> Result<Arc<Self>> {
        options.check()?;
        let dialler = Dialler {
            tls: options.uses_tls().then(|| tls::connector(&options.tls)).transpose()?,
            timeout: options.connect_timeout,
            // Of two that follow each other the second has to be answered in time too.
            replication: (options.wait_replicas > 0).then_some(Replication {
                replicas: options.wait_replicas,
                patience: options.command_timeout / 2,
            }),
        };
        let shared = Arc::new(Shared::default());
        let store = Arc::new(Self {
            shared: Arc::clone(&shared),
            names: Names::new(&options.prefix),
            times: times.clone(),
            max_sessions_per_user: options.max_sessions_per_user,
            can_have_lanes: options.can_have_lanes(),
            command_timeout: options.command_timeout,
            max_session_bytes: options.max_session_bytes.map_or(DEFAULT_MAX_SESSION_BYTES, usize::from),
        });
        let options = options.clone();
        runtime::run(move || {
            let topology = Topology::start(options.servers.clone(), dialler);
            spawn_local(Core::new(options, times, shared, topology).serve());
        })?;
        Ok(store)
    }

    pub fn max_session_bytes(&self) -> usize {
        self.max_session_bytes
    }

    /// Has what is queued begin.
    fn kick(&self) {
        self.shared.kick();
    }

    /// Waits for the calls that were begun before; each ends by its deadline.
    pub fn flush(&self) {
        self.shared.lane.wait_until_idle(2 * self.command_timeout);
        let (sender, receiver) = mpsc::sync_channel::<()>(1);
        let work = async move |core: Rc<Core>| {
            core.settled().await;
            Ok(())
        };
        // Whatever the result, the calls have ended.
        self.begin(work, move |_| drop(sender));
        let _ = receiver.recv_timeout(2 * self.command_timeout);
    }

    /// Whether a lane ever gets a connection.
    pub fn can_have_lanes(&self) -> bool {
        self.can_have_lanes
    }

    /// Has a connection made for a lane.
    fn want_line(&self, by: &Arc<dyn Answers>) {
        if self.can_have_lanes {
            *self.shared.lane.by.lock() = Some(Arc::clone(by));
            self.shared.lane.wake.notify_one();
        }
    }

    fn draft(&self, session: &Session<'_>) -> Result<Draft> {
        session.check_size(self.max_session_bytes)?;
        Ok(Draft::new(session))
    }

    /// Makes a call, and waits for its end.
    fn wait_for(&self, op: Op) -> Result<Answer> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.shared.push(op, Waiter::Thread(sender), self.command_timeout);
        self.kick();
        receiver.recv().unwrap_or(Err(StoreError::Closed))
    }

    fn number(&self, op: Op) -> Result<u64> {
        match self.wait_for(op)? {
            Answer::Number(number) => Ok(number),
            Answer::Session(_) => Err(errors::unexpected()),
        }
    }

    /// Has the store's thread work, which then calls `done` with the result.
    fn begin<T: Send + 'static, F: Future<Output = Result<T>> + 'static>(
        &self,
        work: impl FnOnce(Rc<Core>) -> F + Send + 'static,
        done: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let done = Done(Some(Box::new(done)));
        let cold = Op::Cold(Box::new(move |core| Box::pin(async move { done.call(work(core).await) })));
        self.shared.push(cold, Waiter::Nobody, self.command_timeout);
        self.kick();
    }

    /// As [`SessionStore::clean`], without waiting: `done` is called with the result, on the store's thread. So are those of
    /// the calls below.
    pub fn begin_clean(&self, done: impl FnOnce(Result<u64>) + Send + 'static) {
        self.begin(async move |core: Rc<Core>| core.clean().await, done);
    }

    pub fn begin_get_by_user(
        &self,
        user: UserKey<'_>,
        done: impl FnOnce(Result<Vec<StoredSession>>) + Send + 'static,
    ) {
        let (user, deadline) = (user.to_buf(), Instant::now() + self.command_timeout);
        let work = async move |core: Rc<Core>| {
            core.within(deadline, async |call| core.get_by_user(call, user.as_key()).await).await
        };
        self.begin(work, done);
    }

    pub fn begin_delete_by_user(
        &self,
        user: UserKey<'_>,
        except: Option<&SessionId>,
        done: impl FnOnce(Result<u64>) + Send + 'static,
    ) {
        let (user, except) = (user.to_buf(), except.cloned());
        let deadline = Instant::now() + self.command_timeout;
        let work = async move |core: Rc<Core>| {
            let work =
                async |call: &core::Call| core.delete_by_user(call, user.as_key(), except.as_ref()).await;
            core.within(deadline, work).await
        };
        self.begin(work, done);
    }

    pub fn begin_size(&self, done: impl FnOnce(Result<u64>) + Send + 'static) {
        self.begin(async move |core: Rc<Core>| core.size().await, done);
    }

    pub fn begin_ids(
        &self,
        after: Cursor,
        done: impl FnOnce(Result<(Vec<SessionId>, Option<Cursor>)>) + Send + 'static,
    ) {
        self.begin(async move |core: Rc<Core>| core.ids(after).await, done);
    }

    pub fn begin_clear(&self, done: impl FnOnce(Result<()>) + Send + 'static) {
        self.begin(async move |core: Rc<Core>| core.clear().await, done);
    }

    pub fn begin_stats(&self, done: impl FnOnce(Result<Stats>) + Send + 'static) {
        self.begin(async move |core: Rc<Core>| core.stats().await, done);
    }
}

/// Receives one result: an error if the work ends without one, as when the store's task ends or panics.
struct Done<T>(Option<Box<dyn FnOnce(Result<T>) + Send>>);

impl<T> Done<T> {
    fn call(mut self, result: Result<T>) {
        if let Some(done) = self.0.take() {
            done(result);
        }
    }
}

impl<T> Drop for Done<T> {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(if thread::panicking() { core::fault() } else { StoreError::Closed }));
        }
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl SessionStore for RedisStore {
    fn create(&self, session: &Session<'_>) -> Result<()> {
        self.number(Op::Create(self.draft(session)?)).map(drop)
    }

    fn get(&self, id: &SessionId) -> Result<Option<StoredSession>> {
        match self.wait_for(Op::Get(id.clone()))? {
            Answer::Session(session) => Ok(session),
            Answer::Number(_) => Err(errors::unexpected()),
        }
    }

    fn update(&self, session: &Session<'_>) -> Result<bool> {
        self.number(Op::Update(self.draft(session)?)).map(|updated| updated > 0)
    }

    fn touch(&self, id: &SessionId, expires: Expiry) -> Result<bool> {
        self.number(Op::Touch(id.clone(), expires, None)).map(|touched| touched > 0)
    }

    fn prolong(&self, id: &SessionId, expires: Expiry, enough: Millis) -> Result<bool> {
        self.number(Op::Touch(id.clone(), expires, Some(enough))).map(|touched| touched > 0)
    }

    fn delete(&self, id: &SessionId) -> Result<()> {
        self.number(Op::Delete(id.clone())).map(drop)
    }

    fn clean(&self) -> Result<u64> {
        wait(|done| self.begin_clean(done))
    }

    fn get_by_user(&self, user: UserKey<'_>) -> Result<Vec<StoredSession>> {
        wait(|done| self.begin_get_by_user(user, done))
    }

    fn delete_by_user(&self, user: UserKey<'_>, except: Option<&SessionId>) -> Result<u64> {
        wait(|done| self.begin_delete_by_user(user, except, done))
    }

    fn size(&self) -> Result<u64> {
        wait(|done| self.begin_size(done))
    }

    fn ids(&self, after: Cursor) -> Result<(Vec<SessionId>, Option<Cursor>)> {
        wait(|done| self.begin_ids(after, done))
    }

    fn clear(&self) -> Result<()> {
        wait(|done| self.begin_clear(done))
    }

    fn stats(&self) -> Result<Stats> {
        wait(|done| self.begin_stats(done))
    }
}

/// Begins a call, and waits for its result.
fn wait<T: Send + 'static>(begin: impl FnOnce(Box<dyn FnOnce(Result<T>) + Send>)) -> Result<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    // It fails where no one waits any more.
    begin(Box::new(move |result| _ = sender.send(result)));
    receiver.recv().unwrap_or(Err(StoreError::Closed))
}
