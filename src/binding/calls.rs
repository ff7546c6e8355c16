//! The hot calls: those that an app makes for each request.
//!
//! A session of FluidAuth's shape is passed as its fields, any other session as the text of `JSON.stringify`.

use std::mem::MaybeUninit;

use napi::bindgen_prelude::{JsValue, Object};
use napi_derive::napi;

use super::fast_path::FastPathDriver;
use super::handle::{OpenFile, OpenStore};
use super::raw;
use super::reply;
use super::values::{Value, buffer_len};
use crate::clock::{Clock, Millis, SystemClock};
use crate::error::{Result, StoreError};
use crate::iso;
use crate::json::{ExpiresField, SessionFields};
use crate::scratch::with_buffer;
use crate::session::{Body, Content, Expiry, FieldOrder, Session, SessionId, UserKey, UserKeyBuf};
use crate::store::SessionStore;
use crate::store::redis::FastPath;

/// Exports Rust functions to JavaScript under the given names.
macro_rules! export {
    ($env:expr, $exports:expr; $($name:literal: $call:ident,)*) => {$({
        unsafe extern "C" fn callback(
            env: napi::sys::napi_env,
            info: napi::sys::napi_callback_info,
        ) -> napi::sys::napi_value {
            // SAFETY: N-API passes the environment and the info of the running call.
            unsafe { raw::run(env, info, $call) }
        }
        // SAFETY: N-API is loading the addon, and passed both.
        unsafe { raw::export($env, $exports, $name, callback) }?;
    })*};
}

#[napi(module_exports)]
pub fn export_hot_calls(exports: Object<'_>) -> napi::Result<()> {
    let (env, exports) = (exports.value().env, exports.value().value);
    export!(env, exports;
        c"get": get,
        c"create": create,
        c"update": update,
        c"createJson": create_json,
        c"updateJson": update_json,
        c"createAt": create_at,
        c"touch": touch,
        c"remove": remove,
        c"wake": wake,
        c"expire": expire,
        c"setClockOffset": set_clock_offset,
        c"now": now,
    );
    Ok(())
}

/// `get(store, sessionId: string): string | null | number`: the live session as one string (see `reply`), or the ticket
/// of a call with that result.
fn get([store, session_id]: [Value; 2]) -> Result<Value> {
    let env = store.env();
    let mut id = SessionId::unset();
    if !session_id.read_lookup_id(&mut id)? {
        return check_open(store).and_then(|()| Value::null(env));
    }
    store.with_store(|open| match open {
        OpenStore::Memory(memory) => {
            reply_to(env, |out| memory.get_with(&id, |expires, content| reply::write(expires, content, out)))
        }
        OpenStore::File(file) => {
            let mut wait = None;
            let reply = reply_to(env, |out| {
                let read = file.store.try_get(&id, |expires, content| reply::write(expires, content, out))?;
                Ok(read.unwrap_or_else(|must| {
                    wait = Some(must);
                    None
                }))
            })?;
            let Some(wait) = wait else { return Ok(reply) };
            let ticket = start_file_call(env, file, |file, ticket| {
                file.store.begin_get(&id, wait, &file.settler, ticket)
            })?;
            Value::integer(env, ticket)
        }
        OpenStore::Redis(redis) => {
            let cached = redis.cached(&id, |text| Value::string(env, text));
            cached.unwrap_or_else(|| {
                start_redis_call(env, redis, |redis, ticket| redis.get(id, ticket))?.to_value(env)
            })
        }
    })
}

/// Fails on a closed store. For calls that need no lookup.
fn check_open(store: Value) -> Result<()> {
    store.with_store(|_| Ok(()))
}

/// Returns what `get` writes as a string, or `null` if it finds nothing.
#[inline(always)]
fn reply_to(env: napi::sys::napi_env, get: impl FnOnce(&mut Vec<u8>) -> Result<Option<()>>) -> Result<Value> {
    with_buffer(|text| match get(text)? {
        Some(()) => Value::string(env, text),
        None => Value::null(env),
    })
}

/// `create(store, sessionId: string, userId: string, expires: string, userFirst: boolean): boolean | number`: creates a
/// session of FluidAuth's shape. `false`: the session has another shape and must be passed as JSON. `true`: done. A
/// number: the ticket of a write that `wake` starts and `settle` completes.
fn create([store, session_id, user, expires, user_first]: [Value; 5]) -> Result<Value> {
    let create = |session: &Session<'_>| store.with_store(|open| begin_create(store.env(), open, session));
    with_plain(session_id, user, expires, user_first, create)?.to_value(store.env())
}

/// `update(store, sessionId: string, userId: string, expires: string, userFirst: boolean): boolean | null | number`,
/// the same for `update`. `null`: the session was absent.
fn update([store, session_id, user, expires, user_first]: [Value; 5]) -> Result<Value> {
    let update = |session: &Session<'_>| store.with_store(|open| begin_update(store.env(), open, session));
    with_plain(session_id, user, expires, user_first, update)?.to_value(store.env())
}

/// `createJson(store, json: string, expires?: number): boolean | number`: creates a session from its JSON text.
/// `false`: only JavaScript can parse its `expires`, so the time must be passed, too.
fn create_json([store, json, expires]: [Value; 3]) -> Result<Value> {
    let state = store.with_store(|open| {
        with_json(open, json, expires, None, |session| begin_create(store.env(), open, session))
    })?;
    state.to_value(store.env())
}

/// `createAt(store, json: string, created: number, expires?: number): boolean | number`, the same as `createJson`, with
/// a creation time.
fn create_at([store, json, created, expires]: [Value; 4]) -> Result<Value> {
    let created = to_millis(created.number().unwrap_or(f64::NAN))?;
    let state = store.with_store(|open| {
        with_json(open, json, expires, None, |session| begin_create_at(store.env(), open, session, created))
    })?;
    state.to_value(store.env())
}

/// `updateJson(store, sessionId: string, json: string, expires?: number): boolean | null | number`, the same for
/// `update`.
fn update_json([store, session_id, json, expires]: [Value; 4]) -> Result<Value> {
    let id = session_id.session_id()?;
    let state = store.with_store(|open| {
        with_json(open, json, expires, Some(&id), |session| begin_update(store.env(), open, session))
    })?;
    state.to_value(store.env())
}

/// `touch(store, sessionId: string, expires: number, enough?: number): boolean | number`: moves the expiry, unless that
/// is at or after `enough`. Returns whether the session was live, or a ticket for that result.
fn touch([store, session_id, expires, enough]: [Value; 4]) -> Result<Value> {
    let mut id = SessionId::unset();
    if !session_id.read_lookup_id(&mut id)? {
        return check_open(store).and_then(|()| Value::boolean(store.env(), false));
    }
    let millis = expires.number().ok_or_else(|| Expiry::invalid(expires.kind()))?;
    let expires = Expiry::moved_to(to_millis(millis)?)?;
    let enough = enough.number().map(to_millis).transpose()?;
    let state = store.with_store(|open| match open {
        OpenStore::Memory(memory) => match enough {
            None => memory.touch(&id, expires),
            Some(enough) => memory.prolong(&id, expires, enough),
        }
        .map(CallState::from),
        OpenStore::File(file) => start_file_call(store.env(), file, |file, ticket| {
            file.store.begin_touch(&id, expires, enough, &file.settler, ticket)
        })
        .map(CallState::Pending),
        OpenStore::Redis(redis) => start_redis_call(store.env(), redis, |redis, ticket| {
            redis.touch(id.clone(), expires, enough, ticket)
        }),
    })?;
    state.to_value(store.env())
}

/// `remove(store, sessionId: string): true | number`.
fn remove([store, session_id]: [Value; 2]) -> Result<Value> {
    let mut id = SessionId::unset();
    if !session_id.read_lookup_id(&mut id)? {
        return check_open(store).and_then(|()| Value::boolean(store.env(), true));
    }
    let state = store.with_store(|open| match open {
        OpenStore::Memory(memory) => memory.delete(&id).map(|()| CallState::Done),
        OpenStore::File(file) => {
            let ticket = file
                .tickets
                .with(store.env(), |ticket| file.store.begin_delete(&id, &file.settler, ticket))?;
            Ok(ticket.map_or(CallState::Done, CallState::Pending))
        }
        OpenStore::Redis(redis) => {
            start_redis_call(store.env(), redis, |redis, ticket| redis.delete(id.clone(), ticket))
        }
    })?;
    state.to_value(store.env())
}

/// `wake(store): null`: starts the queued calls.
fn wake([store]: [Value; 1]) -> Result<Value> {
    store.with_store(|open| {
        match open {
            OpenStore::Memory(_) => {}
            OpenStore::File(file) => file.store.wake(),
            OpenStore::Redis(redis) => redis.submit(),
        }
        Ok(())
    })?;
    Value::null(store.env())
}

/// `expire(store): number | null`: completes the overdue calls of a FileStore. Returns the milliseconds until the next
/// deadline, or `null` without pending calls.
fn expire([store]: [Value; 1]) -> Result<Value> {
    let next = store.with_store(|open| {
        Ok(match open {
            OpenStore::File(file) => file.store.expire(),
            OpenStore::Memory(_) | OpenStore::Redis(_) => None,
        })
    })?;
    match next {
        Some(next) => Value::integer(store.env(), u32::try_from(next.as_millis()).unwrap_or(u32::MAX)),
        None => Value::null(store.env()),
    }
}

/// `setClockOffset(store, millis: number): null`: sets the offset of the store's clock to the system clock. A
/// RedisStore ignores it.
fn set_clock_offset([store, millis]: [Value; 2]) -> Result<Value> {
    let offset = to_millis(millis.number().unwrap_or_default())?;
    store.with_store(|open| {
        match open {
            OpenStore::Memory(memory) => memory.clock().set_offset(offset),
            OpenStore::File(file) => file.store.clock().set_offset(offset),
            OpenStore::Redis(_) => {}
        }
        Ok(())
    })?;
    Value::null(store.env())
}

/// `now(): number`: the system time in milliseconds.
fn now([env]: [Value; 1]) -> Result<Value> {
    Value::float(env.env(), SystemClock.now() as f64)
}

/// The state of a call when its native function returns.
enum CallState {
    /// JavaScript must retry with other arguments.
    Unsupported,
    /// The session was absent.
    Absent,
    Done,
    Pending(u32),
}

impl From<bool> for CallState {
    fn from(done: bool) -> Self {
        if done { Self::Done } else { Self::Unsupported }
    }
}

impl CallState {
    fn to_value(&self, env: napi::sys::napi_env) -> Result<Value> {
        match self {
            Self::Unsupported => Value::boolean(env, false),
            Self::Absent => Value::null(env),
            Self::Done => Value::boolean(env, true),
            Self::Pending(ticket) => Value::integer(env, *ticket),
        }
    }
}

fn begin_create(env: napi::sys::napi_env, store: &OpenStore, session: &Session<'_>) -> Result<CallState> {
    match store {
        OpenStore::Memory(memory) => memory.create(session).map(|()| CallState::Done),
        OpenStore::File(file) => {
            start_file_call(env, file, |file, ticket| file.store.begin_create(session, &file.settler, ticket))
                .map(CallState::Pending)
        }
        OpenStore::Redis(redis) => {
            start_redis_call(env, redis, |redis, ticket| redis.create(session, ticket))
        }
    }
}

fn begin_create_at(
    env: napi::sys::napi_env,
    store: &OpenStore,
    session: &Session<'_>,
    created: Millis,
) -> Result<CallState> {
    match store {
        OpenStore::Memory(memory) => memory.create_at(session, created).map(|()| CallState::Done),
        OpenStore::File(file) => start_file_call(env, file, |file, ticket| {
            file.store.begin_create_at(session, created, &file.settler, ticket)
        })
        .map(CallState::Pending),
        OpenStore::Redis(redis) => {
            start_redis_call(env, redis, |redis, ticket| redis.create_at(session, created, ticket))
        }
    }
}

fn begin_update(env: napi::sys::napi_env, store: &OpenStore, session: &Session<'_>) -> Result<CallState> {
    match store {
        OpenStore::Memory(memory) => {
            memory.update(session).map(|found| if found { CallState::Done } else { CallState::Absent })
        }
        OpenStore::File(file) => {
            start_file_call(env, file, |file, ticket| file.store.begin_update(session, &file.settler, ticket))
                .map(CallState::Pending)
        }
        OpenStore::Redis(redis) => {
            start_redis_call(env, redis, |redis, ticket| redis.update(session, ticket))
        }
    }
}

/// Starts a call of a FileStore, and returns its ticket.
pub(super) fn start_file_call(
    env: napi::sys::napi_env,
    file: &OpenFile,
    call: impl FnOnce(&OpenFile, u32) -> Result<()>,
) -> Result<u32> {
    let ticket = file.tickets.with(env, |ticket| call(file, ticket).map(|()| true))?;
    ticket.ok_or_else(|| StoreError::Internal("a call has no ticket".into()))
}

/// Starts a call of a RedisStore.
fn start_redis_call(
    env: napi::sys::napi_env,
    redis: &FastPathDriver,
    call: impl FnOnce(&mut FastPath, u32) -> Result<()>,
) -> Result<CallState> {
    let ticket = redis
        .tickets
        .with(env, |ticket| redis.with_fast_path(|fast_path| call(fast_path, ticket)).map(|()| true))?;
    Ok(ticket.map_or(CallState::Done, CallState::Pending))
}

fn with_plain(
    session_id: Value,
    user: Value,
    expires: Value,
    user_first: Value,
    call: impl FnOnce(&Session<'_>) -> Result<CallState>,
) -> Result<CallState> {
    /// The longest user that is read on the stack. A longer one is passed as JSON.
    const MAX_USER_BYTES: usize = 512;
    // V8 is faster with three bytes for each character, the most that one could take.
    let mut expires_buffer = [MaybeUninit::uninit(); buffer_len(3 * 24)];
    let mut user_buffer = [MaybeUninit::uninit(); 1 + buffer_len(MAX_USER_BYTES)];
    let order = if user_first.is_true() { FieldOrder::UserFirst } else { FieldOrder::ExpiresFirst };
    let mut session = Session {
        id: SessionId::unset(),
        expires: Expiry::MIN,
        content: Content { user: None, body: Body::Plain(order) },
    };
    session_id.read_session_id(&mut session.id)?;
    let millis = expires.read_utf8(&mut expires_buffer).and_then(iso::parse);
    let user = user.read_prefixed(UserKey::TEXT, &mut user_buffer);
    let (Some(millis), Some(user)) = (millis, user) else { return Ok(CallState::Unsupported) };
    session.expires = Expiry::new(millis)?;
    session.content.user = Some(UserKey::from_bytes(user));
    call(&session)
}

fn with_json(
    store: &OpenStore,
    json: Value,
    expires: Value,
    update_of: Option<&SessionId>,
    call: impl FnOnce(&Session<'_>) -> Result<CallState>,
) -> Result<CallState> {
    let invalid = || StoreError::invalid("session", "an object", json.kind());
    let (bytes, max) = (json.utf8_len().ok_or_else(invalid)?, store.max_session_bytes());
    // Check the size before anything is read or allocated.
    if bytes > max {
        return Err(StoreError::TooLarge { bytes, max });
    }
    let mut buffer = Vec::new();
    let text = json.long_text(bytes, &mut buffer).ok_or_else(invalid)?;
    let fields = SessionFields::parse(text)?;
    if update_of.is_some_and(|id| *id != fields.id) {
        return Err(StoreError::invalid("session.sessionId", "the sessionId of the call", "a different one"));
    }
    let expires = match (fields.expires, expires.number()) {
        (ExpiresField::At(expires), _) => expires,
        (ExpiresField::OtherText, Some(millis)) => Expiry::new(to_millis(millis)?)?,
        (ExpiresField::OtherText, None) => return Ok(CallState::Unsupported),
    };
    let user = fields.user.as_ref().map(UserKeyBuf::as_key);
    let content = Content { user, body: Body::Json { text, expires: fields.form } };
    call(&Session { id: fields.id, expires, content })
}

/// Converts a JavaScript time to milliseconds. Rejects NaN, the time of an invalid date.
fn to_millis(number: f64) -> Result<Millis> {
    if number.is_nan() { Err(Expiry::invalid("an invalid date")) } else { Ok(number as Millis) }
}
