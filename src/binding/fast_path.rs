//! Drives the event-loop connections of a RedisStore: the event loop reports when a socket is ready, and replies go to
//! JavaScript immediately.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use napi::bindgen_prelude::{Function, JsValue, ToNapiValue};
use napi::sys;
use socket2::Socket;

use super::reply;
use super::tickets::{CompletionListener, JsFailure, NOTHING, SettleArgs, Tickets, tickets};
use super::uv::{EventHandler, Loop, Poll, Timer};
use super::values::Value;
use super::warning::Warn;
use crate::error::{Result, StoreError};
use crate::scratch::with_buffer;
use crate::session::{Content, Expiry, SessionId};
use crate::store::RedisStore;
use crate::store::redis::{Answers, CacheStats, FastPath, Hit, MAX_COMPLETIONS, NodeId, Results, Supply};

/// A fast path and its event-loop handles. The handles keep it alive until its last call has ended.
pub(super) struct FastPathDriver {
    env: sys::napi_env,
    /// `None`: all calls go through the worker.
    event_loop: Option<Loop>,
    store: Arc<RedisStore>,
    pub tickets: Rc<Tickets>,
    fast_path: RefCell<FastPath>,
    polls: RefCell<Vec<PolledSocket>>,
    timer: RefCell<Option<Timer<Self>>>,
    /// When the timer is due, if it was started.
    due: Cell<Option<Instant>>,
    /// The number of open handles.
    handles: Cell<usize>,
    buffer: CompletionBuffer,
    is_draining: Cell<bool>,
    is_shut: Cell<bool>,
    /// Called once with the reason why there is no cache.
    warn: Cell<Option<Warn>>,
    exit_hook: Cell<sys::napi_async_cleanup_hook_handle>,
}

/// The poll of a server's socket.
struct PolledSocket {
    node: NodeId,
    poll: Poll<FastPathDriver>,
    wants_write: bool,
}

impl FastPathDriver {
    pub(super) fn start(
        env: sys::napi_env,
        store: Arc<RedisStore>,
        settle: &Function<'_, SettleArgs, ()>,
        has_loop: bool,
        warn: Option<Warn>,
    ) -> Result<Rc<Self>> {
        let (tickets, settler) = tickets(settle)?;
        let settler: Arc<dyn Answers> = settler;
        let driver = Rc::new(Self {
            env,
            event_loop: Some(env).filter(|_| has_loop && store.can_have_fast_path()).and_then(Loop::of),
            fast_path: RefCell::new(FastPath::new(Arc::clone(&store), settler)),
            store,
            tickets,
            polls: RefCell::default(),
            timer: RefCell::default(),
            due: Cell::new(None),
            handles: Cell::new(0),
            buffer: CompletionBuffer::new(env, settle)?,
            is_draining: Cell::new(false),
            is_shut: Cell::new(false),
            warn: Cell::new(warn),
            exit_hook: Cell::new(ptr::null_mut()),
        });
        if let Some(event_loop) = driver.event_loop {
            let timer = event_loop.timer(Rc::clone(&driver));
            driver.handles.set(usize::from(timer.is_some()));
            if timer.is_some() && driver.add_exit_hook() {
                *driver.timer.borrow_mut() = timer;
                let listener: Rc<dyn CompletionListener> = driver.clone();
                driver.tickets.set_listener(Rc::downgrade(&listener));
                driver.fast_path.borrow_mut().want();
            }
        }
        driver.warn_if_off();
        Ok(driver)
    }

    pub(super) fn store(&self) -> &Arc<RedisStore> {
        &self.store
    }

    pub(super) fn with_fast_path<T>(&self, call: impl FnOnce(&mut FastPath) -> T) -> T {
        call(&mut self.fast_path.borrow_mut())
    }

    /// Calls `read` with the reply to a `get` from the cache. Returns `None` if the session is not cached.
    pub(super) fn cached<T>(self: &Rc<Self>, id: &SessionId, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let (hit, value) = with_buffer(|text| {
            let hit = self.fast_path.borrow_mut().try_get(id, |expires, content| {
                text.clear();
                reply::write(expires, content, text);
            });
            hit.map(|hit| (hit, read(text)))
        })?;
        if hit == Hit::HasWork {
            self.submit();
        }
        Some(value)
    }

    pub(super) fn cache_stats(&self) -> Option<CacheStats> {
        self.fast_path.borrow().cache_stats()
    }

    fn warn_if_off(&self) {
        if let Some(off) = self.cache_stats().and_then(|stats| stats.off)
            && let Some(warn) = self.warn.take()
        {
            warn.call(off);
        }
    }

    /// Sends the queued calls.
    pub(super) fn submit(self: &Rc<Self>) {
        self.fast_path.borrow_mut().submit();
        self.update_handles();
    }

    /// Accepts no more calls, and closes the event-loop handles once the last call has ended.
    pub(super) fn finish(self: &Rc<Self>) -> Arc<RedisStore> {
        self.is_draining.set(true);
        self.fast_path.borrow_mut().start_drain();
        // The drain may have started calls.
        self.update_handles();
        self.shut_if_idle();
        Arc::clone(&self.store)
    }

    fn shut_if_idle(&self) {
        if self.is_draining.get() && self.fast_path.borrow().is_idle() {
            self.shut();
        }
    }

    fn shut(&self) {
        if self.is_shut.replace(true) {
            return;
        }
        self.polls.take();
        self.timer.take();
        let mut fast_path = self.fast_path.borrow_mut();
        fast_path.shut();
        // The polls of these sockets are closed.
        drop(fast_path.take_closed_sockets());
        drop(fast_path);
        self.buffer.shut();
        self.remove_exit_hook();
    }

    /// Updates the polls and the timer to match the fast path.
    fn update_handles(self: &Rc<Self>) {
        let (Some(event_loop), false) = (self.event_loop, self.is_shut.get()) else { return };
        let mut fast_path = self.fast_path.borrow_mut();
        let mut polls = self.polls.borrow_mut();
        for (node, socket) in fast_path.take_closed_sockets() {
            // Close the poll before its socket.
            polls.retain(|polled| polled.node != node);
            drop(socket);
        }
        let mut unpolled = Vec::new();
        for (node, socket, wants_write) in fast_path.sockets() {
            let is_waiting = match polls.iter_mut().find(|polled| polled.node == node) {
                Some(polled) if polled.wants_write == wants_write => true,
                Some(polled) => {
                    polled.wants_write = wants_write;
                    polled.poll.wait(wants_write)
                }
                None => self.start_poll(event_loop, node, socket, wants_write, &mut polls),
            };
            if !is_waiting {
                unpolled.push(node);
            }
        }
        for node in unpolled {
            // Without a poll, nobody would read its replies.
            fast_path.give_up(node);
        }
        if let (Some(deadline), Some(timer)) = (fast_path.next_deadline(), &*self.timer.borrow())
            && self.due.get().is_none_or(|due| deadline < due)
        {
            self.due.set(Some(deadline));
            // Round up, or the timer would fire before the deadline.
            let millis = deadline.saturating_duration_since(Instant::now()).as_millis() as u64;
            timer.start(if deadline <= Instant::now() { 0 } else { millis + 1 });
        }
    }

    /// Starts to poll the socket of a server.
    fn start_poll(
        self: &Rc<Self>,
        event_loop: Loop,
        node: NodeId,
        socket: &Socket,
        wants_write: bool,
        polls: &mut Vec<PolledSocket>,
    ) -> bool {
        let Some(poll) = event_loop.poll(Rc::clone(self), node, socket) else { return false };
        self.handles.set(self.handles.get() + 1);
        let is_waiting = poll.wait(wants_write);
        polls.push(PolledSocket { node, poll, wants_write });
        is_waiting
    }

    /// Reads once from a server, and delivers the results. Returns `true` if there may be more to read.
    fn read(self: &Rc<Self>, node: NodeId) -> bool {
        let mut batch = self.buffer.begin();
        let more = self.fast_path.borrow_mut().turn(node, &mut batch);
        self.deliver(batch);
        more && !self.is_shut.get()
    }

    fn deliver(self: &Rc<Self>, batch: BufferedBatch<'_>) {
        self.update_handles();
        self.tickets.take_back(self.env, batch.done(), &batch.failures);
        batch.deliver();
        self.shut_if_idle();
    }

    /// Registers a cleanup hook: the environment then waits at its end until the handles are closed.
    fn add_exit_hook(self: &Rc<Self>) -> bool {
        unsafe extern "C" fn exit(_: sys::napi_async_cleanup_hook_handle, driver: *mut c_void) {
            // SAFETY: the hook is removed before the driver is dropped.
            let driver = unsafe { &*driver.cast_const().cast::<FastPathDriver>() };
            driver.shut();
        }
        let mut hook = ptr::null_mut();
        // SAFETY: `env` is that of the running call, `hook` is writable.
        let status = unsafe {
            sys::napi_add_async_cleanup_hook(
                self.env,
                Some(exit),
                Rc::as_ptr(self).cast_mut().cast(),
                &mut hook,
            )
        };
        self.exit_hook.set(hook);
        status == sys::Status::napi_ok
    }

    fn remove_exit_hook(&self) {
        if self.is_shut.get() && self.handles.get() == 0 {
            let hook = self.exit_hook.replace(ptr::null_mut());
            if !hook.is_null() {
                // SAFETY: the hook is registered, and it is removed once.
                unsafe { sys::napi_remove_async_cleanup_hook(hook) };
            }
        }
    }
}

impl CompletionListener for FastPathDriver {
    fn on_completed(self: Rc<Self>, ended: &mut dyn Iterator<Item = u32>, supply: Option<Supply>) {
        {
            let mut fast_path = self.fast_path.borrow_mut();
            fast_path.completed(ended);
            if let Some(supply) = supply {
                fast_path.take_supply(supply);
                // The supply may have unblocked calls.
                fast_path.submit();
                drop(fast_path);
                self.warn_if_off();
            }
        }
        self.update_handles();
    }
}

impl EventHandler for FastPathDriver {
    fn on_ready(self: Rc<Self>, node: NodeId, is_last: bool) {
        let _scope = Scope::open(self.env);
        // Read once. The poll fires again if there is more, after the event loop has had its turn.
        self.read(node);
        if is_last {
            // A failed poll does not fire again, and no new replies arrive, so read the rest now.
            while !self.is_shut.get() && self.read(node) {}
        }
        if is_last && !self.is_shut.get() {
            self.fast_path.borrow_mut().give_up(node);
            self.read(node);
        }
    }

    fn on_timer(self: Rc<Self>) {
        let _scope = Scope::open(self.env);
        self.due.set(None);
        // Read the replies that have arrived before calls expire: this thread may have been blocked.
        let nodes: Vec<_> = self.fast_path.borrow().sockets().map(|(node, ..)| node).collect();
        let mut more = false;
        for node in nodes {
            more |= self.read(node);
            if self.is_shut.get() {
                return;
            }
        }
        if !more {
            self.fast_path.borrow_mut().expire();
        }
        self.update_handles();
        self.shut_if_idle();
    }

    fn on_closed(self: Rc<Self>) {
        self.handles.set(self.handles.get() - 1);
        self.remove_exit_hook();
    }
}

/// A handle scope, in which callbacks of the event loop can make JavaScript values.
struct Scope {
    env: sys::napi_env,
    scope: sys::napi_handle_scope,
}

impl Scope {
    fn open(env: sys::napi_env) -> Self {
        let mut scope = ptr::null_mut();
        // SAFETY: the environment belongs to this thread, and has not ended: its cleanup hook closes the handles.
        unsafe { sys::napi_open_handle_scope(env, &mut scope) };
        Self { env, scope }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        // SAFETY: it was opened in this environment, and all later scopes are closed.
        unsafe { sys::napi_close_handle_scope(self.env, self.scope) };
    }
}

/// Calls `settle`, and reuses one array for the numbers.
struct CompletionBuffer {
    env: sys::napi_env,
    settle: Cell<sys::napi_ref>,
    array: Cell<sys::napi_ref>,
    numbers: *mut f64,
}

impl CompletionBuffer {
    const LEN: usize = 2 * MAX_COMPLETIONS;

    fn new(env: sys::napi_env, settle: &Function<'_, SettleArgs, ()>) -> Result<Self> {
        let (mut data, mut buffer, mut array) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        let (mut array_ref, mut settle_ref) = (ptr::null_mut(), ptr::null_mut());
        let size = Self::LEN * size_of::<f64>();
        // SAFETY: `env` is that of the running call, and the pointers are writable.
        let statuses = unsafe {
            [
                sys::napi_create_arraybuffer(env, size, &mut data, &mut buffer),
                sys::napi_create_typedarray(
                    env,
                    sys::TypedarrayType::float64_array,
                    Self::LEN,
                    buffer,
                    0,
                    &mut array,
                ),
                sys::napi_create_reference(env, array, 1, &mut array_ref),
                sys::napi_create_reference(env, settle.value().value, 1, &mut settle_ref),
            ]
        };
        if statuses.iter().any(|&status| status != sys::Status::napi_ok) {
            return Err(StoreError::Internal("Node-API could not make a value".into()));
        }
        Ok(Self { env, settle: Cell::new(settle_ref), array: Cell::new(array_ref), numbers: data.cast() })
    }

    fn begin(&self) -> BufferedBatch<'_> {
        BufferedBatch { buffer: self, len: 0, failures: Vec::new(), texts: ptr::null_mut(), texts_len: 0 }
    }

    fn shut(&self) {
        for reference in [&self.settle, &self.array] {
            let reference = reference.replace(ptr::null_mut());
            if !reference.is_null() {
                // SAFETY: it was made in this environment, which has not ended, and it is deleted once.
                unsafe { sys::napi_delete_reference(self.env, reference) };
            }
        }
    }
}

/// Completed calls that are to be delivered to JavaScript.
struct BufferedBatch<'a> {
    buffer: &'a CompletionBuffer,
    /// The numbers written to the buffer.
    len: usize,
    failures: Vec<JsFailure>,
    /// A JavaScript array. Null until there is a text.
    texts: sys::napi_value,
    texts_len: u32,
}

impl BufferedBatch<'_> {
    fn done(&self) -> &[f64] {
        // SAFETY: the array has room for `LEN` numbers, and `len` of them are written. It is not detached: only
        // `settle` has access to it, and does not run while this slice is in use.
        unsafe { std::slice::from_raw_parts(self.buffer.numbers, self.len) }
    }

    fn push(&mut self, ticket: u32, number: f64) {
        assert!(self.len + 2 <= CompletionBuffer::LEN, "more ends than a turn has");
        // SAFETY: as in `done`; there is room.
        unsafe {
            self.buffer.numbers.add(self.len).write(f64::from(ticket));
            self.buffer.numbers.add(self.len + 1).write(number);
        }
        self.len += 2;
    }

    /// Calls `settle`, which runs JavaScript.
    fn deliver(self) {
        if self.len == 0 && self.failures.is_empty() {
            return;
        }
        let env = self.buffer.env;
        let (mut global, mut settle, mut array) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        let (mut length, mut texts, mut result) = (ptr::null_mut(), self.texts, ptr::null_mut());
        // SAFETY: this is the environment's thread, in a handle scope. The references exist, because they are deleted
        // only after the last call has ended. The pointers are writable.
        unsafe {
            sys::napi_get_global(env, &mut global);
            sys::napi_get_reference_value(env, self.buffer.settle.get(), &mut settle);
            sys::napi_get_reference_value(env, self.buffer.array.get(), &mut array);
            sys::napi_create_uint32(env, self.len as u32, &mut length);
            if texts.is_null() {
                sys::napi_create_array(env, &mut texts);
            }
            let Ok(failures) = Vec::to_napi_value(env, self.failures) else { return };
            let args = [array, length, failures, texts];
            let status = sys::napi_make_callback(
                env,
                ptr::null_mut(),
                global,
                settle,
                args.len(),
                args.as_ptr(),
                &mut result,
            );
            if status == sys::Status::napi_pending_exception {
                // Thrown by app code in a microtask that ran during this call.
                let mut error = ptr::null_mut();
                sys::napi_get_and_clear_last_exception(env, &mut error);
                sys::napi_fatal_exception(env, error);
            }
        }
    }
}

impl Results for BufferedBatch<'_> {
    fn number(&mut self, ticket: u32, number: u64) {
        self.push(ticket, number as f64);
    }

    fn session(&mut self, ticket: u32, session: Option<(Expiry, Content<'_>)>) {
        let Some((expires, content)) = session else { return self.push(ticket, NOTHING) };
        let env = self.buffer.env;
        let text = with_buffer(|out| {
            reply::write(expires, content, out);
            Value::string(env, out)
        });
        let text = match text {
            Ok(text) => text,
            Err(error) => return self.refused(ticket, &error),
        };
        // SAFETY: this is the environment's thread, in a handle scope.
        unsafe {
            if self.texts.is_null() {
                sys::napi_create_array(env, &mut self.texts);
            }
            sys::napi_set_element(env, self.texts, self.texts_len, text.raw());
        }
        self.texts_len += 1;
        self.push(ticket, NOTHING - f64::from(self.texts_len));
    }

    fn refused(&mut self, ticket: u32, error: &StoreError) {
        self.failures.push(JsFailure::new(ticket, error));
    }
}
