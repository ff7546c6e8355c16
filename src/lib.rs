//! Session stores for Node.js: the core of the npm package `@fluidauth/native-store`.
//!
//! The contract of every store is [`store::SessionStore`]. Dependencies point one way:
//! `binding → store, sweeper → keyring, session, json, codec, iso, clock, error, scratch`; stores never import each other.

pub mod clock;
pub mod codec;
pub mod error;
pub mod executor;
pub mod iso;
pub mod json;
mod keyring;
mod scratch;
pub mod session;
pub mod shared;
pub mod store;
pub mod sweeper;
mod sync;

#[cfg(feature = "binding")]
mod binding;
