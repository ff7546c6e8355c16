//! Session stores for Node.js: the core of the npm package `@fluidauth/native-store`.
//!
//! The contract of every store is [`store::SessionStore`].
//!
//! Dependencies point downwards only. Modules of one line do not import each other, and no files import each other in a
//! circle. `npm run layers` checks both.
//!
//! ```text
//! binding
//! store::file, store::redis
//! store::memory
//! store
//! codec, events, executor, json, keyring, registry, sweeper
//! lifetime
//! session
//! hex, iso
//! clock, error, scratch, sync
//! ```

pub mod clock;
pub mod codec;
pub mod error;
pub mod events;
pub mod executor;
mod hex;
pub mod iso;
pub mod json;
mod keyring;
pub mod lifetime;
mod registry;
mod scratch;
pub mod session;
pub mod store;
pub mod sweeper;
mod sync;

#[cfg(feature = "binding")]
mod binding;
