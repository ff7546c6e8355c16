//! Encodes and decodes records, with or without encryption, and computes their lookup keys.

use std::ops::Deref;

use sha2::{Digest, Sha256};

use super::record::{Header, Record};
use crate::clock::Millis;
use crate::codec::{self, read_len, write_len};
use crate::error::{Result, StoreError};
use crate::keyring::{Domain, KeyId, Keyring, Opened};
use crate::session::{SessionId, UserKey};

/// A user in the user index. It is a hash, because a user's id may be longer than LMDB's longest key.
pub(super) type UserTag = [u8; 16];

/// The tag of an encrypted record without a user.
const NOBODY: UserTag = [0; 16];

/// Whether a store encrypts its records, and its key ring. This is fixed when the store is created.
pub(super) enum Encryption {
    Off,
    On(Box<Keyring>),
}

/// The key of a session's record.
pub(super) enum Key<'a> {
    Packed(&'a [u8]),
    Hashed([u8; 16]),
}

impl Deref for Key<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Packed(packed) => packed,
            Self::Hashed(hash) => hash,
        }
    }
}

/// The content of a record in plaintext.
pub(super) struct Contents<'a> {
    /// The packed id.
    pub id: &'a [u8],
    /// The content in the format of `codec`.
    pub content: &'a [u8],
}

impl Encryption {
    pub(super) fn key<'a>(&self, id: &'a SessionId) -> Key<'a> {
        match self {
            Self::Off => Key::Packed(id.as_bytes()),
            Self::On(keyring) => Key::Hashed(keyring.lookup(Domain::Session, id.as_bytes())),
        }
    }

    pub(super) fn tag(&self, user: UserKey<'_>) -> UserTag {
        match self {
            Self::Off => plain_tag(user),
            Self::On(keyring) => keyring.lookup(Domain::User, user.as_bytes()),
        }
    }

    /// Appends the bytes of a record.
    pub(super) fn write_record(
        &self,
        key: &[u8],
        header: Header,
        user: Option<UserTag>,
        contents: &Contents<'_>,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        header.write(out);
        match self {
            Self::Off => out.extend_from_slice(contents.content),
            Self::On(keyring) => {
                let tag = user.unwrap_or(NOBODY);
                out.extend_from_slice(&tag);
                let mut plain = Vec::with_capacity(2 + contents.id.len() + contents.content.len());
                write_len(contents.id.len(), &mut plain);
                plain.extend_from_slice(contents.id);
                plain.extend_from_slice(contents.content);
                keyring.seal(&bound_to(key, header, tag), &plain, out)?;
            }
        }
        Ok(())
    }

    /// Decrypts a record. `None` if no secret in the list decrypts it. Callers treat that session as absent.
    pub(super) fn decrypt<'a>(
        &self,
        key: &'a [u8],
        record: Record<'a>,
        buffer: &'a mut Vec<u8>,
    ) -> Result<Option<Contents<'a>>> {
        let Self::On(keyring) = self else {
            return Ok(Some(Contents { id: key, content: record.body }));
        };
        let (tag, encrypted) = split_tag(record.body)?;
        buffer.clear();
        match keyring.open(&bound_to(key, record.header, tag), encrypted, buffer)? {
            Opened::UnknownKey => Ok(None),
            Opened::Plain => {
                const CUT_SHORT: StoreError = StoreError::Corrupt("it is cut short");
                let (len, rest) = read_len(buffer).ok_or(CUT_SHORT)?;
                let (id, content) = rest.split_at_checked(len).ok_or(CUT_SHORT)?;
                Ok(Some(Contents { id, content }))
            }
        }
    }

    /// The id of the key that encrypts a record.
    pub(super) fn key_id(&self, record: Record<'_>) -> Option<KeyId> {
        match self {
            Self::Off => None,
            Self::On(_) => {
                split_tag(record.body).ok().and_then(|(_, encrypted)| Keyring::id_of(encrypted)).copied()
            }
        }
    }

    /// Whether the list of secrets can decrypt a record.
    pub(super) fn can_read(&self, record: Record<'_>) -> bool {
        match self {
            Self::Off => true,
            Self::On(keyring) => split_tag(record.body).is_ok_and(|(_, encrypted)| keyring.knows(encrypted)),
        }
    }

    /// The user tag of a record.
    pub(super) fn tag_of(&self, record: Record<'_>) -> Result<Option<UserTag>> {
        stored_tag(record, matches!(self, Self::On(_)))
    }
}

/// The user tag of a record. Needs no secret.
pub(super) fn stored_tag(record: Record<'_>, is_encrypted: bool) -> Result<Option<UserTag>> {
    if is_encrypted {
        return Ok(Some(split_tag(record.body)?.0).filter(|&tag| tag != NOBODY));
    }
    Ok(codec::decode_user(record.body)?.map(plain_tag))
}

fn plain_tag(user: UserKey<'_>) -> UserTag {
    let mut tag = UserTag::default();
    tag.copy_from_slice(&Sha256::digest(user.as_bytes())[..size_of::<UserTag>()]);
    tag
}

/// The additional authenticated data of an encrypted record. It binds the record to its key and its header, but not
/// to `indexed_expiry`: a sweep changes that without decrypting the record. All keys of encrypted records have the
/// same length.
fn bound_to(key: &[u8], header: Header, tag: UserTag) -> Vec<u8> {
    let (expires, created) = (header.expires.to_bits().to_le_bytes(), header.created.to_le_bytes());
    let created_at = header.created_at.map(Millis::to_le_bytes);
    [&expires[..], &created, &tag, key, created_at.as_ref().map_or(&[][..], |time| time)].concat()
}

fn split_tag(body: &[u8]) -> Result<(UserTag, &[u8])> {
    let (tag, encrypted) = body.split_first_chunk().ok_or(StoreError::Corrupt("it is cut short"))?;
    Ok((*tag, encrypted))
}
