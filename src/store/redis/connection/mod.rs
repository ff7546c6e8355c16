//! Connections to one server, and how they are made. They know nothing of other servers, nor when to try again: that is
//! for `routing`.
//!
//! A connection that ends is reset, so that nothing that was given up is delivered later (`abort`).
//!
//! The worker's connections are multiplexed, on its runtime. That of the fast path is a plain socket, which the event loop
//! of a JavaScript thread reads and writes.

mod abort;
mod connector;
mod multiplexed;
mod reply_window;
mod socket;
mod system;
mod tls;

pub use abort::abort;
pub use connector::{Connected, Connector, ask, error_text};
pub use multiplexed::{MultiplexedConnection, Replication, SendError};
pub use reply_window::ReplyWindow;
pub use socket::{Filled, Socket};
pub use system::System;
#[cfg(test)]
pub use system::{Stream, simulated};
pub use tls::Tls;
