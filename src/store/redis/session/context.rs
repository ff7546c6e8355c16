//! What the calls of a store share.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::super::counters::Counters;
use super::super::options::RedisOptions;
use super::super::routing::Router;
use super::super::tasks::Tasks;
use super::super::time::Times;
use super::cipher::Cipher;
use super::cursor::Scans;
use super::names::Names;

pub struct Context {
    pub options: RedisOptions,
    pub names: Names,
    pub times: Times,
    pub counters: Arc<Counters>,
    pub router: Router,
    pub tasks: Rc<Tasks>,
    pub cipher: RefCell<Option<Arc<Cipher>>>,
    /// What the keys of encryption were made from, as it stands in Redis.
    pub wrapped_keys: RefCell<Option<Vec<u8>>>,
    pub unlocking: tokio::sync::Mutex<()>,
    pub scans: RefCell<Scans>,
}

impl Context {
    pub fn new(options: RedisOptions, times: Times, counters: Arc<Counters>, router: Router) -> Rc<Self> {
        Rc::new(Self {
            names: Names::new(&options.prefix),
            options,
            times,
            counters,
            router,
            tasks: Rc::default(),
            cipher: RefCell::default(),
            wrapped_keys: RefCell::default(),
            unlocking: tokio::sync::Mutex::default(),
            scans: RefCell::default(),
        })
    }
}
