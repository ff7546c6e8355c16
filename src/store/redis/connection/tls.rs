//! TLS to servers, by rustls: no library of the system's.

use std::sync::Arc;

use super::super::options::TlsOptions;
use crate::error::{Result, StoreError};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Makes what connects by TLS.
///
/// # Errors
/// `InvalidOption` for a text that is not what it should be, naming it.
pub fn connector(options: &TlsOptions) -> Result<TlsConnector> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid("tls", "what rustls takes", &error))?;
    let builder = if options.accept_any {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
    } else {
        builder.with_root_certificates(roots(options)?)
    };
    let config = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                .map_err(|_| not_pem("tls.key", "a private key as PEM text"))?;
            builder
                .with_client_auth_cert(certificates("tls.cert", cert)?, key)
                .map_err(|error| invalid("tls.key", "the key of tls.cert", &error))?
        }
        (None, None) => builder.with_no_client_auth(),
        (Some(_), None) => return Err(missing("tls.key", "given where tls.cert is")),
        (None, Some(_)) => return Err(missing("tls.cert", "given where tls.key is")),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn roots(options: &TlsOptions) -> Result<RootCertStore> {
    let Some(ca) = &options.ca else {
        return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("tls.ca", ca)? {
        roots.add(certificate).map_err(|error| invalid("tls.ca", "certificates of authorities", &error))?;
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
    StoreError::InvalidOption { option, expected: expected.into(), given: format!("another ({error})") }
}

fn not_pem(option: &'static str, expected: &str) -> StoreError {
    StoreError::InvalidOption { option, expected: expected.into(), given: "another text".into() }
}

fn missing(option: &'static str, expected: &str) -> StoreError {
    StoreError::InvalidOption { option, expected: expected.into(), given: "nothing".into() }
}

/// The name of a host as certificates have it.
pub fn server_name(host: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).ok()
}

/// For `rejectUnauthorized: false`. Signatures are checked all the same, so that the handshake means what it should.
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
