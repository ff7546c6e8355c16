//! A `MemoryStore` with its options, its name and its background sweep.

use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::core::MemoryStore;
use super::limits::Limits;
use crate::clock::AppClock;
use crate::error::{Result, StoreError};
use crate::executor::Executor;
use crate::lifetime::Lifetime;
use crate::registry::{OpenError, Registration, Registry};
use crate::store::{self, DEFAULT_MAX_SESSION_BYTES, WhenUserIsFull};
use crate::sweeper::{DEFAULT_SWEEP_INTERVAL, Sweeper};

/// The options of a `MemoryStore`. `None` stands for an option that is not given.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct MemoryOptions {
    pub name: Option<String>,
    pub max_session_bytes: Option<usize>,
    pub max_sessions_per_user: Option<NonZeroUsize>,
    pub when_user_is_full: Option<WhenUserIsFull>,
    pub max_sessions: Option<NonZeroUsize>,
    pub max_bytes: Option<NonZeroUsize>,
    /// In milliseconds.
    pub max_lifetime: Option<u64>,
    /// In milliseconds. 0 turns it off.
    pub sweep_interval: Option<u64>,
}

/// Threads for calls that read many sessions.
const TASK_THREADS: usize = 2;

/// A store whose expired sessions are swept for as long as it lives. Stores of one name are one.
pub struct SharedStore {
    /// Dropped first: the name is free before the memory of the sessions.
    _registration: Option<Registration<String, Self>>,
    store: Arc<MemoryStore>,
    sweep_interval: u64,
    tasks: Executor,
    _sweeper: Option<Sweeper>,
}

/// How long to wait while another thread opens the store of the same name. That takes microseconds.
const MAX_WAIT: Duration = Duration::from_secs(10);

impl Deref for SharedStore {
    type Target = MemoryStore;

    fn deref(&self) -> &MemoryStore {
        &self.store
    }
}

impl SharedStore {
    /// Opens the store of the options' name, or a store of its own if they have none.
    ///
    /// # Errors
    /// `InvalidOption` if the store of that name is open with another value of an option, or if the system has no
    /// thread for the sweeper.
    pub fn open(options: &MemoryOptions) -> Result<Arc<Self>> {
        static NAMED: LazyLock<Registry<String, SharedStore>> = LazyLock::new(Registry::new);
        let Some(name) = &options.name else { return Self::start(options, None) };
        let opened = NAMED.open(name, MAX_WAIT, |registration| Self::start(options, Some(registration)));
        let store = opened.map_err(|error| match error {
            OpenError::StillTaken { waited } => StoreError::Busy(
                format!(
                    "another thread has been opening the store of this name for {} ms",
                    waited.as_millis()
                )
                .into(),
            ),
            OpenError::Start(error) => error,
        })?;
        store.check_same(options)?;
        Ok(store)
    }

    fn start(options: &MemoryOptions, registration: Option<Registration<String, Self>>) -> Result<Arc<Self>> {
        let limits = Limits {
            max_session_bytes: options.max_session_bytes.unwrap_or(DEFAULT_MAX_SESSION_BYTES),
            max_sessions_per_user: options.max_sessions_per_user,
            when_user_is_full: options.when_user_is_full.unwrap_or_default(),
            max_sessions: options.max_sessions,
            max_bytes: options.max_bytes,
            max_lifetime: Lifetime::new(options.max_lifetime),
        };
        let store = Arc::new(MemoryStore::new(limits, Arc::new(AppClock::default())));
        let sweep_interval = options.sweep_interval.unwrap_or(DEFAULT_SWEEP_INTERVAL);
        let start = || Sweeper::start(Duration::from_millis(sweep_interval), store::clean_while_open(&store));
        let sweeper = (sweep_interval > 0).then(start).transpose();
        let sweeper = sweeper.map_err(|error| StoreError::InvalidOption {
            option: "sweepInterval",
            expected: "0 where the system has no thread for a sweeper".into(),
            given: format!("{sweep_interval} ({error})"),
        })?;
        Ok(Arc::new(Self {
            _registration: registration,
            store,
            sweep_interval,
            tasks: Executor::new(TASK_THREADS),
            _sweeper: sweeper,
        }))
    }

    /// The threads for calls that read many sessions.
    pub fn tasks(&self) -> &Executor {
        &self.tasks
    }

    fn check_same(&self, options: &MemoryOptions) -> Result<()> {
        let limits = self.store.limits();
        let get = |limit: Option<NonZeroUsize>| limit.map(|limit| limit.get() as u64);
        let pairs = [
            (
                "maxSessionBytes",
                options.max_session_bytes.map(|max| max as u64),
                Some(limits.max_session_bytes as u64),
            ),
            ("maxSessionsPerUser", get(options.max_sessions_per_user), get(limits.max_sessions_per_user)),
            ("maxSessions", get(options.max_sessions), get(limits.max_sessions)),
            ("maxBytes", get(options.max_bytes), get(limits.max_bytes)),
            ("maxLifetime", options.max_lifetime, limits.max_lifetime.max()),
            ("sweepInterval", options.sweep_interval, Some(self.sweep_interval)),
        ];
        store::check_same(&pairs, "name")?;
        let when_full = options.when_user_is_full.map(WhenUserIsFull::name);
        store::check_same_name("whenUserIsFull", when_full, limits.when_user_is_full.name(), "name")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Body, Content, ExpiresForm, Expiry, Session, SessionId};
    use crate::store::SessionStore;

    fn named(name: &str) -> MemoryOptions {
        MemoryOptions { name: Some(name.into()), ..MemoryOptions::default() }
    }

    fn session() -> Session<'static> {
        Session {
            id: SessionId::new("a").unwrap(),
            expires: Expiry::new(i64::MAX >> 12).unwrap(),
            content: Content { user: None, body: Body::Json { text: "{}", expires: ExpiresForm::Text } },
        }
    }

    #[test]
    fn stores_of_one_name_are_one_store_while_any_is_open() {
        let one = SharedStore::open(&named("one")).unwrap();
        let twin = SharedStore::open(&named("one")).unwrap();
        let other = SharedStore::open(&named("other")).unwrap();
        one.create(&session()).unwrap();
        drop(one);
        assert_eq!((twin.size(), other.size()), (Ok(1), Ok(0)));
        drop(twin);
        assert_eq!(SharedStore::open(&named("one")).unwrap().size(), Ok(0));
    }

    #[test]
    fn stores_without_a_name_are_apart() {
        let one = SharedStore::open(&MemoryOptions::default()).unwrap();
        let other = SharedStore::open(&MemoryOptions::default()).unwrap();
        one.create(&session()).unwrap();
        assert_eq!(other.size(), Ok(0));
    }

    #[test]
    fn a_later_store_of_the_name_has_the_same_limits_or_names_none() {
        let with = |max| MemoryOptions { max_sessions: NonZeroUsize::new(max), ..named("limits") };
        let _open = SharedStore::open(&with(10)).unwrap();
        assert!(SharedStore::open(&with(10)).is_ok());
        assert!(SharedStore::open(&named("limits")).is_ok());
        let error = SharedStore::open(&with(11)).err().unwrap();
        assert_eq!(
            error.to_string(),
            "maxSessions must be 10, as the open store of this name has it; got 11"
        );
    }
}
