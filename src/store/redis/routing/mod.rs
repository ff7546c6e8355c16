//! The servers of a store: which servers exist, which one holds a key, reconnecting, and sending a request until it
//! has a final reply.
//!
//! It uses `connection` and `resp`. The `session` module sends all its requests through `Router`.

mod backoff;
mod cluster;
mod node;
mod router;
mod sentinel;
mod slot_view;
mod topology;

use std::time::Duration;

use tokio::time::timeout;

use super::options::Address;
use super::resp::Reply;

pub use backoff::backoff;
pub use node::{Node, NodeId};
pub use router::{Attempt, Effect, PriorState, Refusals, Router};
pub use slot_view::{Moves, SlotView};

async fn within<T>(limit: Duration, asked: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let outcome = timeout(limit, asked).await;
    outcome.unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis())))
}

/// Parses a host and a port. An empty host stands for the host of the server that sent it.
fn parse_address(parts: &[Reply], asked: &str) -> Option<Address> {
    let host = match parts.first()? {
        Reply::Bytes(host) if host.is_empty() => asked.to_owned(),
        Reply::Bytes(host) => String::from_utf8(host.clone()).ok()?,
        Reply::Nil => asked.to_owned(),
        _ => return None,
    };
    let port = match parts.get(1)? {
        Reply::Number(port) => u16::try_from(*port).ok()?,
        Reply::Bytes(port) => std::str::from_utf8(port).ok()?.parse().ok()?,
        _ => return None,
    };
    // A node of a cluster that does not know its own host reports "?".
    (host != "?" && port > 0).then_some(Address { host, port })
}
