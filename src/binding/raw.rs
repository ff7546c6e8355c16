//! Exports functions to JavaScript without the generated code of napi-rs, which allocates on every call.

use std::ptr;

use napi::sys;

use super::errors::{JsError, catch_panic, to_js};
use super::values::Value;
use crate::error::Result;

/// Runs the body of a callback with the call's first `N` arguments. Missing arguments are `undefined`.
///
/// # Safety
/// `env` and `info` are those of the running call.
pub(super) unsafe fn run<const N: usize>(
    env: sys::napi_env,
    info: sys::napi_callback_info,
    body: impl FnOnce([Value; N]) -> Result<Value>,
) -> sys::napi_value {
    let (mut args, mut count) = ([ptr::null_mut(); N], N);
    // SAFETY: by this function's contract. N-API writes at most `count` arguments.
    unsafe {
        sys::napi_get_cb_info(env, info, &mut count, args.as_mut_ptr(), ptr::null_mut(), ptr::null_mut());
    }
    // Return only a pointer from the closure: moving a whole `Result` takes as long as finding a session.
    let result = catch_panic(|| {
        // SAFETY: the arguments are values of the running call.
        match body(args.map(|arg| unsafe { Value::new(env, arg) })) {
            Ok(value) => value.raw(),
            // SAFETY: by this function's contract.
            Err(error) => unsafe { throw(env, to_js(&error)) },
        }
    });
    // SAFETY: by this function's contract.
    result.unwrap_or_else(|error| unsafe { throw(env, error) })
}

/// Throws an error, and returns the value that the callback must return.
///
/// # Safety
/// `env` is that of the running call.
#[cold]
unsafe fn throw(env: sys::napi_env, error: JsError) -> sys::napi_value {
    // SAFETY: by this function's contract.
    unsafe { napi::JsError::from(error).throw_into(env) };
    ptr::null_mut()
}

/// Adds a function to the addon's exports.
///
/// # Safety
/// `env` is that of the running call, and `exports` one of its objects.
pub(super) unsafe fn export(
    env: sys::napi_env,
    exports: sys::napi_value,
    name: &std::ffi::CStr,
    callback: unsafe extern "C" fn(sys::napi_env, sys::napi_callback_info) -> sys::napi_value,
) -> napi::Result<()> {
    let mut function = ptr::null_mut();
    let name_len = name.count_bytes() as isize;
    // SAFETY: by this function's contract. `name` is a C string, `function` is writable.
    unsafe {
        napi::check_status!(sys::napi_create_function(
            env,
            name.as_ptr(),
            name_len,
            Some(callback),
            ptr::null_mut(),
            &mut function
        ))?;
        napi::check_status!(sys::napi_set_named_property(env, exports, name.as_ptr(), function))
    }
}
