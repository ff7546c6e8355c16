//! Polls and timers of libuv, on the event loop that runs JavaScript.
//!
//! N-API gives the loop, but no functions for it. Node exports libuv's, which are found here by their names in the
//! running program: where one is missing, or libuv is of another major version, there is no loop to be had. What is
//! used has been the same since libuv 1.19 (<https://docs.libuv.org/en/v1.x/>).

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::rc::Rc;
use std::sync::OnceLock;

use napi::sys;
use socket2::Socket;

use super::errors::guarded;

/// The types of handles, as `uv_handle_type` numbers them.
const POLL: c_int = 8;
const TIMER: c_int = 13;

/// Of `uv_poll_event`.
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
fn number_of(socket: &Socket) -> c_int {
    std::os::fd::AsRawFd::as_raw_fd(socket)
}

/// There is no loop to wait for it.
#[cfg(not(unix))]
fn number_of(_: &Socket) -> c_int {
    -1
}

fn api() -> Option<&'static Api> {
    static API: OnceLock<Option<Api>> = OnceLock::new();
    // SAFETY: it has no arguments, and cannot fail.
    let is_known = |api: &Api| unsafe { (api.version)() } >> 16 == 1;
    API.get_or_init(|| Api::find().filter(is_known)).as_ref()
}

/// Is told when its handles are ready; it lives for as long as one of them.
pub(super) trait Owner: 'static {
    /// The socket of this key can be read, or written where that was asked for, or has ended; of one that has failed this
    /// is the last that is told.
    fn is_ready(self: Rc<Self>, key: u32, is_last: bool);
    fn is_due(self: Rc<Self>);
    /// One of its handles is closed.
    fn is_closed(self: Rc<Self>);
}

/// A panic must not reach libuv. What can go wrong for a caller of the store, the fast path reports itself.
fn call(body: impl FnOnce()) {
    let _ = guarded(|| {
        body();
        Ok(())
    });
}

/// The event loop of a JavaScript thread, for that thread.
#[derive(Clone, Copy)]
pub(super) struct Loop {
    api: &'static Api,
    raw: Raw,
}

impl Loop {
    /// The loop of an environment, if it is Node's.
    pub(super) fn of(env: sys::napi_env) -> Option<Self> {
        let (api, mut raw) = (api()?, ptr::null_mut());
        // SAFETY: `env` is that of the call under way, `raw` is writable.
        let status = unsafe { sys::napi_get_uv_event_loop(env, &mut raw) };
        (status == sys::Status::napi_ok && !raw.is_null()).then_some(Self { api, raw: raw.cast() })
    }

    /// Waits for a socket, once it is told for what. The owner knows it by its key. The socket must stay open until this is
    /// dropped.
    pub(super) fn poll<O: Owner>(self, owner: Rc<O>, key: u32, socket: &Socket) -> Option<Poll<O>> {
        let socket = number_of(socket);
        // SAFETY: the loop is that of this thread, `handle` has room for a poll.
        let init = |handle| unsafe { (self.api.poll_init)(self.raw, handle, socket) };
        self.handle(POLL, owner, key, init).map(Poll)
    }

    pub(super) fn timer<O: Owner>(self, owner: Rc<O>) -> Option<Timer<O>> {
        // SAFETY: the loop is that of this thread, `handle` has room for a timer.
        self.handle(TIMER, owner, 0, |handle| unsafe { (self.api.timer_init)(self.raw, handle) }).map(Timer)
    }

    fn handle<O: Owner>(
        self,
        kind: c_int,
        owner: Rc<O>,
        key: u32,
        init: impl FnOnce(Raw) -> c_int,
    ) -> Option<Handle<O>> {
        // SAFETY: it only looks the size up.
        let size = unsafe { (self.api.handle_size)(kind) };
        let memory = Box::into_raw(vec![0_u64; size.div_ceil(8)].into_boxed_slice());
        let raw = memory.cast();
        if init(raw) != 0 {
            // SAFETY: it is from `Box::into_raw` above, and libuv did not take it.
            drop(unsafe { Box::from_raw(memory) });
            return None;
        }
        let shared = Box::into_raw(Box::new(Shared { memory, owner, key }));
        // SAFETY: `raw` is a handle from here on, and `shared` is freed when it is closed.
        unsafe {
            (self.api.handle_set_data)(raw, shared.cast());
            // Whether the loop goes on is for tickets to say.
            (self.api.unref)(raw);
        }
        Some(Handle { api: self.api, raw, owner: PhantomData })
    }
}

/// The memory of a handle, until libuv has closed it.
struct Shared<O> {
    /// libuv's, from `Box::into_raw`: a box that moves would end libuv's right to its pointer.
    memory: *mut [u64],
    owner: Rc<O>,
    key: u32,
}

impl<O> Drop for Shared<O> {
    fn drop(&mut self) {
        // SAFETY: it is from `Box::into_raw`, and libuv has closed the handle.
        drop(unsafe { Box::from_raw(self.memory) });
    }
}

/// A handle, which is closed when this is dropped.
struct Handle<O: Owner> {
    api: &'static Api,
    raw: Raw,
    owner: PhantomData<Rc<O>>,
}

impl<O: Owner> Handle<O> {
    /// The owner of a handle of which libuv tells, and the key by which that knows it.
    ///
    /// # Safety
    /// It is one that `Loop::handle` made for this type, and is not closed.
    unsafe fn owner(raw: Raw) -> Option<(Rc<O>, u32)> {
        // SAFETY: by this function's contract, its data is what `Loop::handle` has set.
        let shared = unsafe { (api()?.handle_get_data)(raw).cast::<Shared<O>>().as_ref() };
        shared.map(|shared| (Rc::clone(&shared.owner), shared.key))
    }
}

impl<O: Owner> Drop for Handle<O> {
    fn drop(&mut self) {
        unsafe extern "C" fn closed<O: Owner>(raw: Raw) {
            let Some(api) = api() else { return };
            // SAFETY: libuv calls this once for a handle of `Loop::handle`, and does not use it afterwards.
            let shared = unsafe { Box::from_raw((api.handle_get_data)(raw).cast::<Shared<O>>()) };
            let owner = Rc::clone(&shared.owner);
            drop(shared);
            call(|| owner.is_closed());
        }
        // SAFETY: the handle is open, as this closes it, and this is its loop's thread.
        unsafe { (self.api.close)(self.raw, closed::<O>) }
    }
}

/// Waits for a socket.
pub(super) struct Poll<O: Owner>(Handle<O>);

impl<O: Owner> Poll<O> {
    /// Has the owner told when the socket can be read; and when it can be written, if it is for `room` too.
    pub(super) fn wait(&self, room: bool) -> bool {
        unsafe extern "C" fn ready<O: Owner>(raw: Raw, status: c_int, _events: c_int) {
            // SAFETY: it is started only for a handle of this type.
            let Some((owner, key)) = (unsafe { Handle::<O>::owner(raw) }) else { return };
            // Then libuv has stopped the poll.
            call(|| owner.is_ready(key, status < 0));
        }
        let events = if room { READABLE | WRITABLE } else { READABLE };
        // SAFETY: the handle is an open poll of this thread's loop.
        unsafe { (self.0.api.poll_start)(self.0.raw, events, ready::<O>) == 0 }
    }
}

pub(super) struct Timer<O: Owner>(Handle<O>);

impl<O: Owner> Timer<O> {
    /// Has the owner told once, after so many milliseconds.
    pub(super) fn start(&self, millis: u64) {
        unsafe extern "C" fn due<O: Owner>(raw: Raw) {
            // SAFETY: it is started only for a handle of this type.
            let Some((owner, _)) = (unsafe { Handle::<O>::owner(raw) }) else { return };
            call(|| owner.is_due());
        }
        // SAFETY: the handle is an open timer of this thread's loop. It fails only where there is no function to call.
        unsafe { (self.0.api.timer_start)(self.0.raw, due::<O>, millis, 0) };
    }
}
