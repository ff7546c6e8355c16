//! Delivers the results of calls to JavaScript, with one call of `settle` for each batch.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use napi::bindgen_prelude::{Float64Array, FnArgs, Function, ToNapiValue, TypeName};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Status, ValueType, sys};
use napi_derive::napi;

use super::errors::{code_of, refused_as_store_error};
use super::reply;
use super::values::Value;
use crate::error::{Result, StoreError};
use crate::store::redis::{Answers, Supply};
use crate::store::{Answer, Completions, StoredSession};

/// A failed call.
#[napi(object, object_from_js = false)]
pub struct JsFailure {
    pub ticket: u32,
    pub code: String,
    pub message: String,
}

impl JsFailure {
    pub(super) fn new(ticket: u32, error: &StoreError) -> Self {
        Self { ticket, code: code_of(error).into(), message: error.to_string() }
    }
}

/// Completed calls.
#[derive(Default)]
struct Batch {
    /// Alternating ticket and result. A negative result belongs to a `get`: `NOTHING`, or the index of its text.
    done: Vec<f64>,
    failures: Vec<JsFailure>,
    texts: Vec<Text>,
    /// Connections or slots for the fast path.
    supply: Option<Supply>,
}

/// The result of a `get` that found nothing. The text at `index` has the result `NOTHING - 1 - index`.
pub(super) const NOTHING: f64 = -1.0;

impl Batch {
    fn with_room_for(calls: usize) -> Self {
        Self { done: Vec::with_capacity(2 * calls), ..Self::default() }
    }

    fn add(&mut self, ticket: u32, number: f64) {
        self.done.extend([f64::from(ticket), number]);
    }

    fn add_failure(&mut self, ticket: u32, error: &StoreError) {
        self.failures.push(JsFailure::new(ticket, error));
    }

    fn add_session(&mut self, ticket: u32, session: Option<StoredSession>) {
        let Some(session) = session else { return self.add(ticket, NOTHING) };
        match session.content() {
            Ok(content) => {
                let mut text = Vec::new();
                reply::write(session.expires, content, &mut text);
                self.texts.push(Text(text));
                self.add(ticket, NOTHING - self.texts.len() as f64);
            }
            Err(error) => self.add_failure(ticket, &error),
        }
    }
}

/// A reply with a session, as a JavaScript string.
pub(super) struct Text(Vec<u8>);

impl TypeName for Text {
    fn type_name() -> &'static str {
        "string"
    }

    fn value_type() -> ValueType {
        ValueType::String
    }
}

impl ToNapiValue for Text {
    unsafe fn to_napi_value(env: sys::napi_env, text: Self) -> napi::Result<sys::napi_value> {
        match Value::string(env, &text.0) {
            Ok(value) => Ok(value.raw()),
            Err(error) => Err(napi::Error::from_reason(error.to_string())),
        }
    }
}

/// Returns the tickets of completed calls.
pub(super) fn tickets_of(done: &[f64], failures: &[JsFailure]) -> impl Iterator<Item = u32> {
    let done = done.iter().step_by(2).map(|&ticket| ticket as u32);
    done.chain(failures.iter().map(|failure| failure.ticket))
}

/// `settle(done: Float64Array, length: number, failures: JsFailure[], texts: string[])`: `done` has `length` items,
/// alternating ticket and result. `failures` are the failed calls. `texts` are replies of `get`, and the results index
/// them.
pub(super) type SettleArgs = FnArgs<(Float64Array, u32, Vec<JsFailure>, Vec<Text>)>;
type Settle = ThreadsafeFunction<Batch, (), SettleArgs, Status, false, true>;

/// The tickets of a store in one JavaScript thread. Issued tickets keep the event loop of that thread alive.
pub(super) struct Tickets {
    free: RefCell<Vec<u32>>,
    issued: Cell<u32>,
    out: Cell<u32>,
    settle: Cell<sys::napi_threadsafe_function>,
    listener: RefCell<Option<Weak<dyn CompletionListener>>>,
}

/// Receives the tickets of calls that the worker completed, on the JavaScript thread.
pub(super) trait CompletionListener {
    fn on_completed(self: Rc<Self>, ended: &mut dyn Iterator<Item = u32>, supply: Option<Supply>);
}

impl Tickets {
    /// Runs `begin` with a ticket. The ticket is freed if `begin` fails or does not need it.
    pub(super) fn with(
        &self,
        env: sys::napi_env,
        begin: impl FnOnce(u32) -> Result<bool>,
    ) -> Result<Option<u32>> {
        let ticket =
            self.free.borrow_mut().pop().unwrap_or_else(|| self.issued.replace(self.issued.get() + 1));
        let result = begin(ticket);
        if !matches!(result, Ok(true)) {
            self.free.borrow_mut().push(ticket);
            return result.map(|_| None);
        }
        if self.out.replace(self.out.get() + 1) == 0 {
            // SAFETY: this is its JavaScript thread, and the handle that owns these tickets keeps it alive.
            unsafe { sys::napi_ref_threadsafe_function(env, self.settle.get()) };
        }
        Ok(Some(ticket))
    }

    pub(super) fn set_listener(&self, listener: Weak<dyn CompletionListener>) {
        *self.listener.borrow_mut() = Some(listener);
    }

    pub(super) fn take_back(&self, env: sys::napi_env, done: &[f64], failures: &[JsFailure]) {
        self.free.borrow_mut().extend(tickets_of(done, failures));
        self.out.set(self.out.get() - (done.len() / 2 + failures.len()) as u32);
        if self.out.get() == 0 {
            // SAFETY: this is its JavaScript thread, in a running call.
            unsafe { sys::napi_unref_threadsafe_function(env, self.settle.get()) };
        }
    }
}

/// Reports completions to JavaScript.
pub(super) struct Settler(Settle);

impl Settler {
    fn report(&self, batch: Batch) {
        // Fails if the JavaScript environment has ended. Nobody waits then.
        self.0.call(batch, ThreadsafeFunctionCallMode::NonBlocking);
    }
}

impl Completions for Settler {
    fn complete(&self, done: Vec<(u32, Result<Answer>)>) {
        let mut batch = Batch::with_room_for(done.len());
        for (ticket, answer) in done {
            match answer {
                Ok(Answer::Number(number)) => batch.add(ticket, number as f64),
                Ok(Answer::Session(session)) => batch.add_session(ticket, session),
                Err(error) => batch.add_failure(ticket, &error),
            }
        }
        self.report(batch);
    }
}

impl Answers for Settler {
    fn supply(&self, supply: Supply) {
        self.report(Batch { supply: Some(supply), ..Batch::default() });
    }
}

/// Creates the tickets of a store, and the settler that reports completions by calling `settle`.
pub(super) fn tickets(settle: &Function<'_, SettleArgs, ()>) -> Result<(Rc<Tickets>, Arc<Settler>)> {
    let tickets = Rc::new(Tickets {
        free: RefCell::default(),
        issued: Cell::new(0),
        out: Cell::new(0),
        settle: Cell::new(ptr::null_mut()),
        listener: RefCell::default(),
    });
    let issuer = Rc::clone(&tickets);
    let settle = settle
        .build_threadsafe_function::<Batch>()
        .weak::<true>()
        .callee_handled::<false>()
        .build_callback(move |context| {
            let Batch { done, failures, texts, supply } = context.value;
            issuer.take_back(context.env.raw(), &done, &failures);
            let listener = issuer.listener.borrow().as_ref().and_then(Weak::upgrade);
            if let Some(listener) = listener {
                listener.on_completed(&mut tickets_of(&done, &failures), supply);
            }
            let length = done.len() as u32;
            Ok(FnArgs::from((Float64Array::new(done), length, failures, texts)))
        })
        .map_err(refused_as_store_error)?;
    tickets.settle.set(settle.raw());
    Ok((tickets, Arc::new(Settler(settle))))
}
