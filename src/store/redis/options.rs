//! The options of a store in Redis.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::error::{Result, StoreError};
use crate::keyring::Secret;
use crate::store::{CommonLimits, UserLimit, WhenUserIsFull};

pub const DEFAULT_PREFIX: &str = "fluid:";

/// Follows the prefix and the kind of a key. No prefix may contain it, so two prefixes never share a key, even if one
/// starts with the other.
pub const MARK: char = '#';

/// The name of a store's connections in `CLIENT LIST`.
pub const DEFAULT_CLIENT_NAME: &str = "native-store";
pub const DEFAULT_COMMAND_TIMEOUT: Duration = Duration::from_millis(2000);
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_millis(2000);

/// The address of a server: a host and a port, or the path of a Unix socket and port 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl Address {
    /// The path, if this is the address of a Unix socket.
    pub fn socket_path(&self) -> Option<&str> {
        Some(&*self.host).filter(|path| self.port == 0 && path.starts_with('/'))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = self.socket_path() {
            f.write_str(path)
        } else if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[derive(Clone)]
pub struct Credentials {
    pub username: Option<String>,
    pub password: Zeroizing<String>,
}

/// Receives credentials, or the reason why there are none. If it is dropped, there are none.
pub type CredentialsSender = oneshot::Sender<std::result::Result<Credentials, String>>;

/// Provides the credentials of each new connection, because credentials may expire before the store is closed.
pub trait CredentialsProvider: Send + Sync {
    fn ask(&self, sender: CredentialsSender);
}

/// How a connection is authenticated.
#[derive(Clone, Default)]
pub enum Auth {
    #[default]
    None,
    Credentials(Credentials),
    Provider(Arc<dyn CredentialsProvider>),
}

/// How to log in to a server.
#[derive(Clone, Default)]
pub struct Login {
    pub auth: Auth,
    pub database: u32,
    pub is_tls: bool,
}

/// Hides the password.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("database", &self.database).field("is_tls", &self.is_tls).finish()
    }
}

/// The servers of a store.
#[derive(Debug, Clone)]
pub enum Servers {
    Single {
        address: Address,
        login: Login,
    },
    /// Some nodes of a cluster, from which the store discovers the others. One login is for all nodes.
    Cluster {
        seeds: Vec<Address>,
        login: Login,
    },
    /// Sentinels, which know the current primary of the service `master`.
    Sentinel {
        sentinels: Vec<(Address, Login)>,
        master: String,
        login: Login,
    },
}

impl Servers {
    pub fn login_mut(&mut self) -> &mut Login {
        match self {
            Self::Single { login, .. } | Self::Cluster { login, .. } | Self::Sentinel { login, .. } => login,
        }
    }

    /// The login for the servers that hold the data.
    pub fn login(&self) -> &Login {
        match self {
            Self::Single { login, .. } | Self::Cluster { login, .. } | Self::Sentinel { login, .. } => login,
        }
    }
}

/// The trusted certificate authorities, as PEM text.
#[derive(Debug, Clone)]
pub enum Authorities {
    /// Each text holds one or more certificates.
    Given(Vec<String>),
    /// The authorities that the platform trusts. Certificates that cannot be read are skipped.
    Default(String),
}

impl Default for Authorities {
    fn default() -> Self {
        Self::Default(String::new())
    }
}

/// A near cache of sessions: its size limit, and how old a proof of freshness may be.
#[derive(Debug, Clone, Copy)]
pub struct CacheOptions {
    pub max_bytes: NonZeroUsize,
    pub max_staleness: Duration,
}

/// How TLS connections are made.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    pub authorities: Authorities,
    /// The name that certificates must have, instead of the server's host.
    pub server_name: Option<String>,
    /// The client's certificate chain, as PEM text.
    pub cert: Option<String>,
    pub key: Option<Zeroizing<String>>,
    /// Accepts any certificate. An attacker on the network can then read and change everything.
    pub accept_any: bool,
}

#[derive(Debug, Clone)]
pub struct RedisOptions {
    pub servers: Servers,
    pub prefix: String,
    pub client_name: String,
    pub secrets: Vec<Secret>,
    pub tls: TlsOptions,
    /// The deadline of each call.
    pub command_timeout: Duration,
    pub connect_timeout: Duration,
    /// The number of replicas that must have a write before it completes.
    pub wait_replicas: u32,
    pub cache: Option<CacheOptions>,
    pub max_session_bytes: Option<NonZeroUsize>,
    pub max_sessions_per_user: Option<NonZeroUsize>,
    pub when_user_is_full: WhenUserIsFull,
    /// In milliseconds.
    pub max_lifetime: Option<u64>,
    /// In milliseconds. 0 disables the sweep.
    pub sweep_interval: Option<u64>,
    /// Whether the command line opened the store. Such a store neither publishes its limits nor compares them.
    pub is_tool: bool,
}

impl RedisOptions {
    pub fn new(servers: Servers) -> Self {
        Self {
            servers,
            prefix: DEFAULT_PREFIX.into(),
            client_name: DEFAULT_CLIENT_NAME.into(),
            secrets: Vec::new(),
            tls: TlsOptions::default(),
            command_timeout: DEFAULT_COMMAND_TIMEOUT,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            wait_replicas: 0,
            cache: None,
            max_session_bytes: None,
            max_sessions_per_user: None,
            when_user_is_full: WhenUserIsFull::default(),
            max_lifetime: None,
            sweep_interval: None,
            is_tool: false,
        }
    }

    pub fn user_limit(&self) -> UserLimit {
        UserLimit { max: self.max_sessions_per_user, when_full: self.when_user_is_full }
    }

    pub fn common_limits(&self) -> CommonLimits {
        CommonLimits { per_user: self.user_limit(), max_lifetime: self.max_lifetime }
    }

    pub fn uses_tls(&self) -> bool {
        match &self.servers {
            Servers::Single { login, .. } | Servers::Cluster { login, .. } => login.is_tls,
            Servers::Sentinel { sentinels, login, .. } => {
                login.is_tls || sentinels.iter().any(|(_, login)| login.is_tls)
            }
        }
    }

    /// Whether JavaScript threads may have their own connections. With `wait_replicas` the worker makes all changes,
    /// so only a cache needs them.
    pub fn can_have_fast_path(&self) -> bool {
        self.wait_replicas == 0 || self.cache.is_some()
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
                expected: format!("a string without {MARK:?}, which ends the prefix in a key"),
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
