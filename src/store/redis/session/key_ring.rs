//! The keys of encrypted sessions, which are made from what stands in Redis under a key of its own.
//!
//! The first store of a prefix makes it, and no `clear` removes it. It says nothing without a secret.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::super::error;
use super::super::resp::{REPLACE, Reply, Request};
use super::super::routing::{Attempt, Effect};
use super::cipher::Cipher;
use super::context::Context;
use crate::error::{Result, StoreError};
use crate::keyring::{Keyring, UnlockError, WrappedKeys};

/// The store's keys, once it has them: those of encryption are made of what stands in Redis.
pub async fn cipher(context: &Context, attempt: &Attempt) -> Result<Arc<Cipher>> {
    if let Some(cipher) = &*context.cipher.borrow() {
        return Ok(Arc::clone(cipher));
    }
    let _turn = context.unlocking.lock().await;
    if let Some(cipher) = &*context.cipher.borrow() {
        return Ok(Arc::clone(cipher));
    }
    let cipher = if context.options.secrets.is_empty() {
        Cipher::Plain
    } else {
        Box::pin(unlock(context, attempt)).await?
    };
    let cipher = Arc::new(cipher);
    *context.cipher.borrow_mut() = Some(Arc::clone(&cipher));
    Ok(cipher)
}

/// The keys of the store's secrets.
pub async fn unlock(context: &Context, attempt: &Attempt) -> Result<Cipher> {
    loop {
        let Some(mut text) = read_seal(context, attempt).await? else {
            let (keyring, seal) = Keyring::create(&context.options.secrets)?;
            let text = encoded(&seal);
            if put_seal(context, attempt, &text).await? {
                *context.wrapped_keys.borrow_mut() = Some(text);
                return Ok(Cipher::Encrypted(Box::new(keyring)));
            }
            // Another was first: this one is for nothing.
            continue;
        };
        const NO_SEAL: StoreError = StoreError::Corrupt("the seal of the encrypted sessions");
        let seal = BASE64.decode(&text).map_err(|_| NO_SEAL).and_then(|bytes| WrappedKeys::decode(&bytes))?;
        let unlocked = Keyring::unlock(&context.options.secrets, &seal).map_err(wrong_secret)?;
        if let Some(exact) = unlocked.exact {
            let new = encoded(&exact);
            let args: [&[u8]; 2] = [&text, &new];
            let replaced = context
                .router
                .run_script(attempt, Effect::None, &REPLACE, &context.names.seal, &args)
                .await?;
            if replaced != Reply::Number(1) {
                continue;
            }
            text = new;
        }
        *context.wrapped_keys.borrow_mut() = Some(text);
        return Ok(Cipher::Encrypted(Box::new(unlocked.keyring)));
    }
}

/// Puts the seal back where the server has lost it. Where another stands in its place, whoever opens the store next
/// goes by that, and so does this one from now on.
pub async fn keep_seal(context: &Context, attempt: &Attempt) -> Result<()> {
    let Some(ours) = context.wrapped_keys.borrow().clone() else { return Ok(()) };
    if !put_seal(context, attempt, &ours).await?
        && read_seal(context, attempt).await?.is_some_and(|text| text != ours)
    {
        context.cipher.take();
        context.wrapped_keys.take();
        context.router.topology.cut_event_loop();
    }
    Ok(())
}

async fn read_seal(context: &Context, attempt: &Attempt) -> Result<Option<Vec<u8>>> {
    let seal = &context.names.seal;
    let get = |mode| Request::read(mode).command(&[b"GET", seal]);
    match context.router.get_one(attempt, seal, Effect::None, get).await? {
        Reply::Nil => Ok(None),
        Reply::Bytes(text) => Ok(Some(text)),
        _ => Err(error::unexpected()),
    }
}

/// Puts a seal where there is none, and tells whether it did.
async fn put_seal(context: &Context, attempt: &Attempt, text: &[u8]) -> Result<bool> {
    let seal = &context.names.seal;
    let set = |mode| Request::write(mode).command(&[b"SET", seal, text, b"NX"]);
    Ok(context.router.get_one(attempt, seal, Effect::None, set).await? == Reply::Okay)
}

/// Of secrets that are none of those with which a store was begun.
pub fn wrong_secret(error: UnlockError) -> StoreError {
    match error {
        UnlockError::WrongSecret => StoreError::InvalidOption {
            option: "secret",
            expected: "one of those with which the sessions of this prefix were encrypted".into(),
            given: "another".into(),
        },
        UnlockError::Store(error) => error,
    }
}

fn encoded(wrapped: &WrappedKeys) -> Vec<u8> {
    BASE64.encode(wrapped.encode()).into_bytes()
}
