//! Calls the app's `credentials` function for each new connection.

use napi::Status;
use napi::bindgen_prelude::{External, FnArgs, Function};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;
use parking_lot::Mutex;

use super::errors::refused_as_store_error;
use crate::error::Result;
use crate::store::redis::{Credentials, CredentialsProvider, CredentialsSender};

/// A request for credentials. If it is garbage collected without an answer, the attempt to connect fails.
pub struct CredentialsRequest(Mutex<Option<CredentialsSender>>);

impl CredentialsRequest {
    fn answer(&self, answer: std::result::Result<Credentials, String>) {
        if let Some(sender) = self.0.lock().take() {
            // Fails if the attempt to connect has ended. Nobody waits then.
            let _ = sender.send(answer);
        }
    }
}

/// `ask(request)`: JavaScript may answer at any later time. A pending request does not keep the event loop alive.
pub(super) type AskArgs = FnArgs<(External<CredentialsRequest>,)>;

pub(super) struct JsCredentialsProvider(
    ThreadsafeFunction<CredentialsSender, (), AskArgs, Status, false, true>,
);

impl JsCredentialsProvider {
    pub(super) fn new(ask: &Function<'_, AskArgs, ()>) -> Result<Self> {
        let ask = ask
            .build_threadsafe_function::<CredentialsSender>()
            .weak::<true>()
            .callee_handled::<false>()
            .build_callback(|context| {
                Ok(FnArgs::from((External::new(CredentialsRequest(Mutex::new(Some(context.value)))),)))
            });
        ask.map(Self).map_err(refused_as_store_error)
    }
}

impl CredentialsProvider for JsCredentialsProvider {
    fn ask(&self, sender: CredentialsSender) {
        // Fails if the JavaScript environment has ended. That drops the sender.
        self.0.call(sender, ThreadsafeFunctionCallMode::NonBlocking);
    }
}

/// Answers a request for credentials.
#[napi(ts_args_type = "request: object, username: string | undefined, password: string")]
pub fn answer_credentials(
    request: &External<CredentialsRequest>,
    username: Option<String>,
    password: String,
) {
    request.answer(Ok(Credentials { username, password: password.into() }));
}

/// Answers a request for credentials with the reason why there are none.
#[napi(ts_args_type = "request: object, reason: string")]
pub fn refuse_credentials(request: &External<CredentialsRequest>, reason: String) {
    request.answer(Err(reason));
}
