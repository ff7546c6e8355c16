//! Sessions in Redis or Valkey: a single server, a primary that sentinels watch, or a cluster.
//!
//! A session is a string key, and the server expires it. Changes that must be atomic run as Lua scripts. Each user
//! has an index that names the user's sessions. The index is a superset of the live sessions, so it may be on another
//! node of a cluster (see `session::user_index`).
//!
//! All stores of a process share one thread, which owns their connections (see `runtime`). Each store has a worker on
//! that thread. The worker sends the calls of one JavaScript turn together, and reports their results together.
//!
//! A module uses only those before it in this list: `resp`, `monitor`, `connection`, `routing`, `session`, `health`,
//! `queue`, `cache`, `worker`, this module, `fast_path`.

mod cache;
mod connection;
mod counters;
mod error;
mod fast_path;
mod fault;
mod health;
mod limits_report;
mod monitor;
mod options;
mod queue;
mod resp;
mod routing;
mod runtime;
mod session;
mod tasks;
mod time;
mod worker;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::Instant;

use self::connection::{Connector, Replication, ReplyWindow, System, Tls};
use self::counters::Counters;
use self::limits_report::LimitsReport;
use self::monitor::Monitor;
use self::queue::{Queue, Waiter};
use self::routing::{Attempt, Router};
use self::session::{Cipher, Context, Names, NewSession, Op, Support};
use self::time::Times;
use self::worker::Worker;
use super::{Answer, Cursor, LimitsDiffer, Page, SessionStore, Stats, StoredSession, UserLimit};
use crate::clock::{Clock, Millis, SystemClock};
use crate::error::{Result, StoreError};
use crate::events::Bus;
use crate::lifetime::Lifetime;
use crate::session::{Expiry, Session, SessionId, UserKey};
use crate::store::DEFAULT_MAX_SESSION_BYTES;

pub use self::cache::CacheStats;
pub use self::queue::{Answers, Results, Supply};
pub use self::routing::NodeId;
pub use crate::keyring::Secret;
pub use fast_path::{FastPath, Hit, MAX_COMPLETIONS};
pub use fault::Fault;
pub use monitor::{ConnectionState, Connections};
pub use options::{
    Address, Auth, Authorities, CacheOptions, Credentials, CredentialsProvider, CredentialsSender, Login,
    RedisOptions, Servers, TlsOptions,
};
#[cfg(fuzzing)]
pub use resp::check_replies;

/// A store in Redis. Calls that have started complete, even if the store is dropped before.
pub struct RedisStore {
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    monitor: Arc<Monitor>,
    names: Names,
    times: Times,
    command_timeout: Duration,
    max_session_bytes: usize,
    per_user: UserLimit,
    can_have_fast_path: bool,
    is_cluster: bool,
    waits_for_replicas: bool,
    cache: Option<CacheOptions>,
    window: Arc<ReplyWindow>,
    /// `MULTI … PEXPIREAT … GT … EXEC`: Redis 7, Valkey.
    transactions: Arc<Support>,
    limits_report: Arc<LimitsReport>,
}

impl RedisStore {
    /// Opens a store. It connects in the background, and calls wait for the connection until their deadlines.
    ///
    /// # Errors
    /// `InvalidOption`. `Unavailable` if the system cannot start the thread.
    pub fn open(options: &RedisOptions) -> Result<Arc<Self>> {
        Self::start(options, Times::new(Arc::new(SystemClock), None))
    }

    pub fn max_lifetime(&self) -> Lifetime {
        self.times.lifetime
    }

    /// Opens a store with its own clock, which the servers do not share. The servers keep each session for
    /// `kept_for`, and `clean` removes the expired ones.
    ///
    /// # Errors
    /// As for [`RedisStore::open`].
    pub fn open_at(options: &RedisOptions, clock: Arc<dyn Clock>, kept_for: Duration) -> Result<Arc<Self>> {
        Self::start(options, Times::new(clock, Some(kept_for)))
    }

    fn start(options: &RedisOptions, times: Times) -> Result<Arc<Self>> {
        let (store, serve) = Self::prepare(options, times)?;
        runtime::run(move || serve(System::Real))?;
        Ok(store)
    }

    /// Creates a store, and the closure that starts its worker. The closure must run where local tasks can be
    /// spawned.
    fn prepare(
        options: &RedisOptions,
        mut times: Times,
    ) -> Result<(Arc<Self>, impl FnOnce(System) + Send + use<>)> {
        options.check()?;
        times.lifetime = Lifetime::new(options.max_lifetime);
        let window = Arc::new(ReplyWindow::default());
        let tls = options.uses_tls().then(|| Tls::new(&options.tls)).transpose()?;
        // Only for a single server: a node or a sentinel must not direct clients to a socket of their own machine.
        let socket_path = match &options.servers {
            Servers::Single { address, .. } => address.socket_path().map(Into::into),
            Servers::Cluster { .. } | Servers::Sentinel { .. } => None,
        };
        // If a second batch of writes waits behind the first one, it must also get its answer before the deadline.
        let replication = (options.wait_replicas > 0)
            .then_some(Replication { replicas: options.wait_replicas, timeout: options.command_timeout / 2 });
        let (queue, counters) = (Arc::new(Queue::default()), Arc::new(Counters::default()));
        let monitor = Arc::new(Monitor::new(Arc::clone(&counters.events)));
        let transactions = Arc::<Support>::default();
        let limits_report = Arc::<LimitsReport>::default();
        let store = Arc::new(Self {
            queue: Arc::clone(&queue),
            counters: Arc::clone(&counters),
            monitor: Arc::clone(&monitor),
            transactions: Arc::clone(&transactions),
            limits_report: Arc::clone(&limits_report),
            names: Names::new(&options.prefix),
            window: Arc::clone(&window),
            times: times.clone(),
            per_user: options.user_limit(),
            can_have_fast_path: options.can_have_fast_path(),
            is_cluster: matches!(options.servers, Servers::Cluster { .. }),
            waits_for_replicas: options.wait_replicas > 0,
            cache: options.cache,
            command_timeout: options.command_timeout,
            max_session_bytes: options.max_session_bytes.map_or(DEFAULT_MAX_SESSION_BYTES, usize::from),
        });
        let options = options.clone();
        let serve = move |system| {
            let connector = Connector {
                system,
                tls,
                socket_path,
                client_name: options.client_name.as_str().into(),
                timeout: options.connect_timeout,
                replication,
                window,
                monitor,
            };
            let router = Router::start(&options, connector);
            let context = Context::new(options, times, counters, transactions, router, limits_report);
            spawn_local(Worker::serve(context, queue));
        };
        Ok((store, serve))
    }

    /// Calls the listener once, if another process with this prefix has set other limits.
    pub fn on_limits_differ(&self, listener: impl FnOnce(LimitsDiffer) + Send + 'static) {
        self.limits_report.listen(listener);
    }

    pub fn max_session_bytes(&self) -> usize {
        self.max_session_bytes
    }

    /// The error of the last background sweep, if it failed.
    pub fn sweep_error(&self) -> Option<String> {
        self.counters.sweep_error.lock().clone()
    }

    /// The bus for the events of this store.
    pub fn events(&self) -> &Bus {
        &self.counters.events
    }

    /// The worker's connections to the servers.
    pub fn connections(&self) -> Connections {
        self.monitor.connections()
    }

    /// The deadline of a call, from its start.
    pub fn command_timeout(&self) -> Duration {
        self.command_timeout
    }

    /// Starts the queued calls.
    fn wake(&self) {
        self.queue.wake();
    }

    /// Waits until all calls that started before have completed. Each completes by its deadline.
    pub fn flush(&self) {
        self.queue.fast_path.wait_until_idle(2 * self.command_timeout);
        let (sender, receiver) = mpsc::sync_channel::<()>(1);
        let work = async move |context: Rc<Context>| {
            context.tasks.others_ended().await;
            Ok(())
        };
        // Even if this call fails, the others have completed.
        self.begin(work, move |_| drop(sender));
        let _ = receiver.recv_timeout(2 * self.command_timeout);
    }

    /// Whether a fast path can get connections.
    pub fn can_have_fast_path(&self) -> bool {
        self.can_have_fast_path
    }

    /// Requests connections for a fast path.
    fn want_connections(&self, by: &Arc<dyn Answers>) {
        if self.can_have_fast_path {
            self.queue.fast_path.want(Some(Arc::clone(by)));
        }
    }

    fn want_no_connections(&self) {
        self.queue.fast_path.want(None);
    }

    /// Reports that a fast path has lost a connection.
    fn lost_connection(&self, node: NodeId) {
        self.queue.fast_path.lost(node);
    }

    fn new_session(&self, session: &Session<'_>) -> Result<NewSession> {
        session.check_size(self.max_session_bytes)?;
        Ok(NewSession::new(session))
    }

    /// Starts a call and waits until it completes.
    fn wait_for(&self, op: Op) -> Result<Answer> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.queue.push(op, Waiter::Thread(sender), self.command_timeout);
        self.wake();
        receiver.recv().unwrap_or(Err(StoreError::Closed))
    }

    fn number(&self, op: Op) -> Result<u64> {
        match self.wait_for(op)? {
            Answer::Number(number) => Ok(number),
            Answer::Session(_) => Err(error::unexpected()),
        }
    }

    /// Runs `work` on the worker, then calls `done` with its result.
    fn begin<T: Send + 'static, F: Future<Output = Result<T>> + 'static>(
        &self,
        work: impl FnOnce(Rc<Context>) -> F + Send + 'static,
        done: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let done = Done(Some(Box::new(done)));
        let cold = Op::Cold(Box::new(move |context| {
            Box::pin(async move {
                done.call(work(context).await);
                Ok(Answer::Number(0))
            })
        }));
        self.queue.push(cold, Waiter::Nobody, self.command_timeout);
        self.wake();
    }

    /// Starts [`SessionStore::clean`] without waiting. The worker calls `done` with the result. The `begin_` methods
    /// below do the same.
    pub fn begin_clean(&self, done: impl FnOnce(Result<u64>) + Send + 'static) {
        let work = async move |context: Rc<Context>| {
            session::check_keys(&context).await?;
            session::clean(&context).await
        };
        self.begin(work, done);
    }

    pub fn begin_get_by_user(
        &self,
        user: UserKey<'_>,
        done: impl FnOnce(Result<Vec<StoredSession>>) + Send + 'static,
    ) {
        let (user, deadline) = (user.to_buf(), Instant::now() + self.command_timeout);
        let work = async move |context: Rc<Context>| {
            let work = async |attempt: &Attempt| {
                let call = async |cipher: &Cipher| {
                    session::get_by_user(&context, attempt, cipher, user.as_key()).await
                };
                session::with_cipher(&context, attempt, call).await
            };
            context.router.within(deadline, work).await
        };
        self.begin(work, done);
    }

    pub fn begin_delete_by_user(
        &self,
        user: UserKey<'_>,
        except: Option<&SessionId>,
        done: impl FnOnce(Result<u64>) + Send + 'static,
    ) {
        let done = self.counting_mass_end(done);
        let (user, except) = (user.to_buf(), except.cloned());
        let deadline = Instant::now() + self.command_timeout;
        let work = async move |context: Rc<Context>| {
            let work = async |attempt: &Attempt| {
                let call = async |cipher: &Cipher| {
                    session::delete_by_user(&context, attempt, cipher, user.as_key(), except.as_ref()).await
                };
                session::with_cipher(&context, attempt, call).await
            };
            context.router.within(deadline, work).await
        };
        self.begin(work, done);
    }

    /// Asks every primary whether it accepts commands. Waits for connections until `timeout` has passed.
    pub fn begin_ping(&self, timeout: Duration, done: impl FnOnce(Result<()>) + Send + 'static) {
        let (deadline, monitor) = (Instant::now() + timeout, Arc::clone(&self.monitor));
        let work = async move |context: Rc<Context>| {
            let ping = async |attempt: &Attempt| health::ping(&context, attempt).await;
            context.router.within(deadline, ping).await.map_err(|error| match (error, monitor.problem()) {
                (StoreError::Timeout { .. }, Some(reason)) => StoreError::unavailable(reason),
                (StoreError::Timeout { waited_for, outcome, .. }, None) => {
                    StoreError::Timeout { waited_for, millis: timeout.as_millis() as u64, outcome }
                }
                (error, _) => error,
            })
        };
        self.begin(work, done);
    }

    /// Counts the end of sessions that the call did not name. The near caches read this count before the caller gets
    /// its result.
    fn counting_mass_end<T>(
        &self,
        done: impl FnOnce(Result<T>) + Send + 'static,
    ) -> impl FnOnce(Result<T>) + Send + 'static {
        let counters = Arc::clone(&self.counters);
        move |result| {
            Counters::add(&counters.mass_ends, 1);
            done(result);
        }
    }

    pub fn begin_size(&self, done: impl FnOnce(Result<u64>) + Send + 'static) {
        let work = async move |context: Rc<Context>| {
            session::check_keys(&context).await?;
            session::size(&context).await
        };
        self.begin(work, done);
    }

    pub fn begin_ids(
        &self,
        after: Cursor,
        done: impl FnOnce(Result<(Vec<SessionId>, Option<Cursor>)>) + Send + 'static,
    ) {
        self.begin(async move |context: Rc<Context>| session::ids(&context, after).await, done);
    }

    pub fn begin_sessions(&self, after: Cursor, done: impl FnOnce(Result<Page>) + Send + 'static) {
        self.begin(async move |context: Rc<Context>| session::sessions(&context, after).await, done);
    }

    /// Ends a scan of ids or sessions that its caller has abandoned.
    pub fn end_scan(&self, at: Cursor) {
        let work = async move |context: Rc<Context>| {
            session::end_scan(&context, &at);
            Ok(())
        };
        self.begin(work, |_| {});
    }

    pub fn begin_clear(&self, done: impl FnOnce(Result<()>) + Send + 'static) {
        let done = self.counting_mass_end(done);
        let work = async move |context: Rc<Context>| {
            session::check_keys(&context).await?;
            session::clear(&context).await
        };
        self.begin(work, done);
    }
}

/// Receives one result. It is an error if the work is dropped without a result, as when the store's task ends or
/// panics.
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
            done(Err(if thread::panicking() { error::panicked() } else { StoreError::Closed }));
        }
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl SessionStore for RedisStore {
    fn create(&self, session: &Session<'_>) -> Result<()> {
        self.number(Op::Create(self.new_session(session)?, None)).map(drop)
    }

    fn create_at(&self, session: &Session<'_>, created: Millis) -> Result<()> {
        let mut session = self.new_session(session)?;
        session.created_at = Some(created);
        self.number(Op::Create(session, None)).map(drop)
    }

    fn get(&self, id: &SessionId) -> Result<Option<StoredSession>> {
        match self.wait_for(Op::Get(id.clone()))? {
            Answer::Session(session) => Ok(session),
            Answer::Number(_) => Err(error::unexpected()),
        }
    }

    fn update(&self, session: &Session<'_>) -> Result<bool> {
        self.number(Op::Update(self.new_session(session)?)).map(|updated| updated > 0)
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

    fn sessions(&self, after: Cursor) -> Result<Page> {
        wait(|done| self.begin_sessions(after, done))
    }

    fn clear(&self) -> Result<()> {
        wait(|done| self.begin_clear(done))
    }

    fn stats(&self) -> Result<Stats> {
        Ok(self.counters.stats())
    }
}

/// Starts a call and waits for its result.
fn wait<T: Send + 'static>(begin: impl FnOnce(Box<dyn FnOnce(Result<T>) + Send>)) -> Result<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    // Sending fails only if the receiver is gone.
    begin(Box::new(move |result| _ = sender.send(result)));
    receiver.recv().unwrap_or(Err(StoreError::Closed))
}
