//! The map of a cluster's slots, which follows the cluster.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::super::connection::{ask, error_text};
use super::super::options::{Address, Servers};
use super::super::resp::{Reply, Request};
use super::node::backoff;
use super::topology::Topology;
use super::{parse_address, within};

/// How often a cluster is asked for its slots while the node of some is not to be reached.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// And how often when all is well: nodes that come and go do not say so.
const ASK_ANYWAY: Duration = Duration::from_secs(60);

/// How long to wait at least between two questions for the slots, whoever says that they have moved.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Keeps the map of a cluster's slots.
pub async fn follow(topology: Rc<Topology>) {
    let mut attempts = 0;
    loop {
        if topology.is_closed() {
            return;
        }
        match ask_slots(&topology).await {
            Ok(slots) => {
                attempts = 0;
                topology.apply_slot_map(&slots);
            }
            Err(reason) => {
                *topology.last_error.borrow_mut() = reason.into();
                attempts += 1;
                sleep(backoff(attempts, topology.network.connector.system.chance())).await;
                continue;
            }
        }
        if topology.is_whole() {
            sleep(MIN_INTERVAL).await;
            let _ = timeout(ASK_ANYWAY, topology.network.outdated.notified()).await;
        } else {
            sleep(ASK_AGAIN).await;
        }
    }
}

/// Asks whichever node answers first in turn: those that are connected, then the others and the seeds.
async fn ask_slots(topology: &Topology) -> Result<Vec<(u16, u16, Address)>, String> {
    let Servers::Cluster { seeds, login } = &topology.network.servers else { return Ok(Vec::new()) };
    let request = || Request::read(Default::default()).command(&[b"CLUSTER", b"SLOTS"]);
    let mut nodes = topology.nodes();
    if !nodes.is_empty() {
        // Not always the same: one may be behind, or cut off from the others.
        let chance = topology.network.connector.system.chance();
        let len = nodes.len();
        nodes.rotate_left((chance * len as f64) as usize % len);
    }
    let mut last_error = String::from("no node is known");
    for node in &nodes {
        let Some(connections) = node.connections() else { continue };
        let host = node.address().host;
        match within(topology.network.connector.timeout, ask(&connections.reads, request())).await {
            Ok(replies) => match parse_slots(replies.first(), &host) {
                Ok(slots) => return Ok(slots),
                Err(reason) => last_error = format!("{}: {reason}", node.address()),
            },
            Err(reason) => last_error = format!("{}: {reason}", node.address()),
        }
    }
    for address in seeds.iter().cloned().chain(nodes.iter().map(|node| node.address())) {
        let asked = async {
            let connected = topology.network.connector.connect(&address, login, None).await?;
            let replies = within(topology.network.connector.timeout, ask(&connected.link, request())).await?;
            parse_slots(replies.first(), &address.host)
        };
        match asked.await {
            Ok(slots) => return Ok(slots),
            Err(reason) => last_error = format!("no connection to {address}: {reason}"),
        }
    }
    Err(last_error)
}

/// The primaries of ranges of slots, as `CLUSTER SLOTS` says them.
fn parse_slots(reply: Option<&Reply>, asked: &str) -> Result<Vec<(u16, u16, Address)>, String> {
    let Some(Reply::Array(ranges)) = reply else {
        return Err(reply.and_then(error_text).unwrap_or_else(|| "it is no node of a cluster".into()));
    };
    let parse = |range: &Reply| {
        let Reply::Array(range) = range else { return None };
        let (Reply::Number(first), Reply::Number(last), Reply::Array(primary)) =
            (range.first()?, range.get(1)?, range.get(2)?)
        else {
            return None;
        };
        let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
        Some((first, last, parse_address(primary, asked)?))
    };
    let slots: Vec<_> = ranges.iter().filter_map(parse).collect();
    if slots.is_empty() { Err("it knows no slots".into()) } else { Ok(slots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &[u8]) -> Reply {
        Reply::Bytes(text.to_vec())
    }

    #[test]
    fn a_map_of_slots_names_the_primaries() {
        let node = |host: Reply, port| Reply::Array(vec![host, Reply::Number(port), text(b"id")]);
        let range = |first, last, node| Reply::Array(vec![Reply::Number(first), Reply::Number(last), node]);
        let reply = Reply::Array(vec![
            range(0, 99, node(text(b"10.0.0.1"), 7000)),
            range(100, 16_383, node(text(b""), 7001)),
            range(5, 6, node(text(b"?"), 7002)),
        ]);
        let address = |host: &str, port| Address { host: host.into(), port };
        let slots = parse_slots(Some(&reply), "asked").unwrap();
        assert_eq!(slots, [(0, 99, address("10.0.0.1", 7000)), (100, 16_383, address("asked", 7001))]);
        assert!(parse_slots(Some(&Reply::Array(vec![])), "asked").is_err());
        assert!(parse_slots(Some(&Reply::Number(1)), "asked").is_err());
    }
}
