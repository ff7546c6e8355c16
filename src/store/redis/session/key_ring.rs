//! The keys of encrypted sessions. They are unwrapped from the wrapped keys, which are in Redis under their own key.
//!
//! The first store of a prefix creates the wrapped keys, and `clear` does not remove them. Without a secret they
//! reveal nothing.
//!
//! A server may lose its data. Each store that has the keys then restores its wrapped keys, unless it finds others
//! there, which it adopts. A store checks the wrapped keys on each new connection, before a call on that connection
//! completes ([`with_cipher`]). It also checks once a second, because a server may be emptied while its connections
//! stay. So all stores of a prefix agree on the keys.
//!
//! A store without a secret checks before its first call, and once a second. If there are wrapped keys, it refuses
//! all calls. It does not check on each new connection. Otherwise an unreachable node of a cluster would delay the
//! calls on the others.
//!
//! A store that may not read the wrapped keys, or has none of their secrets, refuses all calls for a second before it
//! checks again.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::time::Instant;

use super::super::error;
use super::super::resp::{REPLACE, Reply, Request, slot_of};
use super::super::routing::{Attempt, Effect, Node};
use super::cipher::Cipher;
use super::context::{ConnectionId, Context, KeyRefusal, Keys, WrappedText};
use super::names::pattern;
use crate::error::{Result, StoreError};
use crate::keyring::{Keyring, UnlockError, WrappedKeys};

/// How long calls are refused without another check, after one that failed.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// Runs a call with the store's keys, and again if the keys have changed since.
///
/// A new connection may lead to a server that has lost its data. A write with keys that are no longer in use must not
/// be acknowledged.
pub async fn with_cipher<T>(
    context: &Context,
    attempt: &Attempt,
    call: impl AsyncFn(&Cipher) -> Result<T>,
) -> Result<T> {
    loop {
        let before = cipher(context, attempt).await?;
        let outcome = call(&before).await;
        let after = cipher(context, attempt).await?;
        if Arc::ptr_eq(&before, &after) {
            return outcome;
        }
    }
}

/// The store's keys, checked on the current connection.
pub async fn cipher(context: &Context, attempt: &Attempt) -> Result<Arc<Cipher>> {
    if let Some(known) = known(context) {
        return known;
    }
    let _turn = context.unlocking.lock().await;
    if let Some(known) = known(context) {
        return known;
    }
    Box::pin(refresh_keys(context, attempt)).await
}

/// The store's keys, or the reason why it has none, if that is known without another check.
fn known(context: &Context) -> Option<Result<Arc<Cipher>>> {
    let refused = || {
        let refusal = context.key_refusal.borrow();
        let KeyRefusal { at, on, error } = refusal.as_ref()?;
        let is_recent = at.elapsed() < REFUSED_FOR && is_same_connection(on, &key_connection(context));
        is_recent.then(|| Err(error.clone()))
    };
    current(context).map(Ok).or_else(refused)
}

fn current(context: &Context) -> Option<Arc<Cipher>> {
    let keys = context.keys.borrow();
    let Keys { cipher, wrapped, .. } = keys.as_ref().filter(|keys| !keys.are_locked_out)?;
    let now = key_connection(context);
    // Without a connection there is nothing to check.
    let is_current =
        wrapped.as_ref().is_none_or(|wrapped| now.is_none() || is_same_connection(&wrapped.seen_on, &now));
    is_current.then(|| Arc::clone(cipher))
}

pub fn is_same_connection(one: &ConnectionId, other: &ConnectionId) -> bool {
    match (one, other) {
        (Some((one, generation)), Some((other, other_generation))) => {
            Rc::ptr_eq(one, other) && generation == other_generation
        }
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// The server of the wrapped keys, and the generation of its connection.
pub fn key_connection(context: &Context) -> ConnectionId {
    context.router.topology.connection(slot_of(&context.names.wrapped_keys))
}

/// Checks the wrapped keys, and records why they cannot be used.
async fn refresh_keys(context: &Context, attempt: &Attempt) -> Result<Arc<Cipher>> {
    let refreshed = if context.options.secrets.is_empty() {
        refresh_without_secret(context, attempt).await
    } else {
        refresh_with_secret(context, attempt).await
    };
    if let Err(StoreError::InvalidOption { .. }) = refreshed {
        if let Some(keys) = &mut *context.keys.borrow_mut() {
            keys.are_locked_out = true;
        }
        context.router.topology.cut_event_loops();
    }
    let refused = |error| KeyRefusal { at: Instant::now(), on: key_connection(context), error };
    *context.key_refusal.borrow_mut() = refreshed.as_ref().err().cloned().map(refused);
    refreshed
}

/// Restores the store's own wrapped keys if there are none, or adopts those of another store.
async fn refresh_with_secret(context: &Context, attempt: &Attempt) -> Result<Arc<Cipher>> {
    // Read before the request. If the reply comes on a later connection, the keys are checked again.
    let seen_on = key_connection(context);
    let ours = context.keys.borrow().as_ref().and_then(|keys| {
        keys.wrapped.as_ref().map(|wrapped| (Arc::clone(&keys.cipher), wrapped.text.clone()))
    });
    let kept = match ours {
        Some((cipher, text)) => restore(context, attempt, text).await?.map(|text| (cipher, text)),
        None => None,
    };
    let (cipher, text) = match kept {
        Some(kept) => kept,
        None => {
            let (keyring, text) = unlock(context, attempt).await?;
            // The event loops use the previous keys.
            context.router.topology.cut_event_loops();
            (Arc::new(Cipher::Encrypted(Box::new(keyring))), text)
        }
    };
    let wrapped = Some(WrappedText { text, seen_on });
    *context.keys.borrow_mut() = Some(Keys { cipher: Arc::clone(&cipher), wrapped, are_locked_out: false });
    Ok(cipher)
}

/// Ensures that no other store encrypts the sessions. Otherwise this store would write plaintext next to them.
async fn refresh_without_secret(context: &Context, attempt: &Attempt) -> Result<Arc<Cipher>> {
    if read_wrapped(context, attempt).await?.is_some() {
        return Err(wrong_secret("no secret"));
    }
    let mut keys = context.keys.borrow_mut();
    // Always the same cipher: with another one, `with_cipher` would run a call twice.
    let plain = || Keys { cipher: Arc::new(Cipher::Plain), wrapped: None, are_locked_out: false };
    let keys = keys.get_or_insert_with(plain);
    keys.are_locked_out = false;
    Ok(Arc::clone(&keys.cipher))
}

/// Restores the store's wrapped keys if the server has none. Returns the current ones if they wrap the same keys, and
/// `None` if another store has created new keys.
async fn restore(context: &Context, attempt: &Attempt, ours: Vec<u8>) -> Result<Option<Vec<u8>>> {
    loop {
        match read_wrapped(context, attempt).await? {
            Some(text) if text == ours => return Ok(Some(text)),
            Some(text) => {
                // A store with more or fewer secrets has wrapped the same keys again.
                let is_same = decoded(&ours)?.salt() == decoded(&text)?.salt();
                return Ok(is_same.then_some(text));
            }
            None if put_wrapped(context, attempt, &ours).await? => return Ok(Some(ours)),
            None => {}
        }
    }
}

/// Unwraps the keys with the store's secrets. Also returns the wrapped keys.
async fn unlock(context: &Context, attempt: &Attempt) -> Result<(Keyring, Vec<u8>)> {
    loop {
        let Some(text) = read_wrapped(context, attempt).await? else {
            let (keyring, wrapped) = Keyring::create(&context.options.secrets)?;
            let text = encoded(&wrapped);
            if put_wrapped(context, attempt, &text).await? {
                return Ok((keyring, text));
            }
            // Another store was first, so this key ring is discarded.
            continue;
        };
        let unlocked = Keyring::unlock(&context.options.secrets, &decoded(&text)?);
        let unlocked = unlocked.map_err(|error| match error {
            UnlockError::WrongSecret => wrong_secret("a different secret"),
            UnlockError::Store(error) => error,
        })?;
        let Some(exact) = unlocked.exact else { return Ok((unlocked.keyring, text)) };
        let new = encoded(&exact);
        let args: [&[u8]; 2] = [&text, &new];
        let replaced = context
            .router
            .run_script(attempt, Effect::None, &REPLACE, &context.names.wrapped_keys, &args)
            .await?;
        if replaced == Reply::Number(1) {
            return Ok((unlocked.keyring, new));
        }
    }
}

/// Checks the wrapped keys again. Nothing else shows that a server was emptied while its connections stayed, or that
/// another store now encrypts.
pub async fn recheck_keys(context: &Context, attempt: &Attempt) -> Result<()> {
    let _turn = context.unlocking.lock().await;
    let has_keys = context.keys.borrow().is_some();
    if has_keys { refresh_keys(context, attempt).await.map(drop) } else { Ok(()) }
}

/// Fails unless the store has the keys of the sessions. For calls that do not encrypt or decrypt.
pub async fn check_keys(context: &Context) -> Result<()> {
    context.router.step(async |attempt| cipher(context, attempt).await.map(drop)).await
}

/// Whether a server holds the wrapped keys.
pub fn holds_keys(context: &Context, node: &Rc<Node>) -> bool {
    key_connection(context).is_some_and(|(keeper, _)| Rc::ptr_eq(&keeper, node))
}

/// Whether the store still uses this cipher, and its last check was on the current connection.
pub fn uses_cipher(context: &Context, cipher: &Arc<Cipher>) -> bool {
    let is_there = |(keeper, _): (Rc<Node>, u64)| keeper.connections().is_some();
    let can_say = context.options.secrets.is_empty() || key_connection(context).is_some_and(is_there);
    can_say && current(context).is_some_and(|current| Arc::ptr_eq(&current, cipher))
}

/// Detects the loss of the connection to the server of the wrapped keys. The keys may have changed when there is a
/// new connection. Until then, fast paths, which do not check, must not send anything to the other servers of a
/// cluster.
#[derive(Default)]
pub struct KeyWatch(ConnectionId);

impl KeyWatch {
    /// Whether that connection was lost since the last call, and the store encrypts.
    pub fn is_outdated(&mut self, context: &Context) -> bool {
        let now = key_connection(context).filter(|(node, _)| node.connections().is_some());
        let is_lost = self.0.is_some() && !is_same_connection(&self.0, &now);
        self.0 = now;
        is_lost && !context.options.secrets.is_empty()
    }
}

/// Adds the request whose reply [`has_keys`] checks.
pub fn keys_request(context: &Context, request: Request) -> Request {
    request.command(&[b"GET", &context.names.wrapped_keys])
}

/// Whether a server has the wrapped keys of this cipher, according to the last reply to its first request, and the
/// store still uses it.
pub fn has_keys(context: &Context, cipher: &Arc<Cipher>, reply: &Reply) -> bool {
    context.keys.borrow().as_ref().is_some_and(|keys| {
        let is_there = match &keys.wrapped {
            Some(wrapped) => matches!(reply, Reply::Bytes(text) if *text == wrapped.text),
            None => matches!(reply, Reply::Nil),
        };
        Arc::ptr_eq(&keys.cipher, cipher) && is_there
    })
}

async fn read_wrapped(context: &Context, attempt: &Attempt) -> Result<Option<Vec<u8>>> {
    let seal = &context.names.wrapped_keys;
    let get = |mode| Request::read(mode).command(&[b"GET", seal]);
    let reply = context.router.ask(attempt, seal, Effect::None, get).await?.pop();
    match reply {
        Some(Reply::Nil) => Ok(None),
        Some(Reply::Bytes(text)) => Ok(Some(text)),
        Some(Reply::Error(refusal)) if error::code(&refusal) == "NOPERM" => {
            let (message, keys) = (error::message(&refusal), pattern(context.options.prefix.as_bytes()));
            let keys = String::from_utf8_lossy(&keys);
            let reason =
                format!("{message}: a store has to GET all keys of its prefix (ACL rule ~{keys} +get)");
            Err(StoreError::unavailable(reason))
        }
        Some(reply) => error::check(&reply).and(Err(error::unexpected())),
        None => Err(error::unexpected()),
    }
}

/// Stores wrapped keys if there are none. Returns whether it has stored them.
async fn put_wrapped(context: &Context, attempt: &Attempt, text: &[u8]) -> Result<bool> {
    let seal = &context.names.wrapped_keys;
    let set = |mode| Request::write(mode).command(&[b"SET", seal, text, b"NX"]);
    Ok(context.router.get_one(attempt, seal, Effect::None, set).await? == Reply::Okay)
}

/// The error if none of the store's secrets unwraps the keys.
fn wrong_secret(given: &str) -> StoreError {
    StoreError::InvalidOption {
        option: "secret",
        expected: "one that encrypts the sessions of this prefix".into(),
        given: given.into(),
    }
}

fn decoded(text: &[u8]) -> Result<WrappedKeys> {
    const NO_KEYS: StoreError = StoreError::Corrupt("the wrapped keys of the encrypted sessions");
    BASE64.decode(text).map_err(|_| NO_KEYS).and_then(|bytes| WrappedKeys::decode(&bytes))
}

fn encoded(wrapped: &WrappedKeys) -> Vec<u8> {
    BASE64.encode(wrapped.encode()).into_bytes()
}
