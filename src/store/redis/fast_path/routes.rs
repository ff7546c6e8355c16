//! The primary of each slot. When a slot moves, its calls wait until the old primary has answered the calls before
//! them.

use super::super::resp::SLOTS;

/// The index of no primary.
const NOWHERE: u16 = u16::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Route {
    /// The index of the primary that was sent the last calls.
    holder: u16,
    /// The index of the primary that owns the slot now.
    owner: u16,
}

const NO_ROUTE: Route = Route { holder: NOWHERE, owner: NOWHERE };

/// Where a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    To(usize),
    /// To another primary, after this one has answered all calls that it was sent.
    After(usize),
    Unknown,
}

/// The primaries of all slots, as indexes into a list.
pub struct Routes(Vec<Route>);

impl Routes {
    /// The routes of a single server: all slots have the first primary.
    pub fn of_one_server() -> Self {
        Self(vec![Route { holder: 0, owner: 0 }])
    }

    pub fn of_cluster() -> Self {
        Self(vec![NO_ROUTE; SLOTS])
    }

    pub fn is_one_server(&self) -> bool {
        self.0.len() == 1
    }

    pub fn destination(&self, slot: u16) -> Destination {
        match self.0.get(usize::from(slot)) {
            Some(&Route { holder: NOWHERE, .. }) | None => Destination::Unknown,
            Some(&Route { holder, owner }) if holder == owner => Destination::To(holder.into()),
            Some(&Route { holder, .. }) => Destination::After(holder.into()),
        }
    }

    /// Applies a new slot map, with the owners as indexes. `may_go` returns whether a primary has no pending calls.
    /// Returns the primaries that have lost slots and still have pending calls.
    pub fn apply(
        &mut self,
        ranges: impl Iterator<Item = (u16, u16, usize)>,
        may_go: impl Fn(usize) -> bool,
    ) -> Vec<usize> {
        self.0.iter_mut().for_each(|route| route.owner = NOWHERE);
        for (first, last, index) in ranges {
            if let Some(routes) = self.0.get_mut(usize::from(first)..=usize::from(last)) {
                routes.iter_mut().for_each(|route| route.owner = index as u16);
            }
        }
        let mut losers = Vec::new();
        for route in &mut self.0 {
            let Route { holder, owner } = *route;
            if holder == owner {
                continue;
            }
            let index = usize::from(holder);
            if holder == NOWHERE || may_go(index) {
                route.holder = owner;
            } else if !losers.contains(&index) {
                losers.push(index);
            }
        }
        losers
    }

    /// Moves the slots that a primary has lost: it has answered all earlier calls.
    pub fn release(&mut self, index: usize) {
        for route in self.0.iter_mut().filter(|route| usize::from(route.holder) == index) {
            route.holder = route.owner;
        }
    }

    /// Whether a primary owns a slot, or was the last one to get its calls.
    pub fn uses(&self, index: usize) -> bool {
        let is_of = |at: u16| usize::from(at) == index;
        self.0.iter().any(|route| is_of(route.holder) || is_of(route.owner))
    }

    /// Removes a primary. The indexes of those behind it decrease by one.
    pub fn remove(&mut self, index: usize) {
        let move_up = |at: &mut u16| {
            if *at != NOWHERE && usize::from(*at) > index {
                *at -= 1;
            }
        };
        for Route { holder, owner } in &mut self.0 {
            move_up(holder);
            move_up(owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: u16 = SLOTS as u16 - 1;

    #[test]
    fn a_single_server_owns_all_slots() {
        let routes = Routes::of_one_server();
        assert_eq!((routes.destination(0), routes.is_one_server()), (Destination::To(0), true));
    }

    #[test]
    fn slots_move_after_the_old_primary_has_answered() {
        let mut routes = Routes::of_cluster();
        assert_eq!(routes.destination(7), Destination::Unknown);
        assert!(routes.apply([(0, 99, 0), (100, LAST, 1)].into_iter(), |_| true).is_empty());
        assert_eq!(
            [0, 99, 100, LAST].map(|slot| routes.destination(slot)),
            [0, 0, 1, 1].map(Destination::To)
        );
        // Slot 7 moves from the first primary to the second, and slot 8 to nobody.
        let map = || [(0, 6, 0), (7, 7, 1), (9, 99, 0), (100, LAST, 1)].into_iter();
        assert_eq!(routes.apply(map(), |index| index != 0), [0]);
        assert_eq!(
            [6, 7, 8, 9].map(|slot| routes.destination(slot)),
            [Destination::To(0), Destination::After(0), Destination::After(0), Destination::To(0)]
        );
        assert_eq!(routes.apply(map(), |index| index != 0), [0]);
        routes.release(1);
        assert_eq!(routes.destination(7), Destination::After(0));
        routes.release(0);
        assert_eq!(
            [6, 7, 8, 9].map(|slot| routes.destination(slot)),
            [Destination::To(0), Destination::To(1), Destination::Unknown, Destination::To(0)]
        );
        // All slots move back immediately, because nothing was sent.
        assert!(routes.apply([(0, LAST, 0)].into_iter(), |_| true).is_empty());
        assert_eq!(routes.destination(LAST), Destination::To(0));
    }

    #[test]
    fn a_slot_that_moves_back_in_time_never_left() {
        let mut routes = Routes::of_cluster();
        let all_to = |index| [(0, LAST, index)].into_iter();
        routes.apply(all_to(0), |_| true);
        assert_eq!(routes.apply(all_to(1), |_| false), [0]);
        assert!(routes.apply(all_to(0), |_| false).is_empty());
        assert_eq!(routes.destination(5), Destination::To(0));
    }

    #[test]
    fn indexes_decrease_after_a_removal() {
        let mut routes = Routes::of_cluster();
        routes.apply([(0, 9, 0), (10, LAST, 2)].into_iter(), |_| true);
        assert!(routes.uses(0) && !routes.uses(1) && routes.uses(2));
        routes.remove(1);
        assert_eq!([0, 10].map(|slot| routes.destination(slot)), [Destination::To(0), Destination::To(1)]);
    }
}
