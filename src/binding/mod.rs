//! The face towards Node.js: the only code that knows of N-API.
//!
//! Functions, not classes: a call of a native class's method costs ten times one of a function. The classes are
//! JavaScript, in `lib/`, and hand their store to each call as an external. Everything that goes wrong comes out as
//! an error with one of `StoreError`'s codes, a panic too.

// napi-derive leaves out of unit tests what registers the calls.
#![cfg_attr(test, allow(dead_code))]

mod allocator;
mod calls;
mod cold;
mod credentials;
mod errors;
mod events;
mod fast_path;
mod found;
mod handle;
mod log;
mod open;
mod promise;
mod raw;
mod reply;
mod tickets;
mod upkeep;
mod uv;
mod values;
mod warning;
