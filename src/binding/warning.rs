//! Calls from a store to a function of the app's thread, with a text.

use napi::Status;
use napi::bindgen_prelude::{FnArgs, Function};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};

use super::errors::refused_as_store_error;
use crate::error::Result;

/// The arguments of `warn(reason: string)` and `differ(limits: string)`.
pub(super) type WarnArgs = FnArgs<(String,)>;

/// A JavaScript function that is called later. It does not keep the event loop alive.
pub(super) struct Warn(ThreadsafeFunction<String, (), WarnArgs, Status, false, true>);

impl Warn {
    pub(super) fn new(warn: &Function<'_, WarnArgs, ()>) -> Result<Self> {
        let warn = warn
            .build_threadsafe_function::<String>()
            .weak::<true>()
            .callee_handled::<false>()
            .build_callback(|context| Ok(FnArgs::from((context.value,))));
        warn.map(Self).map_err(refused_as_store_error)
    }

    pub(super) fn call(&self, reason: String) {
        // Fails if the JavaScript environment has ended.
        self.0.call(reason, ThreadsafeFunctionCallMode::NonBlocking);
    }
}
