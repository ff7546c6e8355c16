//! `MemoryStore`: sessions in the memory of the process.
//!
//! A flat table: an index of words that point into a slab, in shards. `docs/design.md` has the measurements.
//!
//! - `size_class`, `slot`, `record`, `slab`, `index`, `table`, `shard`: where the sessions lie.
//! - `user_index`, `eviction`: which sessions a user has, and which session goes first when the store is full.
//! - `core`: the store, and the steps that change all of these together.
//! - `capacity`, `sweep`, `removal`, `contract`: what the calls do with those steps.
//! - `shared`: a store with its options, its name and its background sweep.

mod byte_count;
mod capacity;
#[cfg(any(test, fuzzing))]
pub mod check;
mod contract;
mod core;
mod eviction;
mod index;
mod limits;
mod record;
mod removal;
mod shard;
mod shared;
mod size_class;
mod slab;
mod slot;
mod sweep;
mod table;
mod user_index;

#[cfg(test)]
mod tests;

pub use self::core::MemoryStore;
pub use limits::Limits;
pub use removal::{Cleared, Ended};
pub use shared::{MemoryOptions, SharedStore};
