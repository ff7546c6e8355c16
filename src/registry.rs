//! The open stores of a process by key: all openers of a key share one store.

use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use crate::sync::{Condvar, Mutex, lock, wait_until};

/// The open stores of a kind.
///
/// Opening is atomic for a key: of concurrent openers, one starts the store and the others get it. Opening one key does
/// not block another. A key has an entry only while its store is open or being opened.
///
/// **Locking**: hold an entry of the map only for a clone or a removal. Never open a file, start a store or take
/// another entry while holding one: other keys share its lock.
pub(crate) struct Registry<K, S> {
    slots: Arc<DashMap<K, Arc<KeySlot<S>>>>,
}

/// One key's store.
struct KeySlot<S> {
    state: Mutex<KeyState<S>>,
    /// Notified when a store has been started or its registration has been dropped.
    changed: Condvar,
    /// The number of [`Visit`]s. It changes only under the lock of the map's entry.
    visits: AtomicUsize,
}

struct KeyState<S> {
    store: Weak<S>,
    /// Set before the store is started, and until its [`Registration`] is dropped. Then `store` may have expired long
    /// ago.
    is_taken: bool,
}

/// Reserves a key. A store holds it while it uses the resources of the key, such as open files. Openers of the same key
/// wait for its end.
pub(crate) struct Registration<K: Eq + Hash, S> {
    // Dropped after `Drop::drop` has freed the key. It removes the entry.
    visit: Visit<K, S>,
}

/// Why opening a store failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OpenError<E> {
    /// The previous store of the key still holds its registration, or another opener is still starting one.
    StillTaken { waited: Duration },
    /// The error of `start`.
    Start(E),
}

/// A use of a key's entry. The last one removes the entry.
struct Visit<K: Eq + Hash, S> {
    slots: Arc<DashMap<K, Arc<KeySlot<S>>>>,
    key: K,
    slot: Arc<KeySlot<S>>,
}

impl<K: Eq + Hash + Clone, S> Registry<K, S> {
    pub(crate) fn new() -> Self {
        Self { slots: Arc::default() }
    }

    /// Returns the open store of a key, or starts one.
    ///
    /// If the previous store of the key is closing, or another thread is starting one, it waits at most `max_wait`.
    /// `start` runs without any lock. The store that it returns keeps the registration. If it fails, dropping the
    /// registration frees the key.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(crate) fn open<E>(
        &self,
        key: &K,
        max_wait: Duration,
        start: impl FnOnce(Registration<K, S>) -> Result<Arc<S>, E>,
    ) -> Result<Arc<S>, OpenError<E>> {
        let visit = self.visit(key);
        let slot = &visit.slot;
        let mut found = None;
        let deadline = Instant::now().checked_add(max_wait);
        let mut state = wait_until(&slot.changed, lock(&slot.state), deadline, |state| {
            found = state.store.upgrade();
            found.is_some() || !state.is_taken
        });
        if let Some(store) = found {
            // Return it without the lock: if this is the last reference, dropping the store takes the lock.
            drop(state);
            return Ok(store);
        }
        if state.is_taken {
            return Err(OpenError::StillTaken { waited: max_wait });
        }
        state.is_taken = true;
        drop(state);
        let store = start(Registration { visit: self.visit(key) }).map_err(OpenError::Start)?;
        lock(&slot.state).store = Arc::downgrade(&store);
        slot.changed.notify_all();
        Ok(store)
    }

    fn visit(&self, key: &K) -> Visit<K, S> {
        let entry = self.slots.entry(key.clone()).or_default();
        entry.visits.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::clone(&entry);
        drop(entry);
        Visit { slots: Arc::clone(&self.slots), key: key.clone(), slot }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.slots.len()
    }
}

impl<S> Default for KeySlot<S> {
    fn default() -> Self {
        let state = KeyState { store: Weak::new(), is_taken: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), visits: AtomicUsize::new(0) }
    }
}

impl<K: Eq + Hash, S> Drop for Registration<K, S> {
    fn drop(&mut self) {
        let slot = &self.visit.slot;
        lock(&slot.state).is_taken = false;
        slot.changed.notify_all();
    }
}

impl<K: Eq + Hash, S> Drop for Visit<K, S> {
    fn drop(&mut self) {
        self.slots.remove_if(&self.key, |_, slot| slot.visits.fetch_sub(1, Ordering::Relaxed) == 1);
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::thread;

    const LONG: Duration = Duration::from_secs(60);

    struct Store {
        number: usize,
        _registration: Registration<&'static str, Store>,
    }

    fn start(
        number: usize,
    ) -> impl FnOnce(Registration<&'static str, Store>) -> Result<Arc<Store>, &'static str> {
        move |registration| Ok(Arc::new(Store { number, _registration: registration }))
    }

    #[test]
    fn openers_of_a_key_share_a_store_and_its_entry_is_removed_with_it() {
        let registry = Registry::new();
        let one = registry.open(&"one", LONG, start(1)).ok().unwrap();
        let twin = registry.open(&"one", LONG, start(2)).ok().unwrap();
        let other = registry.open(&"other", LONG, start(3)).ok().unwrap();
        assert_eq!((one.number, twin.number, other.number, registry.len()), (1, 1, 3, 2));
        drop((one, other));
        assert_eq!(registry.len(), 1);
        drop(twin);
        assert_eq!(registry.len(), 0);
        assert_eq!(registry.open(&"one", LONG, start(4)).ok().unwrap().number, 4);
    }

    #[test]
    fn a_store_that_cannot_be_started_leaves_no_entry() {
        let registry = Registry::<&str, Store>::new();
        let opened = registry.open(&"one", LONG, |_| Err("it failed"));
        assert_eq!(opened.err(), Some(OpenError::Start("it failed")));
        assert_eq!(registry.len(), 0);
    }

    #[test]
    fn a_panic_while_a_store_is_started_frees_the_key() {
        let registry = Registry::<&str, Store>::new();
        let start_badly = |_| -> Result<Arc<Store>, ()> { panic!("it panicked") };
        let open = std::panic::AssertUnwindSafe(|| registry.open(&"one", LONG, start_badly).is_ok());
        assert!(std::panic::catch_unwind(open).is_err());
        assert_eq!(registry.open(&"one", LONG, start(1)).ok().unwrap().number, 1);
    }

    #[test]
    fn an_opener_waits_for_the_registration_of_a_dropped_store_until_its_deadline() {
        let registry = Registry::new();
        let mut kept = None;
        let open_and_keep = |registration| {
            kept = Some(registration);
            Ok::<_, ()>(Arc::new(()))
        };
        drop(registry.open(&"one", LONG, open_and_keep));
        let short = Duration::from_millis(1);
        let refused = registry.open(&"one", short, |_| Ok::<_, ()>(Arc::new(())));
        assert_eq!(refused.err(), Some(OpenError::StillTaken { waited: short }));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| registry.open(&"one", LONG, |_| Ok::<_, ()>(Arc::new(()))));
            drop(kept.take());
            assert!(waiting.join().unwrap().is_ok());
        });
        assert_eq!(registry.len(), 0);
    }

    #[test]
    fn opening_a_key_does_not_block_another() {
        let registry = Registry::<usize, ()>::new();
        // Both must be inside `start` concurrently, or the test never ends. There are far more keys than locks in the
        // map.
        let both = Barrier::new(2);
        for key in 0..200 {
            thread::scope(|scope| {
                for key in [key, key + 1] {
                    let (registry, both) = (&registry, &both);
                    scope.spawn(move || {
                        let started = registry.open(&key, LONG, |_| {
                            both.wait();
                            Ok::<_, ()>(Arc::new(()))
                        });
                        assert!(started.is_ok());
                    });
                }
            });
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "it would take minutes")]
    fn one_of_many_concurrent_openers_starts_the_store() {
        const OPENERS: usize = 4;
        let registry = Registry::new();
        let started = AtomicUsize::new(0);
        let barrier = Barrier::new(OPENERS);
        for round in 1..=500 {
            thread::scope(|scope| {
                for _ in 0..OPENERS {
                    scope.spawn(|| {
                        barrier.wait();
                        let store = registry.open(&"one", LONG, |registration| {
                            started.fetch_add(1, Ordering::Relaxed);
                            start(round)(registration)
                        });
                        // Keep the store until all threads have it.
                        barrier.wait();
                        assert_eq!(store.ok().unwrap().number, round);
                    });
                }
            });
            assert_eq!((started.load(Ordering::Relaxed), registry.len()), (round, 0));
        }
    }
}
