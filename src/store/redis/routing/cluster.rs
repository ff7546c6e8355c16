//! Keeps the slot map of a cluster current.

use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{sleep, timeout};

use super::super::connection::{MultiplexedConnection, ask, error_text};
use super::super::options::{Address, Login, Servers};
use super::super::resp::{Reply, Request};
use super::backoff::backoff;
use super::node::{Network, Node};
use super::topology::Topology;
use super::{parse_address, within};

/// How often to ask for the slot map while some slots have no reachable node.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// How often to ask otherwise: new nodes and removed nodes do not announce themselves.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// The minimum time between two requests for the slot map, however many redirects ask for one.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// How long to wait for one node before the next one is asked too.
const NEXT_NODE_AFTER: Duration = Duration::from_millis(250);

/// Asks for the slot map until the store is closed.
pub async fn follow(topology: Rc<Topology>) {
    let mut attempts = 0;
    loop {
        if topology.is_closed() {
            return;
        }
        match ask_slots(&topology).await {
            Ok(map) => {
                attempts = 0;
                topology.apply_slot_map(map.epoch, &map.slots);
            }
            Err(reason) => {
                topology.network.connector.monitor.set_map_problem(&reason);
                *topology.last_error.borrow_mut() = reason.into();
                attempts += 1;
                sleep(backoff(attempts, topology.network.connector.system.chance())).await;
                continue;
            }
        }
        if topology.is_whole() {
            sleep(MIN_INTERVAL).await;
            let _ = timeout(REFRESH_INTERVAL, topology.network.outdated.notified()).await;
        } else {
            sleep(RETRY_INTERVAL).await;
        }
    }
}

/// Ranges of slots, each with its primary.
type Slots = Vec<(u16, u16, Address)>;

/// The slot map of one node, and the cluster epoch that the node knows. A node that is behind, or cut off, knows a
/// lower epoch.
#[derive(Debug, Default, PartialEq, Eq)]
struct SlotMap {
    epoch: u64,
    slots: Slots,
}

/// Asks the nodes for the slot map: first the target of the last redirect, then the connected nodes, then other nodes
/// and the seeds. Asks the next one if a node fails, is behind, or does not answer soon.
async fn ask_slots(topology: &Topology) -> Result<SlotMap, String> {
    let Servers::Cluster { seeds, login } = &topology.network.servers else { return Ok(SlotMap::default()) };
    let network = &topology.network;
    let mut nodes = topology.nodes();
    if !nodes.is_empty() {
        // Starts at a random node, because a node may be behind or cut off from the others.
        let (chance, len) = (topology.network.connector.system.chance(), nodes.len());
        nodes.rotate_left((chance * len as f64) as usize % len);
    }
    let candidate_of = |node: &Rc<Node>| Candidate {
        address: node.address(),
        connection: node.connections().map(|connections| connections.reads),
    };
    let mut candidates: Vec<_> = topology.take_first_to_ask().iter().map(candidate_of).collect();
    candidates.extend(nodes.iter().map(candidate_of).filter(|candidate| candidate.connection.is_some()));
    let others = seeds.iter().cloned().chain(nodes.iter().map(|node| node.address()));
    candidates.extend(others.map(|address| Candidate { address, connection: None }));
    let mut candidates = candidates.into_iter();
    let (mut asked, mut behind) = (FuturesUnordered::new(), None::<SlotMap>);
    let mut last_error = String::from("no node is known");
    loop {
        match candidates.next() {
            Some(candidate) => asked.push(candidate.ask(network, login)),
            None if asked.is_empty() => return behind.ok_or(last_error),
            None => {}
        }
        let limit = if candidates.len() > 0 { NEXT_NODE_AFTER } else { Duration::MAX };
        match timeout(limit, asked.next()).await {
            Ok(Some(Ok(map))) if map.epoch >= topology.epoch() => return Ok(map),
            Ok(Some(Ok(map))) if behind.as_ref().is_none_or(|other| other.epoch < map.epoch) => {
                behind = Some(map);
            }
            Ok(Some(Err(reason))) => last_error = reason,
            Ok(Some(Ok(_)) | None) | Err(_) => {}
        }
    }
}

/// A node to ask, through its connection or a new one.
struct Candidate {
    address: Address,
    connection: Option<Rc<MultiplexedConnection>>,
}

impl Candidate {
    async fn ask(self, network: &Network, login: &Login) -> Result<SlotMap, String> {
        let Self { address, connection } = self;
        let asked = async {
            let connected = match &connection {
                None => Some(network.connector.connect(&address, login, None).await?),
                Some(_) => None,
            };
            let connection =
                connected.as_ref().map(|connected| &connected.connection).or(connection.as_ref());
            let connection = connection.ok_or("it has no connection")?;
            let request = Request::read(Default::default())
                .command(&[b"CLUSTER", b"SLOTS"])
                .command(&[b"CLUSTER", b"INFO"]);
            let replies = within(network.connector.timeout, ask(connection, request)).await?;
            let slots = read_slots(network, replies.first(), &address.host)?;
            Ok(SlotMap { epoch: parse_epoch(replies.get(1)), slots })
        };
        asked.await.map_err(|reason: String| format!("no slots from {address}: {reason}"))
    }
}

/// The epoch in the reply to `CLUSTER INFO`, or 0 if the user may not call it.
fn parse_epoch(reply: Option<&Reply>) -> u64 {
    let Some(Reply::Bytes(info)) = reply else { return 0 };
    let info = String::from_utf8_lossy(info);
    let epoch = info.lines().find_map(|line| line.strip_prefix("cluster_current_epoch:"));
    epoch.and_then(|epoch| epoch.parse().ok()).unwrap_or(0)
}

/// The primaries of ranges of slots. Also sets the host names that the nodes announce, for which TLS checks
/// certificates.
fn read_slots(network: &Network, reply: Option<&Reply>, asked: &str) -> Result<Slots, String> {
    if let (Some(tls), Some(Reply::Array(ranges))) = (&network.connector.tls, reply) {
        let nodes = ranges.iter().filter_map(nodes_of).flatten();
        tls.set_hostnames(nodes.filter_map(|node| parse_hostname(node, asked)).collect());
    }
    parse_slots(reply, asked)
}

/// The nodes of a range: its primary, then its replicas, which may become primaries.
fn nodes_of(range: &Reply) -> Option<&[Reply]> {
    if let Reply::Array(range) = range { range.get(2..) } else { None }
}

/// The host name that a node announces next to its address: `[ip, port, id, ["hostname", name, ..]]`.
fn parse_hostname(node: &Reply, asked: &str) -> Option<(Address, String)> {
    let Reply::Array(node) = node else { return None };
    let Reply::Array(metadata) = node.get(3)? else { return None };
    let at = metadata.iter().step_by(2).position(|key| *key == Reply::Bytes(b"hostname".to_vec()))?;
    let Reply::Bytes(name) = metadata.get(2 * at + 1)? else { return None };
    let name = String::from_utf8(name.clone()).ok().filter(|name| !name.is_empty())?;
    Some((parse_address(node, asked)?, name))
}

/// The primaries in the reply to `CLUSTER SLOTS`.
fn parse_slots(reply: Option<&Reply>, asked: &str) -> Result<Slots, String> {
    let Some(Reply::Array(ranges)) = reply else {
        return Err(reply.and_then(error_text).unwrap_or_else(|| "it is not a node of a cluster".into()));
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
    fn a_slot_map_lists_the_primaries() {
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
        let info = text(b"cluster_state:ok\r\ncluster_current_epoch:17\r\ncluster_my_epoch:3\r\n");
        assert_eq!(parse_epoch(Some(&info)), 17);
        assert_eq!(parse_epoch(Some(&Reply::Error(b"NOPERM".to_vec()))), 0);
        assert!(parse_slots(Some(&Reply::Array(vec![])), "asked").is_err());
        assert!(parse_slots(Some(&Reply::Number(1)), "asked").is_err());
    }

    #[test]
    fn a_node_may_announce_a_host_name() {
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
