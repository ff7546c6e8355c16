//! The shared state of a store's calls.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use super::super::counters::Counters;
use super::super::limits_report::LimitsReport;
use super::super::options::RedisOptions;
use super::super::routing::{Node, Router};
use super::super::tasks::Tasks;
use super::super::time::Times;
use super::cipher::Cipher;
use super::cursor::{ScanCursor, Scans};
use super::names::Names;
use super::support::Support;
use crate::error::StoreError;

/// A server, and the generation of its connection.
pub type ConnectionId = Option<(Rc<Node>, u64)>;

/// The encryption keys that a store uses.
pub struct Keys {
    pub cipher: Arc<Cipher>,
    /// The wrapped keys behind them. `None` without encryption.
    pub wrapped: Option<WrappedText>,
    /// Whether the server has the wrapped keys of stores with other secrets. All calls fail until it has this store's
    /// again.
    pub are_locked_out: bool,
}

/// Why the wrapped keys could not be used at the last check.
pub struct KeyRefusal {
    pub at: Instant,
    pub on: ConnectionId,
    pub error: StoreError,
}

/// The wrapped keys, as stored in Redis.
pub struct WrappedText {
    pub text: Vec<u8>,
    /// The connection on which they were last read.
    pub seen_on: ConnectionId,
}

pub struct Context {
    pub options: RedisOptions,
    pub names: Names,
    pub times: Times,
    pub counters: Arc<Counters>,
    pub transactions: Arc<Support>,
    pub router: Router,
    pub tasks: Rc<Tasks>,
    pub keys: RefCell<Option<Keys>>,
    pub key_refusal: RefCell<Option<KeyRefusal>>,
    pub unlocking: tokio::sync::Mutex<()>,
    pub scans: RefCell<Scans>,
    /// Where the next sweep continues.
    pub sweep_cursor: RefCell<Option<ScanCursor>>,
    pub limits_report: Arc<LimitsReport>,
}

impl Context {
    pub fn new(
        options: RedisOptions,
        times: Times,
        counters: Arc<Counters>,
        transactions: Arc<Support>,
        router: Router,
        limits_report: Arc<LimitsReport>,
    ) -> Rc<Self> {
        Rc::new(Self {
            names: Names::new(&options.prefix),
            options,
            times,
            counters,
            transactions,
            router,
            tasks: Rc::default(),
            keys: RefCell::default(),
            key_refusal: RefCell::default(),
            unlocking: tokio::sync::Mutex::default(),
            scans: RefCell::default(),
            sweep_cursor: RefCell::default(),
            limits_report,
        })
    }
}
