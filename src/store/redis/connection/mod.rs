//! Connections to a single server. This module knows no other servers, and `routing` decides when to reconnect.
//!
//! A connection that ends is reset, so that the system delivers nothing of it later (see `abort`).
//!
//! The worker's connections are multiplexed and run on its runtime. The fast path's connections are made there too.
//! After that, the event loop of a JavaScript thread reads and writes the socket, with its TLS state.

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
pub use socket::{Filled, RawConnection, Socket, is_end_of_writing};
pub use system::System;
#[cfg(test)]
pub use system::{Stream, simulated};
pub use tls::Tls;
