//! `MemoryStore`: sessions in the memory of the process.
//!
//! Each shard has a slab with the records, and a flat index of words that point into it. `docs/design.md` has the measurements.
//!
//! - `size_class`, `slot`, `record`, `slab`, `index`, `table`, `shard`: where the sessions lie.
//! - `user_index`: which sessions a user has.
//! - `last_use`, `candidates`, `eviction`: which session goes first when the store is full.
//! - `core`: the store, and the steps that change several of these together.
//! - `capacity`, `sweep`, `removal`, `contract`: the calls, made of those steps.
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
mod prefetch;
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
