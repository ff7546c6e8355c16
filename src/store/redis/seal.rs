//! What the keys of encrypted sessions are made from: it stands in Redis, under a key of its own.
//!
//! The first store of a prefix makes it, and no `clear` removes it. It tells nothing without a secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::calls::wrong_secret;
use super::core::{Call, Core, Kind};
use super::errors;
use super::resp::{REPLACE, Reply, Request};
use super::vault::Vault;
use crate::error::{Result, StoreError};
use crate::keyring::{Keyring, WrappedKeys};

impl Core {
    /// The keys of the store's secrets.
    pub(super) async fn unlock(&self, call: &Call) -> Result<Vault> {
        loop {
            let Some(mut text) = self.read_seal(call).await? else {
                let (keyring, seal) = Keyring::create(&self.options.secrets)?;
                let text = encoded(&seal);
                if self.put_seal(call, &text).await? {
                    *self.seal.borrow_mut() = Some(text);
                    return Ok(Vault::Sealed(Box::new(keyring)));
                }
                // Another was first: this one is for nothing.
                continue;
            };
            const NO_SEAL: StoreError = StoreError::Corrupt("the seal of the encrypted sessions");
            let seal =
                BASE64.decode(&text).map_err(|_| NO_SEAL).and_then(|bytes| WrappedKeys::decode(&bytes))?;
            let unlocked = Keyring::unlock(&self.options.secrets, &seal).map_err(wrong_secret)?;
            if let Some(exact) = unlocked.exact {
                let new = encoded(&exact);
                let args: [&[u8]; 2] = [&text, &new];
                let replaced = self.run_script(call, Kind::Aside, &REPLACE, &self.names.seal, &args).await?;
                if replaced != Reply::Number(1) {
                    continue;
                }
                text = new;
            }
            *self.seal.borrow_mut() = Some(text);
            return Ok(Vault::Sealed(Box::new(unlocked.keyring)));
        }
    }

    /// Puts the seal back where the server has lost it. Where another stands in its place, whoever opens the store next
    /// goes by that, and so does this one from now on.
    pub(super) async fn keep_seal(&self, call: &Call) -> Result<()> {
        let Some(ours) = self.seal.borrow().clone() else { return Ok(()) };
        if !self.put_seal(call, &ours).await? && self.read_seal(call).await?.is_some_and(|text| text != ours)
        {
            self.vault.take();
            self.seal.take();
            self.topology.cut_lane();
        }
        Ok(())
    }

    async fn read_seal(&self, call: &Call) -> Result<Option<Vec<u8>>> {
        let seal = &self.names.seal;
        let get = |mode| Request::read(mode).command(&[b"GET", seal]);
        match self.get_one(call, seal, Kind::Aside, get).await? {
            Reply::Nil => Ok(None),
            Reply::Bytes(text) => Ok(Some(text)),
            _ => Err(errors::unexpected()),
        }
    }

    /// Puts a seal where there is none, and tells whether it did.
    async fn put_seal(&self, call: &Call, text: &[u8]) -> Result<bool> {
        let seal = &self.names.seal;
        let set = |mode| Request::write(mode).command(&[b"SET", seal, text, b"NX"]);
        Ok(self.get_one(call, seal, Kind::Aside, set).await? == Reply::Okay)
    }
}

fn encoded(wrapped: &WrappedKeys) -> Vec<u8> {
    BASE64.encode(wrapped.encode()).into_bytes()
}
