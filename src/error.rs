//! The errors of a store.

use std::borrow::Cow;

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// An error of a store. Its message names fields or options, never session data: ids are secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("a live session has this sessionId already")]
    Exists,

    #[error("{field} must be {expected}; got {given}")]
    InvalidSession { field: &'static str, expected: &'static str, given: Cow<'static, str> },

    #[error(
        "the user already has {max} live sessions, which is maxSessionsPerUser (whenUserIsFull is \"reject\"): end one of \
         them first"
    )]
    TooManySessions { max: usize },

    #[error("the session takes {bytes} bytes as JSON; maxSessionBytes is {max}")]
    TooLarge { bytes: usize, max: usize },

    #[error("{option} must be {expected}; got {given}")]
    InvalidOption { option: &'static str, expected: String, given: String },

    #[error("the store is full: {0}")]
    Full(Cow<'static, str>),

    #[error("the store is closed")]
    Closed,

    #[error("a stored record cannot be read: {0}")]
    Corrupt(&'static str),

    /// The file is damaged, or not a store. The message names it.
    #[error("{0}")]
    Damaged(String),

    /// The message says who holds the lock.
    #[error("{0}")]
    Locked(String),

    /// A queue is full. Nothing has changed.
    #[error("the store is busy: {0}")]
    Busy(Cow<'static, str>),

    /// The system refused an operation, which the message names.
    #[error("{0}")]
    Io(String),

    /// A server, a disk or another process did not answer in time. `waited_for` is the start of the message.
    #[error("{waited_for} did not answer within {millis} ms{}", .outcome.in_words())]
    Timeout { waited_for: &'static str, millis: u64, outcome: Outcome },

    /// The server cannot be reached or refuses to serve. `reason` contains no secret.
    #[error("{reason}{}", .outcome.in_words())]
    Unavailable { reason: String, outcome: Outcome },

    /// Any other error of a write that may have happened, completely or partially.
    #[error("{error}{}", Outcome::Unknown.in_words())]
    Uncertain { error: Box<StoreError> },

    /// A bug in this package.
    #[error("internal error of @fluidauth/native-store: {0}. Please report it")]
    Internal(Cow<'static, str>),
}

/// What is known about a failed write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing has changed, or the call was not a write.
    NotDone,
    /// It may or may not have happened.
    Unknown,
}

impl Outcome {
    fn in_words(self) -> &'static str {
        match self {
            Self::NotDone => "",
            Self::Unknown => "; it may or may not have been carried out",
        }
    }
}

impl StoreError {
    /// The error's `code` in JavaScript.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Exists => "ERR_SESSION_EXISTS",
            Self::InvalidSession { .. } => "ERR_INVALID_SESSION",
            Self::TooManySessions { .. } => "ERR_TOO_MANY_SESSIONS",
            Self::TooLarge { .. } => "ERR_SESSION_TOO_LARGE",
            Self::InvalidOption { .. } => "ERR_INVALID_OPTION",
            Self::Full(_) => "ERR_STORE_FULL",
            Self::Closed => "ERR_STORE_CLOSED",
            Self::Corrupt(_) | Self::Damaged(_) => "ERR_STORE_CORRUPT",
            Self::Locked(_) => "ERR_STORE_LOCKED",
            Self::Io(_) => "ERR_STORE_IO",
            Self::Busy(_) => "ERR_STORE_BUSY",
            Self::Timeout { .. } => "ERR_STORE_TIMEOUT",
            Self::Uncertain { error } => error.code(),
            Self::Internal(_) => "ERR_INTERNAL",
            Self::Unavailable { .. } => "ERR_STORE_UNAVAILABLE",
        }
    }

    /// Whether the failed write may have happened.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(
            self,
            Self::Timeout { outcome: Outcome::Unknown, .. }
                | Self::Unavailable { outcome: Outcome::Unknown, .. }
                | Self::Uncertain { .. }
        )
    }

    /// Converts the error to that of a write that may have happened, completely or partially.
    #[must_use]
    pub(crate) fn of_unknown_outcome(self) -> Self {
        let outcome = Outcome::Unknown;
        match self {
            Self::Timeout { waited_for, millis, .. } => Self::Timeout { waited_for, millis, outcome },
            Self::Unavailable { reason, .. } => Self::Unavailable { reason, outcome },
            Self::Uncertain { error } => Self::Uncertain { error },
            other => Self::Uncertain { error: Box::new(other) },
        }
    }

    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), outcome: Outcome::NotDone }
    }

    pub(crate) fn invalid(
        field: &'static str,
        expected: &'static str,
        given: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::InvalidSession { field, expected, given: given.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_unknown_outcome_keeps_its_code_and_reports_the_outcome() {
        let error = StoreError::Io("the disk failed".into()).of_unknown_outcome();
        assert_eq!((error.code(), error.is_outcome_unknown()), ("ERR_STORE_IO", true));
        assert_eq!(error.to_string(), "the disk failed; it may or may not have been carried out");
        assert_eq!(error.clone().of_unknown_outcome(), error);
    }
}
