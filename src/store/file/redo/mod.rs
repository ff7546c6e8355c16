//! The redo log of a process that has opened the store exclusively.
//!
//! If one process, with all its threads, has the store open, its writes first go to a log that was filled with zeros
//! before. One `fdatasync` makes a batch durable. An overlay in memory holds the newest states of the logged rows,
//! and every read looks there first. Drains write these states to the data file, sorted by key, in large
//! transactions. When another process wants to open the store, this process drains the log and ends it. Both then
//! write directly to the data file.
//!
//! | module | purpose |
//! |---|---|
//! | `format` | the bytes of the log |
//! | `storage` | the log file |
//! | `ring` | appends, syncs and reads batches |
//! | `salvage` | reads what is left of a damaged log |
//! | `overlay` | the newest states of the logged rows |
//! | `rows` | the rows that a batch reads and changes |
//! | `mode_lock` | the locks that show which processes may write |
//! | `join` | opens a store that other processes may have open |
//! | `engine` | decides, writes, syncs and enters a batch |
//! | `drain` | writes logged rows to the data file |
//! | `sweep` | removes expired sessions while there is a log |
//! | `modes` | starts and ends a log, and shares the store |
//! | `keeper` | the thread that drains and watches for other processes |
//! | `syncer` | the thread that syncs the log for `durability: "everysec"` |
//! | `points` | the points where tests can interfere |
//!
//! **Lock order**: mode, base, LMDB's write lock, gate of the overlay, shards of its maps. A thread that writes to
//! the data file while there is a log holds the base.
//!
//! **Invariants**
//! - An acknowledged row is in the data file, or in the synced part of the log after the position that the data file
//!   names. With `durability: "everysec"` it is in the log, and its sync starts within a second, also during a drain.
//! - The overlay contains only rows of the log. A row stays there until it is in the data file.
//! - A log starts and ends with a commit of the data file. Only a process with exclusive access starts one.
//! - A batch is reported as failed only after the commit that ends its log, because then nothing can bring it back.

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
pub(super) mod syncer;
