//! Reasons why LMDB or this check rejects a file.

use std::io;

/// The version of LMDB's data format.
pub(super) const VERSION: u32 = 1;

/// The reason why a file cannot be opened or walked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),

    #[error("it is not an LMDB file")]
    Foreign,

    #[error("its LMDB data version is {0}, not {VERSION}")]
    Version(u32),

    #[error("it ends before its second page does")]
    Cut,

    #[error("its meta page {page} {what}")]
    Meta { page: u64, what: &'static str },

    /// Neither meta page belongs to the transaction. Two later ones were committed, or it never existed.
    #[error("its meta pages are no longer of transaction {0}")]
    Gone(u64),
}
