//! The externals that hold stores in JavaScript. They close their store when they are garbage collected.

use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
#[cfg(target_os = "linux")]
use std::time::Instant;

use napi::sys;

use super::fast_path::FastPathDriver;
use super::tickets::Tickets;
use super::values::Value;
use crate::error::{Result, StoreError};
use crate::events::{Bus, Inbox};
use crate::store::memory::SharedStore;
use crate::store::{Completions, FileStore, RedisStore};

/// A store of any kind, which may be sent to other threads.
#[derive(Clone)]
pub(super) enum AnyStore {
    Memory(Arc<SharedStore>),
    File(Arc<FileStore>),
    Redis(Arc<RedisStore>),
}

impl AnyStore {
    /// Drops the store. For the last user of a FileStore, waits until its files are closed.
    pub(super) fn close(self) -> Result<()> {
        match self {
            Self::File(store) => store.close(),
            Self::Memory(_) | Self::Redis(_) => Ok(()),
        }
    }

    /// Waits for all earlier calls.
    pub(super) fn flush(&self) -> Result<()> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::File(store) => store.flush(),
            Self::Redis(store) => {
                store.flush();
                Ok(())
            }
        }
    }
}

/// A store of any kind, on the JavaScript thread that opened it.
pub(super) enum OpenStore {
    Memory(Arc<SharedStore>),
    File(OpenFile),
    Redis(Rc<FastPathDriver>),
}

/// A FileStore, and the settler that delivers its completions to JavaScript.
pub(super) struct OpenFile {
    pub store: Arc<FileStore>,
    pub tickets: Rc<Tickets>,
    pub settler: Arc<dyn Completions>,
}

impl OpenStore {
    fn to_any(&self) -> AnyStore {
        match self {
            Self::Memory(store) => AnyStore::Memory(Arc::clone(store)),
            Self::File(file) => AnyStore::File(Arc::clone(&file.store)),
            Self::Redis(redis) => AnyStore::Redis(Arc::clone(redis.store())),
        }
    }

    fn into_any(self) -> AnyStore {
        match self {
            Self::Memory(store) => AnyStore::Memory(store),
            Self::File(file) => {
                file.store.end_handle();
                AnyStore::File(file.store)
            }
            Self::Redis(redis) => AnyStore::Redis(redis.finish()),
        }
    }

    pub(super) fn events(&self) -> &Bus {
        match self {
            Self::Memory(store) => store.events(),
            Self::File(file) => file.store.events(),
            Self::Redis(redis) => redis.store().events(),
        }
    }

    pub(super) fn max_session_bytes(&self) -> usize {
        match self {
            Self::Memory(store) => store.limits().max_session_bytes,
            Self::File(file) => file.store.max_session_bytes(),
            Self::Redis(redis) => redis.store().max_session_bytes(),
        }
    }
}

/// The target of an external. It never leaves the JavaScript thread that made it.
pub(super) struct Handle {
    store: RefCell<Option<OpenStore>>,
    /// Receives the store's events. `None` until JavaScript listens.
    inbox: RefCell<Option<Arc<Inbox>>>,
}

thread_local! {
    /// The handles of this thread. A pointer from JavaScript is dereferenced only if it is in this list. It is as long
    /// as the number of open stores, so a linear search is cheapest.
    static HANDLES: RefCell<Vec<*const Handle>> = const { RefCell::new(Vec::new()) };
}

impl Value {
    /// Wraps a store for JavaScript.
    pub(super) fn store(env: sys::napi_env, store: OpenStore) -> Result<Self> {
        let handle =
            Box::into_raw(Box::new(Handle { store: RefCell::new(Some(store)), inbox: RefCell::default() }));
        let mut value = ptr::null_mut();
        // SAFETY: `env` is that of the running call, `handle` stays valid until `finalize` frees it.
        let status = unsafe {
            sys::napi_create_external(env, handle.cast(), Some(finalize), ptr::null_mut(), &mut value)
        };
        if status != sys::Status::napi_ok {
            // SAFETY: `handle` is from `Box::into_raw` above, and no external owns it.
            drop(unsafe { Box::from_raw(handle) });
            return Err(StoreError::Internal("Node-API could not make a value".into()));
        }
        HANDLES.with_borrow_mut(|handles| handles.push(handle));
        // SAFETY: the external is a value of the running call.
        Ok(unsafe { Self::new(env, value) })
    }

    fn handle(&self) -> Result<&Handle> {
        let mut data = ptr::null_mut();
        // SAFETY: `self` is a value of the running call, `data` is writable.
        let status = unsafe { sys::napi_get_value_external(self.env(), self.raw(), &mut data) };
        let handle = data.cast_const().cast::<Handle>();
        if status != sys::Status::napi_ok || !HANDLES.with_borrow(|handles| handles.contains(&handle)) {
            return Err(StoreError::InvalidOption {
                option: "store",
                expected: "a store of this package".into(),
                given: self.kind().into(),
            });
        }
        // SAFETY: it is in `HANDLES`, so `finalize` has not freed it, and cannot while the external is an argument of
        // the running call.
        Ok(unsafe { &*handle })
    }

    /// Calls `call` with the open store of this external.
    pub(super) fn with_store<T>(self, call: impl FnOnce(&OpenStore) -> Result<T>) -> Result<T> {
        let handle = self.handle()?;
        match &*handle.store.borrow() {
            Some(store) => call(store),
            None => Err(StoreError::Closed),
        }
    }

    /// The open store of this external, for a task on another thread.
    pub(super) fn share_store(self) -> Result<AnyStore> {
        self.with_store(|store| Ok(store.to_any()))
    }

    /// Calls `call` with the open store of this external and its inbox. `make` creates the inbox on first use.
    pub(super) fn with_inbox<T>(
        self,
        make: impl FnOnce() -> Result<Arc<Inbox>>,
        call: impl FnOnce(&OpenStore, &Arc<Inbox>) -> T,
    ) -> Result<T> {
        let inbox = &self.handle()?.inbox;
        self.with_store(|store| {
            let mut inbox = inbox.borrow_mut();
            let inbox = match &mut *inbox {
                Some(inbox) => inbox,
                none => none.insert(make()?),
            };
            Ok(call(store, inbox))
        })
    }

    /// Takes the store out of this external, which is then closed.
    pub(super) fn take_store(self) -> Result<Option<AnyStore>> {
        let handle = self.handle()?;
        // Pending signals still arrive.
        handle.inbox.take();
        Ok(handle.store.take().map(OpenStore::into_any))
    }
}

/// Drops a store on its own thread: freeing a million records, or writing the queue, would block JavaScript or the
/// exit.
pub(super) fn release(store: AnyStore) {
    let ending = ThreadEnd::of_this_one();
    // If the thread cannot be started, the closure and its store are dropped here.
    let _ = thread::Builder::new().name("session-store-drop".into()).spawn(move || {
        if matches!(store, AnyStore::File(_)) {
            ending.wait();
        }
        drop(store);
    });
}

/// The end of a thread whose JavaScript is ending.
///
/// LMDB clears a thread's slot in its reader table when the thread ends. If another thread closed the environment, and
/// so unmapped the table, at that moment, the process would crash.
struct ThreadEnd {
    #[cfg(target_os = "linux")]
    task: Option<std::path::PathBuf>,
}

impl ThreadEnd {
    /// The maximum wait. The thread may live on, if only the store was garbage collected.
    const MAX_WAIT: Duration = Duration::from_secs(2);

    #[cfg(target_os = "linux")]
    fn of_this_one() -> Self {
        // SAFETY: they have no arguments, and cannot fail.
        let (thread, process) = unsafe { (libc::gettid(), libc::getpid()) };
        // The main thread ends with the process.
        Self { task: (thread != process).then(|| format!("/proc/self/task/{thread}").into()) }
    }

    #[cfg(target_os = "linux")]
    fn wait(&self) {
        const POLL_INTERVAL: Duration = Duration::from_millis(5);
        let Some(task) = &self.task else { return };
        let start = Instant::now();
        while task.exists() && start.elapsed() < Self::MAX_WAIT {
            thread::sleep(POLL_INTERVAL);
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn of_this_one() -> Self {
        Self {}
    }

    #[cfg(not(target_os = "linux"))]
    fn wait(&self) {
        thread::sleep(Self::MAX_WAIT);
    }
}

unsafe extern "C" fn finalize(_: sys::napi_env, data: *mut c_void, _: *mut c_void) {
    let handle = data.cast::<Handle>();
    // Fails only if the thread, and its list, is ending.
    let _ = HANDLES.try_with(|handles| handles.borrow_mut().retain(|&other| other != handle.cast_const()));
    // SAFETY: N-API calls this once for the pointer that `Value::store` got from `Box::into_raw`.
    let handle = unsafe { Box::from_raw(handle) };
    if let Some(store) = handle.store.take() {
        release(store.into_any());
    }
}
