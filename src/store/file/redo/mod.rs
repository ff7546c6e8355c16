//! The redo log of a process that has the store to itself.
//!
//! While one process, with all its threads, has the store open, a batch of writes is on disk after one `fdatasync` of a log
//! that was filled with zeros before. The newest states of what is in the log are kept in an overlay in memory, which
//! every read looks at first. Drains bring them into the data file, sorted by key, in large transactions. When another
//! process wants to open the store, the log is drained, and both write to the data file.
//!
//! | module | what |
//! |---|---|
//! | `format` | the bytes of the log |
//! | `storage` | its file |
//! | `ring` | appending, syncing and reading it |
//! | `salvage` | the readable part of a damaged one |
//! | `overlay` | the newest states of its rows |
//! | `rows` | deciding a batch by them |
//! | `mode_lock` | which processes may write |
//! | `join` | opening a store that others may have open |
//! | `engine` | a batch on its way: decided, written, synced, entered |
//! | `drain` | from the log into the data file |
//! | `sweep` | removing expired sessions beside a log |
//! | `modes` | beginning a log, ending it, and sharing the store |
//! | `keeper` | the thread that drains, syncs and watches for other processes |
//! | `points` | the steps at which tests interfere |
//!
//! **Lock order**: the mode, then the base, then LMDB's write lock, then the gate of the overlay, then the shards of its
//! maps. A thread that writes to the data file while there is a log holds the base.
//!
//! **Invariants**
//! - An acknowledged row is in the synced log, after the place that the data file names, or in the data file. With
//!   `durability: "everysec"` it is in the log, and synced within about a second.
//! - Nothing is in the overlay that is not in the log, and nothing leaves it before it is in the data file.
//! - A log begins and ends by a commit of the data file. Only the process that holds the store exclusively makes one.
//! - A batch is reported as failed only once nothing can bring it back: after the commit that ends its log.

pub(super) mod drain;
pub(super) mod engine;
pub(super) mod format;
pub(super) mod join;
pub(super) mod keeper;
pub(super) mod mode_lock;
pub(super) mod modes;
pub(super) mod overlay;
pub(super) mod points;
pub(super) mod ring;
pub(super) mod rows;
pub(super) mod salvage;
pub(super) mod storage;
pub(super) mod sweep;
