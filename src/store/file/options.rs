//! The options of a `FileStore`.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use super::room::MIN_MAX_BYTES;
use crate::error::{Result, StoreError};
use crate::keyring::Secret;
use crate::store::{UserLimit, WhenUserIsFull};

/// The default of `commandTimeout`, in milliseconds.
pub const DEFAULT_COMMAND_TIMEOUT: u64 = 10_000;

/// When a write is reported as done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on disk.
    #[default]
    Commit,
    /// Once the operating system has it. The disk gets it about a second later: a power loss may cost that second.
    EverySec,
}

impl Durability {
    /// The option's value in JavaScript.
    pub fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::EverySec => "everysec",
        }
    }
}

/// The options of a store in a file, as far as they are given.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct FileOptions {
    /// The store's folder, which is created if it is missing.
    pub path: PathBuf,
    /// The first encrypts, all decrypt. Without any, the sessions are not encrypted.
    pub secrets: Vec<Secret>,
    /// How large the file may grow.
    pub max_bytes: Option<NonZeroU64>,
    pub max_session_bytes: Option<NonZeroUsize>,
    pub max_sessions_per_user: Option<NonZeroUsize>,
    pub when_user_is_full: Option<WhenUserIsFull>,
    /// In milliseconds.
    pub max_lifetime: Option<u64>,
    /// In milliseconds; 0 is off.
    pub sweep_interval: Option<u64>,
    /// How long a call may wait for the disk or another process, in milliseconds.
    pub command_timeout: Option<u64>,
    pub durability: Option<Durability>,
    /// Opens a store that is there, and refuses writes. It may be on a read-only file system.
    pub read_only: bool,
    /// Opened by the command line: other processes hear nothing of its limits, and it hears nothing of theirs.
    pub is_tool: bool,
    /// Opens a store on a network file system, at the user's own risk.
    pub allow_network_file_system: bool,
}

impl FileOptions {
    pub(super) fn user_limit(&self) -> UserLimit {
        UserLimit { max: self.max_sessions_per_user, when_full: self.when_user_is_full.unwrap_or_default() }
    }

    pub(super) fn check(&self) -> Result<()> {
        if !self.secrets.is_empty() {
            Secret::check(&self.secrets)?;
        }
        match self.max_bytes.map(u64::from) {
            Some(max @ ..MIN_MAX_BYTES) => Err(StoreError::InvalidOption {
                option: "maxBytes",
                expected: format!("at least {MIN_MAX_BYTES}"),
                given: max.to_string(),
            }),
            _ => Ok(()),
        }
    }
}
