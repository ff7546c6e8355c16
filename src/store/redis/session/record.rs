//! The stored form of a session: a JSON string with a head of fixed width, which any language can read.
//!
//! `{"expires":‹18›,"created":‹16›,"user":‹JSON›,"session":‹JSON›}`, or `"sealed":"‹base64›"` instead of `"session"`
//! if it is encrypted. Both times are numbers, padded with spaces. So scripts can move the expiry and compare the
//! user without reading the rest. Spaces also encode what JSON does not express. A space before the expiry means that
//! `touch` has moved it away from the session's own. Spaces before the last brace encode the form of the session.

use serde_json::value::RawValue;

use super::super::error::FOREIGN;
use super::super::resp::number;
use super::super::time::{Stamp, Times};
use crate::error::{Result, StoreError};
use crate::json::parse_user;
use crate::session::{Body, Content, ExpiresForm, Expiry, FieldOrder, SessionId, UserKey, UserKeyBuf};
use crate::{codec, iso};

const EXPIRES: &[u8] = b"{\"expires\":";
const CREATED: &[u8] = b",\"created\":";
const USER: &[u8] = b",\"user\":";
const SESSION: &[u8] = b",\"session\":";
const SEALED: &[u8] = b",\"sealed\":\"";

/// The positions of expiry, creation and user. The scripts contain them too.
pub const EXPIRES_AT: usize = EXPIRES.len();
pub const EXPIRES_LEN: usize = 18;
pub const CREATED_AT: usize = EXPIRES_AT + EXPIRES_LEN + CREATED.len();
pub const CREATED_LEN: usize = 16;
pub const USER_AT: usize = CREATED_AT + CREATED_LEN + USER.len();

/// The first bytes of a record: its times, and whether it has a user.
pub const START_LEN: usize = USER_AT + "null".len();

/// An upper bound for a tail without its user and session.
pub const TAIL_OVERHEAD: usize = 128;

/// The approximate size of a plain session's JSON without its user.
const PLAIN_OVERHEAD: usize = 128;

/// The text after the user, as far as scripts compare it. It marks the end of the user.
pub const AFTER_USER: &[u8] = b",\"se";

/// A parsed record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    pub expires: Expiry,
    pub created: Stamp,
    /// As JSON. `null` if there is no user.
    pub user: &'a [u8],
    pub payload: Payload<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    Plain {
        json: &'a [u8],
        form: Form,
    },
    /// As base64.
    Encrypted(&'a [u8]),
}

/// The properties of a session that its JSON does not express.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Json(ExpiresForm),
    Plain,
}

/// Appends the expiry field of a record.
pub fn write_expires(expires: Expiry, out: &mut Vec<u8>) {
    let end = out.len() + EXPIRES_LEN;
    if expires.was_moved() {
        out.push(b' ');
    }
    out.extend_from_slice(&number(expires.millis()));
    out.resize(end, b' ');
}

/// Appends the head up to the creation, which an update keeps.
pub fn write_head(expires: Expiry, out: &mut Vec<u8>) {
    out.extend_from_slice(EXPIRES);
    write_expires(expires, out);
    out.extend_from_slice(CREATED);
}

/// Appends the creation field of a record.
pub fn write_created(created: Stamp, out: &mut Vec<u8>) {
    let end = out.len() + CREATED_LEN;
    out.extend_from_slice(&number(created as i64));
    out.resize(end, b' ');
}

/// Appends the part after the creation: the user, as JSON, and the payload.
pub fn write_tail(user: &[u8], payload: Payload<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(USER);
    out.extend_from_slice(user);
    match payload {
        Payload::Plain { json, form } => {
            out.extend_from_slice(SESSION);
            out.extend_from_slice(json);
            out.extend_from_slice(match form {
                Form::Json(ExpiresForm::Text) => b"}",
                Form::Json(ExpiresForm::Number) => b" }",
                Form::Plain => b"  }",
            });
        }
        Payload::Encrypted(base64) => {
            out.extend_from_slice(SEALED);
            out.extend_from_slice(base64);
            out.extend_from_slice(b"\"}");
        }
    }
}

impl<'a> Record<'a> {
    /// # Errors
    /// `Corrupt` if the bytes are not a record.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let (expires, created) = times(bytes)?;
        let rest = bytes.get(USER_AT..).ok_or(FOREIGN)?;
        let user_len = value_len(rest).ok_or(FOREIGN)?;
        let (user, rest) = rest.split_at(user_len);
        let payload = if let Some(rest) = rest.strip_prefix(SESSION) {
            let rest = rest.strip_suffix(b"}").ok_or(FOREIGN)?;
            let json = rest.trim_ascii_end();
            let form = match rest.len() - json.len() {
                0 => Form::Json(ExpiresForm::Text),
                1 => Form::Json(ExpiresForm::Number),
                _ => Form::Plain,
            };
            Payload::Plain { json, form }
        } else {
            let sealed = rest.strip_prefix(SEALED).and_then(|rest| rest.strip_suffix(b"\"}"));
            Payload::Encrypted(sealed.ok_or(FOREIGN)?)
        };
        Ok(Self { expires, created, user, payload })
    }
}

/// Whether this is a plaintext record.
pub fn is_plain(bytes: &[u8]) -> bool {
    Record::parse(bytes).is_ok_and(|record| matches!(record.payload, Payload::Plain { .. }))
}

/// The expiry and the creation of a record. `head` contains at least its head.
pub fn times(head: &[u8]) -> Result<(Expiry, Stamp)> {
    let rest = head.strip_prefix(EXPIRES).ok_or(FOREIGN)?;
    let (expires, rest) = rest.split_at_checked(EXPIRES_LEN).ok_or(FOREIGN)?;
    let rest = rest.strip_prefix(CREATED).ok_or(FOREIGN)?;
    let (created, rest) = rest.split_at_checked(CREATED_LEN).ok_or(FOREIGN)?;
    if !rest.starts_with(USER) {
        return Err(FOREIGN);
    }
    let millis = parse_number(expires).ok_or(FOREIGN)?;
    let make = if expires[0] == b' ' { Expiry::moved_to } else { Expiry::new };
    Ok((make(millis).map_err(|_| FOREIGN)?, created_of(created).ok_or(FOREIGN)?))
}

/// The creation in its field.
pub fn created_of(field: &[u8]) -> Option<Stamp> {
    Stamp::try_from(parse_number(field)?).ok()
}

/// When the session of a record ends, by its expiry or its maximum lifetime, and its creation. `head` contains at
/// least its head.
pub fn end(head: &[u8], of: &Times) -> Result<(Expiry, Stamp)> {
    times(head).map(|(expires, created)| (of.end(expires, created), created))
}

/// The part of a record from the creation to the end of the user, which scripts compare.
pub fn owner<'a>(bytes: &'a [u8], record: &Record<'_>) -> &'a [u8] {
    &bytes[CREATED_AT..USER_AT + record.user.len() + AFTER_USER.len()]
}

fn parse_number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

/// The length of the JSON value at the start of a text.
fn value_len(text: &[u8]) -> Option<usize> {
    match text.first()? {
        b'"' => {
            let mut at = 1;
            loop {
                match text.get(at)? {
                    b'"' => return Some(at + 1),
                    b'\\' => at += 2,
                    _ => at += 1,
                }
            }
        }
        b'n' => text.starts_with(b"null").then_some(4),
        _ => {
            let mut values = serde_json::Deserializer::from_slice(text).into_iter::<&RawValue>();
            Some(values.next()?.ok()?.get().len())
        }
    }
}

/// A user as JSON. `null` if there is no user.
pub fn user_json(user: Option<UserKey<'_>>) -> Vec<u8> {
    match user {
        None => b"null".to_vec(),
        Some(user) => match user.text().map(std::str::from_utf8) {
            Some(Ok(text)) => json_text(text),
            // Any other key is JSON after its tag.
            _ => user.as_bytes()[1..].to_vec(),
        },
    }
}

/// Parses the user of a record.
fn user_of(json: &[u8]) -> Result<Option<UserKeyBuf>> {
    std::str::from_utf8(json).map(parse_user).map_err(|_| FOREIGN)
}

fn json_text(text: &str) -> Vec<u8> {
    let mut json = Vec::with_capacity(text.len() + 2);
    // Writing to a `Vec` cannot fail.
    let _ = serde_json::to_writer(&mut json, text);
    json
}

/// A plain session as JSON, as `JSON.stringify` writes it.
pub fn plain_json(id: &SessionId, user: &[u8], expires: Expiry, order: FieldOrder) -> Vec<u8> {
    let mut json = Vec::with_capacity(PLAIN_OVERHEAD + user.len());
    json.extend_from_slice(b"{\"sessionId\":");
    json.extend_from_slice(&json_text(&id.to_string()));
    if order == FieldOrder::UserFirst {
        json.extend_from_slice(b",\"userId\":");
        json.extend_from_slice(user);
    }
    json.extend_from_slice(b",\"expires\":\"");
    iso::write(expires.millis(), &mut json);
    json.push(b'"');
    if order == FieldOrder::ExpiresFirst {
        json.extend_from_slice(b",\"userId\":");
        json.extend_from_slice(user);
    }
    json.push(b'}');
    json
}

/// Appends the content of a plaintext session, as encoded by `codec`.
pub fn write_content(user: &[u8], json: &[u8], form: Form, out: &mut Vec<u8>) -> Result<()> {
    with_content(user, json, form, |content| codec::encode(&content, out))
}

/// Calls `read` with the content of a plaintext session.
pub fn with_content<T>(
    user: &[u8],
    json: &[u8],
    form: Form,
    read: impl FnOnce(Content<'_>) -> T,
) -> Result<T> {
    let user = user_of(user)?;
    let text = std::str::from_utf8(json).map_err(|_| StoreError::Corrupt("its JSON is not UTF-8"))?;
    let body = match form {
        Form::Json(expires) => Body::Json { text, expires },
        Form::Plain => Body::Plain(order_of(text).ok_or(FOREIGN)?),
    };
    Ok(read(Content { user: user.as_ref().map(UserKeyBuf::as_key), body }))
}

/// The order of the fields in a plain session.
fn order_of(json: &str) -> Option<FieldOrder> {
    let id = json.strip_prefix("{\"sessionId\":")?;
    let rest = id.get(value_len(id.as_bytes())?..)?;
    if rest.starts_with(",\"expires\":") {
        Some(FieldOrder::ExpiresFirst)
    } else {
        rest.starts_with(",\"userId\":").then_some(FieldOrder::UserFirst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(expires: Expiry, created: Stamp, user: &[u8], payload: Payload<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_head(expires, &mut bytes);
        write_created(created, &mut bytes);
        write_tail(user, payload, &mut bytes);
        bytes
    }

    /// Other languages and the scripts depend on these bytes, so they never change.
    #[test]
    fn a_record_has_these_bytes() {
        let json = Payload::Plain { json: b"{}", form: Form::Json(ExpiresForm::Number) };
        let expected =
            &br#"{"expires":1800000000000     ,"created":1800000000000001,"user":42,"session":{} }"#[..];
        assert_eq!(
            record(Expiry::new(1_800_000_000_000).unwrap(), 1_800_000_000_000_001, b"42", json),
            expected
        );
        let sealed =
            br#"{"expires": -1               ,"created":7               ,"user":null,"sealed":"AA=="}"#;
        assert_eq!(record(Expiry::moved_to(-1).unwrap(), 7, b"null", Payload::Encrypted(b"AA==")), sealed);
    }

    #[test]
    fn the_scripts_use_the_positions_of_the_fields() {
        assert_eq!((EXPIRES, EXPIRES_AT, EXPIRES_AT + EXPIRES_LEN), (&b"{\"expires\":"[..], 11, 29));
        assert_eq!((CREATED_AT, CREATED_AT + CREATED_LEN, USER_AT), (40, 56, 64));
    }

    #[test]
    fn other_values_are_corrupt() {
        let whole = record(Expiry::new(5).unwrap(), 7, b"\"a\"", Payload::Encrypted(b"AA=="));
        for len in 0..whole.len() {
            assert!(Record::parse(&whole[..len]).is_err(), "{len}");
        }
        for text in ["{}", "null", r#"{"expires":5,"created":7,"user":null,"session":{}}"#] {
            assert_eq!(Record::parse(text.as_bytes()).unwrap_err().code(), "ERR_STORE_CORRUPT");
        }
    }

    proptest! {
        #[test]
        fn parses_what_it_writes(
            millis in -iso::MAX_MILLIS..=iso::MAX_MILLIS,
            moved in any::<bool>(),
            created in 0..9_007_199_254_740_992_u64,
            user in prop_oneof![
                Just("null".to_owned()),
                "\\PC{0,20}".prop_map(|text| String::from_utf8(json_text(&text)).unwrap()),
                "-?[1-9][0-9]{0,9}",
                Just(r#"{"a":[1,"}"]}"#.to_owned()),
            ],
            plain in any::<bool>(),
        ) {
            let expires = if moved { Expiry::moved_to(millis) } else { Expiry::new(millis) }.unwrap();
            let form = if plain { Form::Plain } else { Form::Json(ExpiresForm::Text) };
            let payload = Payload::Plain { json: br#"{"a":" }"}"#, form };
            let bytes = record(expires, created, user.as_bytes(), payload);
            let expected = Record { expires, created, user: user.as_bytes(), payload };
            prop_assert_eq!(Record::parse(&bytes), Ok(expected));
            prop_assert_eq!(times(&bytes[..USER_AT]), Ok((expires, created)));
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
        }

        #[test]
        fn a_plain_session_comes_back(user in "\\PC{0,20}", id in "\\PC{1,20}", user_first in any::<bool>()) {
            let order = if user_first { FieldOrder::UserFirst } else { FieldOrder::ExpiresFirst };
            let key = UserKeyBuf::from_text(&user);
            let user = user_json(Some(key.as_key()));
            let json = plain_json(&SessionId::new(&id).unwrap(), &user, Expiry::new(0).unwrap(), order);
            let mut content = Vec::new();
            write_content(&user, &json, Form::Plain, &mut content).unwrap();
            let expected = Content { user: Some(key.as_key()), body: Body::Plain(order) };
            prop_assert_eq!(codec::decode(&content), Ok(expected));
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
        }

        #[test]
        fn any_bytes_parse_or_are_corrupt(bytes in proptest::collection::vec(any::<u8>(), 0..64), cut in 0..90_usize) {
            let mut text = record(Expiry::new(5).unwrap(), 7, b"\"a\"", Payload::Encrypted(b"AA=="));
            text.truncate(cut);
            text.extend(bytes);
            let _ = Record::parse(&text);
        }
    }
}
