//! Random bytes from the system.

use crate::error::{Result, StoreError};

pub(super) fn fill(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(unavailable)
}

pub(crate) fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

fn unavailable(error: getrandom::Error) -> StoreError {
    StoreError::Io(format!("the system has no random bytes: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        assert_ne!(bytes::<16>().unwrap(), bytes::<16>().unwrap());
    }

    #[test]
    fn a_system_without_randomness_is_an_error() {
        let error = unavailable(getrandom::Error::UNSUPPORTED);
        assert!(error.to_string().starts_with("the system has no random bytes: "), "{error}");
    }
}
