//! Sessions in Redis or Valkey: one server, one that sentinels watch, or a cluster.
//!
//! A session is a string that the server ends itself at the session's expiry, and what must happen in one step happens
//! in a script there. An index names the sessions of a user. It may name more than there are, and never fewer (see
//! `session::user_index`), so that it may be on another node of a cluster than they are.
//!
//! All stores of a process share one thread, on which their connections are (see `runtime`). A store's worker runs there:
//! the calls of one turn of JavaScript go to the server together, and their results come back together.
//!
//! Each layer uses those before it, and never the other way round:
//! `resp`, `monitor`, `connection`, `routing`, `session`, `health`, `queue`, `cache`, `worker`, this module, `fast_path`.

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
use self::session::{Cipher, Context, Names, NewSession, Op, Transactions};
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
pub use fast_path::{AT_ONCE, FastPath, Hit};
pub use fault::Fault;
pub use monitor::{ConnectionState, Connections};
pub use options::{
    Address, Auth, Authorities, CacheOptions, Credentials, CredentialsProvider, CredentialsSender, Login,
    RedisOptions, Servers, TlsOptions,
};
#[cfg(fuzzing)]
pub use resp::check_replies;

/// A store in Redis. Calls that were begun end, even if the store is let go of meanwhile.
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
    transactions: Arc<Transactions>,
    limits_report: Arc<LimitsReport>,
}

impl RedisStore {
    /// Opens a store, which connects in the background: calls wait for that, each until its deadline.
    ///
    /// # Errors
    /// `InvalidOption`; `Unavailable` if the system has no thread for it.
    pub fn open(options: &RedisOptions) -> Result<Arc<Self>> {
        Self::start(options, Times::new(Arc::new(SystemClock), None))
    }

    pub fn max_lifetime(&self) -> Lifetime {
        self.times.lifetime
    }

    /// Opens it with a clock of its own, which the servers do not know: they keep each session for the time given, and
    /// `clean` removes what has expired.
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

    /// Makes a store, and what begins to serve it where local tasks may be spawned.
    fn prepare(
        options: &RedisOptions,
        mut times: Times,
    ) -> Result<(Arc<Self>, impl FnOnce(System) + Send + use<>)> {
        options.check()?;
        times.lifetime = Lifetime::new(options.max_lifetime);
        let window = Arc::new(ReplyWindow::default());
        let tls = options.uses_tls().then(|| Tls::new(&options.tls)).transpose()?;
        // Of one server alone: no server may lead a client to a socket of its machine.
        let socket_path = match &options.servers {
            Servers::Single { address, .. } => address.socket_path().map(Into::into),
            Servers::Cluster { .. } | Servers::Sentinel { .. } => None,
        };
        // Of two that follow each other the second has to be answered in time too.
        let replication = (options.wait_replicas > 0)
            .then_some(Replication { replicas: options.wait_replicas, timeout: options.command_timeout / 2 });
        let (queue, counters) = (Arc::new(Queue::default()), Arc::new(Counters::default()));
        let monitor = Arc::new(Monitor::new(Arc::clone(&counters.events)));
        let transactions = Arc::<Transactions>::default();
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

    /// Calls the listener once if another process of the prefix has said other limits before.
    pub fn on_limits_differ(&self, listener: impl FnOnce(LimitsDiffer) + Send + 'static) {
        self.limits_report.listen(listener);
    }

    pub fn max_session_bytes(&self) -> usize {
        self.max_session_bytes
    }

    /// Why the last background sweep failed, if it did.
    pub fn sweep_error(&self) -> Option<String> {
        self.counters.sweep_error.lock().clone()
    }

    /// Where it publishes what happens.
    pub fn events(&self) -> &Bus {
        &self.counters.events
    }

    /// The connections to the servers, as the worker has them.
    pub fn connections(&self) -> Connections {
        self.monitor.connections()
    }

    /// How long a call may take.
    pub fn command_timeout(&self) -> Duration {
        self.command_timeout
    }

    /// Has what is queued begin.
    fn wake(&self) {
        self.queue.wake();
    }

    /// Waits for the calls that were begun before; each ends by its deadline.
    pub fn flush(&self) {
        self.queue.fast_path.wait_until_idle(2 * self.command_timeout);
        let (sender, receiver) = mpsc::sync_channel::<()>(1);
        let work = async move |context: Rc<Context>| {
            context.tasks.others_ended().await;
            Ok(())
        };
        // Whatever the result, the calls have ended.
        self.begin(work, move |_| drop(sender));
        let _ = receiver.recv_timeout(2 * self.command_timeout);
    }

    /// Whether a fast path ever gets connections.
    pub fn can_have_fast_path(&self) -> bool {
        self.can_have_fast_path
    }

    /// Has connections made for a fast path.
    fn want_connections(&self, by: &Arc<dyn Answers>) {
        if self.can_have_fast_path {
            self.queue.fast_path.want(Some(Arc::clone(by)));
        }
    }

    fn want_no_connections(&self) {
        self.queue.fast_path.want(None);
    }

    /// A fast path has lost a connection that it had been given.
    fn lost_connection(&self, node: NodeId) {
        self.queue.fast_path.lost(node);
    }

    fn new_session(&self, session: &Session<'_>) -> Result<NewSession> {
        session.check_size(self.max_session_bytes)?;
        Ok(NewSession::new(session))
    }

    /// Makes a call, and waits for its end.
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

    /// Has the worker work, which then calls `done` with the result.
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

    /// As [`SessionStore::clean`], without waiting: `done` is called with the result, on the worker. So are those of
    /// the calls below.
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
        let done = self.noting_mass_end(done);
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

    /// Asks every primary whether it serves. Waits for connections, until the time is over.
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

    /// Has the caches know, before the caller does, that sessions were ended that the call did not name.
    fn noting_mass_end<T>(
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

    /// Ends a scan of ids or sessions that nobody goes on with.
    pub fn end_scan(&self, at: Cursor) {
        let work = async move |context: Rc<Context>| {
            session::end_scan(&context, &at);
            Ok(())
        };
        self.begin(work, |_| {});
    }

    pub fn begin_clear(&self, done: impl FnOnce(Result<()>) + Send + 'static) {
        let done = self.noting_mass_end(done);
        let work = async move |context: Rc<Context>| {
            session::check_keys(&context).await?;
            session::clear(&context).await
        };
        self.begin(work, done);
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

/// Begins a call, and waits for its result.
fn wait<T: Send + 'static>(begin: impl FnOnce(Box<dyn FnOnce(Result<T>) + Send>)) -> Result<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    // It fails where no one waits any more.
    begin(Box::new(move |result| _ = sender.send(result)));
    receiver.recv().unwrap_or(Err(StoreError::Closed))
}
