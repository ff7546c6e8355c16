//! XChaCha20-Poly1305. Encryption appends nonce, ciphertext and tag to a buffer.

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};

use crate::error::{Result, StoreError};

/// 192 bits: random nonces do not collide, however many records one key encrypts.
pub(super) const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
pub(super) const OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// A cipher with its key, which is wiped from memory when dropped.
pub(super) struct Cipher(XChaCha20Poly1305);

/// The parts of the output of [`Cipher::seal`].
#[derive(Clone, Copy)]
pub(super) struct Sealed<'a> {
    nonce: &'a [u8; NONCE_BYTES],
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG_BYTES],
}

impl<'a> Sealed<'a> {
    /// Returns `None` if there are too few bytes.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (nonce, rest) = bytes.split_first_chunk()?;
        let (ciphertext, tag) = rest.split_last_chunk()?;
        Some(Self { nonce, ciphertext, tag })
    }
}

impl Cipher {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(XChaCha20Poly1305::new(key.into()))
    }

    /// # Errors
    /// `Io` for a plaintext of 256 GiB or more. Then `out` contains a part of it.
    pub(super) fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        out.extend_from_slice(nonce);
        let start = out.len();
        out.extend_from_slice(plain);
        let tag = self
            .0
            .encrypt_in_place_detached(nonce.into(), aad, &mut out[start..])
            .map_err(|_| StoreError::Io("the session is too long to encrypt".into()))?;
        out.extend_from_slice(&tag);
        Ok(())
    }

    /// Appends the plaintext and returns true. If the tag does not match, returns false and leaves `out` unchanged.
    #[must_use]
    pub(super) fn open(&self, aad: &[u8], sealed: Sealed<'_>, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        out.extend_from_slice(sealed.ciphertext);
        let (nonce, tag) = (sealed.nonce.into(), sealed.tag.into());
        let authentic = self.0.decrypt_in_place_detached(nonce, aad, &mut out[start..], tag).is_ok();
        if !authentic {
            out.truncate(start);
        }
        authentic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// draft-irtf-cfrg-xchacha-03, appendix A.3.1.
    #[test]
    fn matches_the_test_vector_of_the_draft() {
        let key = std::array::from_fn(|at| 0x80 + at as u8);
        let nonce = std::array::from_fn(|at| 0x40 + at as u8);
        let aad = b"\x50\x51\x52\x53\xc0\xc1\xc2\xc3\xc4\xc5\xc6\xc7";
        let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the \
            future, sunscreen would be it.";
        let mut sealed = Vec::new();
        Cipher::new(&key).seal(&nonce, aad, plain, &mut sealed).unwrap();
        let start = b"\xbd\x6d\x17\x9d\x3e\x83\xd4\x3b\x95\x76\x57\x94\x93\xc0\xe9\x39";
        let tag = b"\xc0\x87\x59\x24\xc1\xc7\x98\x79\x47\xde\xaf\xd8\x78\x0a\xcf\x49";
        assert_eq!(sealed.len(), NONCE_BYTES + plain.len() + TAG_BYTES);
        assert_eq!(sealed[..NONCE_BYTES], nonce);
        assert_eq!(sealed[NONCE_BYTES..][..16], start[..]);
        assert!(sealed.ends_with(tag));
    }
}
