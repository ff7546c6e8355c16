//! Carries a difference in limits from the worker to the store's JavaScript thread.

use parking_lot::Mutex;

use crate::store::LimitsDiffer;

/// Keeps the difference until there is a listener, and reports it once.
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
    /// Calls the listener once. If a difference is known already, calls it immediately.
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
