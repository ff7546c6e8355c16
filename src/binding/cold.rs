//! The cold calls, which read many sessions. Calls that may take long run on an executor of the store.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use napi::Env;
use napi::bindgen_prelude::{Either, Either3, External, ToNapiValue, Uint8Array};
use napi_derive::napi;

use super::calls::start_file_call;
use super::errors::{JsError, code_of, guarded};
use super::found::{Found, JsPage};
use super::handle::{AnyStore, OpenStore, release};
use super::promise;
use super::values::Value;
use crate::error::{Result, StoreError};
use crate::executor::Executor;
use crate::json::parse_user;
use crate::session::{SessionId, UserKeyBuf};
use crate::store::redis::{CacheStats, ConnectionState};
use crate::store::{Cursor, FileStore, RedisStore, SessionStore, Stats};

/// Counters of a store.
#[napi(object, object_from_js = false)]
pub struct JsStats {
    /// Only for stores that know the figure without reading each session.
    pub sessions: Option<f64>,
    pub bytes: Option<f64>,
    pub hits: f64,
    pub misses: f64,
    pub created: f64,
    pub expired: f64,
    pub evicted: f64,
    pub last_sweep: Option<JsSweep>,
    /// This and the next three are for a FileStore only.
    pub file_bytes: Option<f64>,
    pub log: Option<JsLog>,
    /// The bytes of calls that wait for the disk, and their limit.
    pub queued_bytes: Option<f64>,
    pub max_queued_bytes: Option<f64>,
    /// Why the last background sweep failed. This and the next two are for a RedisStore only.
    pub sweep_error: Option<String>,
    pub connections: Option<JsConnections>,
    /// `None` without a near cache.
    pub cache: Option<JsCacheStats>,
    #[napi(ts_type = "'ready' | 'connecting' | 'degraded' | 'unavailable'")]
    pub state: &'static str,
    pub problem: Option<JsProblem>,
}

/// Why a store cannot serve: the code of an error for `lib/errors.js`, and its message.
#[napi(object, object_from_js = false)]
pub struct JsProblem {
    pub code: String,
    pub message: String,
}

impl From<StoreError> for JsProblem {
    fn from(error: StoreError) -> Self {
        Self { code: code_of(&error).into(), message: error.to_string() }
    }
}

/// Counters of the connections to servers.
#[napi(object, object_from_js = false)]
pub struct JsConnections {
    pub connects: f64,
    pub disconnects: f64,
    pub failures: f64,
    pub retries: f64,
}

/// Counters of a near cache.
#[napi(object, object_from_js = false)]
pub struct JsCacheStats {
    pub hits: f64,
    pub misses: f64,
    pub invalidations: f64,
    pub sessions: f64,
    pub bytes: f64,
    /// Why nothing is cached.
    pub off: Option<String>,
}

/// When a sweep started and how long it took, in milliseconds, and how many sessions it removed.
#[napi(object, object_from_js = false)]
pub struct JsSweep {
    pub at: f64,
    pub duration: f64,
    pub removed: f64,
}

/// The redo log of a FileStore.
#[napi(object, object_from_js = false)]
pub struct JsLog {
    #[napi(ts_type = "'exclusive' | 'shared'")]
    pub mode: &'static str,
    pub used_bytes: f64,
    pub size_bytes: f64,
}

/// A page of ids, and the cursor of the next page. The last page has no `next`.
#[napi(object, object_from_js = false)]
pub struct JsIds {
    pub ids: Vec<String>,
    pub next: Option<Uint8Array>,
}

/// How many sessions a call ended.
#[napi(object, object_from_js = false)]
pub struct JsCount {
    pub count: f64,
}

/// Removes expired sessions. Resolves to how many it removed.
#[napi(ts_args_type = "store: object", ts_return_type = "Promise<number>")]
pub fn clean(env: Env, store: Value) -> Result<Value, JsError> {
    call(env, store, |store| store.clean(), |redis, done| redis.begin_clean(done), |removed| removed as f64)
}

/// Resolves to the number of live sessions.
#[napi(ts_args_type = "store: object", ts_return_type = "Promise<number>")]
pub fn size(env: Env, store: Value) -> Result<Value, JsError> {
    call(env, store, |store| store.size(), |redis, done| redis.begin_size(done), |live| live as f64)
}

/// Resolves to the live sessions of a user, for `takeFound`. The `userId` is passed as JSON.
#[napi(ts_args_type = "store: object, userJson: string", ts_return_type = "Promise<object>")]
pub fn get_by_user(env: Env, store: Value, user_json: String) -> Result<Value, JsError> {
    let user = guarded(|| user_key(&user_json))?;
    let found = |sessions| External::new(Found::new(sessions));
    match guarded(|| store.share_store())? {
        AnyStore::Memory(store) => promise::run(env, store.tasks(), Arc::clone(&store), move |store| {
            store.get_by_user(user.as_key()).map(found)
        }),
        AnyStore::File(store) => {
            // The deadline includes the wait for a thread.
            let deadline = store.deadline();
            promise::run(env, store.tasks(), Arc::clone(&store), move |store| {
                store.get_by_user_until(user.as_key(), deadline).map(found)
            })
        }
        AnyStore::Redis(store) => promised(env, |done| store.begin_get_by_user(user.as_key(), done), found),
    }
}

/// Returns the next page of ids after a cursor, or the first one without a cursor.
#[napi(ts_args_type = "store: object, cursor?: Uint8Array", ts_return_type = "JsIds | Promise<JsIds>")]
pub fn ids(env: Env, store: Value, cursor: Option<Uint8Array>) -> Result<Either<JsIds, Value>, JsError> {
    let cursor = cursor.map_or_else(Cursor::default, |bytes| Cursor::from_bytes(&bytes));
    let page = |(ids, next): (Vec<SessionId>, Option<Cursor>)| {
        let next = next.map(|next| Uint8Array::from(next.as_bytes()));
        JsIds { ids: ids.iter().map(ToString::to_string).collect(), next }
    };
    if let AnyStore::Memory(memory) = guarded(|| store.share_store())? {
        return guarded(|| memory.ids(cursor).map(page)).map(Either::A);
    }
    let theirs = cursor.clone();
    call(env, store, |store| store.ids(theirs), |redis, done| redis.begin_ids(cursor, done), page)
        .map(Either::B)
}

/// Returns the next page of sessions after a cursor, or the first one without a cursor.
#[napi(ts_args_type = "store: object, cursor?: Uint8Array", ts_return_type = "JsPage | Promise<JsPage>")]
pub fn sessions(
    env: Env,
    store: Value,
    cursor: Option<Uint8Array>,
) -> Result<Either<JsPage, Value>, JsError> {
    let cursor = cursor.map_or_else(Cursor::default, |bytes| Cursor::from_bytes(&bytes));
    if let AnyStore::Memory(memory) = guarded(|| store.share_store())? {
        return guarded(|| memory.sessions(cursor).map(JsPage::from)).map(Either::A);
    }
    let theirs = cursor.clone();
    let remote = |redis: &RedisStore, done| redis.begin_sessions(cursor, done);
    call(env, store, |store| store.sessions(theirs), remote, JsPage::from).map(Either::B)
}

/// Ends an iteration over `ids` or `sessions` early. Does nothing on a closed store.
#[napi(ts_args_type = "store: object, cursor: Uint8Array")]
pub fn end_scan(store: Value, cursor: Uint8Array) -> Result<(), JsError> {
    guarded(|| {
        if let Ok(AnyStore::Redis(redis)) = store.share_store() {
            redis.end_scan(Cursor::from_bytes(&cursor));
        }
        Ok(())
    })
}

/// Returns the counters since the store was opened.
#[napi(ts_args_type = "store: object", ts_return_type = "JsStats | Promise<JsStats>")]
pub fn stats(env: Env, store: Value) -> Result<Either<JsStats, Value>, JsError> {
    let convert = |stats| convert_stats(stats, None);
    match guarded(|| store.share_store())? {
        AnyStore::Memory(memory) => guarded(|| memory.stats().map(convert)).map(Either::A),
        AnyStore::File(file) => {
            let stats = |file: &Arc<FileStore>| {
                let bytes = file.file_bytes()?;
                let (queued, max) = file.queued_bytes();
                let problem = file.problem().map(JsProblem::from);
                file.stats().map(|stats| JsStats {
                    queued_bytes: Some(queued as f64),
                    max_queued_bytes: Some(max as f64),
                    state: if problem.is_some() { "unavailable" } else { "ready" },
                    problem,
                    ..convert_stats(stats, Some(bytes))
                })
            };
            if guarded(|| file.has_quick_stats())? {
                return guarded(|| stats(&file)).map(Either::A);
            }
            promise::run(env, file.tasks(), Arc::clone(&file), stats).map(Either::B)
        }
        AnyStore::Redis(redis) => guarded(|| {
            let (sweep_error, connections) = (redis.sweep_error(), redis.connections());
            let cache = store.with_store(|store| match store {
                OpenStore::Redis(redis) => Ok(redis.cache_stats().map(convert_cache_stats)),
                OpenStore::Memory(_) | OpenStore::File(_) => Ok(None),
            })?;
            redis.stats().map(|stats| JsStats {
                sweep_error,
                state: match connections.state {
                    ConnectionState::Connecting => "connecting",
                    ConnectionState::Ready => "ready",
                    ConnectionState::Degraded => "degraded",
                    ConnectionState::Unavailable => "unavailable",
                },
                problem: connections.problem.map(|reason| StoreError::unavailable(reason).into()),
                connections: Some(JsConnections {
                    connects: connections.connects as f64,
                    disconnects: connections.disconnects as f64,
                    failures: connections.failures as f64,
                    retries: connections.retries as f64,
                }),
                cache,
                ..convert(stats)
            })
        })
        .map(Either::A),
    }
}

fn convert_stats(stats: Stats, file_bytes: Option<u64>) -> JsStats {
    JsStats {
        sessions: stats.sessions.map(|sessions| sessions as f64),
        bytes: stats.bytes.map(|bytes| bytes as f64),
        hits: stats.hits as f64,
        misses: stats.misses as f64,
        created: stats.created as f64,
        expired: stats.expired as f64,
        evicted: stats.evicted as f64,
        last_sweep: stats.last_sweep.map(|sweep| JsSweep {
            at: sweep.at as f64,
            duration: sweep.duration as f64,
            removed: sweep.removed as f64,
        }),
        file_bytes: file_bytes.map(|bytes| bytes as f64),
        log: stats.log.map(|log| JsLog {
            mode: if log.is_exclusive { "exclusive" } else { "shared" },
            used_bytes: log.used as f64,
            size_bytes: log.size as f64,
        }),
        queued_bytes: None,
        max_queued_bytes: None,
        sweep_error: None,
        connections: None,
        cache: None,
        state: "ready",
        problem: None,
    }
}

/// Resolves once the store can serve. `timeout` bounds the wait, in milliseconds, for a RedisStore only.
#[napi(ts_args_type = "store: object, timeout: number", ts_return_type = "Promise<void> | undefined")]
pub fn ping(env: Env, store: Value, timeout: f64) -> Result<Option<Value>, JsError> {
    match guarded(|| store.share_store())? {
        AnyStore::Memory(_) => Ok(None),
        AnyStore::File(file) => {
            promise::run(env, file.probes(), Arc::clone(&file), |file| file.probe()).map(Some)
        }
        AnyStore::Redis(redis) => {
            let timeout = Duration::from_millis(timeout as u64);
            promised(env, |done| redis.begin_ping(timeout, done), |()| ()).map(Some)
        }
    }
}

fn convert_cache_stats(stats: CacheStats) -> JsCacheStats {
    JsCacheStats {
        hits: stats.hits as f64,
        misses: stats.misses as f64,
        invalidations: stats.invalidations as f64,
        sessions: stats.sessions as f64,
        bytes: stats.bytes as f64,
        off: stats.off,
    }
}

/// Ends the sessions of a user, except one. The `userId` is passed as JSON. Returns how many it ended: directly, by a
/// ticket or by a promise.
#[napi(
    ts_args_type = "store: object, userJson: string, except: string | undefined",
    ts_return_type = "JsCount | number | Promise<number>"
)]
pub fn delete_by_user(
    env: Env,
    store: Value,
    user_json: String,
    except: Value,
) -> Result<Either3<JsCount, u32, Value>, JsError> {
    let (user, except) = guarded(|| {
        // Only `undefined` means no exception. Any other invalid id must not end the session that it should keep.
        let except = if except.is_undefined() { None } else { Some(except.session_id()?) };
        Ok((user_key(&user_json)?, except))
    })?;
    let to_number = |ended: u64| ended as f64;
    let redis = guarded(|| {
        store.with_store(|open| {
            Ok(match open {
                OpenStore::Memory(memory) => {
                    let ended = memory.end_by_user(user.as_key(), except.as_ref());
                    let count = to_number(ended.count());
                    if !ended.is_removed() {
                        let theirs = Arc::clone(memory);
                        // Without a thread, the next sweep removes the records.
                        memory.tasks().submit(move |admitted| {
                            if admitted.is_ok() {
                                theirs.remove_ended(ended);
                            }
                        });
                    }
                    Err(Either3::A(JsCount { count }))
                }
                OpenStore::File(file) => {
                    Err(Either3::B(start_file_call(env.raw(), file, |file, ticket| {
                        file.store.begin_delete_by_user(user.as_key(), except.as_ref(), &file.settler, ticket)
                    })?))
                }
                OpenStore::Redis(redis) => Ok(Arc::clone(redis.store())),
            })
        })
    })?;
    match redis {
        Err(started) => Ok(started),
        Ok(redis) => {
            let begin = |done| redis.begin_delete_by_user(user.as_key(), except.as_ref(), done);
            promised(env, begin, to_number).map(Either3::C)
        }
    }
}

/// Removes every session. Returns how many: directly, by a ticket or by a promise.
#[napi(ts_args_type = "store: object", ts_return_type = "JsCount | number | Promise<number>")]
pub fn clear(env: Env, store: Value) -> Result<Either3<JsCount, u32, Value>, JsError> {
    let redis = guarded(|| {
        store.with_store(|open| {
            Ok(match open {
                OpenStore::Memory(memory) => {
                    let cleared = memory.detach_all();
                    let count = cleared.count() as f64;
                    memory.tasks().submit(move |_| drop(cleared));
                    Err(Either3::A(JsCount { count }))
                }
                OpenStore::File(file) => {
                    Err(Either3::B(start_file_call(env.raw(), file, |file, ticket| {
                        file.store.begin_clear(&file.settler, ticket)
                    })?))
                }
                OpenStore::Redis(redis) => Ok(Arc::clone(redis.store())),
            })
        })
    })?;
    match redis {
        Err(started) => Ok(started),
        Ok(redis) => promised(env, |done| redis.begin_clear(done), |()| 0.0).map(Either3::C),
    }
}

/// Closes a store. Idempotent. The promise resolves once all earlier calls have completed. For the last user of a file
/// in the process it resolves once the file is closed.
#[napi(ts_args_type = "store: object", ts_return_type = "Promise<void>")]
pub fn close(env: Env, store: Value) -> Result<Value, JsError> {
    /// Not the store's own executor: closing the store waits for that.
    static CLOSERS: LazyLock<Executor> = LazyLock::new(|| Executor::new(16));
    let store = guarded(|| store.take_store())?;
    promise::run(env, &CLOSERS, (), move |()| {
        let Some(store) = store else { return Ok(()) };
        match store.flush() {
            Ok(()) => store.close(),
            Err(error) => {
                // The writer hangs, and dropping the store would hang, too.
                release(store);
                Err(error)
            }
        }
    })
}

/// Returns the promise of a call that may take long. It runs on the store's executor, or on the Redis worker, which
/// calls back.
fn call<T: Send + 'static, J: ToNapiValue + Send + 'static>(
    env: Env,
    store: Value,
    local: impl FnOnce(&dyn SessionStore) -> Result<T> + Send + 'static,
    remote: impl FnOnce(&RedisStore, Done<T>),
    convert: impl FnOnce(T) -> J + Send + 'static,
) -> Result<Value, JsError> {
    match guarded(|| store.share_store())? {
        AnyStore::Memory(store) => {
            promise::run(env, store.tasks(), Arc::clone(&store), |store| local(&***store).map(convert))
        }
        AnyStore::File(store) => {
            let deadline = store.deadline();
            promise::run(env, store.tasks(), Arc::clone(&store), move |store| {
                store.check_time(deadline)?;
                local(&**store).map(convert)
            })
        }
        AnyStore::Redis(store) => promised(env, |done| remote(&store, done), convert),
    }
}

/// Receives the result of a call of a RedisStore.
type Done<T> = Box<dyn FnOnce(Result<T>) + Send>;

/// Returns the promise of a call that calls back.
fn promised<T: 'static, J: ToNapiValue + Send + 'static>(
    env: Env,
    begin: impl FnOnce(Done<T>),
    convert: impl FnOnce(T) -> J + Send + 'static,
) -> Result<Value, JsError> {
    let (promise, settle) = promise::make(env)?;
    begin(Box::new(move |result| settle(guarded(|| result.map(convert)))));
    Ok(promise)
}

fn user_key(json: &str) -> Result<UserKeyBuf> {
    parse_user(json).ok_or_else(|| StoreError::invalid("userId", "a JSON value other than null", "null"))
}
