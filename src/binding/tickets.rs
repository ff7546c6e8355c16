//! The ends of writes, on their way to JavaScript: one call of `settle` for each batch.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

use napi::bindgen_prelude::{Float64Array, FnArgs, Function};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Status, sys};
use napi_derive::napi;

use super::errors::refused_as_store_error;
use crate::error::Result;
use crate::store::file::Completions;

/// A write that was refused.
#[napi(object, object_from_js = false)]
pub struct JsFailure {
    pub ticket: u32,
    pub code: String,
    pub message: String,
}

type Done = Vec<(u32, Result<u64>)>;

/// `settle(done: Float64Array, failures: JsFailure[])`: tickets and numbers by turns, and what was refused.
pub(super) type SettleArgs = FnArgs<(Float64Array, Vec<JsFailure>)>;
type Settle = ThreadsafeFunction<Done, (), SettleArgs, Status, false, true>;

/// The tickets of a store in one JavaScript thread. While one is out, that thread's event loop goes on.
pub(super) struct Tickets {
    free: RefCell<Vec<u32>>,
    issued: Cell<u32>,
    out: Cell<u32>,
    settle: Cell<sys::napi_threadsafe_function>,
}

impl Tickets {
    /// Runs `begin` with a ticket, which is given back if it fails or does not need it.
    pub(super) fn with(
        &self,
        env: sys::napi_env,
        begin: impl FnOnce(u32) -> Result<bool>,
    ) -> Result<Option<u32>> {
        let ticket =
            self.free.borrow_mut().pop().unwrap_or_else(|| self.issued.replace(self.issued.get() + 1));
        let begun = begin(ticket);
        if !matches!(begun, Ok(true)) {
            self.free.borrow_mut().push(ticket);
            return begun.map(|_| None);
        }
        if self.out.replace(self.out.get() + 1) == 0 {
            // SAFETY: this is its JavaScript thread, and the handle that owns these tickets keeps it.
            unsafe { sys::napi_ref_threadsafe_function(env, self.settle.get()) };
        }
        Ok(Some(ticket))
    }

    fn take_back(&self, env: sys::napi_env, done: &Done) {
        self.free.borrow_mut().extend(done.iter().map(|(ticket, _)| *ticket));
        self.out.set(self.out.get() - done.len() as u32);
        if self.out.get() == 0 {
            // SAFETY: this is its JavaScript thread, in a call of it.
            unsafe { sys::napi_unref_threadsafe_function(env, self.settle.get()) };
        }
    }
}

/// Tells JavaScript.
pub(super) struct Settler(Settle);

impl Completions for Settler {
    fn complete(&self, done: Done) {
        // It fails where JavaScript has gone, and no one waits.
        self.0.call(done, ThreadsafeFunctionCallMode::NonBlocking);
    }
}

/// The tickets of a store, and what tells of their ends by calling `settle`.
pub(super) fn tickets(settle: &Function<'_, SettleArgs, ()>) -> Result<(Rc<Tickets>, Arc<dyn Completions>)> {
    let tickets = Rc::new(Tickets {
        free: RefCell::default(),
        issued: Cell::new(0),
        out: Cell::new(0),
        settle: Cell::new(ptr::null_mut()),
    });
    let issuer = Rc::clone(&tickets);
    let settle = settle
        .build_threadsafe_function::<Done>()
        .weak::<true>()
        .callee_handled::<false>()
        .build_callback(move |context| {
            issuer.take_back(context.env.raw(), &context.value);
            let (mut done, mut failures) = (Vec::with_capacity(2 * context.value.len()), Vec::new());
            for (ticket, outcome) in context.value {
                match outcome {
                    Ok(number) => done.extend([f64::from(ticket), number as f64]),
                    Err(error) => failures.push(JsFailure {
                        ticket,
                        code: error.code().into(),
                        message: error.to_string(),
                    }),
                }
            }
            Ok(FnArgs::from((Float64Array::new(done), failures)))
        })
        .map_err(refused_as_store_error)?;
    tickets.settle.set(settle.raw());
    Ok((tickets, Arc::new(Settler(settle))))
}
