//! The keys that are derived from a secret.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::cipher::Cipher;
use super::secret::Secret;
use crate::error::Result;

pub(super) const KEY_ID_BYTES: usize = 4;

/// Names the secret that encrypted some bytes. It is public, and reveals nothing about the keys.
pub type KeyId = [u8; KEY_ID_BYTES];

pub(super) struct Keys {
    pub(super) id: KeyId,
    /// Encrypts records.
    pub(super) record: Cipher,
    /// Encrypts the index key.
    pub(super) wrapping: Cipher,
}

impl Keys {
    /// # Errors
    /// As for [`Secret::check`].
    pub(super) fn of_all(secrets: &[Secret], salt: &[u8; 32]) -> Result<Vec<Self>> {
        Secret::check(secrets)?;
        Ok(secrets.iter().map(|secret| Self::of(secret, salt)).collect())
    }

    fn of(secret: &Secret, salt: &[u8; 32]) -> Self {
        let hkdf = extract(salt, secret.as_bytes());
        Self {
            id: *expand(&hkdf, b"fluidauth native-store v1 key id"),
            record: Cipher::new(&expand(&hkdf, b"fluidauth native-store v1 record key")),
            wrapping: Cipher::new(&expand(&hkdf, b"fluidauth native-store v1 wrapping key")),
        }
    }
}

fn extract(salt: &[u8], secret: &[u8]) -> Hkdf<Sha256> {
    Hkdf::new(Some(salt), secret)
}

fn expand<const N: usize>(hkdf: &Hkdf<Sha256>, info: &[u8]) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 255 * 32) };
    let mut key = Zeroizing::new([0; N]);
    hkdf.expand(info, &mut *key).expect("a length that HKDF has");
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5869, appendix A.1.
    #[test]
    fn derives_the_test_vector_of_the_rfc() {
        let salt = std::array::from_fn::<u8, 13, _>(|at| at as u8);
        let info = std::array::from_fn::<u8, 10, _>(|at| 0xf0 + at as u8);
        let okm = b"\x3c\xb2\x5f\x25\xfa\xac\xd5\x7a\x90\x43\x4f\x64\xd0\x36\x2f\x2a\
            \x2d\x2d\x0a\x90\xcf\x1a\x5a\x4c\x5d\xb0\x2d\x56\xec\xc4\xc5\xbf\
            \x34\x00\x72\x08\xd5\xb8\x87\x18\x58\x65";
        assert_eq!(*expand(&extract(&salt, &[0x0b; 22]), &info), *okm);
    }
}
