//! The event loops' connections, one to each primary. The worker makes them.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{Either, LocalBoxFuture, select};
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep};

use super::super::cache::{begin_tracking, read_tracking};
use super::super::connection::System;
use super::super::queue::{Answers, EventLoopConnection, Queue, Supply};
use super::super::resp::{CREATE, CREATE_WITHIN_LIMIT, Request, TOUCH, UPDATE};
use super::super::routing::{Attempt, Node, NodeId, backoff};
use super::super::session::{
    Context, KeyWatch, cipher, ensure_server_time, has_keys, holds_keys, keys_request, uses_cipher,
};

/// A connection with a shorter life is useless: the event loop cannot poll it, or the server refuses all writes.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// The delay before a connection is replaced.
#[derive(Default)]
struct ReplacementDelay {
    provided_at: Option<Instant>,
    short_lives: u32,
}

impl ReplacementDelay {
    /// The delay before the next connection, after the last one has ended.
    fn next_delay(&mut self) -> Option<Duration> {
        if self.provided_at.is_none_or(|at| at.elapsed() >= SHORT_LIFE) {
            self.short_lives = 0;
            return None;
        }
        self.short_lives += 1;
        Some(backoff(self.short_lives - 1, System::Real.chance()))
    }

    fn provided(&mut self) {
        self.provided_at = Some(Instant::now());
    }
}

/// The result of connecting to a server. `None` if the server was retired.
type ConnectResult = (NodeId, Option<EventLoopConnection>);

/// What a fast path was given.
#[derive(Default)]
struct Provided {
    by: Option<Arc<dyn Answers>>,
    /// The version of its slot map.
    slots: Option<u64>,
    /// The servers to which it has a connection, or to which the worker is connecting.
    nodes: HashSet<NodeId>,
    delays: HashMap<NodeId, ReplacementDelay>,
}

/// Provides the fast path with what it wants: a connection to each primary, and the slot map.
pub async fn provide(context: Rc<Context>, queue: Arc<Queue>) {
    let topology = &context.router.topology;
    let (mut provided, mut keys) = (Provided::default(), KeyWatch::default());
    let mut connecting: FuturesUnordered<LocalBoxFuture<'_, ConnectResult>> = FuturesUnordered::new();
    loop {
        let changed = topology.network.changed.notified();
        if keys.is_outdated(&context) {
            topology.drain_event_loops();
        }
        let (by, lost) = queue.fast_path.take();
        let is_same = match (&by, &provided.by) {
            (Some(by), Some(other)) => Arc::ptr_eq(by, other),
            (by, other) => by.is_none() && other.is_none(),
        };
        if !is_same {
            connecting.clear();
            provided = Provided { by, ..Provided::default() };
        }
        for node in lost {
            provided.nodes.remove(&node);
        }
        if let Some(by) = &provided.by {
            let version = topology.slots_version();
            if provided.slots.replace(version) != Some(version) {
                by.supply(Supply::Slots(topology.slot_ranges().into()));
            }
            let primaries = topology.all_primaries();
            provided.delays.retain(|id, _| primaries.iter().any(|node| node.id() == *id));
            for node in primaries {
                if provided.nodes.insert(node.id()) {
                    let delay = provided.delays.entry(node.id()).or_default().next_delay();
                    connecting.push(Box::pin(connect(&context, node, delay)));
                }
            }
        }
        let connected = async {
            match connecting.next().await {
                Some(outcome) => outcome,
                // No connection is being made.
                None => pending().await,
            }
        };
        let (changed, asked, connected) =
            (pin!(changed), pin!(queue.fast_path.wake.notified()), pin!(connected));
        let woken = select(changed, asked);
        let Either::Left(((node, connection), _)) = select(connected, woken).await else { continue };
        match (connection, &provided.by) {
            (Some(connection), Some(by)) => {
                provided.delays.entry(node).or_default().provided();
                by.supply(Supply::Connection(connection));
            }
            _ => {
                provided.nodes.remove(&node);
            }
        }
    }
}

/// Connects to a server, with as many attempts as necessary. The worker's own connection reports errors, and serves
/// the calls until then.
async fn connect(context: &Context, node: Rc<Node>, delay: Option<Duration>) -> ConnectResult {
    if let Some(delay) = delay {
        sleep(delay).await;
    }
    let mut attempts = 0;
    while context.router.topology.connections_of(&node).await.is_some() {
        let connection = try_connect(context, &node).await;
        if connection.is_some() {
            return (node.id(), connection);
        }
        sleep(backoff(attempts, System::Real.chance())).await;
        attempts += 1;
    }
    (node.id(), None)
}

async fn try_connect(context: &Context, node: &Rc<Node>) -> Option<EventLoopConnection> {
    let unlock = async |attempt: &Attempt| {
        ensure_server_time(context, attempt, Vec::new).await?;
        cipher(context, attempt).await
    };
    let cipher = context.router.step(unlock).await.ok()?;
    // If loading a script fails, its first call loads it.
    let rejects = context.options.user_limit().rejects_beyond().is_some();
    let create = if rejects { &CREATE_WITHIN_LIMIT } else { &CREATE };
    let load = [create, &TOUCH, &UPDATE].iter().fold(Request::read(Default::default()), |request, script| {
        request.command(&[b"SCRIPT", b"LOAD", script.text.as_bytes()])
    });
    // In a cluster, one node has the wrapped keys.
    let is_keeper = holds_keys(context, node);
    let first = if is_keeper { keys_request(context, load) } else { load };
    // Sent last, so that no push message arrives before the event loop has the socket.
    let first = if context.options.cache.is_some() { begin_tracking(first) } else { first };
    let (connection, mut replies) =
        node.connect_event_loop(&context.router.topology.network, first).await.ok()?;
    let tracking = context.options.cache.is_some().then(|| read_tracking(&mut replies));
    // The keys may have changed, or the server may have lost them. The next connection then checks again.
    let is_current =
        if is_keeper { has_keys(context, &cipher, &replies.pop()?) } else { uses_cipher(context, &cipher) };
    is_current.then_some(EventLoopConnection { node: node.id(), connection, cipher, tracking })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lived_connections_are_replaced_with_backoff() {
        let mut delay = ReplacementDelay::default();
        assert_eq!(delay.next_delay(), None);
        let delays: Vec<_> = (0..8)
            .map(|_| {
                delay.provided();
                delay.next_delay().unwrap()
            })
            .collect();
        assert!(delays[0] <= Duration::from_millis(50), "{delays:?}");
        assert!(delays[7] >= SHORT_LIFE, "{delays:?}");
        delay.provided_at = delay.provided_at.and_then(|at| at.checked_sub(SHORT_LIFE));
        assert_eq!(delay.next_delay(), None);
        delay.provided();
        assert!(delay.next_delay().unwrap() <= Duration::from_millis(50));
    }
}
