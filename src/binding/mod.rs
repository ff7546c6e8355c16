//! The Node-API bindings. No other module uses N-API.
//!
//! It exports functions, because calling a method of a native class takes ten times as long. The classes are in `lib/`,
//! and pass their store to each call as an external. Every failure, even a panic, becomes an error with a code of
//! `StoreError`.
//!
//! Map:
//! - `calls`: hot calls, one per request. `cold`: calls that read many sessions. `upkeep`, `log`: backup, verification
//!   and redo log.
//! - `open`, `handle`: opening stores, and the externals that hold them.
//! - `tickets`, `promise`: completions of calls on other threads. `found`: large results in parts.
//! - `fast_path`, `uv`: the event-loop connections of a RedisStore.
//! - `raw`, `values`, `reply`, `errors`: conversions between JavaScript and Rust.
//! - `events`, `credentials`, `warning`: calls from a store to JavaScript.

// In unit tests napi-derive omits the registration, so the calls look unused.
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
