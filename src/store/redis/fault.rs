//! Why a server cannot be reached, as a code for programs. The messages for people vary, and servers write some of
//! them.

/// Why a server cannot be reached, or does not accept commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The server refuses the login, or a command of the login.
    Authentication,
    /// The host name does not resolve.
    Dns,
    Tls,
    /// The server is a replica.
    NotPrimary,
    /// Nothing listens at the address.
    Refused,
    /// The server is loading its data, or the cluster is down.
    Loading,
    /// The server did not answer in time.
    Timeout,
    Other,
}

impl Fault {
    /// Classifies an error message.
    pub fn of(message: &str) -> Self {
        const SIGNS: [(Fault, &[&str]); 7] = [
            (Fault::Authentication, &["WRONGPASS", "NOAUTH", "NOPERM", "ERR AUTH", "credentials: "]),
            (Fault::Dns, &["DNS: "]),
            (Fault::Tls, &["no TLS", "expects TLS", "tls.servername"]),
            (
                Fault::NotPrimary,
                &["READONLY", "no primary", "not a primary", "no longer the primary", "MASTERDOWN"],
            ),
            (Fault::Loading, &["LOADING", "CLUSTERDOWN", "BUSY"]),
            (Fault::Refused, &["connection refused"]),
            (Fault::Timeout, &["did not answer within", "no answer", "no connection within"]),
        ];
        let is_of = |(_, signs): &&(Self, &[&str])| signs.iter().any(|sign| message.contains(sign));
        SIGNS.iter().find(is_of).map_or(Self::Other, |(fault, _)| *fault)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::NotPrimary => "not-primary",
            Self::Refused => "refused",
            Self::Loading => "loading",
            Self::Timeout => "timeout",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_messages_are_classified() {
        for (fault, message) in [
            (Fault::Authentication, "no connection to a:1: WRONGPASS invalid username-password pair"),
            (Fault::Authentication, "no connection to a:1: NOAUTH Authentication required."),
            (Fault::Authentication, "no connection to a:1: credentials: no answer within 2000 ms"),
            (Fault::Authentication, "Redis says NOPERM this user has no permissions"),
            (Fault::Dns, "no connection to a:1: DNS: failed to lookup address information"),
            (Fault::Tls, "no connection to a:1: no TLS: invalid peer certificate: UnknownIssuer"),
            (Fault::Tls, "no TLS handshake (redis:// is for servers without TLS) within 2000 ms"),
            (Fault::Tls, "the server closed it, as by a server that expects TLS (rediss://)"),
            (Fault::NotPrimary, "Redis says READONLY You can't write against a read only replica."),
            (Fault::NotPrimary, "no connection to a:1: it is not a primary"),
            (Fault::Loading, "Redis says LOADING Redis is loading the dataset in memory"),
            (Fault::Refused, "no connection to a:1: connection refused"),
            (Fault::Timeout, "no connection to a:1: no connection within 2000 ms"),
            (Fault::Timeout, "no answer to the login within 2000 ms"),
            (Fault::Other, "connection reset"),
        ] {
            assert_eq!(Fault::of(message), fault, "{message}");
        }
    }
}
