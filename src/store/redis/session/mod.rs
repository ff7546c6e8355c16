//! The commands behind each call: records, keys, encryption, the user index, scans and the background sweep.
//!
//! It uses `routing` and the modules below that. The worker and the fast path use it.

mod cipher;
mod commands;
mod conditional;
mod context;
mod create;
mod cursor;
mod key_ring;
mod limits_differ;
mod names;
mod new_session;
mod op;
mod record;
mod scan;
mod single;
mod support;
mod sweep;
mod update;
mod user_index;
mod watch;
mod window;

pub use cipher::Cipher;
pub use commands::{Change, Creation, StaleEntry, delete_request, get_request, touch_request};
pub use conditional::{ConditionalChange, ConditionalForm, conditional_reply, head_request, is_enough};
pub use context::Context;
pub use create::create;
pub use key_ring::{
    KeyWatch, check_keys, cipher, has_keys, holds_keys, keys_request, uses_cipher, with_cipher,
};
pub use names::Names;
pub use new_session::NewSession;
pub use op::{CallReply, Cold, Op, interpret};
#[cfg(test)]
pub use scan::clear_indexes;
pub use scan::{clear, end_scan, ids, sessions, size};
pub use single::{delete, get, touch};
pub use support::Support;
pub use sweep::{clean, sweep};
pub use update::update;
#[cfg(test)]
pub use user_index::GRACE;
pub use user_index::{delete_by_user, forget_later, get_by_user, keep_limit};
pub use watch::{ensure_server_time, watch};
