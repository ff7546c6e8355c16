//! The app's function for credentials, which is asked at each connection.

use napi::Status;
use napi::bindgen_prelude::{External, FnArgs, Function};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;
use parking_lot::Mutex;

use super::errors::refused_as_store_error;
use crate::error::Result;
use crate::store::redis::{Credentials, CredentialsProvider, CredentialsSender};

/// A request for credentials. The connection fails if it is collected unanswered.
pub struct CredentialsRequest(Mutex<Option<CredentialsSender>>);

impl CredentialsRequest {
    fn answer(&self, answer: std::result::Result<Credentials, String>) {
        if let Some(sender) = self.0.lock().take() {
            // It fails where the connection was given up meanwhile.
            let _ = sender.send(answer);
        }
    }
}

/// `ask(request)`, which may be in JavaScript for as long as it likes. It does not keep the event loop going.
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
        // It fails where JavaScript has gone, and the sender with it.
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

/// Answers a request for credentials of which there are none: why.
#[napi(ts_args_type = "request: object, reason: string")]
pub fn refuse_credentials(request: &External<CredentialsRequest>, reason: String) {
    request.answer(Err(reason));
}
