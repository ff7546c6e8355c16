//! The records of a shard, and the index that finds them by id.

use super::byte_count::ByteCount;
use super::index::Index;
use super::record::{NewRecord, Record};
use super::slab::{Layout, Moved, Slab};
use super::slot::Slot;
use crate::session::SessionId;

/// Sessions by the hashes of their ids.
pub(super) struct Table {
    index: Index,
    slab: Slab,
    /// How many sessions were created in it.
    pub(super) created: u64,
    bytes: ByteCount,
    /// The table's part of `bytes`.
    counted: usize,
}

impl Table {
    pub(super) fn new(layout: Layout, bytes: ByteCount) -> Self {
        Self { index: Index::default(), slab: Slab::new(layout), created: 0, bytes, counted: 0 }
    }

    #[inline]
    pub(super) fn find(&self, hash: u64, id: &SessionId) -> Option<(Slot, Record<'_>)> {
        self.records(hash).find(|(_, record)| {
            record.prefetch();
            record.id() == id.as_bytes()
        })
    }

    /// As `find`, for a record that is about to be removed.
    #[inline]
    pub(super) fn find_to_remove(&self, hash: u64, id: &SessionId) -> Option<(Slot, Record<'_>)> {
        self.records(hash).find(|(slot, record)| {
            self.slab.prefetch_chunk(*slot);
            record.prefetch();
            record.id() == id.as_bytes()
        })
    }

    /// The record of a creation number.
    pub(super) fn find_created(&self, hash: u64, created: u64) -> Option<(Slot, Record<'_>)> {
        self.records(hash).find(|(_, record)| record.created() == created)
    }

    /// The records whose hashes have the tag of this one.
    #[inline]
    fn records(&self, hash: u64) -> impl Iterator<Item = (Slot, Record<'_>)> {
        self.index.find(hash).map(|bits| {
            let slot = Slot::from_bits(bits as u32);
            (slot, self.slab.get(slot))
        })
    }

    /// Some records by the tags of their hashes: see [`Index::page`].
    pub(super) fn page(&self, from: u64, count: usize) -> (Vec<(u64, Record<'_>)>, Option<u64>) {
        let (values, next) = self.index.page(from, count);
        let records =
            values.into_iter().map(|(tag, bits)| (tag, self.slab.get(Slot::from_bits(bits as u32))));
        (records.collect(), next)
    }

    pub(super) fn slab(&self) -> &Slab {
        &self.slab
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Adds a record whose id no other has.
    pub(super) fn insert(&mut self, hash: u64, record: &NewRecord) -> Slot {
        let slot = self.slab.insert(record);
        self.index.insert(hash, slot.to_bits().into());
        self.count_bytes();
        slot
    }

    /// Replaces a record by one of the same id. Returns the new slot, and which other record has moved. The caller calls
    /// `moved` for that record.
    pub(super) fn replace(&mut self, hash: u64, old: Slot, record: &NewRecord) -> (Slot, Option<Moved>) {
        if self.slab.replace(old, record) {
            return (old, None);
        }
        let new = self.slab.insert(record);
        self.index.replace(hash, old.to_bits().into(), new.to_bits().into());
        let moved = self.slab.remove(old);
        self.count_bytes();
        (new, moved)
    }

    /// Removes a record. Returns which other record has moved. The caller calls `moved` for that record.
    pub(super) fn remove(&mut self, hash: u64, slot: Slot) -> Option<Moved> {
        self.index.remove(hash, slot.to_bits().into());
        let moved = self.slab.remove(slot);
        self.count_bytes();
        moved
    }

    /// Updates the index after a record has moved. `hash` is that of its id.
    pub(super) fn moved(&mut self, hash: u64, moved: Moved) {
        self.index.replace(hash, moved.from.to_bits().into(), moved.to.to_bits().into());
    }

    /// Frees memory that holds no record.
    pub(super) fn give_back(&mut self) {
        self.slab.give_back();
        self.count_bytes();
    }

    /// Removes all records at once. The caller drops them, which may take long.
    pub(super) fn detach(&mut self) -> Self {
        let empty = Self { created: self.created, ..Self::new(self.slab.layout(), self.bytes.clone()) };
        self.bytes.update(&mut self.counted, 0);
        std::mem::replace(self, empty)
    }

    #[inline]
    fn count_bytes(&mut self) {
        self.bytes.update(&mut self.counted, self.slab.allocated() + self.index.allocated());
    }
}
