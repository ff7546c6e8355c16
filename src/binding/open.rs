//! Opening stores.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use napi::Env;
use napi::bindgen_prelude::{Function, Uint8Array};
use napi_derive::napi;

use super::credentials::{AskArgs, JsCredentialsProvider};
use super::errors::{JsError, guarded};
use super::fast_path::FastPathDriver;
use super::handle::{OpenFile, OpenStore};
use super::tickets::{SettleArgs, tickets};
use super::values::Value;
use super::warning::{Warn, WarnArgs};
use crate::store::file::{Durability, FileOptions, Secret};
use crate::store::memory::{MemoryOptions, SharedStore};
use crate::store::redis::{
    Address, Auth, Authorities, CacheOptions, Credentials, Login, RedisOptions, Servers, TlsOptions,
};
use crate::store::{FileStore, LimitsDiffer, RedisStore, WhenUserIsFull};

/// The options of a MemoryStore. `lib/options.js` has validated them: numbers are whole.
#[napi(object, object_to_js = false)]
pub struct JsMemoryOptions {
    pub name: Option<String>,
    pub max_session_bytes: Option<f64>,
    pub max_sessions_per_user: Option<f64>,
    #[napi(ts_type = "'end-oldest' | 'reject'")]
    pub when_user_is_full: Option<String>,
    pub max_sessions: Option<f64>,
    pub max_bytes: Option<f64>,
    pub max_lifetime: Option<f64>,
    pub sweep_interval: Option<f64>,
}

impl From<JsMemoryOptions> for MemoryOptions {
    fn from(options: JsMemoryOptions) -> Self {
        Self {
            name: options.name,
            max_session_bytes: options.max_session_bytes.map(|bytes| bytes as usize),
            max_sessions_per_user: limit(options.max_sessions_per_user),
            when_user_is_full: options.when_user_is_full.as_deref().map(when_user_is_full),
            max_sessions: limit(options.max_sessions),
            max_bytes: limit(options.max_bytes),
            max_lifetime: options.max_lifetime.map(|millis| millis as u64),
            sweep_interval: options.sweep_interval.map(|millis| millis as u64),
        }
    }
}

/// The options of a FileStore, validated as well.
#[napi(object, object_to_js = false)]
pub struct JsFileOptions {
    pub path: String,
    pub secrets: Vec<Uint8Array>,
    pub max_bytes: Option<f64>,
    pub max_session_bytes: Option<f64>,
    pub max_sessions_per_user: Option<f64>,
    #[napi(ts_type = "'end-oldest' | 'reject'")]
    pub when_user_is_full: Option<String>,
    pub max_lifetime: Option<f64>,
    pub sweep_interval: Option<f64>,
    pub command_timeout: Option<f64>,
    #[napi(ts_type = "'commit' | 'everysec'")]
    pub durability: Option<String>,
    pub read_only: Option<bool>,
    pub allow_network_file_system: Option<bool>,
    /// Whether the command line opens the store.
    pub is_tool: Option<bool>,
}

impl From<JsFileOptions> for FileOptions {
    fn from(options: JsFileOptions) -> Self {
        Self {
            path: options.path.into(),
            secrets: options.secrets.iter().map(|secret| Secret::new(secret.to_vec())).collect(),
            max_bytes: options.max_bytes.and_then(|bytes| NonZeroU64::new(bytes as u64)),
            max_session_bytes: limit(options.max_session_bytes),
            max_sessions_per_user: limit(options.max_sessions_per_user),
            when_user_is_full: options.when_user_is_full.as_deref().map(when_user_is_full),
            max_lifetime: options.max_lifetime.map(|millis| millis as u64),
            sweep_interval: options.sweep_interval.map(|millis| millis as u64),
            command_timeout: options.command_timeout.map(|millis| millis as u64),
            durability: options.durability.as_deref().map(durability),
            read_only: options.read_only.unwrap_or(false),
            allow_network_file_system: options.allow_network_file_system.unwrap_or(false),
            is_tool: options.is_tool.unwrap_or(false),
        }
    }
}

/// Converts a name that `lib/options.js` has validated.
fn durability(name: &str) -> Durability {
    // An unknown name must not weaken the durability that the app expects.
    if name == Durability::EverySec.name() { Durability::EverySec } else { Durability::Commit }
}

/// Converts a name that `lib/options.js` has validated.
fn when_user_is_full(name: &str) -> WhenUserIsFull {
    if name == WhenUserIsFull::Reject.name() { WhenUserIsFull::Reject } else { WhenUserIsFull::EndOldest }
}

/// A Redis server and its login.
#[napi(object, object_to_js = false)]
pub struct JsRedisServer {
    pub host: String,
    pub port: u16,
    pub tls: bool,
    pub username: Option<String>,
    pub password: Option<String>,
    pub database: u32,
}

impl JsRedisServer {
    fn into_parts(self) -> (Address, Login) {
        let auth = match self.password {
            Some(password) => {
                Auth::Credentials(Credentials { username: self.username, password: password.into() })
            }
            None => Auth::None,
        };
        let login = Login { auth, database: self.database, is_tls: self.tls };
        (Address { host: self.host, port: self.port }, login)
    }
}

/// The near cache: its size in bytes, and the maximum staleness in milliseconds.
#[napi(object, object_to_js = false)]
pub struct JsCacheOptions {
    pub max_bytes: f64,
    pub max_staleness: f64,
}

impl JsCacheOptions {
    fn convert(self) -> Option<CacheOptions> {
        let max_staleness = Duration::from_millis(self.max_staleness as u64);
        limit(Some(self.max_bytes)).map(|max_bytes| CacheOptions { max_bytes, max_staleness })
    }
}

/// The options of a RedisStore, validated as well.
#[napi(object, object_to_js = false)]
pub struct JsRedisOptions {
    #[napi(ts_type = "'single' | 'cluster' | 'sentinel'")]
    pub mode: String,
    /// The server, nodes of the cluster, or the sentinels.
    pub servers: Vec<JsRedisServer>,
    /// The name by which the sentinels know the primary.
    pub master: Option<String>,
    /// The login for the primary. Its host and port are empty: the sentinels report them.
    pub master_login: Option<JsRedisServer>,
    pub prefix: Option<String>,
    pub client_name: Option<String>,
    pub secrets: Vec<Uint8Array>,
    pub command_timeout: Option<f64>,
    pub connect_timeout: Option<f64>,
    pub wait_replicas: Option<u32>,
    pub cache: Option<JsCacheOptions>,
    /// PEM texts.
    pub ca: Option<Vec<String>>,
    /// The authorities to trust without `ca`.
    pub default_authorities: Option<String>,
    pub servername: Option<String>,
    pub cert: Option<String>,
    pub key: Option<String>,
    pub accept_any: Option<bool>,
    pub max_session_bytes: Option<f64>,
    pub max_sessions_per_user: Option<f64>,
    #[napi(ts_type = "'end-oldest' | 'reject'")]
    pub when_user_is_full: Option<String>,
    pub max_lifetime: Option<f64>,
    pub sweep_interval: Option<f64>,
    /// Whether the command line opens the store.
    pub is_tool: Option<bool>,
    /// Whether the event loop is libuv's, and can poll our sockets.
    pub event_loop: bool,
}

impl From<JsRedisOptions> for RedisOptions {
    fn from(options: JsRedisOptions) -> Self {
        let mut servers = options.servers.into_iter().map(JsRedisServer::into_parts);
        let servers = match (&*options.mode, options.master) {
            ("sentinel", Some(master)) => Servers::Sentinel {
                sentinels: servers.collect(),
                master,
                login: options.master_login.map(|login| login.into_parts().1).unwrap_or_default(),
            },
            ("single", _) if servers.len() == 1 => match servers.next() {
                Some((address, login)) => Servers::Single { address, login },
                None => Servers::Cluster { seeds: Vec::new(), login: Login::default() },
            },
            _ => {
                let (seeds, logins): (Vec<_>, Vec<_>) = servers.unzip();
                Servers::Cluster { seeds, login: logins.into_iter().next().unwrap_or_default() }
            }
        };
        let defaults = Self::new(servers);
        let millis =
            |given: Option<f64>, default| given.map_or(default, |ms| Duration::from_millis(ms as u64));
        Self {
            prefix: options.prefix.unwrap_or(defaults.prefix),
            client_name: options.client_name.unwrap_or(defaults.client_name),
            secrets: options.secrets.iter().map(|secret| Secret::new(secret.to_vec())).collect(),
            tls: TlsOptions {
                authorities: match options.ca {
                    Some(given) => Authorities::Given(given),
                    None => Authorities::Default(options.default_authorities.unwrap_or_default()),
                },
                server_name: options.servername,
                cert: options.cert,
                key: options.key.map(Into::into),
                accept_any: options.accept_any.unwrap_or(false),
            },
            command_timeout: millis(options.command_timeout, defaults.command_timeout),
            connect_timeout: millis(options.connect_timeout, defaults.connect_timeout),
            wait_replicas: options.wait_replicas.unwrap_or(0),
            cache: options.cache.and_then(JsCacheOptions::convert),
            max_session_bytes: limit(options.max_session_bytes),
            max_sessions_per_user: limit(options.max_sessions_per_user),
            when_user_is_full: options
                .when_user_is_full
                .as_deref()
                .map(when_user_is_full)
                .unwrap_or_default(),
            max_lifetime: options.max_lifetime.map(|millis| millis as u64),
            sweep_interval: options.sweep_interval.map(|millis| millis as u64),
            is_tool: options.is_tool.unwrap_or(false),
            servers: defaults.servers,
        }
    }
}

fn limit(number: Option<f64>) -> Option<NonZeroUsize> {
    number.and_then(|number| NonZeroUsize::new(number as usize))
}

/// Opens a MemoryStore, as an external.
#[napi(ts_args_type = "options: JsMemoryOptions", ts_return_type = "object")]
pub fn open_memory(env: Env, options: JsMemoryOptions) -> Result<Value, JsError> {
    guarded(|| Value::store(env.raw(), OpenStore::Memory(SharedStore::open(&options.into())?)))
}

/// Opens a FileStore, as an external. `settle` receives the completions of calls.
#[napi(
    ts_args_type = "options: JsFileOptions, settle: (done: Float64Array, length: number, failures: JsFailure[], texts: string[]) => void",
    ts_return_type = "object"
)]
pub fn open_file(
    env: Env,
    options: JsFileOptions,
    settle: Function<'_, SettleArgs, ()>,
) -> Result<Value, JsError> {
    guarded(|| {
        let store = FileStore::open(&options.into())?;
        let (tickets, settler) = tickets(&settle)?;
        store.add_handle();
        Value::store(env.raw(), OpenStore::File(OpenFile { store, tickets, settler }))
    })
}

/// Opens a RedisStore, as an external. It connects in the background.
///
/// `settle` receives the completions of calls. The result of a `get` is -1 for "not found", otherwise `-2 - index` into
/// `texts`. `ask` receives requests for credentials. `warn` receives the reason why there is no cache. `differ`
/// receives the limits of this process and the different limits of another one, as JSON.
#[napi(
    ts_args_type = "options: JsRedisOptions, settle: (done: Float64Array, length: number, failures: JsFailure[], texts: string[]) => void, ask?: (request: object) => void, warn?: (reason: string) => void, differ?: (limits: string) => void",
    ts_return_type = "object"
)]
pub fn open_redis(
    env: Env,
    options: JsRedisOptions,
    settle: Function<'_, SettleArgs, ()>,
    ask: Option<Function<'_, AskArgs, ()>>,
    warn: Option<Function<'_, WarnArgs, ()>>,
    differ: Option<Function<'_, WarnArgs, ()>>,
) -> Result<Value, JsError> {
    guarded(|| {
        let has_loop = options.event_loop;
        let mut options = RedisOptions::from(options);
        if let Some(ask) = ask {
            options.servers.login_mut().auth = Auth::Provider(Arc::new(JsCredentialsProvider::new(&ask)?));
        }
        let store = RedisStore::open(&options)?;
        if let Some(differ) = differ.as_ref().map(Warn::new).transpose()? {
            store.on_limits_differ(move |limits| differ.call(limits.to_json()));
        }
        let warn = warn.as_ref().map(Warn::new).transpose()?;
        let driver = FastPathDriver::start(env.raw(), store, &settle, has_loop, warn)?;
        Value::store(env.raw(), OpenStore::Redis(driver))
    })
}

/// The deadline of a call of a FileStore or a RedisStore, in milliseconds.
#[napi(ts_args_type = "store: object")]
pub fn command_timeout_of(store: Value) -> Result<Option<f64>, JsError> {
    let timeout = |store: &OpenStore| match store {
        OpenStore::Memory(_) => None,
        OpenStore::File(file) => Some(file.store.command_timeout()),
        OpenStore::Redis(redis) => Some(redis.store().command_timeout()),
    };
    let timeout = guarded(|| store.with_store(|store| Ok(timeout(store))))?;
    Ok(timeout.map(|timeout| timeout.as_millis() as f64))
}

/// The maximum lifetime of a session in milliseconds, if the store has one.
#[napi(ts_args_type = "store: object")]
pub fn max_lifetime_of(store: Value) -> Result<Option<f64>, JsError> {
    guarded(|| {
        store.with_store(|store| {
            let lifetime = match store {
                OpenStore::Memory(memory) => memory.limits().max_lifetime,
                OpenStore::File(file) => file.store.max_lifetime(),
                OpenStore::Redis(redis) => redis.store().max_lifetime(),
            };
            Ok(lifetime.max().map(|max| max as f64))
        })
    })
}

/// The absolute path of the store folder of a FileStore.
#[napi(ts_args_type = "store: object")]
pub fn path_of(store: Value) -> Result<Option<String>, JsError> {
    of_file(store, |file| file.path().to_string_lossy().into_owned())
}

/// Returns, once, the limits of this process and the different limits of another process that had the FileStore open
/// before, as JSON.
#[napi(ts_args_type = "store: object")]
pub fn take_limits_differ(store: Value) -> Result<Option<String>, JsError> {
    let differ = of_file(store, FileStore::take_limits_differ)?;
    Ok(differ.flatten().map(LimitsDiffer::to_json))
}

/// Calls `get` with a FileStore. Returns `None` for the other stores.
fn of_file<T>(store: Value, get: impl FnOnce(&FileStore) -> T) -> Result<Option<T>, JsError> {
    guarded(|| {
        store.with_store(|store| {
            Ok(match store {
                OpenStore::Memory(_) | OpenStore::Redis(_) => None,
                OpenStore::File(file) => Some(get(&file.store)),
            })
        })
    })
}
