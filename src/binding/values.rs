//! JavaScript values as arguments. They are read on the stack. An error says which kind of value was given.

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::ptr;

use napi::bindgen_prelude::{FromNapiValue, ToNapiValue, TypeName, ValidateNapiValue};
use napi::{ValueType, sys};

use crate::error::{Result, StoreError};
use crate::session::{MAX_ID_BYTES, SessionId};

/// The buffer for a text of up to `max` bytes: one more character of up to 4 bytes, to detect a longer text, and
/// N-API's final NUL.
pub(super) const fn buffer_len(max: usize) -> usize {
    max + 4 + 1
}

/// A value of N-API, valid during a call. Taking one is free. Each read checks its type.
#[derive(Clone, Copy)]
pub(super) struct Value {
    env: sys::napi_env,
    value: sys::napi_value,
}

impl TypeName for Value {
    fn type_name() -> &'static str {
        "unknown"
    }

    fn value_type() -> ValueType {
        ValueType::Unknown
    }
}

impl ValidateNapiValue for Value {}

impl FromNapiValue for Value {
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> napi::Result<Self> {
        Ok(Self { env, value })
    }
}

impl ToNapiValue for Value {
    unsafe fn to_napi_value(_: sys::napi_env, this: Self) -> napi::Result<sys::napi_value> {
        Ok(this.value)
    }
}

impl Value {
    /// # Safety
    /// `value` belongs to the running call in `env`, and the result is not kept after that call.
    pub(super) unsafe fn new(env: sys::napi_env, value: sys::napi_value) -> Self {
        Self { env, value }
    }

    pub(super) fn boolean(env: sys::napi_env, boolean: bool) -> Result<Self> {
        let mut value = ptr::null_mut();
        // SAFETY: `env` is that of the running call, `value` is writable.
        let status = unsafe { sys::napi_get_boolean(env, boolean, &mut value) };
        Self::checked(env, value, status)
    }

    pub(super) fn integer(env: sys::napi_env, integer: u32) -> Result<Self> {
        let mut value = ptr::null_mut();
        // SAFETY: `env` is that of the running call, `value` is writable.
        let status = unsafe { sys::napi_create_uint32(env, integer, &mut value) };
        Self::checked(env, value, status)
    }

    pub(super) fn float(env: sys::napi_env, float: f64) -> Result<Self> {
        let mut value = ptr::null_mut();
        // SAFETY: `env` is that of the running call, `value` is writable.
        let status = unsafe { sys::napi_create_double(env, float, &mut value) };
        Self::checked(env, value, status)
    }

    pub(super) fn null(env: sys::napi_env) -> Result<Self> {
        let mut value = ptr::null_mut();
        // SAFETY: `env` is that of the running call, `value` is writable.
        let status = unsafe { sys::napi_get_null(env, &mut value) };
        Self::checked(env, value, status)
    }

    /// A new JavaScript string of UTF-8 bytes.
    pub(super) fn string(env: sys::napi_env, text: &[u8]) -> Result<Self> {
        let mut value = ptr::null_mut();
        let (text_ptr, len) = (text.as_ptr().cast::<c_char>(), text.len() as isize);
        // SAFETY: `env` is that of the running call, the pointer and length are those of a slice, `value` is writable.
        // N-API copies the bytes.
        let status = unsafe {
            // ASCII needs no decoding.
            if text.is_ascii() {
                sys::napi_create_string_latin1(env, text_ptr, len, &mut value)
            } else {
                sys::napi_create_string_utf8(env, text_ptr, len, &mut value)
            }
        };
        Self::checked(env, value, status)
    }

    fn checked(env: sys::napi_env, value: sys::napi_value, status: sys::napi_status) -> Result<Self> {
        if status == sys::Status::napi_ok {
            Ok(Self { env, value })
        } else {
            Err(StoreError::Internal("Node-API could not make a value".into()))
        }
    }

    pub(super) fn env(self) -> sys::napi_env {
        self.env
    }

    pub(super) fn raw(self) -> sys::napi_value {
        self.value
    }

    /// Reads a session id for a lookup. Returns `false` for a string that is longer than any id: a cookie may hold one.
    ///
    /// # Errors
    /// `InvalidSession` for any other invalid id.
    #[inline]
    pub(super) fn read_lookup_id(self, id: &mut SessionId) -> Result<bool> {
        match self.read_session_id(id) {
            Err(_) if self.utf8_len().is_some_and(|len| len > MAX_ID_BYTES) => Ok(false),
            read => read.map(|()| true),
        }
    }

    /// # Errors
    /// As for `read_session_id`.
    pub(super) fn session_id(self) -> Result<SessionId> {
        let mut id = SessionId::unset();
        self.read_session_id(&mut id).map(|()| id)
    }

    /// # Errors
    /// `InvalidSession` if the value cannot be a session id.
    #[inline]
    pub(super) fn read_session_id(self, id: &mut SessionId) -> Result<()> {
        let mut buffer = [MaybeUninit::uninit(); buffer_len(MAX_ID_BYTES)];
        let Some(text) = self.read_utf8(&mut buffer) else { return Err(SessionId::invalid(self.kind())) };
        if !id.set_hex(text) {
            *id = self.text_id(text)?;
        }
        Ok(())
    }

    /// Reads an id that is not hexadecimal. `text` is what fitted into the buffer.
    fn text_id(self, text: &[u8]) -> Result<SessionId> {
        if text.len() > MAX_ID_BYTES {
            return Err(SessionId::invalid("a longer string"));
        }
        let text =
            self.well_formed(text).ok_or_else(|| SessionId::invalid("a string with a lone surrogate"))?;
        SessionId::new(text)
    }

    /// Reads a well-formed string as UTF-8, after a `first` byte. Returns `None` for any other value, and for a string
    /// that does not fit.
    pub(super) fn read_prefixed(self, first: u8, buffer: &mut [MaybeUninit<u8>]) -> Option<&[u8]> {
        let (before, behind) = buffer.split_first_mut()?;
        before.write(first);
        let room = behind.len();
        let text = self.read_utf8(behind)?;
        let len = self.well_formed(text).filter(|text| buffer_len(text.len()) <= room)?.len();
        // SAFETY: the first byte was written here, and the rest by `read_utf8`.
        Some(unsafe { written(&buffer[..1 + len]) })
    }

    /// Returns the length of a string in UTF-8 bytes, or `None` for any other value.
    pub(super) fn utf8_len(self) -> Option<usize> {
        let mut len = 0;
        // SAFETY: `self` is a value of the running call. Without a buffer, N-API only writes the length.
        let status =
            unsafe { sys::napi_get_value_string_utf8(self.env, self.value, ptr::null_mut(), 0, &mut len) };
        (status == sys::Status::napi_ok).then_some(len)
    }

    /// Reads a whole string with the given `utf8_len`. It must be well-formed, which the result of `JSON.stringify` is.
    pub(super) fn long_text(self, len: usize, buffer: &mut Vec<u8>) -> Option<&str> {
        buffer.clear();
        buffer.reserve(len + 1);
        let text = self.read_utf8(buffer.spare_capacity_mut())?;
        std::str::from_utf8(text).ok()
    }

    /// Returns the value as a number, or `None` for any other value.
    pub(super) fn number(self) -> Option<f64> {
        let mut number = 0.0;
        // SAFETY: `self` is a value of the running call, `number` is writable.
        let status = unsafe { sys::napi_get_value_double(self.env, self.value, &mut number) };
        (status == sys::Status::napi_ok).then_some(number)
    }

    pub(super) fn is_true(self) -> bool {
        let mut boolean = false;
        // SAFETY: `self` is a value of the running call, `boolean` is writable.
        let status = unsafe { sys::napi_get_value_bool(self.env, self.value, &mut boolean) };
        status == sys::Status::napi_ok && boolean
    }

    pub(super) fn is_undefined(self) -> bool {
        self.value_type() == ValueType::Undefined
    }

    /// Describes the type of the value without its content.
    pub(super) fn kind(self) -> &'static str {
        match self.value_type() {
            ValueType::Undefined => "undefined",
            ValueType::Null => "null",
            ValueType::Boolean => "a boolean",
            ValueType::Number => "a number",
            ValueType::String => "a string",
            ValueType::Symbol => "a symbol",
            ValueType::Function => "a function",
            ValueType::BigInt => "a BigInt",
            _ => "an object",
        }
    }

    fn value_type(self) -> ValueType {
        let mut value_type = 0;
        // SAFETY: `self` is a value of the running call, `value_type` is writable.
        unsafe { sys::napi_typeof(self.env, self.value, &mut value_type) };
        ValueType::from(value_type)
    }

    /// Reads as many whole characters as fit into the buffer with a NUL. Returns `None` if the value is not a string.
    #[inline]
    pub(super) fn read_utf8(self, buffer: &mut [MaybeUninit<u8>]) -> Option<&[u8]> {
        let mut len = 0;
        // SAFETY: `self` is a value of the running call. N-API writes within the buffer's length.
        let status = unsafe {
            let buffer_ptr = buffer.as_mut_ptr().cast::<c_char>();
            sys::napi_get_value_string_utf8(self.env, self.value, buffer_ptr, buffer.len(), &mut len)
        };
        // SAFETY: N-API has written `len` bytes.
        (status == sys::Status::napi_ok).then(|| unsafe { written(&buffer[..len]) })
    }

    /// Returns the text that was read, if the value is well-formed: N-API reads a lone surrogate as U+FFFD.
    fn well_formed(self, read: &[u8]) -> Option<&str> {
        let text = std::str::from_utf8(read).ok()?;
        (text.is_ascii() || !text.contains('\u{fffd}') || self.is_well_formed()).then_some(text)
    }

    fn is_well_formed(self) -> bool {
        let mut len = 0;
        // SAFETY: as in `utf8_len`.
        unsafe { sys::napi_get_value_string_utf16(self.env, self.value, ptr::null_mut(), 0, &mut len) };
        let mut units = vec![0; len + 1];
        // SAFETY: as in `read_utf8`.
        unsafe {
            sys::napi_get_value_string_utf16(self.env, self.value, units.as_mut_ptr(), units.len(), &mut len)
        };
        char::decode_utf16(units[..len].iter().copied()).all(|unit| unit.is_ok())
    }
}

/// Returns the initialized bytes of a buffer.
///
/// # Safety
/// All of them have been written.
unsafe fn written(bytes: &[MaybeUninit<u8>]) -> &[u8] {
    // SAFETY: by this function's contract. The types have the same layout.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
}
