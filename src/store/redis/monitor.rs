//! The state of a store's connections, for any thread.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::events::{Bus, Event, OTHERS};

/// Identifies a server of a store.
type NodeKey = u32;

/// A summary of a store's connections: counts since the start, and the current state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connections {
    pub state: ConnectionState,
    /// The reason for any state other than `Ready`.
    pub problem: Option<String>,
    /// Connections made.
    pub connects: u64,
    /// Connections lost.
    pub disconnects: u64,
    /// Attempts to connect that failed.
    pub failures: u64,
    /// Requests that were sent again.
    pub retries: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// No connection has been made yet.
    Connecting,
    /// Every primary has a connection.
    Ready,
    /// Only some primaries have a connection.
    Degraded,
    /// There was a connection, and now there is none.
    Unavailable,
}

#[derive(Default)]
pub struct Monitor {
    state: Mutex<State>,
    retries: AtomicU64,
    events: Arc<Bus>,
}

#[derive(Default)]
struct State {
    primaries: Vec<NodeKey>,
    /// Whether some slots of a cluster have no primary.
    has_gap: bool,
    connected: HashSet<NodeKey>,
    problems: HashMap<NodeKey, String>,
    /// Why the primaries are unknown.
    map_problem: Option<String>,
    connects: u64,
    disconnects: u64,
    failures: u64,
}

impl Monitor {
    pub fn new(events: Arc<Bus>) -> Self {
        Self { events, ..Self::default() }
    }

    pub fn set_primaries(&self, primaries: Vec<NodeKey>, has_gap: bool) {
        let mut state = self.state.lock();
        (state.primaries, state.has_gap, state.map_problem) = (primaries, has_gap, None);
    }

    /// Records why the primaries are unknown.
    pub fn set_map_problem(&self, reason: &str) {
        self.state.lock().map_problem = Some(reason.into());
    }

    /// `server` is the address of the node.
    pub fn connected(&self, node: NodeKey, server: &impl Display) {
        self.events.publish(OTHERS, || Event::Connected { server: server.to_string() });
        let mut state = self.state.lock();
        state.connects += 1;
        state.connected.insert(node);
        state.problems.remove(&node);
    }

    /// `problem` says why the connection ended, and includes the node's address.
    pub fn disconnected(&self, node: NodeKey, server: &impl Display, problem: String) {
        let lost = || Event::Disconnected { server: server.to_string(), problem: problem.clone() };
        self.events.publish(OTHERS, lost);
        let mut state = self.state.lock();
        state.disconnects += 1;
        state.connected.remove(&node);
        state.problems.insert(node, problem);
    }

    pub fn failed(&self, node: NodeKey, problem: String) {
        let mut state = self.state.lock();
        state.failures += 1;
        state.problems.insert(node, problem);
    }

    /// Records that another server has become the primary.
    pub fn failed_over(&self, from: &impl Display, to: &impl Display) {
        self.events.publish(OTHERS, || Event::FailedOver { from: from.to_string(), to: to.to_string() });
    }

    /// Removes a node that is no longer part of the topology.
    pub fn forget(&self, node: NodeKey) {
        self.state.lock().problems.remove(&node);
    }

    /// Counts a request that is sent again.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Why a primary has no connection, if that is known.
    pub fn problem(&self) -> Option<String> {
        self.state.lock().problem()
    }

    pub fn connections(&self) -> Connections {
        let state = self.state.lock();
        Connections {
            state: state.state(),
            problem: state.problem(),
            connects: state.connects,
            disconnects: state.disconnects,
            failures: state.failures,
            retries: self.retries.load(Ordering::Relaxed),
        }
    }
}

impl State {
    fn state(&self) -> ConnectionState {
        let reached = self.primaries.iter().filter(|node| self.connected.contains(node)).count();
        match (reached, self.primaries.len()) {
            (0, _) if self.connects == 0 => ConnectionState::Connecting,
            (0, _) => ConnectionState::Unavailable,
            (reached, all) if reached == all && !self.has_gap => ConnectionState::Ready,
            _ => ConnectionState::Degraded,
        }
    }

    fn problem(&self) -> Option<String> {
        if self.state() == ConnectionState::Ready {
            return None;
        }
        let of_primary = self.primaries.iter().find_map(|node| self.problems.get(node));
        let gap = || self.has_gap.then(|| "some slots of the cluster have no primary".to_owned());
        of_primary.or(self.map_problem.as_ref()).cloned().or_else(gap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(monitor: &Monitor) -> (ConnectionState, Option<String>) {
        let Connections { state, problem, .. } = monitor.connections();
        (state, problem)
    }

    #[test]
    fn the_state_combines_all_primaries() {
        let monitor = Monitor::default();
        let why = |reason: &str| Some(reason.to_owned());
        assert_eq!(seen(&monitor), (ConnectionState::Connecting, None));
        monitor.set_map_problem("no slots");
        assert_eq!(seen(&monitor), (ConnectionState::Connecting, why("no slots")));
        monitor.set_primaries(vec![1, 2], false);
        monitor.failed(1, "refused".into());
        assert_eq!(seen(&monitor), (ConnectionState::Connecting, why("refused")));
        monitor.connected(1, &"a:1");
        assert_eq!(seen(&monitor), (ConnectionState::Degraded, None));
        monitor.connected(2, &"b:1");
        assert_eq!(seen(&monitor), (ConnectionState::Ready, None));
        monitor.set_primaries(vec![1, 2], true);
        assert_eq!(seen(&monitor).0, ConnectionState::Degraded);
        monitor.set_primaries(vec![1], false);
        monitor.disconnected(2, &"b:1", "gone".into());
        assert_eq!(seen(&monitor), (ConnectionState::Ready, None), "2 is no longer a primary");
        monitor.disconnected(1, &"a:1", "reset".into());
        assert_eq!(seen(&monitor), (ConnectionState::Unavailable, why("reset")));
        let Connections { connects, disconnects, failures, .. } = monitor.connections();
        assert_eq!((connects, disconnects, failures), (2, 2, 1));
    }
}
