//! Writes and reads sessions: as plaintext, or encrypted.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::super::time::Times;
use super::names::{Names, UserField, hex};
use super::new_session::NewSession;
use super::record::{self, Form, Payload, Record};
use crate::codec::{self, read_len, write_len};
use crate::error::{Result, StoreError};
use crate::keyring::{Domain, Keyring, Opened};
use crate::session::{Body, Content, Expiry, SessionId, UserKey, UserKeyBuf};
use crate::store::StoredSession;

/// How a store writes and reads sessions.
pub enum Cipher {
    Plain,
    Encrypted(Box<Keyring>),
}

impl Cipher {
    /// The name of a session in its key and in indexes.
    pub fn member(&self, id: &SessionId) -> Vec<u8> {
        match self {
            Self::Plain => {
                let mut member = Vec::with_capacity(id.text_len());
                id.write_text(&mut member);
                member
            }
            Self::Encrypted(keyring) => hex(&keyring.lookup(Domain::Session, id.as_bytes())),
        }
    }

    /// The key of a session.
    pub fn key(&self, names: &Names, id: &SessionId) -> Vec<u8> {
        match self {
            Self::Plain => {
                let mut key = Vec::with_capacity(names.sessions.len() + id.text_len());
                key.extend_from_slice(&names.sessions);
                id.write_text(&mut key);
                key
            }
            Self::Encrypted(_) => names.session(&self.member(id)),
        }
    }

    pub fn user(&self, user: Option<UserKey<'_>>) -> UserField {
        match (self, user) {
            (Self::Plain, _) | (_, None) => UserField { json: record::user_json(user) },
            (Self::Encrypted(keyring), Some(user)) => {
                let lookup = hex(&keyring.lookup(Domain::User, user.as_bytes()));
                UserField { json: [b"\"", &lookup[..], b"\""].concat() }
            }
        }
    }

    /// The part of the session's record after the creation.
    ///
    /// # Errors
    /// `Io` if the system has no randomness.
    pub fn tail(&self, session: &NewSession, member: &[u8], user: &UserField) -> Result<Vec<u8>> {
        let mut tail = Vec::with_capacity(session.len() + record::TAIL_OVERHEAD);
        let content = session.content();
        match (self, content.body) {
            (Self::Plain, Body::Plain(order)) => {
                let json = record::plain_json(&session.id, &user.json, session.expires, order);
                record::write_tail(&user.json, Payload::Plain { json: &json, form: Form::Plain }, &mut tail);
            }
            (Self::Plain, Body::Json { text, expires }) => {
                let payload = Payload::Plain { json: text.as_bytes(), form: Form::Json(expires) };
                record::write_tail(&user.json, payload, &mut tail);
            }
            (Self::Encrypted(keyring), _) => {
                let mut plain = Vec::new();
                write_len(session.id.as_bytes().len(), &mut plain);
                plain.extend_from_slice(session.id.as_bytes());
                codec::encode(&content, &mut plain);
                let mut sealed = Vec::new();
                keyring.seal(&associated_data(member, &user.json), &plain, &mut sealed)?;
                record::write_tail(
                    &user.json,
                    Payload::Encrypted(BASE64.encode(&sealed).as_bytes()),
                    &mut tail,
                );
            }
        }
        Ok(tail)
    }

    /// The user of the session with this value, if it has one and can be decrypted.
    pub fn user_of(&self, member: &[u8], value: &[u8]) -> Option<UserKeyBuf> {
        let session = self.decode(member, Record::parse(value).ok()?).ok()??;
        session.content().ok()?.user.map(UserKey::to_buf)
    }

    /// The session of a record. `None` if it was encrypted with a secret that is no longer in the list, so that it
    /// counts as absent.
    ///
    /// # Errors
    /// `Corrupt` if this store has not written the record.
    pub fn decode(&self, member: &[u8], record: Record<'_>) -> Result<Option<StoredSession>> {
        const CUT_SHORT: StoreError = StoreError::Corrupt("it is cut short");
        match (self, record.payload) {
            (Self::Plain, Payload::Plain { json, form }) => {
                let id = self.id_of(member)?;
                let mut content = Vec::with_capacity(record.user.len() + json.len() + 8);
                record::write_content(record.user, json, form, &mut content)?;
                Ok(Some(StoredSession::new(id, record.expires, &content)))
            }
            (Self::Encrypted(keyring), Payload::Encrypted(base64)) => {
                let sealed =
                    BASE64.decode(base64).map_err(|_| StoreError::Corrupt("it is not what was sealed"))?;
                let mut plain = Vec::new();
                match keyring.open(&associated_data(member, record.user), &sealed, &mut plain)? {
                    Opened::UnknownKey => Ok(None),
                    Opened::Plain => {
                        let (len, rest) = read_len(&plain).ok_or(CUT_SHORT)?;
                        let (id, content) = rest.split_at_checked(len).ok_or(CUT_SHORT)?;
                        let id = SessionId::from_packed(id)?;
                        Ok(Some(StoredSession::new(id, record.expires, content)))
                    }
                }
            }
            (Self::Plain, Payload::Encrypted(_)) => {
                Err(StoreError::Corrupt("it is encrypted, and the store has no secret"))
            }
            (Self::Encrypted(_), Payload::Plain { .. }) => Err(StoreError::Corrupt("it is not encrypted")),
        }
    }

    /// Calls `read` with the session of a value, if it is live. Unlike [`Cipher::decode_live`], it copies no plaintext.
    ///
    /// # Errors
    /// As for [`Cipher::decode`].
    pub fn read_live(
        &self,
        id: &SessionId,
        value: &[u8],
        times: &Times,
        read: impl FnOnce(Expiry, Content<'_>),
    ) -> Result<()> {
        let Some(record) = live(value, times)? else { return Ok(()) };
        if let (Self::Plain, Payload::Plain { json, form }) = (self, record.payload) {
            return record::with_content(record.user, json, form, |content| read(record.expires, content));
        }
        if let Some(session) = self.decode(&self.member(id), record)? {
            read(session.expires, session.content()?);
        }
        Ok(())
    }

    /// The session of a value, if it is live.
    ///
    /// # Errors
    /// As for [`Cipher::decode`].
    pub fn decode_live(&self, member: &[u8], value: &[u8], times: &Times) -> Result<Option<StoredSession>> {
        let Some(record) = live(value, times)? else { return Ok(None) };
        let created = Some(times.created_at(record.created));
        Ok(self.decode(member, record)?.map(|session| session.with_creation(created)))
    }

    /// The id of a plaintext session.
    ///
    /// # Errors
    /// `Corrupt` if it is not a session id.
    pub fn id_of(&self, member: &[u8]) -> Result<SessionId> {
        const NO_ID: StoreError = StoreError::Corrupt("not a session id");
        SessionId::new(std::str::from_utf8(member).map_err(|_| NO_ID)?).map_err(|_| NO_ID)
    }

    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }
}

/// The record of a value. `None` if its session has expired, or if it is no record but a value of another app.
fn live<'a>(value: &'a [u8], times: &Times) -> Result<Option<Record<'a>>> {
    let Ok((expires, _)) = record::end(value, times) else { return Ok(None) };
    if times.clock.is_past(expires.millis()) {
        return Ok(None);
    }
    Record::parse(value).map(|record| Some(Record { expires, ..record }))
}

/// Binds the ciphertext to its key and its user. Not to its times, because the server moves the expiry.
fn associated_data(member: &[u8], user: &[u8]) -> Vec<u8> {
    [member, b"|", user].concat()
}
