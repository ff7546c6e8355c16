//! The map of a cluster's slots, which follows the cluster.

use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::super::connection::{ask, error_text};
use super::super::options::{Address, Servers};
use super::super::resp::{Reply, Request};
use super::backoff::backoff;
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
                sleep(backoff(attempts)).await;
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
        let chance = RandomState::new().hash_one(0) as usize % nodes.len();
        nodes.rotate_left(chance);
    }
    let mut last_error = String::from("no node is known");
    for node in &nodes {
        let Some(connections) = node.connections() else { continue };
        let host = node.address().host;
        match within(topology.network.connector.timeout, ask(&connections.reads, request())).await {
            Ok(replies) => match read_slots(topology, replies.first(), &host) {
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
            read_slots(topology, replies.first(), &address.host)
        };
        match asked.await {
            Ok(slots) => return Ok(slots),
            Err(reason) => last_error = format!("no connection to {address}: {reason}"),
        }
    }
    Err(last_error)
}

/// The primaries of ranges of slots. Certificates are checked for the names that nodes announce.
fn read_slots(
    topology: &Topology,
    reply: Option<&Reply>,
    asked: &str,
) -> Result<Vec<(u16, u16, Address)>, String> {
    if let (Some(tls), Some(Reply::Array(ranges))) = (&topology.network.connector.tls, reply) {
        let nodes = ranges.iter().filter_map(nodes_of).flatten();
        tls.set_hostnames(nodes.filter_map(|node| parse_hostname(node, asked)).collect());
    }
    parse_slots(reply, asked)
}

/// The nodes of a range: the primary, and its replicas, one of which may be the next primary.
fn nodes_of(range: &Reply) -> Option<&[Reply]> {
    if let Reply::Array(range) = range { range.get(2..) } else { None }
}

/// The name that a node announces beside its address: `[ip, port, id, ["hostname", name, ..]]`.
fn parse_hostname(node: &Reply, asked: &str) -> Option<(Address, String)> {
    let Reply::Array(node) = node else { return None };
    let Reply::Array(metadata) = node.get(3)? else { return None };
    let at = metadata.iter().step_by(2).position(|key| *key == Reply::Bytes(b"hostname".to_vec()))?;
    let Reply::Bytes(name) = metadata.get(2 * at + 1)? else { return None };
    let name = String::from_utf8(name.clone()).ok().filter(|name| !name.is_empty())?;
    Some((parse_address(node, asked)?, name))
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

    #[test]
    fn a_node_may_announce_a_name() {
        let node = |metadata: Reply| {
            Reply::Array(vec![text(b"10.0.0.1"), Reply::Number(7000), text(b"id"), metadata])
        };
        let named = |pairs: &[&[u8]]| {
            let metadata = Reply::Array(pairs.iter().map(|part| text(part)).collect());
            parse_hostname(&node(metadata), "asked")
        };
        let address = Address { host: "10.0.0.1".into(), port: 7000 };
        let name = "a.example".to_owned();
        assert_eq!(named(&[b"ip", b"10.0.0.2", b"hostname", b"a.example"]), Some((address, name)));
        assert_eq!(named(&[]), None);
        assert_eq!(named(&[b"hostname"]), None);
        assert_eq!(named(&[b"hostname", b""]), None);
        assert_eq!(named(&[b"ip", b"hostname"]), None);
        assert_eq!(parse_hostname(&node(Reply::Nil), "asked"), None);
        let range = vec![Reply::Number(0), Reply::Number(9), node(Reply::Nil), node(Reply::Nil)];
        assert_eq!(nodes_of(&Reply::Array(range)).map(<[_]>::len), Some(2));
        assert_eq!(nodes_of(&Reply::Array(vec![])), None);
    }
}
