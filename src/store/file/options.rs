//! The options of a `FileStore`.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use super::quota::MIN_MAX_BYTES;
use crate::error::{Result, StoreError};
use crate::keyring::Secret;
use crate::store::{UserLimit, WhenUserIsFull};

/// The default of `commandTimeout`, in milliseconds.
pub const DEFAULT_COMMAND_TIMEOUT: u64 = 10_000;

/// When a write is acknowledged.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After it is on disk.
    #[default]
    Commit,
    /// After the operating system has it. A sync follows within about a second, so a power loss may cost the last
    /// second.
    EverySec,
}

impl Durability {
    /// The value of the option in JavaScript.
    pub fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::EverySec => "everysec",
        }
    }
}

/// The options of a `FileStore`. `None` means that an option was not given.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct FileOptions {
    /// The store folder. It is created if it is missing.
    pub path: PathBuf,
    /// The first secret encrypts, and all of them decrypt. Without secrets, sessions are not encrypted.
    pub secrets: Vec<Secret>,
    /// The maximum size of the data file.
    pub max_bytes: Option<NonZeroU64>,
    pub max_session_bytes: Option<NonZeroUsize>,
    pub max_sessions_per_user: Option<NonZeroUsize>,
    pub when_user_is_full: Option<WhenUserIsFull>,
    /// In milliseconds.
    pub max_lifetime: Option<u64>,
    /// In milliseconds. 0 disables the sweep.
    pub sweep_interval: Option<u64>,
    /// How long a call may wait for the disk or another process, in milliseconds.
    pub command_timeout: Option<u64>,
    pub durability: Option<Durability>,
    /// Opens an existing store and rejects writes. The file system may be read-only.
    pub read_only: bool,
    /// Opened by the command-line tool: limits are neither published nor compared with those of other processes.
    pub is_tool: bool,
    /// Allows a network file system, at the user's own risk.
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
