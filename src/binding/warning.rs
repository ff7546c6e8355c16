//! What a store tells an app that has not asked.

use napi::Status;
use napi::bindgen_prelude::{FnArgs, Function};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};

use super::errors::refused_as_store_error;
use crate::error::Result;

/// `warn(reason: string)`, and likewise `differ(limits: string)`.
pub(super) type WarnArgs = FnArgs<(String,)>;

/// The app's function, which is called later. It does not keep the event loop going.
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
        // It fails where JavaScript has gone.
        self.0.call(reason, ThreadsafeFunctionCallMode::NonBlocking);
    }
}
