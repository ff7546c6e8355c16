//! Reasons why a write has no effect.

use std::path::Path;

use super::errors::failed;
use crate::error::StoreError;

pub(super) enum WriteError {
    /// This write was rejected and has changed nothing.
    Refused(StoreError),
    /// The whole transaction is lost.
    Lost(heed::Error),
    /// The same, but its meta page may be on disk. Then the transaction is complete after a restart.
    Uncertain(heed::Error),
}

impl WriteError {
    /// Converts to the caller's error. `path` is the data file.
    pub(super) fn at(self, path: &Path) -> StoreError {
        match self {
            Self::Refused(error) => error,
            Self::Lost(error) => failed(path, error),
            Self::Uncertain(error) => failed(path, error).of_unknown_outcome(),
        }
    }
}

impl From<heed::Error> for WriteError {
    fn from(error: heed::Error) -> Self {
        Self::Lost(error)
    }
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}
