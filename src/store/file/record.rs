//! The bytes of a record: an unencrypted header, then the content, which may be encrypted.

use crate::clock::Millis;
use crate::error::{Result, StoreError};
use crate::session::Expiry;

/// What the writer and the sweep need to know about a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub expires: Expiry,
    /// The key of its entry in the expiry index: `expires` or earlier, as `touch` leaves the entry where it is.
    pub indexed_expiry: Millis,
    /// The number of its creation, which no other record has. It orders sessions by age.
    pub created: u64,
}

impl Header {
    const LEN: usize = 24;

    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.expires.to_bits().to_le_bytes());
        out.extend_from_slice(&self.indexed_expiry.to_le_bytes());
        out.extend_from_slice(&self.created.to_le_bytes());
    }
}

/// A record as it is stored.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    pub header: Header,
    pub body: &'a [u8],
}

impl<'a> Record<'a> {
    /// # Errors
    /// `Corrupt` if there are too few bytes.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let (header, body) =
            bytes.split_first_chunk::<{ Header::LEN }>().ok_or(StoreError::Corrupt("it is cut short"))?;
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let expires = Expiry::from_bits(word(0) as i64);
        let header = Header { expires, indexed_expiry: word(8) as i64, created: word(16) };
        Ok(Self { header, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Later versions read these bytes: they never change.
    #[test]
    fn a_header_is_these_bytes() {
        let header = Header { expires: Expiry::moved_to(1).unwrap(), indexed_expiry: -2, created: 0x0102 };
        let mut bytes = Vec::new();
        header.write(&mut bytes);
        let expected = b"\x03\0\0\0\0\0\0\0\xfe\xff\xff\xff\xff\xff\xff\xff\x02\x01\0\0\0\0\0\0";
        assert_eq!(bytes, expected);
        bytes.push(7);
        let record = Record::parse(&bytes).unwrap();
        assert_eq!((record.header, record.body), (header, &[7][..]));
        assert_eq!(Record::parse(&bytes[..23]).err().unwrap().code(), "ERR_STORE_CORRUPT");
    }
}
