//! The owner of each slot, and where slots are moving to, according to the nodes themselves.
//!
//! `CLUSTER SLOTS` does not show that a slot is moving, and its map comes from one node. A scan has to know of moves:
//! the keys of a moving slot move one by one, perhaps to a node that was scanned before.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use futures_util::future::join_all;

use super::super::options::Address;
use super::super::resp::{Reply, Request, SLOTS};
use super::node::Node;
use super::router::{Attempt, Refusals, Router};
use crate::error::Result;

/// The index of no holder: the slot has no owner.
const NOWHERE: u16 = u16::MAX;

/// One line of `CLUSTER NODES`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NodeLine {
    id: String,
    host: String,
    port: u16,
    is_own: bool,
    is_primary: bool,
    epoch: u64,
    /// Ranges of slots that the node owns.
    slots: Vec<(u16, u16)>,
    /// Moving slots, and the ids of the nodes that they move to. Only a node's own line has them.
    moving: Vec<(u16, String)>,
}

/// A node that owns slots, or is receiving some.
struct Holder {
    id: String,
    /// Grows whenever the node receives a slot, or takes over the slots of another.
    epoch: u64,
    node: Rc<Node>,
}

pub struct SlotView {
    holders: Vec<Holder>,
    /// The owner of each slot, as an index into `holders`.
    owners: Vec<u16>,
    /// The nodes that slots are moving to.
    moving: BTreeMap<u16, BTreeSet<u16>>,
}

/// Slots whose keys may have moved, and the ids of the nodes that they may have moved to.
pub type Moves = BTreeMap<u16, BTreeSet<String>>;

impl SlotView {
    /// Asks all primaries. `None` without a cluster. Waits while a slot has no owner, because its keys cannot be
    /// scanned.
    pub async fn look(router: &Router, attempt: &Attempt) -> Result<Option<Self>> {
        if router.topology.is_one_server() {
            return Ok(None);
        }
        let mut refusals = Refusals::default();
        loop {
            let view = Self::ask(router, attempt).await?;
            match view.owners.iter().filter(|owner| **owner == NOWHERE).count() {
                0 => return Ok(Some(view)),
                lost => {
                    let reason = format!("{lost} slots of the cluster have no node");
                    router.back_off(attempt, &mut refusals, reason).await;
                }
            }
        }
    }

    async fn ask(router: &Router, attempt: &Attempt) -> Result<Self> {
        let mut asked: Vec<(Rc<Node>, Vec<NodeLine>)> = Vec::new();
        let mut to_ask = router.topology.all_primaries();
        loop {
            let answers = join_all(to_ask.into_iter().map(async |node| {
                let make = |mode| Request::read(mode).command(&[b"CLUSTER", b"NODES"]);
                let reply = router.ask_node(attempt, &node, make).await?;
                Ok((node, reply))
            }));
            for answer in answers.await {
                // A retired node owns no slots.
                if let (node, Some(reply)) = answer? {
                    let lines = parse_lines(&reply);
                    asked.push((node, lines));
                }
            }
            let (view, unasked) =
                Self::of(&asked, |host, port| router.topology.node_at(&Address { host: host.into(), port }));
            if unasked.is_empty() {
                return Ok(view);
            }
            to_ask = unasked;
        }
    }

    /// Combines the reports of nodes. Each node's report about itself takes precedence. Also returns the nodes that
    /// hold slots but were not asked yet.
    fn of(
        asked: &[(Rc<Node>, Vec<NodeLine>)],
        node_at: impl Fn(&str, u16) -> Rc<Node>,
    ) -> (Self, Vec<Rc<Node>>) {
        let mut view = Self { holders: Vec::new(), owners: vec![NOWHERE; SLOTS], moving: BTreeMap::new() };
        for (node, lines) in asked {
            if let Some(own) = lines.iter().find(|line| line.is_own && line.is_primary) {
                view.take(own, || Rc::clone(node));
            }
        }
        let (known, mut unasked) = (view.holders.len(), Vec::new());
        let has_said =
            |id: &str| asked.iter().any(|(_, lines)| lines.iter().any(|line| line.is_own && line.id == id));
        for (node, lines) in asked {
            for line in lines.iter().filter(|line| line.is_primary && !has_said(&line.id)) {
                let host = if line.host.is_empty() { node.address().host } else { line.host.clone() };
                view.take(line, || node_at(&host, line.port));
            }
        }
        let own_moves: Vec<_> =
            asked.iter().flat_map(|(_, lines)| lines.iter().flat_map(|line| &line.moving)).collect();
        for (slot, id) in own_moves {
            let line = asked.iter().flat_map(|(_, lines)| lines).find(|line| line.id == *id);
            let to = match (view.index_of(id), line) {
                (Some(to), _) => to,
                (None, Some(line)) => view.add(line, node_at(&line.host, line.port)),
                (None, None) => continue,
            };
            view.moving.entry(*slot).or_default().insert(to);
        }
        for (at, holder) in view.holders.iter().enumerate().skip(known) {
            let at = at as u16;
            if view.owners.contains(&at) || view.moving.values().any(|to| to.contains(&at)) {
                unasked.push(Rc::clone(&holder.node));
            }
        }
        (view, unasked)
    }

    fn index_of(&self, id: &str) -> Option<u16> {
        self.holders.iter().position(|holder| holder.id == id).map(|at| at as u16)
    }

    fn add(&mut self, line: &NodeLine, node: Rc<Node>) -> u16 {
        self.holders.push(Holder { id: line.id.clone(), epoch: line.epoch, node });
        (self.holders.len() - 1) as u16
    }

    /// Records the slots that a line claims. If two nodes claim a slot, the one with the higher epoch wins.
    fn take(&mut self, line: &NodeLine, node: impl FnOnce() -> Rc<Node>) {
        if line.slots.is_empty() && line.moving.is_empty() && !line.is_own {
            return;
        }
        let at = self.index_of(&line.id).unwrap_or_else(|| self.add(line, node()));
        for slot in line.slots.iter().flat_map(|&(first, last)| first..=last) {
            let Some(owner) = self.owners.get_mut(usize::from(slot)) else { continue };
            if self.holders.get(usize::from(*owner)).is_none_or(|holder| holder.epoch < line.epoch) {
                *owner = at;
            }
        }
    }

    /// All nodes that may hold keys.
    pub fn nodes(&self) -> Vec<Rc<Node>> {
        let used = |at: &u16| self.owners.contains(at) || self.moving.values().any(|to| to.contains(at));
        let all = (0..self.holders.len() as u16).filter(used);
        all.map(|at| Rc::clone(&self.holders[usize::from(at)].node)).collect()
    }

    /// The nodes in `moves` that are still part of the cluster.
    pub fn nodes_of(&self, moves: &Moves) -> Vec<Rc<Node>> {
        let ids: BTreeSet<_> = moves.values().flatten().collect();
        let found = self.holders.iter().filter(|holder| ids.contains(&holder.id));
        found.map(|holder| Rc::clone(&holder.node)).collect()
    }

    fn owner(&self, slot: u16) -> &Holder {
        &self.holders[usize::from(self.owners[usize::from(slot)])]
    }

    fn moving_to(&self, slot: u16) -> BTreeSet<String> {
        let to = self.moving.get(&slot).into_iter().flatten();
        to.map(|&at| self.holders[usize::from(at)].id.clone()).collect()
    }

    /// The nodes to which keys of a slot may have moved between this view and a later one.
    fn went_to(&self, later: &Self, slot: u16) -> BTreeSet<String> {
        let mut to = self.moving_to(slot);
        to.append(&mut later.moving_to(slot));
        if self.owner(slot).id != later.owner(slot).id {
            to.insert(later.owner(slot).id.clone());
        }
        to
    }

    /// The slots whose keys may have moved between this view and a later one. A slot that left and came back has
    /// raised the epoch of its owner. So a new epoch marks all slots of that owner.
    pub fn moves_until(&self, later: &Self) -> Moves {
        let mut moves = Moves::new();
        for slot in 0..SLOTS as u16 {
            let mut to = self.went_to(later, slot);
            if self.owner(slot).epoch != later.owner(slot).epoch {
                to.insert(later.owner(slot).id.clone());
            }
            if !to.is_empty() {
                moves.insert(slot, to);
            }
        }
        moves
    }

    /// The moves until a later view that a scan must still follow, after it has scanned the nodes of the moves
    /// `before`.
    ///
    /// The keys of any other slot stayed on their node while all nodes were scanned. The keys of these slots were on
    /// the node while it was scanned, unless they may have moved on. Epochs do not count here. Otherwise no scan
    /// would end while slots move to more than one node. So a scan can miss a key whose slot leaves and comes back in
    /// each of two rounds.
    pub fn moves_after(&self, later: &Self, before: &Moves) -> Moves {
        let followed = before.iter().filter_map(|(&slot, from)| {
            let to = self.went_to(later, slot);
            let is_same =
                self.owner(slot).id == later.owner(slot).id && self.moving_to(slot) == later.moving_to(slot);
            // While a slot is moving, its keys may have left each node before the scan reached it.
            let may_miss = !is_same || from.contains(&self.owner(slot).id);
            (may_miss && !to.is_empty()).then_some((slot, to))
        });
        followed.collect()
    }
}

fn parse_lines(reply: &Reply) -> Vec<NodeLine> {
    let Reply::Bytes(text) = reply else { return Vec::new() };
    String::from_utf8_lossy(text).lines().filter_map(parse_line).collect()
}

/// Parses the line of one node: `‹id› ‹host›:‹port›@‹port›,‹hostname› ‹flags› ‹primary› ‹ping› ‹pong› ‹epoch› ‹state›
/// ‹slot› …`.
fn parse_line(line: &str) -> Option<NodeLine> {
    let mut fields = line.split(' ');
    let (id, address, flags) = (fields.next()?, fields.next()?, fields.next()?);
    let epoch = fields.nth(3)?.parse().ok()?;
    let (host, port) = address.split(['@', ',']).next()?.rsplit_once(':')?;
    let flag = |name| flags.split(',').any(|flag| flag == name);
    let (mut slots, mut moving) = (Vec::new(), Vec::new());
    for field in fields.skip(1) {
        if let Some(moved) = field.strip_prefix('[').and_then(|field| field.strip_suffix(']')) {
            if let Some((slot, to)) = moved.split_once("->-") {
                moving.push((slot.parse().ok()?, to.to_owned()));
            } else if let Some((slot, _)) = moved.split_once("-<-") {
                moving.push((slot.parse().ok()?, id.to_owned()));
            }
        } else {
            let (first, last) = field.split_once('-').unwrap_or((field, field));
            slots.push((first.parse().ok()?, last.parse().ok()?));
        }
    }
    Some(NodeLine {
        id: id.into(),
        host: host.into(),
        port: port.parse().ok()?,
        is_own: flag("myself"),
        is_primary: flag("master"),
        epoch,
        slots,
        moving,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(port: u16) -> Rc<Node> {
        Node::new(0, Address { host: "h".into(), port })
    }

    /// The view from three nodes' reports about themselves: the epoch and the slots of each.
    fn view(own: [(u64, &str); 3]) -> SlotView {
        let line = |(at, (epoch, slots)): (usize, (u64, &str))| {
            let port = at as u16 + 1;
            let text = format!(
                "{} h:{port}@1,name myself,master - 0 0 {epoch} connected {slots}",
                ["a", "b", "c"][at]
            );
            (node(port), vec![parse_line(text.trim_end()).unwrap()])
        };
        let asked: Vec<_> = own.into_iter().enumerate().map(line).collect();
        SlotView::of(&asked, |_, port| node(port)).0
    }

    fn moves(of: &[(u16, &[&str])]) -> Moves {
        of.iter().map(|(slot, to)| (*slot, to.iter().map(|&id| id.to_owned()).collect())).collect()
    }

    #[test]
    fn a_line_lists_owned_and_moving_slots() {
        let line =
            parse_line("id ::1:7000@17000,host myself,master - 0 1 12 connected 0-5 9 [7->-x] [8-<-y]");
        let expected = NodeLine {
            id: "id".into(),
            host: "::1".into(),
            port: 7000,
            is_own: true,
            is_primary: true,
            epoch: 12,
            slots: vec![(0, 5), (9, 9)],
            moving: vec![(7, "x".into()), (8, "id".into())],
        };
        assert_eq!(line, Some(expected));
        let replica = parse_line("id :0@0 slave,fail,noaddr x 0 1 12 disconnected").unwrap();
        assert!(!replica.is_own && !replica.is_primary && replica.host.is_empty());
        assert_eq!(parse_line(""), None);
        assert_eq!(parse_line("id h:1 master - 0 0 x connected"), None);
    }

    #[test]
    fn a_nodes_own_report_takes_precedence_and_other_nodes_are_asked() {
        let parse = |lines: &[&str]| lines.iter().map(|line| parse_line(line).unwrap()).collect::<Vec<_>>();
        // `b` does not know yet that `a` has given slot 9 to `c`, and that `c` is up.
        let mut asked = vec![
            (
                node(1),
                parse(&[
                    "a h:1@1 myself,master - 0 0 1 connected 0-8",
                    "b h:2@1 master - 0 0 2 connected 10-16383",
                    "c h:3@1 master - 0 0 3 connected 9",
                ]),
            ),
            (
                node(2),
                parse(&[
                    "a h:1@1 master - 0 0 1 connected 0-9",
                    "b h:2@1 myself,master - 0 0 2 connected 10-16383",
                ]),
            ),
        ];
        let (view, unasked) = SlotView::of(&asked, |_, port| node(port));
        assert_eq!(unasked.iter().map(|node| node.address().port).collect::<Vec<_>>(), [3]);
        assert_eq!(["a", "c", "b"], [8, 9, 10].map(|slot| view.owner(slot).id.as_str()));
        // A node without slots is scanned too if a slot is moving to it.
        asked.push((node(3), parse(&["c h:3@1 myself,master - 0 0 0 connected [4-<-a]"])));
        asked[0].1[0].slots = vec![(0, 9)];
        let (view, unasked) = SlotView::of(&asked, |_, port| node(port));
        assert!(unasked.is_empty());
        assert_eq!(view.nodes().iter().map(|node| node.address().port).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(view.moving_to(4), BTreeSet::from(["c".to_owned()]));
    }

    #[test]
    fn a_moving_slot_is_followed_until_it_stays() {
        let quiet = view([(1, "0-9"), (2, "10-19"), (3, "20-16383")]);
        assert!(quiet.moves_until(&view([(1, "0-9"), (2, "10-19"), (3, "20-16383")])).is_empty());
        let started = view([(1, "0-9 [5->-b]"), (2, "10-19 [5-<-a]"), (3, "20-16383")]);
        let ended = view([(1, "0-4 6-9"), (4, "5 10-19"), (3, "20-16383")]);
        // Keys that moved during the scan are looked for on their new node.
        let all = quiet.moves_until(&started);
        assert_eq!(all, moves(&[(5, &["b"])]));
        // They are found there. Keys that move now were seen before.
        assert!(started.moves_after(&started, &all).is_empty());
        // The move ends. A new epoch marks all slots of `b`, but only after the first round.
        assert_eq!(quiet.moves_until(&ended).len(), 11);
        assert_eq!(started.moves_after(&ended, &all), moves(&[(5, &["b"])]));
        assert_eq!(started.moves_after(&ended, &started.moves_until(&ended)).len(), 1);
        assert!(ended.moves_after(&ended, &moves(&[(5, &["b"])])).is_empty());
        // The slot moves on.
        let on = view([(1, "0-4 6-9"), (4, "5 10-19 [5->-c]"), (3, "20-16383 [5-<-b]")]);
        assert_eq!(ended.moves_after(&on, &moves(&[(5, &["b"])])), moves(&[(5, &["c"])]));
        // A key that arrived at `b` while the slot was already moving on may have been missed on both nodes.
        assert_eq!(on.moves_after(&on, &moves(&[(5, &["b", "c"])])), moves(&[(5, &["c"])]));
        assert!(on.moves_after(&on, &moves(&[(5, &["c"])])).is_empty());
        // The slot left and came back.
        let back = view([(5, "0-9"), (4, "10-19"), (3, "20-16383")]);
        assert!(quiet.moves_until(&back).get(&5).is_some_and(|to| to.contains("a")));
    }
}
