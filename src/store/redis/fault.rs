//! Why servers are not reached, for programs: the words that people read are of many kinds, some of them the servers'.

/// Why a server is not reached, or does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It refuses the login, or a command of it.
    Authentication,
    /// Its name has no address.
    Dns,
    Tls,
    /// It is a replica.
    NotPrimary,
    /// Nothing listens at its address.
    Refused,
    /// It loads its data, or a cluster is down.
    Loading,
    /// It did not answer in time.
    Timeout,
    Other,
}

impl Fault {
    /// The fault of which the words of an error are.
    pub fn of(words: &str) -> Self {
        const SIGNS: [(Fault, &[&str]); 7] = [
            (Fault::Authentication, &["WRONGPASS", "NOAUTH", "NOPERM", "ERR AUTH", "credentials: "]),
            (Fault::Dns, &["DNS: "]),
            (Fault::Tls, &["no TLS", "expects TLS", "tls.servername"]),
            (Fault::NotPrimary, &["READONLY", "no primary", "primary no more", "MASTERDOWN"]),
            (Fault::Loading, &["LOADING", "CLUSTERDOWN", "BUSY"]),
            (Fault::Refused, &["connection refused"]),
            (Fault::Timeout, &["did not answer within", "no answer", "no connection within"]),
        ];
        let is_of = |(_, signs): &&(Self, &[&str])| signs.iter().any(|sign| words.contains(sign));
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
    fn the_words_of_an_error_say_its_fault() {
        for (fault, words) in [
            (Fault::Authentication, "no connection to a:1: WRONGPASS invalid username-password pair"),
            (Fault::Authentication, "no connection to a:1: NOAUTH Authentication required."),
            (Fault::Authentication, "no connection to a:1: credentials: no answer within 2000 ms"),
            (Fault::Authentication, "Redis says NOPERM this user has no permissions"),
            (Fault::Dns, "no connection to a:1: DNS: failed to lookup address information"),
            (Fault::Tls, "no connection to a:1: no TLS: invalid peer certificate: UnknownIssuer"),
            (Fault::Tls, "no TLS handshake (redis:// is for servers without TLS) within 2000 ms"),
            (Fault::Tls, "the server closed it, as by a server that expects TLS (rediss://)"),
            (Fault::NotPrimary, "Redis says READONLY You can't write against a read only replica."),
            (Fault::NotPrimary, "no connection to a:1: it is no primary"),
            (Fault::Loading, "Redis says LOADING Redis is loading the dataset in memory"),
            (Fault::Refused, "no connection to a:1: connection refused"),
            (Fault::Timeout, "no connection to a:1: no connection within 2000 ms"),
            (Fault::Timeout, "no answer to the login within 2000 ms"),
            (Fault::Other, "connection reset"),
        ] {
            assert_eq!(Fault::of(words), fault, "{words}");
        }
    }
}
