//! A session: its id, user, expiry and content.

use std::fmt;

use smallvec::SmallVec;

use crate::clock::Millis;
use crate::error::{Result, StoreError};
use crate::hex;
use crate::iso::MAX_MILLIS;

/// The longest session id, in bytes of UTF-8.
pub const MAX_ID_BYTES: usize = 256;

const ID_EXPECTED: &str = "a non-empty, well-formed string of at most 256 bytes as UTF-8";

/// The packed bytes of an id. Up to [`INLINE`] bytes are on the stack.
type Packed = SmallVec<[u8; INLINE]>;

const INLINE: usize = 40;

/// A packed session id: lower-case hex of even length, which FluidAuth uses, takes half its length.
///
/// Each text has exactly one packed form, so comparing bytes compares ids exactly.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Packed);

impl SessionId {
    const TEXT: u8 = 0;
    const HEX: u8 = 1;

    /// # Errors
    /// `InvalidSession` if the text is empty or longer than [`MAX_ID_BYTES`].
    pub fn new(text: &str) -> Result<Self> {
        if let Some(id) = Self::from_hex(text.as_bytes()) {
            return Ok(id);
        }
        match text.len() {
            0 => Err(Self::invalid("an empty string")),
            1..=MAX_ID_BYTES => {
                let mut packed = Packed::with_capacity(1 + text.len());
                packed.push(Self::TEXT);
                packed.extend_from_slice(text.as_bytes());
                Ok(Self(packed))
            }
            bytes => Err(Self::invalid(format!("{bytes} bytes"))),
        }
    }

    /// Packs an id of hexadecimal digits. Returns `None` for any other text, even if it is a valid id.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let mut id = Self::unset();
        id.set_hex(text).then_some(id)
    }

    /// An empty value, which must be set before any use.
    pub(crate) fn unset() -> Self {
        Self(Packed::new())
    }

    /// The same as `from_hex`, but in place: moving bytes that were just written stalls the processor. Returns whether
    /// it is set.
    #[inline]
    pub(crate) fn set_hex(&mut self, text: &[u8]) -> bool {
        let len = 1 + text.len() / 2;
        if text.is_empty() || !text.len().is_multiple_of(2) || text.len() > MAX_ID_BYTES {
            return false;
        }
        self.0 = if len <= INLINE {
            Packed::from_buf_and_len([0; INLINE], len)
        } else {
            Packed::from_elem(0, len)
        };
        self.0[0] = Self::HEX;
        hex::decode(text, &mut self.0[1..])
    }

    /// The error for an invalid session id.
    pub fn invalid(given: impl Into<std::borrow::Cow<'static, str>>) -> StoreError {
        StoreError::invalid("sessionId", ID_EXPECTED, given)
    }

    /// The packed form, for use as a key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// # Errors
    /// `Corrupt` if the bytes are not a packed id.
    pub fn from_packed(packed: &[u8]) -> Result<Self> {
        const CORRUPT: StoreError = StoreError::Corrupt("not a session id");
        match packed.split_first() {
            Some((&Self::HEX, hex)) if !hex.is_empty() && hex.len() <= MAX_ID_BYTES / 2 => {}
            Some((&Self::TEXT, text))
                if (1..=MAX_ID_BYTES).contains(&text.len()) && std::str::from_utf8(text).is_ok() => {}
            _ => return Err(CORRUPT),
        }
        Ok(Self(Packed::from_slice(packed)))
    }

    /// Appends the id's text.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        let (form, packed) = (self.0[0], &self.0[1..]);
        if form == Self::TEXT {
            out.extend_from_slice(packed);
        } else {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            let start = out.len();
            out.resize(start + 2 * packed.len(), 0);
            for (pair, &byte) in out[start..].chunks_exact_mut(2).zip(packed) {
                pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
            }
        }
    }

    /// Returns the length of the id's text in bytes.
    pub(crate) fn text_len(&self) -> usize {
        (self.0.len() - 1) << self.0[0]
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(self.text_len());
        self.write_text(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

/// Hides the id: it is a secret, and `Debug` output ends up in logs.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({} bytes)", self.text_len())
    }
}

/// When a session ends, and whether `touch` has moved that away from `expires` in the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry(i64);

impl Expiry {
    /// Earlier than any other expiry.
    pub(crate) const MIN: Self = Self(-MAX_MILLIS << 1);

    /// The expiry in the session's content.
    ///
    /// # Errors
    /// `InvalidSession` for a time that no JavaScript date can hold.
    pub fn new(millis: Millis) -> Result<Self> {
        if (-MAX_MILLIS..=MAX_MILLIS).contains(&millis) {
            Ok(Self(millis << 1))
        } else {
            Err(Self::invalid("an invalid date"))
        }
    }

    /// The expiry that a `touch` sets.
    ///
    /// # Errors
    /// As for [`Expiry::new`].
    pub fn moved_to(millis: Millis) -> Result<Self> {
        Self::new(millis).map(|expiry| Self(expiry.0 | 1))
    }

    /// The error for an invalid expiry.
    pub fn invalid(given: impl Into<std::borrow::Cow<'static, str>>) -> StoreError {
        StoreError::invalid("expires", "anything that new Date(expires) makes a valid date", given)
    }

    pub fn millis(self) -> Millis {
        self.0 >> 1
    }

    pub fn was_moved(self) -> bool {
        self.0 & 1 == 1
    }

    /// Whether the expiry is past. At its expiry a session is no longer live, as in FluidAuth.
    pub fn is_past(self, now: Millis) -> bool {
        self.millis() <= now
    }

    pub(crate) fn to_bits(self) -> i64 {
        self.0
    }

    pub(crate) const fn from_bits(bits: i64) -> Self {
        Self(bits)
    }
}

/// The user of a session as a key. Keys are equal for equal JSON values of the same type.
///
/// The first byte distinguishes strings from other JSON values, so `"42"` is not `42`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UserKey<'a>(&'a [u8]);

impl<'a> UserKey<'a> {
    /// Precedes the UTF-8 of a user that is a string.
    pub const TEXT: u8 = b's';
    /// Precedes the canonical JSON of any other user.
    pub const JSON: u8 = b'j';

    pub(crate) fn from_bytes(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    pub fn to_buf(self) -> UserKeyBuf {
        UserKeyBuf(self.0.to_vec())
    }

    /// Returns the user's text, if the user is a string.
    pub fn text(self) -> Option<&'a [u8]> {
        self.0.split_first().filter(|&(&tag, _)| tag == Self::TEXT).map(|(_, text)| text)
    }
}

/// A [`UserKey`] that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserKeyBuf(Vec<u8>);

impl UserKeyBuf {
    /// The key of a user that is a string.
    pub fn from_text(text: &str) -> Self {
        Self([&[UserKey::TEXT], text.as_bytes()].concat())
    }

    /// The key of a user that is any other JSON value, given its canonical JSON.
    pub(crate) fn from_canonical_json(json: &str) -> Self {
        Self([&[UserKey::JSON], json.as_bytes()].concat())
    }

    pub fn as_key(&self) -> UserKey<'_> {
        UserKey(&self.0)
    }
}

/// The order of the fields in a session of FluidAuth's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldOrder {
    /// `sessionId`, `expires`, `userId`: the order of FluidAuth's `Session`.
    ExpiresFirst,
    /// `sessionId`, `userId`, `expires`: the order in FluidAuth's types.
    UserFirst,
}

/// The type of `expires` in a session's JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiresForm {
    Text,
    Number,
}

/// The content of a session, apart from its id and expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// Exactly FluidAuth's three fields: `userId` is a string, and `expires` the text of `toISOString()`.
    Plain(FieldOrder),
    /// Any session, as the text of `JSON.stringify`.
    Json { text: &'a str, expires: ExpiresForm },
}

/// A session's user and content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content<'a> {
    /// `None` for an anonymous visitor: `userId` is null or absent.
    pub user: Option<UserKey<'a>>,
    pub body: Body<'a>,
}

/// A session that is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session<'a> {
    pub id: SessionId,
    pub expires: Expiry,
    pub content: Content<'a>,
}

impl Session<'_> {
    /// # Errors
    /// `TooLarge` if the session takes more than `max` bytes as JSON.
    pub fn check_size(&self, max: usize) -> Result<()> {
        // Escaping turns one byte into at most six, so most sessions are accepted by this upper bound.
        const FRAME: usize = r#"{"sessionId":"","userId":"","expires":""}"#.len() + 24;
        let bytes = match self.content.body {
            Body::Json { text, .. } => text.len(),
            Body::Plain(_) => {
                let user = self.content.user.and_then(UserKey::text).unwrap_or_default();
                if FRAME + 6 * (self.id.text_len() + user.len()) <= max {
                    return Ok(());
                }
                let mut id = Vec::with_capacity(self.id.text_len());
                self.id.write_text(&mut id);
                FRAME + escaped_len(&id) + escaped_len(user)
            }
        };
        if bytes > max { Err(StoreError::TooLarge { bytes, max }) } else { Ok(()) }
    }
}

/// Returns the length of a string in JSON, without its quotes.
fn escaped_len(text: &[u8]) -> usize {
    let escaped = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 8 | 12 => 2,
        0..32 => 6,
        _ => 1,
    };
    text.iter().map(escaped).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_fluidauth_id_packs_to_half_its_length() {
        let id = SessionId::new(&"0f".repeat(18)).unwrap();
        assert_eq!(id.as_bytes().len(), 1 + 18);
    }

    #[test]
    fn an_id_has_1_to_256_bytes() {
        assert_eq!(SessionId::new("").unwrap_err().code(), "ERR_INVALID_SESSION");
        assert!(SessionId::new(&"x".repeat(256)).is_ok());
        assert!(SessionId::new(&"a".repeat(256)).is_ok());
        assert!(SessionId::new(&"é".repeat(128)).is_ok());
        let error = SessionId::new(&"é".repeat(129)).unwrap_err();
        assert!(error.to_string().ends_with("got 258 bytes"), "{error}");
    }

    #[test]
    fn debug_does_not_show_the_id() {
        assert_eq!(format!("{:?}", SessionId::new("secret").unwrap()), "SessionId(6 bytes)");
    }

    #[test]
    fn a_plain_session_is_measured_as_its_json() {
        let user = UserKeyBuf::from_text("a\"\n\u{1}é");
        let session = Session {
            id: SessionId::new("\\id").unwrap(),
            expires: Expiry::new(0).unwrap(),
            content: Content { user: Some(user.as_key()), body: Body::Plain(FieldOrder::UserFirst) },
        };
        let json = r#"{"sessionId":"\\id","userId":"a\"\n\u0001é","expires":"1970-01-01T00:00:00.000Z"}"#;
        assert_eq!(session.check_size(json.len()), Ok(()));
        let max = json.len() - 1;
        assert_eq!(session.check_size(max), Err(StoreError::TooLarge { bytes: json.len(), max }));
    }

    proptest! {
        #[test]
        fn packing_keeps_the_text(text in "[0-9a-f]{1,256}|\\PC{1,64}") {
            let id = SessionId::new(&text).unwrap();
            prop_assert_eq!(id.to_string(), text);
            prop_assert_eq!(&SessionId::from_packed(id.as_bytes()).unwrap(), &id);
        }

        #[test]
        fn different_texts_pack_differently(one in "[0-9a-fA-F]{1,4}", other in "[0-9a-fA-F]{1,4}") {
            let (packed, twin) = (SessionId::new(&one).unwrap(), SessionId::new(&other).unwrap());
            prop_assert_eq!(one == other, packed == twin);
        }

        #[test]
        fn any_bytes_are_an_id_or_corrupt(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(id) = SessionId::from_packed(&bytes) {
                prop_assert_eq!(id.as_bytes(), &bytes[..]);
            }
        }

        #[test]
        fn an_expiry_keeps_its_time(millis in -MAX_MILLIS..=MAX_MILLIS) {
            prop_assert_eq!(Expiry::new(millis).unwrap().millis(), millis);
            prop_assert_eq!(Expiry::moved_to(millis).unwrap().millis(), millis);
            prop_assert!(Expiry::moved_to(millis).unwrap().was_moved());
        }
    }
}
