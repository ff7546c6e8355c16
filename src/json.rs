//! Extracts the fields that a store needs from the JSON text of a session.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::clock::Millis;
use crate::error::{Result, StoreError};
use crate::iso;
use crate::session::{ExpiresForm, Expiry, SessionId, UserKeyBuf};

/// The fields of a session that a store uses, from the text of `JSON.stringify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFields {
    pub id: SessionId,
    pub user: Option<UserKeyBuf>,
    pub expires: ExpiresField,
    pub form: ExpiresForm,
}

/// A session's `expires`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiresField {
    At(Expiry),
    /// A string that only JavaScript's `Date` may be able to parse.
    OtherText,
}

impl SessionFields {
    /// # Errors
    /// `InvalidSession`, naming the field.
    pub fn parse(text: &str) -> Result<Self> {
        if !text.starts_with('{') {
            return Err(StoreError::invalid("session", "an object", kind(text)));
        }
        let Members(members) = serde_json::from_str(text)
            .map_err(|error| StoreError::invalid("session", "a JSON object", error.to_string()))?;
        let field =
            |name: &str| members.iter().find(|(key, _)| key.get() == name).map(|(_, value)| value.get());
        let id = match field("\"sessionId\"") {
            Some(id) if id.starts_with('"') => SessionId::new(
                &string(id).ok_or_else(|| SessionId::invalid("a string with a lone surrogate"))?,
            )?,
            other => return Err(SessionId::invalid(other.map_or("undefined", kind))),
        };
        let (expires, form) = parse_expires(field("\"expires\""))?;
        Ok(Self { id, user: field("\"userId\"").and_then(parse_user), expires, form })
    }
}

/// Returns the key of a user, given the JSON text of `userId`. Returns `None` for `null`.
pub fn parse_user(json: &str) -> Option<UserKeyBuf> {
    match json.as_bytes().first() {
        Some(b'n') => None,
        Some(b'"') => {
            // JavaScript allows a lone surrogate in a string, UTF-8 does not: use the JSON text with its escape as the
            // key.
            Some(
                string(json).map_or_else(
                    || UserKeyBuf::from_canonical_json(json),
                    |text| UserKeyBuf::from_text(&text),
                ),
            )
        }
        _ => {
            let mut canonical = String::with_capacity(json.len());
            canonicalise(json, MAX_DEPTH, &mut canonical);
            Some(UserKeyBuf::from_canonical_json(&canonical))
        }
    }
}

fn parse_expires(json: Option<&str>) -> Result<(ExpiresField, ExpiresForm)> {
    match json {
        Some(text) if text.starts_with('"') => {
            let field = match iso::parse(&text.as_bytes()[1..text.len() - 1]) {
                Some(millis) => ExpiresField::At(Expiry::new(millis)?),
                None => ExpiresField::OtherText,
            };
            Ok((field, ExpiresForm::Text))
        }
        Some(number) if number.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
            // Truncate the fraction, as `new Date(number)` does.
            let millis: f64 = number.parse().map_err(|_| Expiry::invalid("a number"))?;
            if millis.abs() > iso::MAX_MILLIS as f64 {
                return Err(Expiry::invalid("a number that no date can have"));
            }
            Ok((ExpiresField::At(Expiry::new(millis as Millis)?), ExpiresForm::Number))
        }
        other => Err(Expiry::invalid(other.map_or("undefined", kind))),
    }
}

fn string(json: &str) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str(json).ok().map(|Text(text)| text)
}

/// Describes the type of a JSON value without its content.
fn kind(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// How deep the keys of a user's objects are sorted. Bounded, so that hostile input cannot overflow the stack.
const MAX_DEPTH: usize = 32;

/// Appends the value with sorted object keys, so that equal objects have equal texts. Numbers, strings and constants
/// are copied: `JSON.stringify` has one text for each.
fn canonicalise(json: &str, depth: usize, out: &mut String) {
    if depth > 0
        && json.starts_with('{')
        && let Ok(Members(mut members)) = serde_json::from_str(json)
    {
        members.sort_by(|(one, _), (other, _)| one.get().cmp(other.get()));
        list(('{', '}'), &members, out, |(key, value), out| {
            out.push_str(key.get());
            out.push(':');
            canonicalise(value.get(), depth - 1, out);
        });
    } else if depth > 0
        && json.starts_with('[')
        && let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(json)
    {
        list(('[', ']'), &items, out, |item, out| canonicalise(item.get(), depth - 1, out));
    } else {
        out.push_str(json);
    }
}

fn list<T>((open, close): (char, char), items: &[T], out: &mut String, write: impl Fn(&T, &mut String)) {
    out.push(open);
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write(item, out);
    }
    out.push(close);
}

/// The members of a JSON object as raw text. `JSON.stringify` has one text for each key, so keys are compared as text.
/// Decoding them would reject a lone surrogate, which JavaScript allows.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> SessionFields {
        SessionFields::parse(text).unwrap()
    }

    fn refusal(text: &str) -> String {
        let error = SessionFields::parse(text).unwrap_err();
        assert_eq!(error.code(), "ERR_INVALID_SESSION");
        error.to_string()
    }

    #[test]
    fn parses_the_fields_and_ignores_the_rest() {
        let found = fields(
            r#"{"__proto__":{"sessionId":"x"},"expires":"1970-01-01T00:00:01.000Z","cart":[1],"sessionId":"a","userId":7}"#,
        );
        assert_eq!(found.id, SessionId::new("a").unwrap());
        assert_eq!(found.expires, ExpiresField::At(Expiry::new(1000).unwrap()));
        assert_eq!(found.form, ExpiresForm::Text);
        assert_eq!(found.user, parse_user("7"));
    }

    #[test]
    fn refuses_invalid_sessions_and_names_the_field() {
        for (text, words) in [
            ("[1]", "session must be an object; got an array"),
            ("\"text\"", "session must be an object; got a string"),
            ("12", "session must be an object; got a number"),
            ("null", "session must be an object; got null"),
            (r#"{"expires":1}"#, "got undefined"),
            (r#"{"sessionId":"","expires":1}"#, "got an empty string"),
            (r#"{"sessionId":12,"expires":1}"#, "got a number"),
            (r#"{"sessionId":null,"expires":1}"#, "got null"),
            (r#"{"sessionId":"\ud800","expires":1}"#, "got a string with a lone surrogate"),
            (
                r#"{"sessionId":"a"}"#,
                "expires must be anything that new Date(expires) makes a valid date; got undefined",
            ),
            (r#"{"sessionId":"a","expires":true}"#, "got a boolean"),
            (r#"{"sessionId":"a","expires":{}}"#, "got an object"),
            (r#"{"sessionId":"a","expires":8640000000000001}"#, "got a number that no date can have"),
        ] {
            assert!(refusal(text).ends_with(words), "{text}: {}", refusal(text));
        }
    }

    #[test]
    fn reads_expires_as_javascript_does() {
        let at = |text: &str| fields(&format!(r#"{{"sessionId":"a","expires":{text}}}"#)).expires;
        assert_eq!(at("1e3"), ExpiresField::At(Expiry::new(1000).unwrap()));
        assert_eq!(at("-1.9"), ExpiresField::At(Expiry::new(-1).unwrap()));
        assert_eq!(at("\"tomorrow\""), ExpiresField::OtherText);
        assert_eq!(at("\"\""), ExpiresField::OtherText);
    }

    #[test]
    fn a_user_of_any_depth_is_a_user() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse_user(&deep(100_000)).is_some());
        assert_ne!(parse_user(&deep(100)), parse_user(&deep(101)));
    }

    #[test]
    fn users_are_equal_by_value_and_type() {
        assert_eq!(parse_user("null"), None);
        assert_ne!(parse_user("42"), parse_user("\"42\""));
        assert_eq!(parse_user(r#""a\u0062""#), parse_user("\"ab\""));
        assert_eq!(
            parse_user(r#"{"a":1,"b":{"d":[],"c":{}}}"#),
            parse_user(r#"{"b":{"c":{},"d":[]},"a":1}"#)
        );
        assert_ne!(parse_user("[1,2]"), parse_user("[2,1]"));
        assert_ne!(parse_user("{}"), parse_user("[]"));
        assert_ne!(parse_user(r#"{"a":"1"}"#), parse_user(r#"{"a":1}"#));
        assert_ne!(parse_user(r#""\ud800""#), parse_user(r#""\ud801""#));
        assert_eq!(parse_user(r#"{"\ud800":1,"a":2}"#), parse_user(r#"{"a":2,"\ud800":1}"#));
    }
}
