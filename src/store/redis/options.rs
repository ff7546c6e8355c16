//! The options of a store in Redis.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::error::{Result, StoreError};
use crate::keyring::Secret;

pub const DEFAULT_PREFIX: &str = "fluid:";

/// Ends the prefix in a key, after the kind of the key. No prefix has it: so no two prefixes share a key, though one may
/// begin with the other.
pub const MARK: char = '#';

pub const DEFAULT_COMMAND_TIMEOUT: Duration = Duration::from_millis(2000);
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_millis(2000);

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How to log in to a server.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    pub username: Option<String>,
    pub password: Option<Zeroizing<String>>,
    pub database: u32,
    pub is_tls: bool,
}

/// Hides the password.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("database", &self.database).field("is_tls", &self.is_tls).finish()
    }
}

/// Which servers there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    Single {
        address: Address,
        login: Login,
    },
    /// Some nodes of a cluster, which know the others. All are logged in to alike.
    Cluster {
        seeds: Vec<Address>,
        login: Login,
    },
    /// Those that know which server of this name is the primary.
    Sentinel {
        sentinels: Vec<(Address, Login)>,
        master: String,
        login: Login,
    },
}

impl Servers {
    /// How to log in to the servers that have the data.
    pub fn login(&self) -> &Login {
        match self {
            Self::Single { login, .. } | Self::Cluster { login, .. } | Self::Sentinel { login, .. } => login,
        }
    }
}

/// What a connection by TLS is made with, as PEM texts.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// The authorities to trust in place of those of the Web.
    pub ca: Option<String>,
    /// The client's certificate, and those up to its authority.
    pub cert: Option<String>,
    pub key: Option<Zeroizing<String>>,
    /// Takes any certificate: an attacker on the network can read and change everything.
    pub accept_any: bool,
}

#[derive(Debug, Clone)]
pub struct RedisOptions {
    pub servers: Servers,
    pub prefix: String,
    pub secrets: Vec<Secret>,
    pub tls: TlsOptions,
    /// Within which every command is answered or refused.
    pub command_timeout: Duration,
    pub connect_timeout: Duration,
    /// How many replicas have a write before it is done.
    pub wait_replicas: u32,
    pub max_session_bytes: Option<NonZeroUsize>,
    pub max_sessions_per_user: Option<NonZeroUsize>,
    /// In milliseconds; 0 is off.
    pub sweep_interval: Option<u64>,
}

impl RedisOptions {
    pub fn new(servers: Servers) -> Self {
        Self {
            servers,
            prefix: DEFAULT_PREFIX.into(),
            secrets: Vec::new(),
            tls: TlsOptions::default(),
            command_timeout: DEFAULT_COMMAND_TIMEOUT,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            wait_replicas: 0,
            max_session_bytes: None,
            max_sessions_per_user: None,
            sweep_interval: None,
        }
    }

    pub fn uses_tls(&self) -> bool {
        match &self.servers {
            Servers::Single { login, .. } | Servers::Cluster { login, .. } => login.is_tls,
            Servers::Sentinel { sentinels, login, .. } => {
                login.is_tls || sentinels.iter().any(|(_, login)| login.is_tls)
            }
        }
    }

    /// Whether JavaScript threads may have connections of their own. TLS, the nodes of a cluster and the waiting for
    /// replicas are left to the worker.
    pub fn can_have_fast_path(&self) -> bool {
        let has_one_server = !matches!(self.servers, Servers::Cluster { .. });
        has_one_server && !self.servers.login().is_tls && self.wait_replicas == 0
    }

    /// # Errors
    /// `InvalidOption`.
    pub fn check(&self) -> Result<()> {
        if !self.secrets.is_empty() {
            Secret::check(&self.secrets)?;
        }
        if self.prefix.contains(MARK) {
            return Err(StoreError::InvalidOption {
                option: "prefix",
                expected: format!("a text without {MARK:?}, with which the store marks its end in a key"),
                given: format!("{:?}", self.prefix),
            });
        }
        let none = match &self.servers {
            Servers::Single { .. } => None,
            Servers::Cluster { seeds, .. } => seeds.is_empty().then_some("cluster"),
            Servers::Sentinel { sentinels, .. } => sentinels.is_empty().then_some("sentinel.urls"),
        };
        match none {
            None => Ok(()),
            Some(option) => Err(StoreError::InvalidOption {
                option,
                expected: "a list of one or more".into(),
                given: "an empty list".into(),
            }),
        }
    }
}
