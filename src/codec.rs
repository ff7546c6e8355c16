//! Encodes and decodes the content of a record. The layout has a version.
//!
//! Version 1: one byte with version and form, the length of the user key (LEB128), the user key, the body. A plain
//! session has an empty body: its id and expiry are stored elsewhere, and its user is the user key.

use crate::error::{Result, StoreError};
use crate::session::{Body, Content, ExpiresForm, FieldOrder, UserKey};

const VERSION: u8 = 1;
const VERSION_SHIFT: u32 = 4;

const PLAIN_EXPIRES_FIRST: u8 = 0;
const PLAIN_USER_FIRST: u8 = 1;
const JSON_EXPIRES_TEXT: u8 = 2;
const JSON_EXPIRES_NUMBER: u8 = 3;

/// Appends the content's bytes.
pub fn encode(content: &Content<'_>, out: &mut Vec<u8>) {
    let (form, body) = match content.body {
        Body::Plain(FieldOrder::ExpiresFirst) => (PLAIN_EXPIRES_FIRST, ""),
        Body::Plain(FieldOrder::UserFirst) => (PLAIN_USER_FIRST, ""),
        Body::Json { text, expires: ExpiresForm::Text } => (JSON_EXPIRES_TEXT, text),
        Body::Json { text, expires: ExpiresForm::Number } => (JSON_EXPIRES_NUMBER, text),
    };
    let user = content.user.map_or(&[][..], UserKey::as_bytes);
    out.push(VERSION << VERSION_SHIFT | form);
    write_len(user.len(), out);
    out.extend_from_slice(user);
    out.extend_from_slice(body.as_bytes());
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// `Corrupt` for any other bytes.
#[inline]
pub fn decode(bytes: &[u8]) -> Result<Content<'_>> {
    let (user, form, body) = split(bytes)?;
    let text = || std::str::from_utf8(body).map_err(|_| StoreError::Corrupt("its JSON is not UTF-8"));
    let body = match form {
        PLAIN_EXPIRES_FIRST => Body::Plain(FieldOrder::ExpiresFirst),
        PLAIN_USER_FIRST => Body::Plain(FieldOrder::UserFirst),
        JSON_EXPIRES_TEXT => Body::Json { text: text()?, expires: ExpiresForm::Text },
        JSON_EXPIRES_NUMBER => Body::Json { text: text()?, expires: ExpiresForm::Number },
        _ => return Err(StoreError::Corrupt("its form is unknown")),
    };
    Ok(Content { user, body })
}

/// Reads only the user, without decoding the body.
///
/// # Errors
/// As for [`decode`].
pub fn decode_user(bytes: &[u8]) -> Result<Option<UserKey<'_>>> {
    split(bytes).map(|(user, _, _)| user)
}

const CUT_SHORT: StoreError = StoreError::Corrupt("it is cut short");

type Parts<'a> = (Option<UserKey<'a>>, u8, &'a [u8]);

#[inline]
fn split(bytes: &[u8]) -> Result<Parts<'_>> {
    let Some((&head, rest)) = bytes.split_first() else { return Err(CUT_SHORT) };
    if head >> VERSION_SHIFT != VERSION {
        return Err(StoreError::Corrupt("its version is unknown"));
    }
    let user_and_body = read_len(rest).and_then(|(len, rest)| rest.split_at_checked(len));
    let Some((user, body)) = user_and_body else { return Err(CUT_SHORT) };
    let form = head & ((1 << VERSION_SHIFT) - 1);
    Ok(((!user.is_empty()).then(|| UserKey::from_bytes(user)), form, body))
}

/// Appends a length as LEB128: seven bits a byte, the lowest first.
pub(crate) fn write_len(mut len: usize, out: &mut Vec<u8>) {
    while len > 0x7f {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

/// Reads a length. Returns it with the remaining bytes.
#[inline]
pub(crate) fn read_len(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut len = 0;
    for (at, &byte) in bytes.iter().take(5).enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Some((len, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::UserKeyBuf;
    use proptest::prelude::*;

    /// Stored files depend on this layout: these bytes never change.
    #[test]
    fn version_1_is_these_bytes() {
        let user = UserKeyBuf::from_text("ann");
        let plain = Content { user: Some(user.as_key()), body: Body::Plain(FieldOrder::UserFirst) };
        let json =
            Content { user: None, body: Body::Json { text: r#"{"a":1}"#, expires: ExpiresForm::Number } };
        for (content, bytes) in [(plain, &b"\x11\x04sann"[..]), (json, &b"\x13\x00{\"a\":1}"[..])] {
            let mut out = Vec::new();
            encode(&content, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(decode(bytes), Ok(content));
        }
    }

    #[test]
    fn unknown_versions_unknown_forms_and_truncated_records_are_corrupt() {
        for bytes in
            [&b""[..], b"\x21\x00", b"\x1f\x00", b"\x10", b"\x10\x05sann", b"\x10\xff", b"\x12\x00\xff"]
        {
            assert_eq!(decode(bytes).unwrap_err().code(), "ERR_STORE_CORRUPT", "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn decodes_what_it_encodes(user in proptest::option::of("\\PC{0,300}"), text in "\\PC*", form in 0..4) {
            let user = user.map(|user| UserKeyBuf::from_text(&user));
            let body = match form {
                0 => Body::Plain(FieldOrder::UserFirst),
                1 => Body::Plain(FieldOrder::ExpiresFirst),
                2 => Body::Json { text: &text, expires: ExpiresForm::Text },
                _ => Body::Json { text: &text, expires: ExpiresForm::Number },
            };
            let content = Content { user: user.as_ref().map(UserKeyBuf::as_key), body };
            let mut bytes = Vec::new();
            encode(&content, &mut bytes);
            prop_assert_eq!(decode(&bytes), Ok(content));
            prop_assert_eq!(decode_user(&bytes), Ok(content.user));
        }

        #[test]
        fn any_bytes_decode_or_are_corrupt(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes);
        }
    }
}
