//! An owned copy of a session, on its way to the worker.

use crate::clock::Millis;
use crate::session::{
    Body, Content, ExpiresForm, Expiry, FieldOrder, Session, SessionId, UserKey, UserKeyBuf,
};

pub struct NewSession {
    pub id: SessionId,
    pub expires: Expiry,
    /// The creation time, if it is not now.
    pub created_at: Option<Millis>,
    user: Option<UserKeyBuf>,
    body: NewBody,
}

enum NewBody {
    Plain(FieldOrder),
    Json { text: Box<str>, expires: ExpiresForm },
}

impl NewSession {
    pub fn new(session: &Session<'_>) -> Self {
        let body = match session.content.body {
            Body::Plain(order) => NewBody::Plain(order),
            Body::Json { text, expires } => NewBody::Json { text: text.into(), expires },
        };
        let user = session.content.user.map(UserKey::to_buf);
        Self { id: session.id.clone(), expires: session.expires, created_at: None, user, body }
    }

    pub fn user(&self) -> Option<UserKey<'_>> {
        self.user.as_ref().map(UserKeyBuf::as_key)
    }

    /// The approximate size in bytes.
    pub fn len(&self) -> usize {
        let user = self.user().map_or(0, |user| user.as_bytes().len());
        match &self.body {
            NewBody::Plain(_) => self.id.text_len() + 2 * user,
            NewBody::Json { text, .. } => text.len() + user,
        }
    }

    pub fn content(&self) -> Content<'_> {
        let body = match &self.body {
            NewBody::Plain(order) => Body::Plain(*order),
            NewBody::Json { text, expires } => Body::Json { text, expires: *expires },
        };
        Content { user: self.user(), body }
    }
}
