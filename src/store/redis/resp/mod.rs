//! The wire format: requests, replies, scripts and the slots of keys.
//!
//! It does no I/O and knows nothing of sessions. `connection` sends these bytes, and the modules above build
//! requests.

mod reply;
mod request;
mod script;
mod slot;

#[cfg(fuzzing)]
pub use reply::check_replies;
pub(super) use reply::{Decoder, Malformed, Reply};
pub(super) use request::{Replies, Request, RequestMode, are_refused, number};
pub(super) use script::{
    CREATE, CREATE_WITHIN_LIMIT, END_EXPIRED, END_OF_USER, ENTER, FORGET, MOVE, REPLACE, Script, TOUCH,
    UPDATE, UPDATE_WITHIN_LIMIT,
};
pub(super) use slot::{SLOTS, slot_of};
