//! Encodes a session as one JavaScript string, which `lib/session-codec.js` decodes.
//!
//! | first character | what follows | the session |
//! |---|---|---|
//! | `e` · `u` | 24 characters of ISO text, the user's text | plain, `expires` · `userId` named first |
//! | `E` · `U` | the same, with 27 characters of ISO text | the same, in a year beyond 9999 |
//! | `{` | the rest of its JSON text | any other |
//! | `T` · `N` | the expiry in milliseconds, the whole JSON text | any other, moved by `touch`: `expires` is ISO text ·
//! a number |

use std::io::Write;

use crate::iso;
use crate::session::{Body, Content, ExpiresForm, Expiry, FieldOrder, UserKey};

/// Appends the reply.
pub(super) fn write(expires: Expiry, content: Content<'_>, out: &mut Vec<u8>) {
    match content.body {
        Body::Plain(order) => {
            let start = out.len();
            out.push(if order == FieldOrder::ExpiresFirst { b'e' } else { b'u' });
            iso::write(expires.millis(), out);
            if out.len() - start > 1 + 24 {
                out[start].make_ascii_uppercase();
            }
            out.extend_from_slice(content.user.and_then(UserKey::text).unwrap_or_default());
        }
        Body::Json { text, expires: form } => {
            if expires.was_moved() {
                out.push(if form == ExpiresForm::Text { b'T' } else { b'N' });
                // Writing to a `Vec` cannot fail.
                let _ = write!(out, "{}", expires.millis());
            }
            out.extend_from_slice(text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::UserKeyBuf;

    fn reply(expires: Expiry, content: Content<'_>) -> String {
        let mut out = Vec::new();
        write(expires, content, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_plain_session_is_its_expiry_and_user() {
        let user = UserKeyBuf::from_text("ann");
        let content = |order| Content { user: Some(user.as_key()), body: Body::Plain(order) };
        let (first, far) = (Expiry::new(0).unwrap(), Expiry::moved_to(iso::MAX_MILLIS).unwrap());
        assert_eq!(reply(first, content(FieldOrder::ExpiresFirst)), "e1970-01-01T00:00:00.000Zann");
        assert_eq!(reply(far, content(FieldOrder::UserFirst)), "U+275760-09-13T00:00:00.000Zann");
    }

    #[test]
    fn any_other_session_is_its_json_with_a_moved_expiry() {
        let content = |expires| Content { user: None, body: Body::Json { text: "{}", expires } };
        assert_eq!(reply(Expiry::new(5).unwrap(), content(ExpiresForm::Text)), "{}");
        assert_eq!(reply(Expiry::moved_to(5).unwrap(), content(ExpiresForm::Text)), "T5{}");
        assert_eq!(reply(Expiry::moved_to(-5).unwrap(), content(ExpiresForm::Number)), "N-5{}");
    }
}
