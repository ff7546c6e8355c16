//! Where the worker reports that another process has other limits, for the JavaScript thread of the store.

use parking_lot::Mutex;

use crate::store::LimitsDiffer;

/// Keeps what the worker finds until there is a listener, and gives it once.
#[derive(Default)]
pub struct LimitsReport {
    found: Mutex<Found>,
}

type Listener = Box<dyn FnOnce(LimitsDiffer) + Send>;

#[derive(Default)]
struct Found {
    differ: Option<LimitsDiffer>,
    listener: Option<Listener>,
}

impl LimitsReport {
    /// Calls the listener once, also where others were found before.
    pub fn listen(&self, listener: impl FnOnce(LimitsDiffer) + Send + 'static) {
        let mut found = self.found.lock();
        match found.differ.take() {
            Some(differ) => listener(differ),
            None => found.listener = Some(Box::new(listener)),
        }
    }

    pub fn found(&self, differ: LimitsDiffer) {
        let mut found = self.found.lock();
        match found.listener.take() {
            Some(listener) => listener(differ),
            None => found.differ = Some(differ),
        }
    }
}
