//! The table of a shard: its records, and where they are.

use super::index::Index;
use super::record::{Draft, Record};
use super::slab::{Place, Slab};
use crate::session::SessionId;

/// Sessions by the hashes of their ids.
#[derive(Default)]
pub(super) struct Table {
    index: Index,
    pub(super) slab: Slab,
    pub(super) bytes: usize,
    pub(super) created: u64,
}

impl Table {
    #[inline]
    pub(super) fn find(&self, hash: u64, id: &SessionId) -> Option<(Place, Record<'_>)> {
        let mut found = self.index.find(hash).map(|bits| {
            let place = Place::from_bits(bits as u32);
            (place, self.slab.get(place))
        });
        found.find(|(_, record)| {
            record.prefetch();
            record.id() == id.as_bytes()
        })
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Adds a record whose id no other has.
    pub(super) fn insert(&mut self, hash: u64, draft: &Draft) -> Place {
        let place = self.slab.insert(draft);
        self.index.insert(hash, place.to_bits().into());
        self.bytes += draft.cost();
        place
    }

    /// Puts a record in the place of another of the same id, or in a new one.
    pub(super) fn replace(&mut self, hash: u64, old: Place, draft: &Draft) -> Place {
        self.bytes = self.bytes + draft.cost() - self.slab.get(old).cost();
        if self.slab.replace(old, draft) {
            return old;
        }
        let new = self.slab.insert(draft);
        self.slab.remove(old);
        self.index.replace(hash, old.to_bits().into(), new.to_bits().into());
        new
    }

    pub(super) fn remove(&mut self, hash: u64, place: Place) {
        self.bytes -= self.slab.get(place).cost();
        self.index.remove(hash, place.to_bits().into());
        self.slab.remove(place);
    }
}
