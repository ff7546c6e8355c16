//! The secrets that an app configures.

use std::fmt;

use zeroize::Zeroizing;

use crate::error::{Result, StoreError};

/// The maximum number of secrets of a store.
pub const MAX_SECRETS: usize = 16;
const MIN_BYTES: usize = 16;
/// A command that prints a good secret.
const EXAMPLE: &str = "openssl rand -base64 32";

/// A secret, wiped from memory when dropped.
///
/// It should be random. It is not hashed as passwords are, so an attacker with the file can guess a weak one.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// # Errors
    /// `InvalidOption` unless there are 1 to 16 different secrets of at least 16 bytes each.
    pub fn check(secrets: &[Self]) -> Result<()> {
        match secrets.len() {
            0 => return Err(Self::invalid_list("an empty list")),
            1..=MAX_SECRETS => {}
            more => return Err(Self::invalid_list(format!("{more} secrets"))),
        }
        for (at, secret) in secrets.iter().enumerate() {
            let bytes = secret.as_bytes().len();
            if bytes < MIN_BYTES {
                return Err(StoreError::InvalidOption {
                    option: "secret",
                    expected: format!("at least {MIN_BYTES} bytes long, such as the output of {EXAMPLE:?}"),
                    given: match secrets.len() {
                        1 => format!("{bytes} bytes"),
                        _ => format!("{bytes} bytes as secret {}", at + 1),
                    },
                });
            }
            if let Some(twin) = secrets[..at].iter().position(|other| other.0 == secret.0) {
                let given = format!("the same one as secret {} and secret {}", twin + 1, at + 1);
                return Err(Self::invalid_list(given));
            }
        }
        Ok(())
    }

    fn invalid_list(given: impl Into<String>) -> StoreError {
        StoreError::InvalidOption {
            option: "secret",
            expected: format!("1 to {MAX_SECRETS} different secrets"),
            given: given.into(),
        }
    }
}

/// Hides the secret and its length.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(secrets: &[&[u8]]) -> String {
        let secrets = secrets.iter().map(|secret| Secret::new(secret.to_vec())).collect::<Vec<_>>();
        match Secret::check(&secrets) {
            Err(StoreError::InvalidOption { option: "secret", given, .. }) => given,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_to_sixteen_different_secrets_of_sixteen_bytes_are_fine() {
        let secrets = (0..16).map(|byte| Secret::new(vec![byte; 16])).collect::<Vec<_>>();
        assert_eq!(Secret::check(&secrets), Ok(()));
        assert_eq!(Secret::check(&secrets[..1]), Ok(()));
    }

    #[test]
    fn other_lists_are_refused_without_showing_the_secret() {
        assert_eq!(given(&[]), "an empty list");
        assert_eq!(given(&[&b"sixteen bytes it"[..]; 17]), "17 secrets");
        assert_eq!(given(&[b"sixteen bytes it", b"hunter2"]), "7 bytes as secret 2");
        let twice = given(&[b"sixteen bytes it", b"other sixteen by", b"sixteen bytes it"]);
        assert_eq!(twice, "the same one as secret 1 and secret 3");
    }

    #[test]
    fn the_error_says_what_is_expected() {
        let error = Secret::check(&[]).unwrap_err().to_string();
        assert_eq!(error, "secret must be 1 to 16 different secrets; got an empty list");
        let error = Secret::check(&[Secret::new(b"cat".to_vec())]).unwrap_err().to_string();
        let expected = "at least 16 bytes long, such as the output of \"openssl rand -base64 32\"";
        assert_eq!(error, format!("secret must be {expected}; got 3 bytes"));
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        assert_eq!(format!("{:?}", Secret::new(b"secret".to_vec())), "Secret(..)");
    }
}
