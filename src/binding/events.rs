//! Delivers a store's events to JavaScript: signals that there are some, and returns them as JSON text.

use std::sync::Arc;

use napi::Status;
use napi::bindgen_prelude::{External, FnArgs, Function};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::errors::{JsError, guarded, refused_as_store_error};
use super::values::Value;
use crate::events::{Event, Inbox, Topics};
use crate::session::{SessionId, UserKeyBuf};

/// How many bytes of the hash of an id are published. Enough to distinguish sessions.
const HASH_BYTES: usize = 8;

/// `signal(inbox)`: there are events for `takeEvents`. It does not keep the event loop alive.
type SignalArgs = FnArgs<(External<Arc<Inbox>>,)>;
type Signal = ThreadsafeFunction<Arc<Inbox>, (), SignalArgs, Status, false, true>;

/// Sets the topics that a store publishes in this thread. Returns `false` if another store object of the thread
/// receives them.
#[napi(ts_args_type = "store: object, topics: number, signal: (inbox: object) => void")]
pub fn listen(store: Value, topics: u32, signal: Function<'_, SignalArgs, ()>) -> Result<bool, JsError> {
    guarded(|| {
        let make = || {
            let signal: Signal = signal
                .build_threadsafe_function::<Arc<Inbox>>()
                .weak::<true>()
                .callee_handled::<false>()
                .build_callback(|context| Ok(FnArgs::from((External::new(context.value),))))
                .map_err(refused_as_store_error)?;
            Ok(Inbox::new(move |inbox| {
                // Fails if the JavaScript environment has ended.
                signal.call(inbox, ThreadsafeFunctionCallMode::NonBlocking);
            }))
        };
        store.with_inbox(make, |store, inbox| store.events().listen(inbox, topics as Topics))
    })
}

/// Returns the next events as a JSON array. After an empty array there will be another signal.
#[napi(ts_args_type = "inbox: object, max: number")]
pub fn take_events(inbox: &External<Arc<Inbox>>, max: u32) -> Result<String, JsError> {
    guarded(|| {
        let events: Vec<Json> = inbox.take(max as usize).into_iter().map(to_json).collect();
        Ok(Json::from(events).to_string())
    })
}

/// Returns the name of an event's channel, and its payload.
fn to_json(event: Event) -> Json {
    match event {
        Event::Ended { reason, id, user } => json!(["session:end", {
            "reason": reason.name(), "id": shortened_hash(&id), "userId": user_json(user), "count": 1,
        }]),
        Event::EndedUnnamed { reason, count } => json!(["session:end", {
            "reason": reason.name(), "id": null, "userId": null, "count": count,
        }]),
        Event::Swept { at, duration, removed } => json!(["sweep", {
            "at": at, "duration": duration, "removed": removed, "error": null,
        }]),
        Event::SweepFailed(error) => json!(["sweep", {
            "at": null, "duration": null, "removed": 0, "error": error,
        }]),
        Event::Connected { server } => json!(["redis:connect", { "server": server }]),
        Event::Disconnected { server, problem } => {
            json!(["redis:disconnect", { "server": server, "message": problem }])
        }
        Event::FailedOver { from, to } => json!(["redis:failover", { "from": from, "to": to }]),
        Event::Drained { bytes, millis } => json!(["file:drain", { "bytes": bytes, "duration": millis }]),
    }
}

fn shortened_hash(id: &SessionId) -> String {
    let hash = Sha256::digest(id.to_string());
    hash[..HASH_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the user as in the session.
fn user_json(user: Option<UserKeyBuf>) -> Json {
    let Some(user) = user else { return Json::Null };
    let user = user.as_key();
    match user.text() {
        Some(text) => Json::from(String::from_utf8_lossy(text)),
        // After its kind byte, the key is JSON.
        None => serde_json::from_slice(&user.as_bytes()[1..]).unwrap_or(Json::Null),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Reason;
    use crate::json::parse_user;

    #[test]
    fn an_end_has_the_hash_of_the_id_and_the_user() {
        for (user, shown) in [
            (None, Json::Null),
            (parse_user("\"ann \\\" b\""), json!("ann \" b")),
            (parse_user("42"), json!(42)),
            (parse_user("{\"a\":[1,null]}"), json!({ "a": [1, null] })),
        ] {
            let id = SessionId::new("abc").unwrap();
            let event = to_json(Event::Ended { reason: Reason::Evicted, id, user });
            let payload =
                json!({ "reason": "evicted", "id": "ba7816bf8f01cfea", "userId": shown, "count": 1 });
            assert_eq!(event, json!(["session:end", payload]));
        }
    }
}
