//! TLS connections, by rustls.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, InvalidMessage, RootCertStore, SignatureScheme,
};

use super::super::options::{Address, Authorities, TlsOptions};
use crate::error::{Result, StoreError};

/// Makes TLS connections.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    /// The name that every certificate must have, for any address.
    server_name: Option<ServerName<'static>>,
    /// The host names of servers whose addresses are IP addresses.
    hostnames: Arc<Mutex<HashMap<Address, String>>>,
}

impl Tls {
    /// # Errors
    /// `InvalidOption` for an invalid TLS option.
    pub fn new(options: &TlsOptions) -> Result<Self> {
        let server_name = options.server_name.as_deref().map(|name| {
            server_name(name).ok_or_else(|| StoreError::InvalidOption {
                option: "tls.servername",
                expected: "a host name or an IP address, as certificates have it".into(),
                given: "a string that is neither".into(),
            })
        });
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config(options)?)),
            server_name: server_name.transpose()?,
            hostnames: Arc::default(),
        })
    }

    /// Sets the host names of servers. Certificates are checked for these names from now on.
    pub fn set_hostnames(&self, hostnames: HashMap<Address, String>) {
        *self.hostnames.lock() = hostnames;
    }

    /// # Errors
    /// A message for people.
    pub async fn connect(
        &self,
        address: &Address,
        socket: TcpStream,
    ) -> Result<TlsStream<TcpStream>, String> {
        let hostname = self.hostnames.lock().get(address).cloned();
        let name = match (&self.server_name, hostname) {
            (Some(name), _) => name.clone(),
            (None, hostname) => server_name(hostname.as_ref().unwrap_or(&address.host))
                .ok_or("its host is no name for a certificate: set tls.servername")?,
        };
        self.connector.connect(name, socket).await.map_err(|error| describe(&error))
    }
}

/// A TLS client that accepts any server.
#[cfg(test)]
pub fn unchecked() -> tokio_rustls::rustls::ClientConnection {
    let config = config(&TlsOptions { accept_any: true, ..TlsOptions::default() }).unwrap();
    tokio_rustls::rustls::ClientConnection::new(Arc::new(config), server_name("localhost").unwrap()).unwrap()
}

/// Explains why the handshake failed.
fn describe(error: &io::Error) -> String {
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "no TLS: the server does not speak it on this port; redis:// is for such servers".into()
        }
        _ => format!("no TLS: {error}"),
    }
}

fn config(options: &TlsOptions) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid("tls", "what rustls takes", &error))?;
    let builder = if options.accept_any {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
    } else {
        builder.with_root_certificates(roots(options)?)
    };
    match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                .map_err(|_| not_pem("tls.key", "a private key as PEM text"))?;
            builder
                .with_client_auth_cert(certificates("tls.cert", cert)?, key)
                .map_err(|error| invalid("tls.key", "the key of tls.cert", &error))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(_), None) => Err(missing("tls.key", "given with tls.cert")),
        (None, Some(_)) => Err(missing("tls.cert", "given with tls.key")),
    }
}

fn roots(options: &TlsOptions) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match &options.authorities {
        Authorities::Given(texts) => {
            for text in texts {
                for certificate in certificates("tls.ca", text)? {
                    let added = roots.add(certificate);
                    added.map_err(|error| invalid("tls.ca", "certificates of authorities", &error))?;
                }
            }
        }
        Authorities::Default(text) => {
            // Some of the platform's certificates may be unusable for rustls.
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(text.as_bytes()).flatten());
        }
    }
    if roots.is_empty() {
        return Err(missing("tls.ca", "given where the platform has no authorities"));
    }
    Ok(roots)
}

fn certificates(option: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    const EXPECTED: &str = "one or more certificates as PEM text";
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(not_pem(option, EXPECTED)),
    }
}

fn invalid(option: &'static str, expected: &str, error: &Error) -> StoreError {
    StoreError::InvalidOption {
        option,
        expected: expected.into(),
        given: format!("one that does not fit: {error}"),
    }
}

fn not_pem(option: &'static str, expected: &str) -> StoreError {
    StoreError::InvalidOption { option, expected: expected.into(), given: "something else".into() }
}

fn missing(option: &'static str, expected: &str) -> StoreError {
    StoreError::InvalidOption { option, expected: expected.into(), given: "undefined".into() }
}

/// Parses a host name or an IP address for the check of a certificate.
fn server_name(host: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).ok()
}

/// Implements `rejectUnauthorized: false`. It accepts any certificate, but still checks signatures, so that the
/// handshake is sound.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
