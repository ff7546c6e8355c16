//! By what keys sessions and users are found in Redis, and what of a session may be read there.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

use super::core::Times;
use super::record::{self, AFTER_USER, Form, Payload, Record, Stamp};
use crate::codec::{self, read_len, write_len};
use crate::error::{Result, StoreError};
use crate::keyring::{Domain, Keyring, LOOKUP_BYTES, Opened};
use crate::session::{
    Body, Content, ExpiresForm, Expiry, FieldOrder, Session, SessionId, UserKey, UserKeyBuf,
};
use crate::store::StoredSession;

/// The longest user, as JSON, that an index's key shows; of a longer one it has a hash.
const MAX_USER: usize = 128;

/// A session on its way to Redis, from another thread.
pub(super) struct Draft {
    pub id: SessionId,
    pub expires: Expiry,
    user: Option<UserKeyBuf>,
    body: DraftBody,
}

enum DraftBody {
    Plain(FieldOrder),
    Json { text: Box<str>, expires: ExpiresForm },
}

impl Draft {
    pub(super) fn new(session: &Session<'_>) -> Self {
        let body = match session.content.body {
            Body::Plain(order) => DraftBody::Plain(order),
            Body::Json { text, expires } => DraftBody::Json { text: text.into(), expires },
        };
        let user = session.content.user.map(UserKey::to_buf);
        Self { id: session.id.clone(), expires: session.expires, user, body }
    }

    pub(super) fn user(&self) -> Option<UserKey<'_>> {
        self.user.as_ref().map(UserKeyBuf::as_key)
    }

    /// About how many bytes it takes.
    fn len(&self) -> usize {
        let user = self.user().map_or(0, |user| user.as_bytes().len());
        match &self.body {
            DraftBody::Plain(_) => self.id.text_len() + 2 * user,
            DraftBody::Json { text, .. } => text.len() + user,
        }
    }

    fn content(&self) -> Content<'_> {
        let body = match &self.body {
            DraftBody::Plain(order) => Body::Plain(*order),
            DraftBody::Json { text, expires } => Body::Json { text, expires: *expires },
        };
        Content { user: self.user(), body }
    }
}

/// The names of what a store has in Redis: `‹prefix›sess:‹id›`, `‹prefix›user:‹user›` and a few of one each.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub sessions: Vec<u8>,
    pub users: Vec<u8>,
    /// Where encrypted sessions have what their keys are made from.
    pub seal: Vec<u8>,
    /// Whose holder sweeps.
    pub sweep: Vec<u8>,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        let name = |name: &str| [prefix, name].concat().into_bytes();
        Self { sessions: name("sess:"), users: name("user:"), seal: name("seal"), sweep: name("sweep") }
    }

    /// The key of a session, of which this is the name in an index.
    pub(super) fn session(&self, member: &[u8]) -> Vec<u8> {
        [&self.sessions, member].concat()
    }
}

/// A pattern of `SCAN` for all that begins so.
pub(super) fn pattern(start: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(start.len() + 1);
    for &byte in start {
        if b"*?[]\\^-".contains(&byte) {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern.push(b'*');
    pattern
}

/// A user as records and indexes have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UserName {
    /// As JSON; `null` for none.
    pub json: Vec<u8>,
}

impl UserName {
    pub(super) fn is_nobody(&self) -> bool {
        self.json == b"null"
    }

    /// What a script compares a record with.
    pub(super) fn to_match(&self) -> Vec<u8> {
        [&self.json, AFTER_USER].concat()
    }

    /// The key of the user's index.
    pub(super) fn index(&self, names: &Names) -> Vec<u8> {
        if self.json.len() <= MAX_USER {
            return [&names.users[..], &self.json].concat();
        }
        // No JSON begins like that.
        [&names.users[..], b"sha256:", &hex(&Sha256::digest(&self.json))].concat()
    }
}

/// A store's choice between sessions in the open and sealed ones.
pub(super) enum Vault {
    Open,
    Sealed(Box<Keyring>),
}

impl Vault {
    /// What a session is called in keys and indexes.
    pub(super) fn member(&self, id: &SessionId) -> Vec<u8> {
        match self {
            Self::Open => {
                let mut member = Vec::with_capacity(id.text_len());
                id.write_text(&mut member);
                member
            }
            Self::Sealed(keyring) => hex(&keyring.lookup(Domain::Session, id.as_bytes())),
        }
    }

    /// The key of a session.
    pub(super) fn key(&self, names: &Names, id: &SessionId) -> Vec<u8> {
        match self {
            Self::Open => {
                let mut key = Vec::with_capacity(names.sessions.len() + id.text_len());
                key.extend_from_slice(&names.sessions);
                id.write_text(&mut key);
                key
            }
            Self::Sealed(_) => names.session(&self.member(id)),
        }
    }

    pub(super) fn user(&self, user: Option<UserKey<'_>>) -> UserName {
        match (self, user) {
            (Self::Open, _) | (_, None) => UserName { json: record::user_json(user) },
            (Self::Sealed(keyring), Some(user)) => {
                let lookup = hex(&keyring.lookup(Domain::User, user.as_bytes()));
                UserName { json: [b"\"", &lookup[..], b"\""].concat() }
            }
        }
    }

    /// What follows the creation in the session's record.
    ///
    /// # Errors
    /// `Io` if the system has no randomness.
    pub(super) fn tail(&self, draft: &Draft, member: &[u8], user: &UserName) -> Result<Vec<u8>> {
        let mut tail = Vec::with_capacity(draft.len() + record::MORE_THAN_TAIL);
        let content = draft.content();
        match (self, content.body) {
            (Self::Open, Body::Plain(order)) => {
                let json = record::plain_json(&draft.id, &user.json, draft.expires, order);
                record::write_tail(&user.json, Payload::Open { json: &json, form: Form::Plain }, &mut tail);
            }
            (Self::Open, Body::Json { text, expires }) => {
                let payload = Payload::Open { json: text.as_bytes(), form: Form::Json(expires) };
                record::write_tail(&user.json, payload, &mut tail);
            }
            (Self::Sealed(keyring), _) => {
                let mut plain = Vec::new();
                write_len(draft.id.as_bytes().len(), &mut plain);
                plain.extend_from_slice(draft.id.as_bytes());
                codec::encode(&content, &mut plain);
                let mut sealed = Vec::new();
                keyring.seal(&bound_to(member, &user.json), &plain, &mut sealed)?;
                record::write_tail(&user.json, Payload::Sealed(BASE64.encode(&sealed).as_bytes()), &mut tail);
            }
        }
        Ok(tail)
    }

    /// The session of a record; `None` if its secret is no longer in the list, which makes it absent.
    ///
    /// # Errors
    /// `Corrupt` if it is not what this store wrote.
    pub(super) fn open(&self, member: &[u8], record: Record<'_>) -> Result<Option<StoredSession>> {
        const CUT_SHORT: StoreError = StoreError::Corrupt("it is cut short");
        match (self, record.payload) {
            (Self::Open, Payload::Open { json, form }) => {
                let id = self.id_of(member)?;
                let mut content = Vec::with_capacity(record.user.len() + json.len() + 8);
                record::write_content(record.user, json, form, &mut content)?;
                Ok(Some(StoredSession::new(id, record.expires, &content)))
            }
            (Self::Sealed(keyring), Payload::Sealed(base64)) => {
                let sealed =
                    BASE64.decode(base64).map_err(|_| StoreError::Corrupt("it is not what was sealed"))?;
                let mut plain = Vec::new();
                match keyring.open(&bound_to(member, record.user), &sealed, &mut plain)? {
                    Opened::UnknownKey => Ok(None),
                    Opened::Plain => {
                        let (len, rest) = read_len(&plain).ok_or(CUT_SHORT)?;
                        let (id, content) = rest.split_at_checked(len).ok_or(CUT_SHORT)?;
                        let id = SessionId::from_packed(id)?;
                        Ok(Some(StoredSession::new(id, record.expires, content)))
                    }
                }
            }
            (Self::Open, Payload::Sealed(_)) => Err(StoreError::Corrupt("it is sealed with a secret")),
            (Self::Sealed(_), Payload::Open { .. }) => Err(StoreError::Corrupt("it is not sealed")),
        }
    }

    /// As [`Vault::open_live`], for one who only reads it: `read` is called where it finds one.
    ///
    /// # Errors
    /// As for [`Vault::open`].
    pub(super) fn read_live(
        &self,
        id: &SessionId,
        value: &[u8],
        times: &Times,
        read: impl FnOnce(Expiry, Content<'_>),
    ) -> Result<()> {
        let Some(record) = live(value, times)? else { return Ok(()) };
        if let (Self::Open, Payload::Open { json, form }) = (self, record.payload) {
            return record::with_content(record.user, json, form, |content| read(record.expires, content));
        }
        if let Some(session) = self.open(&self.member(id), record)? {
            read(session.expires, session.content()?);
        }
        Ok(())
    }

    /// The session of which this is the value, if it is live.
    ///
    /// # Errors
    /// As for [`Vault::open`].
    pub(super) fn open_live(
        &self,
        member: &[u8],
        value: &[u8],
        times: &Times,
    ) -> Result<Option<StoredSession>> {
        live(value, times)?.map_or(Ok(None), |record| self.open(member, record))
    }

    /// The id of a session that is in the open.
    ///
    /// # Errors
    /// `Corrupt` if it is none.
    pub(super) fn id_of(&self, member: &[u8]) -> Result<SessionId> {
        const NO_ID: StoreError = StoreError::Corrupt("not a session id");
        SessionId::new(std::str::from_utf8(member).map_err(|_| NO_ID)?).map_err(|_| NO_ID)
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }
}

/// The record of which this is the value, unless its session is expired.
fn live<'a>(value: &'a [u8], times: &Times) -> Result<Option<Record<'a>>> {
    let record = Record::parse(value)?;
    Ok(if times.clock.is_past(record.expires.millis()) { None } else { Some(record) })
}

/// The head of a record and its tail as a whole.
pub(super) fn whole(expires: Expiry, created: Stamp, tail: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(record::USER_AT + tail.len());
    record::write_head(expires, &mut bytes);
    record::write_created(created, &mut bytes);
    bytes.extend_from_slice(tail);
    bytes
}

/// Binds what is sealed to its place and its user. Not to its times: those are for the server to move.
fn bound_to(member: &[u8], user: &[u8]) -> Vec<u8> {
    [member, b"|", user].concat()
}

pub(super) fn hex(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = Vec::with_capacity(2 * LOOKUP_BYTES);
    text.extend(
        bytes.iter().flat_map(|&byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]),
    );
    text
}
