//! The hot calls: one for each request of an app.
//!
//! A session of FluidAuth's shape comes as its fields, any other as the text that `JSON.stringify` made of it.

use napi::bindgen_prelude::{JsValue, Object};
use napi_derive::napi;

use super::raw;
use super::reply::{self, with_buffer};
use super::values::{Value, room_for};
use crate::clock::Millis;
use crate::error::{Result, StoreError};
use crate::iso;
use crate::json::{ExpiresField, SessionFields};
use crate::session::{Body, Content, Expiry, FieldOrder, Session, SessionId, UserKey, UserKeyBuf};
use crate::shared::SharedStore;
use crate::store::SessionStore;

/// Exports functions as JavaScript's of the name given.
macro_rules! export {
    ($env:expr, $exports:expr; $($name:literal: $call:ident,)*) => {$({
        unsafe extern "C" fn callback(
            env: napi::sys::napi_env,
            info: napi::sys::napi_callback_info,
        ) -> napi::sys::napi_value {
            // SAFETY: N-API calls this with both of the call.
            unsafe { raw::run(env, info, $call) }
        }
        // SAFETY: N-API is loading the addon with both.
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
        c"touch": touch,
        c"remove": remove,
    );
    Ok(())
}

/// `get(store, sessionId: string): string | null`: the live session as one string (see `reply`).
fn get([store, session_id]: [Value; 2]) -> Result<Value> {
    let id = session_id.session_id()?;
    let write = |out: &mut Vec<u8>| {
        store.with_store(|store| store.get_with(&id, |expires, content| reply::write(expires, content, out)))
    };
    with_buffer(write, |found, text| match found? {
        Some(()) => Value::string(store.env(), text),
        None => Value::null(store.env()),
    })
}

/// `create(store, sessionId: string, userId: string, expires: string, userFirst: boolean): boolean`: a session of
/// FluidAuth's shape. `false`: it is not of that shape, and is to be sent as JSON.
fn create([store, session_id, user, expires, user_first]: [Value; 5]) -> Result<Value> {
    let create = |session: &Session<'_>| store.with_store(|store| store.create(session));
    Value::boolean(store.env(), with_plain(session_id, user, expires, user_first, create)?)
}

/// `update(store, sessionId: string, userId: string, expires: string, userFirst: boolean): boolean`, as `create`.
fn update([store, session_id, user, expires, user_first]: [Value; 5]) -> Result<Value> {
    let update = |session: &Session<'_>| store.with_store(|store| store.update(session).map(drop));
    Value::boolean(store.env(), with_plain(session_id, user, expires, user_first, update)?)
}

/// `createJson(store, json: string, expires?: number): boolean`: a session, given its JSON text. `false`: its
/// `expires` is a text that only JavaScript can read, and its time is to be sent as well.
fn create_json([store, json, expires]: [Value; 3]) -> Result<Value> {
    let created =
        store.with_store(|store| with_json(store, json, expires, None, |session| store.create(session)))?;
    Value::boolean(store.env(), created)
}

/// `updateJson(store, sessionId: string, json: string, expires?: number): boolean`, as `createJson`.
fn update_json([store, session_id, json, expires]: [Value; 4]) -> Result<Value> {
    let id = session_id.session_id()?;
    let updated = store.with_store(|store| {
        with_json(store, json, expires, Some(&id), |session| store.update(session).map(drop))
    })?;
    Value::boolean(store.env(), updated)
}

/// `touch(store, sessionId: string, expires: number): boolean`: moves the expiry, and tells whether it was live.
fn touch([store, session_id, expires]: [Value; 3]) -> Result<Value> {
    let id = session_id.session_id()?;
    let millis = expires.number().ok_or_else(|| Expiry::invalid(expires.kind()))?;
    let expires = Expiry::moved_to(to_millis(millis)?)?;
    Value::boolean(store.env(), store.with_store(|store| store.touch(&id, expires))?)
}

/// `remove(store, sessionId: string): null`.
fn remove([store, session_id]: [Value; 2]) -> Result<Value> {
    let id = session_id.session_id()?;
    store.with_store(|store| store.delete(&id))?;
    Value::null(store.env())
}

fn with_plain(
    session_id: Value,
    user: Value,
    expires: Value,
    user_first: Value,
    call: impl FnOnce(&Session<'_>) -> Result<()>,
) -> Result<bool> {
    /// The longest user that is read on the stack; a longer one comes as JSON.
    const MAX_USER_BYTES: usize = 512;
    let id = session_id.session_id()?;
    let mut expires_buffer = [0; room_for(24)];
    let mut user_buffer = [0; 1 + room_for(MAX_USER_BYTES)];
    user_buffer[0] = UserKey::TEXT;
    let millis = expires.short_text(&mut expires_buffer).and_then(|text| iso::parse(text.as_bytes()));
    let user_len = user.short_text(&mut user_buffer[1..]).map(str::len);
    let (Some(millis), Some(user_len)) = (millis, user_len) else { return Ok(false) };
    let order = if user_first.is_true() { FieldOrder::UserFirst } else { FieldOrder::ExpiresFirst };
    let content =
        Content { user: Some(UserKey::from_bytes(&user_buffer[..1 + user_len])), body: Body::Plain(order) };
    call(&Session { id, expires: Expiry::new(millis)?, content })?;
    Ok(true)
}

fn with_json(
    store: &SharedStore,
    json: Value,
    expires: Value,
    update_of: Option<&SessionId>,
    call: impl FnOnce(&Session<'_>) -> Result<()>,
) -> Result<bool> {
    let invalid = || StoreError::invalid("session", "an object", json.kind());
    let (bytes, max) = (json.utf8_len().ok_or_else(invalid)?, store.limits().max_session_bytes);
    // Before anything of its size is read or kept.
    if bytes > max {
        return Err(StoreError::TooLarge { bytes, max });
    }
    let mut buffer = Vec::new();
    let text = json.long_text(bytes, &mut buffer).ok_or_else(invalid)?;
    let fields = SessionFields::parse(text)?;
    if update_of.is_some_and(|id| *id != fields.id) {
        return Err(StoreError::invalid("session.sessionId", "the sessionId of the call", "another"));
    }
    let expires = match (fields.expires, expires.number()) {
        (ExpiresField::At(expires), _) => expires,
        (ExpiresField::OtherText, Some(millis)) => Expiry::new(to_millis(millis)?)?,
        (ExpiresField::OtherText, None) => return Ok(false),
    };
    let user = fields.user.as_ref().map(UserKeyBuf::as_key);
    let content = Content { user, body: Body::Json { text, expires: fields.form } };
    call(&Session { id: fields.id, expires, content })?;
    Ok(true)
}

/// A JavaScript time as milliseconds. NaN, the time of an invalid date, is an error.
fn to_millis(number: f64) -> Result<Millis> {
    if number.is_nan() { Err(Expiry::invalid("an invalid date")) } else { Ok(number as Millis) }
}
