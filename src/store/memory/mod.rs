//! `MemoryStore`: sessions in the memory of the process.
//!
//! A flat table: an index of words that point into a slab, in shards. `docs/design.md` has the measurements.
//!
//! - `size_class`, `slot`, `record`, `slab`, `index`, `table`, `shard`: where the sessions lie.
//! - `user_index`: which sessions a user has.
//! - `last_use`, `candidates`, `eviction`: which session goes first when the store is full.
//! - `core`: the store, and the steps that change all of these together.
//! - `capacity`, `sweep`, `removal`, `contract`: what the calls do with those steps.
//! - `shared`: a store with its options, its name and its background sweep.

mod byte_count;
mod candidates;
mod capacity;
#[cfg(any(test, fuzzing))]
pub mod check;
mod contract;
mod core;
mod eviction;
#[cfg(test)]
mod eviction_model;
mod index;
mod last_use;
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
