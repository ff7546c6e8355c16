//! The directories that are open in this process.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::{Condvar, Mutex};

use super::FileStore;
use super::directory::{Identity, identity};
use crate::error::Result;

/// A directory, and the store in it.
#[derive(Default)]
struct Place {
    state: Mutex<State>,
    closed: Condvar,
}

#[derive(Default)]
struct State {
    store: Weak<FileStore>,
    /// Until its files are closed: for a while longer than the store can be had.
    is_open: bool,
}

static PLACES: LazyLock<Mutex<HashMap<Identity, Arc<Place>>>> = LazyLock::new(Mutex::default);

/// Held by the store for as long as its files are open.
pub(super) struct Registered {
    place: Arc<Place>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.place.state.lock().is_open = false;
        self.place.closed.notify_all();
    }
}

/// The store that is open in a directory, or what `start` makes.
pub(super) fn open(
    dir: &Path,
    start: impl FnOnce(Registered) -> Result<Arc<FileStore>>,
) -> Result<Arc<FileStore>> {
    let identity = identity(dir)?;
    let place = {
        let mut places = PLACES.lock();
        // Those that are closed and that no one is opening.
        places.retain(|_, place| Arc::strong_count(place) > 1);
        Arc::clone(places.entry(identity).or_default())
    };
    let mut state = place.state.lock();
    loop {
        if let Some(store) = state.store.upgrade() {
            return Ok(store);
        }
        if !state.is_open {
            break;
        }
        place.closed.wait(&mut state);
    }
    state.is_open = true;
    let registered = Registered { place: Arc::clone(&place) };
    // Two threads that open the same directory at once make one store: the second waits for `is_open` to end.
    drop(state);
    let store = start(registered)?;
    place.state.lock().store = Arc::downgrade(&store);
    place.closed.notify_all();
    Ok(store)
}
