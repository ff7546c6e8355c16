//! Connections to one server, and how they are made. They know nothing of other servers, nor when to try again: that is
//! for `routing`.
//!
//! A connection that ends is reset, so that nothing that was given up is delivered later (`abort`).
//!
//! The worker's connections are multiplexed, on its runtime. That of the fast path is made there too. The event loop of a
//! JavaScript thread then reads and writes its socket, and has its TLS.

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
pub use socket::{Filled, RawConnection, Socket};
pub use system::System;
#[cfg(test)]
pub use system::{Stream, simulated};
pub use tls::Tls;
