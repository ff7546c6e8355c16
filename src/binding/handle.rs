//! Stores as JavaScript holds them: externals, which close their store when they are collected.

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

/// A store of any kind, for threads.
#[derive(Clone)]
pub(super) enum AnyStore {
    Memory(Arc<SharedStore>),
    File(Arc<FileStore>),
    Redis(Arc<RedisStore>),
}

impl AnyStore {
    /// Drops the store. Waits for the end of its files, if this was the last user of a store in a file.
    pub(super) fn close(self) -> Result<()> {
        match self {
            Self::File(store) => store.close(),
            Self::Memory(_) | Self::Redis(_) => Ok(()),
        }
    }

    /// Waits for what was begun before.
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

/// A store in a file, and what reports the results of its calls to JavaScript.
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

/// What an external points to. It never leaves the JavaScript thread that made it.
pub(super) struct Handle {
    store: RefCell<Option<OpenStore>>,
    /// Receives the store's events, once somebody has listened.
    inbox: RefCell<Option<Arc<Inbox>>>,
}

thread_local! {
    /// The handles of this thread: by this a pointer from JavaScript is known to be one of ours before it is
    /// followed. There are as many as open stores, so a walk over them is the cheapest search.
    static HANDLES: RefCell<Vec<*const Handle>> = const { RefCell::new(Vec::new()) };
}

impl Value {
    /// Wraps a store for JavaScript.
    pub(super) fn store(env: sys::napi_env, store: OpenStore) -> Result<Self> {
        let handle =
            Box::into_raw(Box::new(Handle { store: RefCell::new(Some(store)), inbox: RefCell::default() }));
        let mut value = ptr::null_mut();
        // SAFETY: `env` is that of the call under way, `handle` stays valid until `finalize` frees it.
        let status = unsafe {
            sys::napi_create_external(env, handle.cast(), Some(finalize), ptr::null_mut(), &mut value)
        };
        if status != sys::Status::napi_ok {
            // SAFETY: `handle` is from `Box::into_raw` above, and no external owns it.
            drop(unsafe { Box::from_raw(handle) });
            return Err(StoreError::Internal("Node-API could not make a value".into()));
        }
        HANDLES.with_borrow_mut(|handles| handles.push(handle));
        // SAFETY: the external is a value of the call under way.
        Ok(unsafe { Self::new(env, value) })
    }

    fn handle(&self) -> Result<&Handle> {
        let mut data = ptr::null_mut();
        // SAFETY: `self` is a value of the call under way, `data` is writable.
        let status = unsafe { sys::napi_get_value_external(self.env(), self.raw(), &mut data) };
        let handle = data.cast_const().cast::<Handle>();
        if status != sys::Status::napi_ok || !HANDLES.with_borrow(|handles| handles.contains(&handle)) {
            return Err(StoreError::InvalidOption {
                option: "store",
                expected: "a store of this package".into(),
                given: self.kind().into(),
            });
        }
        // SAFETY: it is in `HANDLES`, so `finalize` has not freed it; and it cannot while the external is an
        // argument of the call under way.
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

    /// Calls `call` with the open store of this external and its inbox, which `make` makes at first.
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

    /// Takes the store of this external: from now on it is closed.
    pub(super) fn take_store(self) -> Result<Option<AnyStore>> {
        let handle = self.handle()?;
        // What is under way for it arrives all the same.
        handle.inbox.take();
        Ok(handle.store.take().map(OpenStore::into_any))
    }
}

/// Drops a store on a thread of its own: to free a million records, or to write what is queued, would hold up JavaScript
/// or the exit.
pub(super) fn release(store: AnyStore) {
    let ending = ThreadEnd::of_this_one();
    // Without a thread the closure, and the store in it, is dropped here.
    let _ = thread::Builder::new().name("session-store-drop".into()).spawn(move || {
        if matches!(store, AnyStore::File(_)) {
            ending.wait();
        }
        drop(store);
    });
}

/// The end of a thread whose JavaScript is ending.
///
/// LMDB clears a thread's mark in its table of readers when the thread ends. If the table were taken away at that very
/// moment, by a close on another thread, the process would end.
struct ThreadEnd {
    #[cfg(target_os = "linux")]
    task: Option<std::path::PathBuf>,
}

impl ThreadEnd {
    /// For how long it is waited for: the thread may live on, where only the store was collected.
    const PATIENCE: Duration = Duration::from_secs(2);

    #[cfg(target_os = "linux")]
    fn of_this_one() -> Self {
        // SAFETY: they have no arguments, and cannot fail.
        let (thread, process) = unsafe { (libc::gettid(), libc::getpid()) };
        // The main thread ends with the process.
        Self { task: (thread != process).then(|| format!("/proc/self/task/{thread}").into()) }
    }

    #[cfg(target_os = "linux")]
    fn wait(&self) {
        const PAUSE: Duration = Duration::from_millis(5);
        let Some(task) = &self.task else { return };
        let begun = Instant::now();
        while task.exists() && begun.elapsed() < Self::PATIENCE {
            thread::sleep(PAUSE);
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn of_this_one() -> Self {
        Self {}
    }

    #[cfg(not(target_os = "linux"))]
    fn wait(&self) {
        thread::sleep(Self::PATIENCE);
    }
}

unsafe extern "C" fn finalize(_: sys::napi_env, data: *mut c_void, _: *mut c_void) {
    let handle = data.cast::<Handle>();
    // It fails only where the thread is ending, and the list with it.
    let _ = HANDLES.try_with(|handles| handles.borrow_mut().retain(|&other| other != handle.cast_const()));
    // SAFETY: N-API calls this once for the pointer that `Value::store` took from its box.
    let handle = unsafe { Box::from_raw(handle) };
    if let Some(store) = handle.store.take() {
        release(store.into_any());
    }
}
