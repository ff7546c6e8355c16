//! Health checks of the servers.

use std::rc::Rc;

use futures_util::future::join_all;

use super::resp::{Reply, Request};
use super::routing::{Attempt, Node, Refusals};
use super::session::{Context, cipher};
use crate::error::{Result, StoreError};

/// Asks every server whether it is a primary, and waits until all are. Also checks that the store has the keys of its
/// encryption.
///
/// # Errors
/// Why a server does not accept commands, or why the store refuses all calls.
pub async fn ping(context: &Context, attempt: &Attempt) -> Result<()> {
    let topology = &context.router.topology;
    topology.known().await;
    let pings = topology.all_primaries().into_iter().map(|node| ping_node(context, attempt, node));
    join_all(pings).await.into_iter().collect::<Result<()>>()?;
    cipher(context, attempt).await.map(drop)
}

async fn ping_node(context: &Context, attempt: &Attempt, node: Rc<Node>) -> Result<()> {
    let (router, mut refusals) = (&context.router, Refusals::default());
    loop {
        let ping = |mode| Request::read(mode).command(&[b"PING"]);
        if router.ask_node(attempt, &node, ping).await?.is_none() {
            // The node has left the topology, and another one has its slots.
            return Ok(());
        }
        let role = |mode| Request::read(mode).command(&[b"ROLE"]);
        match router.ask_node(attempt, &node, role).await {
            Ok(Some(Reply::Array(role))) if role.first() == Some(&Reply::Bytes(b"slave".to_vec())) => {
                let reason = format!("{} is a replica, and no primary", node.address());
                router.back_off(attempt, &mut refusals, reason).await;
            }
            // The user may not call `ROLE`.
            Ok(_) | Err(StoreError::Unavailable { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
