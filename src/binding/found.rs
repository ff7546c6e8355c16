//! The sessions that `getByUser` found, which JavaScript takes in parts: converting all of them at once would hold up the
//! event loop.

use std::vec;

use napi::bindgen_prelude::External;
use napi_derive::napi;
use parking_lot::Mutex;

use super::errors::{JsError, guarded};
use super::reply;
use crate::scratch::with_buffer;
use crate::store::StoredSession;

/// A part has so many sessions at most, and ends after so many bytes of text.
const PART: usize = 256;
const PART_BYTES: usize = 256 << 10;

pub struct Found(Mutex<vec::IntoIter<StoredSession>>);

impl Found {
    pub(super) fn new(sessions: Vec<StoredSession>) -> Self {
        Self(Mutex::new(sessions.into_iter()))
    }
}

/// Some of the sessions: the id of each, and after it the session as `get` gives it.
#[napi(object, object_from_js = false)]
pub struct JsFound {
    pub texts: Vec<String>,
    pub is_last: bool,
}

/// Takes the next sessions.
#[napi(ts_args_type = "found: object")]
pub fn take_found(found: &External<Found>) -> Result<JsFound, JsError> {
    guarded(|| {
        let mut sessions = found.0.lock();
        let (mut texts, mut bytes) = (Vec::new(), 0);
        for session in sessions.by_ref().take(PART) {
            let content = session.content()?;
            let text = with_buffer(|out| {
                reply::write(session.expires, content, out);
                String::from_utf8_lossy(out).into_owned()
            });
            bytes += text.len();
            texts.extend([session.id.to_string(), text]);
            if bytes >= PART_BYTES {
                break;
            }
        }
        Ok(JsFound { texts, is_last: sessions.as_slice().is_empty() })
    })
}
