//! The bytes of a record: an unencrypted header, and then the content, which may be encrypted.

use crate::clock::Millis;
use crate::error::{Result, StoreError};
use crate::lifetime::Lifetime;
use crate::session::Expiry;

/// The part of a record that writes and sweeps need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub expires: Expiry,
    /// The key of its entry in the expiry index. It is not later than `expires`, because `touch` does not move the
    /// entry.
    pub indexed_expiry: Millis,
    /// The creation number, which no other record has. It orders sessions by age.
    pub created: u64,
    /// The creation time. `None` if a version without creation times has written the record.
    pub created_at: Option<Millis>,
}

/// Marks a header with a creation time. The upper bits of an expiry equal its sign, and a set mark makes this one
/// differ.
const HAS_CREATION_TIME: i64 = 1 << 62;

impl Header {
    const LEN: usize = 24;
    /// The length of the creation time in a header.
    pub(super) const CREATION_TIME_LEN: usize = 8;

    pub(super) fn write(self, out: &mut Vec<u8>) {
        let expires = self.expires.to_bits() ^ self.created_at.map_or(0, |_| HAS_CREATION_TIME);
        out.extend_from_slice(&expires.to_le_bytes());
        out.extend_from_slice(&self.indexed_expiry.to_le_bytes());
        out.extend_from_slice(&self.created.to_le_bytes());
        if let Some(created_at) = self.created_at {
            out.extend_from_slice(&created_at.to_le_bytes());
        }
    }

    /// When the session ends with this limit. The record may have been written with a higher limit.
    pub(super) fn end(self, lifetime: Lifetime) -> Expiry {
        self.created_at.map_or(self.expires, |created_at| lifetime.end(self.expires, created_at))
    }

    /// Whether the session ends with this limit before its entry in the expiry index is due.
    pub(super) fn ends_before_entry(self, lifetime: Lifetime) -> bool {
        self.end(lifetime).millis() < self.indexed_expiry
    }
}

/// A stored record.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    pub header: Header,
    pub body: &'a [u8],
}

impl<'a> Record<'a> {
    /// Splits a record into header and body.
    ///
    /// # Errors
    /// `Corrupt` if the record is too short.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self> {
        const CUT_SHORT: StoreError = StoreError::Corrupt("it is cut short");
        let (header, mut body) = bytes.split_first_chunk::<{ Header::LEN }>().ok_or(CUT_SHORT)?;
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&header[at..at + 8]);
            i64::from_le_bytes(word)
        };
        let mut expires = word(0);
        let mut created_at = None;
        if (expires ^ expires >> 1) & HAS_CREATION_TIME != 0 {
            expires ^= HAS_CREATION_TIME;
            let (time, rest) = body.split_first_chunk::<{ Header::CREATION_TIME_LEN }>().ok_or(CUT_SHORT)?;
            (created_at, body) = (Some(Millis::from_le_bytes(*time)), rest);
        }
        let expires = Expiry::from_bits(expires);
        let header = Header { expires, indexed_expiry: word(8), created: word(16) as u64, created_at };
        Ok(Self { header, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iso::MAX_MILLIS;

    /// Later versions must be able to read these bytes, so they never change.
    #[test]
    fn a_header_has_exactly_these_bytes() {
        let expires = Expiry::moved_to(1).unwrap();
        let header = Header { expires, indexed_expiry: -2, created: 0x0102, created_at: None };
        let mut bytes = Vec::new();
        header.write(&mut bytes);
        let expected = b"\x03\0\0\0\0\0\0\0\xfe\xff\xff\xff\xff\xff\xff\xff\x02\x01\0\0\0\0\0\0";
        assert_eq!(bytes, expected);
        bytes.push(7);
        let record = Record::parse(&bytes).unwrap();
        assert_eq!((record.header, record.body), (header, &[7][..]));
        assert_eq!(Record::parse(&bytes[..23]).err().unwrap().code(), "ERR_STORE_CORRUPT");
    }

    #[test]
    fn a_header_with_a_creation_time_has_exactly_these_bytes() {
        let expires = Expiry::moved_to(1).unwrap();
        let header = Header { expires, indexed_expiry: -2, created: 0x0102, created_at: Some(0x0304) };
        let mut bytes = Vec::new();
        header.write(&mut bytes);
        let expected =
            b"\x03\0\0\0\0\0\0\x40\xfe\xff\xff\xff\xff\xff\xff\xff\x02\x01\0\0\0\0\0\0\x04\x03\0\0\0\0\0\0";
        assert_eq!(bytes, expected);
        bytes.push(7);
        let record = Record::parse(&bytes).unwrap();
        assert_eq!((record.header, record.body), (header, &[7][..]));
        assert_eq!(Record::parse(&bytes[..31]).err().unwrap().code(), "ERR_STORE_CORRUPT");
    }

    #[test]
    fn every_expiry_round_trips_with_and_without_a_creation_time() {
        let bounds =
            [Expiry::new(-MAX_MILLIS), Expiry::moved_to(-1), Expiry::new(0), Expiry::moved_to(MAX_MILLIS)];
        for expires in bounds.map(Result::unwrap).into_iter().chain([Expiry::MIN]) {
            for created_at in [None, Some(0), Some(-1), Some(MAX_MILLIS)] {
                let header = Header { expires, indexed_expiry: 0, created: u64::MAX, created_at };
                let mut bytes = Vec::new();
                header.write(&mut bytes);
                assert_eq!(Record::parse(&bytes).unwrap().header, header);
            }
        }
    }
}
