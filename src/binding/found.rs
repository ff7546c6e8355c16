//! Sessions that a call found. JavaScript takes them in parts: converting all of them in one go would block the event
//! loop.

use std::vec;

use napi::bindgen_prelude::{External, Float64Array, Uint8Array};
use napi_derive::napi;
use parking_lot::Mutex;

use super::errors::{JsError, guarded};
use super::reply;
use crate::scratch::with_buffer;
use crate::store::{MAX_PAGE_BYTES, MAX_PAGE_SESSIONS, Page, StoredSession};

/// The sessions of a user, or a page of all sessions.
pub struct Found(Mutex<vec::IntoIter<StoredSession>>);

impl Found {
    pub(super) fn new(sessions: Vec<StoredSession>) -> Self {
        Self(Mutex::new(sessions.into_iter()))
    }
}

/// A part of the sessions. `texts` alternates between an id and the session in the form of `get`. `created` has their
/// creation times in milliseconds, or NaN.
#[napi(object, object_from_js = false)]
pub struct JsFound {
    pub texts: Vec<String>,
    pub created: Float64Array,
    pub is_last: bool,
}

/// A page of all sessions, and the cursor of the next page. The last page has no `next`.
#[napi(object, object_from_js = false)]
pub struct JsPage {
    #[napi(ts_type = "object")]
    pub found: External<Found>,
    pub unreadable: f64,
    pub next: Option<Uint8Array>,
}

impl From<Page> for JsPage {
    fn from(page: Page) -> Self {
        Self {
            found: External::new(Found::new(page.sessions)),
            unreadable: page.unreadable as f64,
            next: page.next.map(|next| Uint8Array::from(next.as_bytes())),
        }
    }
}

/// Takes the next sessions.
#[napi(ts_args_type = "found: object")]
pub fn take_found(found: &External<Found>) -> Result<JsFound, JsError> {
    guarded(|| {
        let mut sessions = found.0.lock();
        let (mut texts, mut created, mut bytes) = (Vec::new(), Vec::new(), 0);
        for session in sessions.by_ref().take(MAX_PAGE_SESSIONS) {
            let content = session.content()?;
            let text = with_buffer(|out| {
                reply::write(session.expires, content, out);
                String::from_utf8_lossy(out).into_owned()
            });
            bytes += text.len();
            texts.extend([session.id.to_string(), text]);
            created.push(session.created.map_or(f64::NAN, |created| created as f64));
            if bytes >= MAX_PAGE_BYTES {
                break;
            }
        }
        Ok(JsFound { texts, created: created.into(), is_last: sessions.as_slice().is_empty() })
    })
}

/// Drops the sessions that were not taken.
#[napi(ts_args_type = "found: object")]
pub fn drop_found(found: &External<Found>) -> Result<(), JsError> {
    guarded(|| {
        *found.0.lock() = Vec::new().into_iter();
        Ok(())
    })
}
