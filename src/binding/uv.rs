//! Polls and timers of libuv on the JavaScript event loop.
//!
//! N-API returns the loop, but has no functions for it. Node.js exports libuv's functions, so they are looked up by
//! name in the running program. If one is missing, or libuv has another major version, there is no `Loop`. The
//! functions have not changed since libuv 1.19 (<https://docs.libuv.org/en/v1.x/>).

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::rc::Rc;
use std::sync::OnceLock;

use napi::sys;
use socket2::Socket;

use super::errors::guarded;

/// Values of `uv_handle_type`.
const POLL: c_int = 8;
const TIMER: c_int = 13;

/// Values of `uv_poll_event`.
const READABLE: c_int = 1;
const WRITABLE: c_int = 2;

type Raw = *mut c_void;

macro_rules! api {
    ($($field:ident = $name:literal: fn($($arg:ty),*) $(-> $result:ty)?;)*) => {
        struct Api {
            $($field: unsafe extern "C" fn($($arg),*) $(-> $result)?,)*
        }

        impl Api {
            fn find() -> Option<Self> {
                Some(Self {
                    // SAFETY: this is the function's type in every libuv of major version 1.
                    $($field: unsafe {
                        std::mem::transmute::<Raw, unsafe extern "C" fn($($arg),*) $(-> $result)?>(find($name)?)
                    },)*
                })
            }
        }
    };
}

api! {
    version = c"uv_version": fn() -> c_uint;
    handle_size = c"uv_handle_size": fn(c_int) -> usize;
    handle_get_data = c"uv_handle_get_data": fn(Raw) -> Raw;
    handle_set_data = c"uv_handle_set_data": fn(Raw, Raw);
    unref = c"uv_unref": fn(Raw);
    close = c"uv_close": fn(Raw, unsafe extern "C" fn(Raw));
    poll_init = c"uv_poll_init": fn(Raw, Raw, c_int) -> c_int;
    poll_start = c"uv_poll_start": fn(Raw, c_int, unsafe extern "C" fn(Raw, c_int, c_int)) -> c_int;
    timer_init = c"uv_timer_init": fn(Raw, Raw) -> c_int;
    timer_start = c"uv_timer_start": fn(Raw, unsafe extern "C" fn(Raw), u64, u64) -> c_int;
}

#[cfg(unix)]
fn find(name: &CStr) -> Option<Raw> {
    // SAFETY: the name is a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

#[cfg(not(unix))]
fn find(_: &CStr) -> Option<Raw> {
    None
}

#[cfg(unix)]
fn descriptor_of(socket: &Socket) -> c_int {
    std::os::fd::AsRawFd::as_raw_fd(socket)
}

/// There is no loop to wait for it.
#[cfg(not(unix))]
fn descriptor_of(_: &Socket) -> c_int {
    -1
}

fn api() -> Option<&'static Api> {
    static API: OnceLock<Option<Api>> = OnceLock::new();
    // SAFETY: it has no arguments, and cannot fail.
    let is_known = |api: &Api| unsafe { (api.version)() } >> 16 == 1;
    API.get_or_init(|| Api::find().filter(is_known)).as_ref()
}

/// Receives the events of its handles. Each open handle keeps it alive.
pub(super) trait EventHandler: 'static {
    /// The socket with this key is readable, closed, or writable if that was requested. `is_last`: the poll has failed,
    /// and reports nothing more.
    fn on_ready(self: Rc<Self>, key: u32, is_last: bool);
    fn on_timer(self: Rc<Self>);
    /// One of its handles was closed.
    fn on_closed(self: Rc<Self>);
}

/// Runs a callback. A panic must not reach libuv. The fast path itself reports errors to callers of the store.
fn call(body: impl FnOnce()) {
    let _ = guarded(|| {
        body();
        Ok(())
    });
}

/// The event loop of a JavaScript thread. Only that thread may use it.
#[derive(Clone, Copy)]
pub(super) struct Loop {
    api: &'static Api,
    raw: Raw,
}

impl Loop {
    /// Returns the loop of an environment, if it is libuv's.
    pub(super) fn of(env: sys::napi_env) -> Option<Self> {
        let (api, mut raw) = (api()?, ptr::null_mut());
        // SAFETY: `env` is that of the running call, `raw` is writable.
        let status = unsafe { sys::napi_get_uv_event_loop(env, &mut raw) };
        (status == sys::Status::napi_ok && !raw.is_null()).then_some(Self { api, raw: raw.cast() })
    }

    /// Creates a poll for a socket, which `Poll::wait` starts. `key` identifies the socket to the handler. The socket
    /// must stay open until the poll is dropped.
    pub(super) fn poll<O: EventHandler>(self, handler: Rc<O>, key: u32, socket: &Socket) -> Option<Poll<O>> {
        let socket = descriptor_of(socket);
        // SAFETY: the loop is that of this thread, `handle` has writable for a poll.
        let init = |handle| unsafe { (self.api.poll_init)(self.raw, handle, socket) };
        self.handle(POLL, handler, key, init).map(Poll)
    }

    pub(super) fn timer<O: EventHandler>(self, handler: Rc<O>) -> Option<Timer<O>> {
        // SAFETY: the loop is that of this thread, `handle` has writable for a timer.
        self.handle(TIMER, handler, 0, |handle| unsafe { (self.api.timer_init)(self.raw, handle) }).map(Timer)
    }

    fn handle<O: EventHandler>(
        self,
        kind: c_int,
        handler: Rc<O>,
        key: u32,
        init: impl FnOnce(Raw) -> c_int,
    ) -> Option<Handle<O>> {
        // SAFETY: it only returns a size.
        let size = unsafe { (self.api.handle_size)(kind) };
        let memory = Box::into_raw(vec![0_u64; size.div_ceil(8)].into_boxed_slice());
        let raw = memory.cast();
        if init(raw) != 0 {
            // SAFETY: it is from `Box::into_raw` above, and libuv does not use it.
            drop(unsafe { Box::from_raw(memory) });
            return None;
        }
        let shared = Box::into_raw(Box::new(Shared { memory, handler, key }));
        // SAFETY: `raw` is a handle from here on, and `shared` is freed when it is closed.
        unsafe {
            (self.api.handle_set_data)(raw, shared.cast());
            // Unref: issued tickets keep the loop alive, not handles.
            (self.api.unref)(raw);
        }
        Some(Handle { api: self.api, raw, handler: PhantomData })
    }
}

/// The memory of a handle. It lives until libuv has closed the handle.
struct Shared<O> {
    /// From `Box::into_raw`. A `Box` here would alias libuv's pointer when it moves.
    memory: *mut [u64],
    handler: Rc<O>,
    key: u32,
}

impl<O> Drop for Shared<O> {
    fn drop(&mut self) {
        // SAFETY: it is from `Box::into_raw`, and libuv has closed the handle.
        drop(unsafe { Box::from_raw(self.memory) });
    }
}

/// A handle. Dropping it closes it.
struct Handle<O: EventHandler> {
    api: &'static Api,
    raw: Raw,
    handler: PhantomData<Rc<O>>,
}

impl<O: EventHandler> Handle<O> {
    /// Returns the handler of a handle that libuv reports, and its key.
    ///
    /// # Safety
    /// `Loop::handle` made the handle for this type, and it is not closed.
    unsafe fn handler(raw: Raw) -> Option<(Rc<O>, u32)> {
        // SAFETY: by this function's contract, `Loop::handle` has set its data.
        let shared = unsafe { (api()?.handle_get_data)(raw).cast::<Shared<O>>().as_ref() };
        shared.map(|shared| (Rc::clone(&shared.handler), shared.key))
    }
}

impl<O: EventHandler> Drop for Handle<O> {
    fn drop(&mut self) {
        unsafe extern "C" fn closed<O: EventHandler>(raw: Raw) {
            let Some(api) = api() else { return };
            // SAFETY: libuv calls this once for a handle of `Loop::handle`, and does not use it afterwards.
            let shared = unsafe { Box::from_raw((api.handle_get_data)(raw).cast::<Shared<O>>()) };
            let handler = Rc::clone(&shared.handler);
            drop(shared);
            call(|| handler.on_closed());
        }
        // SAFETY: the handle is open, because only this closes it, and this is its loop's thread.
        unsafe { (self.api.close)(self.raw, closed::<O>) }
    }
}

/// Polls a socket.
pub(super) struct Poll<O: EventHandler>(Handle<O>);

impl<O: EventHandler> Poll<O> {
    /// Reports to the handler when the socket is readable, and with `writable` also when it is writable.
    pub(super) fn wait(&self, writable: bool) -> bool {
        unsafe extern "C" fn ready<O: EventHandler>(raw: Raw, status: c_int, _events: c_int) {
            // SAFETY: it is started only for a handle of this type.
            let Some((handler, key)) = (unsafe { Handle::<O>::handler(raw) }) else { return };
            // A negative status: libuv has stopped the poll.
            call(|| handler.on_ready(key, status < 0));
        }
        let events = if writable { READABLE | WRITABLE } else { READABLE };
        // SAFETY: the handle is an open poll of this thread's loop.
        unsafe { (self.0.api.poll_start)(self.0.raw, events, ready::<O>) == 0 }
    }
}

pub(super) struct Timer<O: EventHandler>(Handle<O>);

impl<O: EventHandler> Timer<O> {
    /// Fires once, after `millis`.
    pub(super) fn start(&self, millis: u64) {
        unsafe extern "C" fn due<O: EventHandler>(raw: Raw) {
            // SAFETY: it is started only for a handle of this type.
            let Some((handler, _)) = (unsafe { Handle::<O>::handler(raw) }) else { return };
            call(|| handler.on_timer());
        }
        // SAFETY: the handle is an open timer of this thread's loop. It fails only without a callback.
        unsafe { (self.0.api.timer_start)(self.0.raw, due::<O>, millis, 0) };
    }
}
