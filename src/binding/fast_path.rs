//! A store in Redis on its JavaScript thread: the event loop says when a socket of its fast path is ready, and what has
//! come goes to JavaScript at once.

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
use super::tickets::{JsFailure, Listener, NOTHING, SettleArgs, Tickets, tickets};
use super::uv::{Loop, Owner, Poll, Timer};
use super::values::Value;
use super::warning::Warn;
use crate::error::{Result, StoreError};
use crate::scratch::with_buffer;
use crate::session::{Content, Expiry, SessionId};
use crate::store::RedisStore;
use crate::store::redis::{Answers, CacheStats, FastPath, Hit, MAX_COMPLETIONS, NodeId, Results, Supply};

/// A fast path and what drives it. The handles of the event loop keep it until its last call has ended.
pub(super) struct FastPathDriver {
    env: sys::napi_env,
    /// Without one all calls go by the worker.
    event_loop: Option<Loop>,
    store: Arc<RedisStore>,
    pub tickets: Rc<Tickets>,
    fast_path: RefCell<FastPath>,
    polls: RefCell<Vec<Polled>>,
    timer: RefCell<Option<Timer<Self>>>,
    /// When the timer is due, if it is started.
    due: Cell<Option<Instant>>,
    /// The handles that are not closed.
    handles: Cell<usize>,
    buffer: CompletionBuffer,
    is_ending: Cell<bool>,
    has_shut: Cell<bool>,
    /// Receives once why there is no cache.
    warn: Cell<Option<Warn>>,
    at_exit: Cell<sys::napi_async_cleanup_hook_handle>,
}

/// A socket that is waited for, by its server.
struct Polled {
    node: NodeId,
    poll: Poll<FastPathDriver>,
    waits_for_room: bool,
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
            is_ending: Cell::new(false),
            has_shut: Cell::new(false),
            warn: Cell::new(warn),
            at_exit: Cell::new(ptr::null_mut()),
        });
        if let Some(event_loop) = driver.event_loop {
            let timer = event_loop.timer(Rc::clone(&driver));
            driver.handles.set(usize::from(timer.is_some()));
            if timer.is_some() && driver.end_at_exit() {
                *driver.timer.borrow_mut() = timer;
                let listener: Rc<dyn Listener> = driver.clone();
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

    /// Calls `read` with the reply to a `get` that needs no round trip.
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

    /// Has what was called begin.
    pub(super) fn submit(self: &Rc<Self>) {
        self.fast_path.borrow_mut().submit();
        self.adjust();
    }

    /// Takes no more calls, and lets go of the event loop once the last has ended.
    pub(super) fn finish(self: &Rc<Self>) -> Arc<RedisStore> {
        self.is_ending.set(true);
        self.fast_path.borrow_mut().start_drain();
        // It may have begun calls.
        self.adjust();
        self.shut_if_done();
        Arc::clone(&self.store)
    }

    fn shut_if_done(&self) {
        if self.is_ending.get() && self.fast_path.borrow().is_idle() {
            self.shut();
        }
    }

    fn shut(&self) {
        if self.has_shut.replace(true) {
            return;
        }
        self.polls.take();
        self.timer.take();
        let mut fast_path = self.fast_path.borrow_mut();
        fast_path.shut();
        // Their polls are closed.
        drop(fast_path.take_closed_sockets());
        drop(fast_path);
        self.buffer.shut();
        self.let_exit();
    }

    /// Has the event loop wait for what the fast path waits for.
    fn adjust(self: &Rc<Self>) {
        let (Some(event_loop), false) = (self.event_loop, self.has_shut.get()) else { return };
        let mut fast_path = self.fast_path.borrow_mut();
        let mut polls = self.polls.borrow_mut();
        for (node, socket) in fast_path.take_closed_sockets() {
            // A socket must not be closed before its poll.
            polls.retain(|polled| polled.node != node);
            drop(socket);
        }
        let mut deaf = Vec::new();
        for (node, socket, waits_for_room) in fast_path.sockets() {
            let is_waiting = match polls.iter_mut().find(|polled| polled.node == node) {
                Some(polled) if polled.waits_for_room == waits_for_room => true,
                Some(polled) => {
                    polled.waits_for_room = waits_for_room;
                    polled.poll.wait(waits_for_room)
                }
                None => self.wait_for(event_loop, node, socket, waits_for_room, &mut polls),
            };
            if !is_waiting {
                deaf.push(node);
            }
        }
        for node in deaf {
            // Nobody would hear what it says.
            fast_path.give_up(node);
        }
        if let (Some(deadline), Some(timer)) = (fast_path.next_deadline(), &*self.timer.borrow())
            && self.due.get().is_none_or(|due| deadline < due)
        {
            self.due.set(Some(deadline));
            // Rounded up, or it would come before the deadline.
            let millis = deadline.saturating_duration_since(Instant::now()).as_millis() as u64;
            timer.start(if deadline <= Instant::now() { 0 } else { millis + 1 });
        }
    }

    /// Begins to wait for the socket of a server.
    fn wait_for(
        self: &Rc<Self>,
        event_loop: Loop,
        node: NodeId,
        socket: &Socket,
        waits_for_room: bool,
        polls: &mut Vec<Polled>,
    ) -> bool {
        let Some(poll) = event_loop.poll(Rc::clone(self), node, socket) else { return false };
        self.handles.set(self.handles.get() + 1);
        let is_waiting = poll.wait(waits_for_room);
        polls.push(Polled { node, poll, waits_for_room });
        is_waiting
    }

    /// Reads once what a server says, and reports it; `true` if there may be more to be read.
    fn read(self: &Rc<Self>, node: NodeId) -> bool {
        let mut batch = self.buffer.begin();
        let more = self.fast_path.borrow_mut().turn(node, &mut batch);
        self.tell(batch);
        more && !self.has_shut.get()
    }

    fn tell(self: &Rc<Self>, batch: Batch<'_>) {
        self.adjust();
        self.tickets.take_back(self.env, batch.done(), &batch.failures);
        batch.tell();
        self.shut_if_done();
    }

    /// Has the environment wait at its end until the handles are closed.
    fn end_at_exit(self: &Rc<Self>) -> bool {
        unsafe extern "C" fn exit(_: sys::napi_async_cleanup_hook_handle, driver: *mut c_void) {
            // SAFETY: the hook is removed before the driver goes.
            let driver = unsafe { &*driver.cast_const().cast::<FastPathDriver>() };
            driver.shut();
        }
        let mut hook = ptr::null_mut();
        // SAFETY: `env` is that of the call under way, `hook` is writable.
        let status = unsafe {
            sys::napi_add_async_cleanup_hook(
                self.env,
                Some(exit),
                Rc::as_ptr(self).cast_mut().cast(),
                &mut hook,
            )
        };
        self.at_exit.set(hook);
        status == sys::Status::napi_ok
    }

    fn let_exit(&self) {
        if self.has_shut.get() && self.handles.get() == 0 {
            let hook = self.at_exit.replace(ptr::null_mut());
            if !hook.is_null() {
                // SAFETY: the hook is there, and it is removed once.
                unsafe { sys::napi_remove_async_cleanup_hook(hook) };
            }
        }
    }
}

impl Listener for FastPathDriver {
    fn hear(self: Rc<Self>, ended: &mut dyn Iterator<Item = u32>, supply: Option<Supply>) {
        {
            let mut fast_path = self.fast_path.borrow_mut();
            fast_path.completed(ended);
            if let Some(supply) = supply {
                fast_path.take_supply(supply);
                // It may have begun calls.
                fast_path.submit();
                drop(fast_path);
                self.warn_if_off();
            }
        }
        self.adjust();
    }
}

impl Owner for FastPathDriver {
    fn is_ready(self: Rc<Self>, node: NodeId, is_last: bool) {
        let _scope = Scope::open(self.env);
        // The poll fires again while there is more: the event loop gets its turn before.
        self.read(node);
        if is_last {
            // It does not, as it has failed. No new replies come either.
            while !self.has_shut.get() && self.read(node) {}
        }
        if is_last && !self.has_shut.get() {
            self.fast_path.borrow_mut().give_up(node);
            self.read(node);
        }
    }

    fn is_due(self: Rc<Self>) {
        let _scope = Scope::open(self.env);
        self.due.set(None);
        // What has come is no longer late, whatever kept this thread from reading it.
        let nodes: Vec<_> = self.fast_path.borrow().sockets().map(|(node, ..)| node).collect();
        let mut more = false;
        for node in nodes {
            more |= self.read(node);
            if self.has_shut.get() {
                return;
            }
        }
        if !more {
            self.fast_path.borrow_mut().expire();
        }
        self.adjust();
        self.shut_if_done();
    }

    fn is_closed(self: Rc<Self>) {
        self.handles.set(self.handles.get() - 1);
        self.let_exit();
    }
}

/// What lets callbacks of the event loop make JavaScript values.
struct Scope {
    env: sys::napi_env,
    scope: sys::napi_handle_scope,
}

impl Scope {
    fn open(env: sys::napi_env) -> Self {
        let mut scope = ptr::null_mut();
        // SAFETY: the environment is that of this thread, and has not ended: the hook at its end closes the handles.
        unsafe { sys::napi_open_handle_scope(env, &mut scope) };
        Self { env, scope }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        // SAFETY: it was opened in this environment, and those opened later are closed.
        unsafe { sys::napi_close_handle_scope(self.env, self.scope) };
    }
}

/// Calls `settle`, with numbers in an array that is the same each time.
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
        // SAFETY: `env` is that of the call under way, and what is pointed to is writable.
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

    fn begin(&self) -> Batch<'_> {
        Batch { buffer: self, len: 0, failures: Vec::new(), texts: ptr::null_mut(), texts_len: 0 }
    }

    fn shut(&self) {
        for reference in [&self.settle, &self.array] {
            let reference = reference.replace(ptr::null_mut());
            if !reference.is_null() {
                // SAFETY: it was made in this environment, which has not ended, and is deleted once.
                unsafe { sys::napi_delete_reference(self.env, reference) };
            }
        }
    }
}

/// Calls that have ended, on their way to JavaScript.
struct Batch<'a> {
    buffer: &'a CompletionBuffer,
    /// How many numbers.
    len: usize,
    failures: Vec<JsFailure>,
    /// An array, once there is a text.
    texts: sys::napi_value,
    texts_len: u32,
}

impl Batch<'_> {
    fn done(&self) -> &[f64] {
        // SAFETY: the array has room for `LEN`, of which so many are written; it is not detached, as nobody else has it
        // but `settle`, which is not called while this is in use.
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

    /// Calls `settle`: runs JavaScript.
    fn tell(self) {
        if self.len == 0 && self.failures.is_empty() {
            return;
        }
        let env = self.buffer.env;
        let (mut global, mut settle, mut array) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        let (mut length, mut texts, mut result) = (ptr::null_mut(), self.texts, ptr::null_mut());
        // SAFETY: this is the environment's thread, in a handle scope; the references are not deleted, as that is done
        // when the last call has ended; what is pointed to is writable.
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
                // It is of the app's code, which went on in ticks that this call ran.
                let mut error = ptr::null_mut();
                sys::napi_get_and_clear_last_exception(env, &mut error);
                sys::napi_fatal_exception(env, error);
            }
        }
    }
}

impl Results for Batch<'_> {
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
