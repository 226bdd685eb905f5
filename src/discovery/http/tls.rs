//! TLS for HTTP: whom to trust, and what went wrong in words for users.

use std::io::{self, Read, Write};
use std::sync::{Arc, LazyLock};

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Error as TlsError, RootCertStore, StreamOwned,
};

use super::line::Stream;
use super::race::from_io;
use super::{Deadline, HttpError};
use crate::discovery::url::Host;

/// What all connections share. Reading the system's certificates takes milliseconds, and once is enough.
static CONFIG: LazyLock<Result<Arc<ClientConfig>, TlsError>> = LazyLock::new(configure);

/// Encrypts a connection. The handshake is over when this returns, so what is wrong with the certificate is known.
pub(super) fn wrap(
    host: &Host,
    mut inner: Box<dyn Stream>,
    deadline: &Deadline,
) -> Result<Box<dyn Stream>, HttpError> {
    let config = CONFIG.clone().map_err(|error| HttpError::Tls { text: words(&error) })?;
    let name =
        server_name(host).ok_or_else(|| HttpError::Tls { text: "its name has no certificate".to_owned() })?;
    let mut session =
        ClientConnection::new(config, name).map_err(|error| HttpError::Tls { text: words(&error) })?;
    while session.is_handshaking() {
        session.complete_io(&mut inner).map_err(|error| failed(&error, deadline))?;
    }
    Ok(Box::new(Encrypted(StreamOwned::new(session, inner))))
}

/// A name as certificates have it, without the dot that a full name may end with.
fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::V6(ip) => Some(ServerName::IpAddress((*ip).into())),
        Host::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned()).ok(),
    }
}

struct Encrypted(StreamOwned<ClientConnection, Box<dyn Stream>>);

impl Read for Encrypted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer) {
            // Servers that close without the farewell of TLS are common. What came is judged by itself.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            read => read,
        }
    }
}

impl Write for Encrypted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Stream for Encrypted {
    fn limit_wait(&mut self, wait: Option<std::time::Duration>) {
        self.0.sock.limit_wait(wait);
    }
}

fn configure() -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    // `SSL_CERT_FILE` and `SSL_CERT_DIR`, or what the system has. What cannot be read is left out: the built-in ones
    // may do.
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!("trusted certificates of the system: {error}");
    }
    let (added, unreadable) = roots.add_parsable_certificates(system.certs.iter().cloned());
    tracing::debug!(added, unreadable, "trusted certificates of the system");
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let verifier = verifier.map_err(|error| TlsError::General(error.to_string()))?;
    let trust = verify::Trust { verifier, leaves: system.certs };
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.dangerous().with_custom_certificate_verifier(Arc::new(trust)).with_no_client_auth()))
}

/// A handshake that failed. Errors of the connection below it stay what they are.
fn failed(error: &io::Error, deadline: &Deadline) -> HttpError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
        Some(error) => HttpError::Tls { text: words(error) },
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            HttpError::Tls { text: "it closed the connection instead of beginning TLS".to_owned() }
        }
        None => from_io(error, deadline),
    }
}

/// What a user can do something about, in his words; all else in those of the library.
fn words(error: &TlsError) -> String {
    let TlsError::InvalidCertificate(error) = error else {
        return match error {
            TlsError::InvalidMessage(_) => {
                "what answers there does not speak TLS; try http instead of https".to_owned()
            }
            TlsError::AlertReceived(alert) => format!("it refuses TLS: {alert:?}"),
            TlsError::PeerIncompatible(_) => "it speaks no version of TLS that is safe".to_owned(),
            error => format!("TLS failed: {error}"),
        };
    };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired, or the clock of this machine is wrong".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet, or the clock of this machine is wrong".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name".to_owned()
        }
        // A signature is looked at only where the issuer has the name of one who is trusted.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is from nobody who is trusted here; SSL_CERT_FILE can name a file with further issuers"
                .to_owned()
        }
        CertificateError::Revoked => "its certificate was revoked".to_owned(),
        error => format!("its certificate is not valid: {error}"),
    }
}

/// Whom to believe.
mod verify {
    use rustls::DigitallySignedStruct;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::UnixTime;
    use rustls::server::ParsedCertificate;
    use rustls::{SignatureScheme, client};

    use super::{Arc, CertificateDer, CertificateError, ServerName, TlsError, WebPkiServerVerifier};

    /// The usual rules, and one that curl and browsers have as well: a certificate that stands itself among the trusted
    /// ones of the system may be a server's, although it signs for itself.
    #[derive(Debug)]
    pub(super) struct Trust {
        pub(super) verifier: Arc<WebPkiServerVerifier>,
        pub(super) leaves: Vec<CertificateDer<'static>>,
    }

    impl ServerCertVerifier for Trust {
        fn verify_server_cert(
            &self,
            end_entity: &CertificateDer<'_>,
            intermediates: &[CertificateDer<'_>],
            server_name: &ServerName<'_>,
            ocsp_response: &[u8],
            now: UnixTime,
        ) -> Result<ServerCertVerified, TlsError> {
            let verified =
                self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
            match verified {
                // The dates have been looked at before this is said.
                Err(TlsError::InvalidCertificate(CertificateError::Other(error)))
                    if is_ca(&error) && self.leaves.iter().any(|leaf| leaf == end_entity) =>
                {
                    client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                    Ok(ServerCertVerified::assertion())
                }
                Err(TlsError::InvalidCertificate(CertificateError::Other(error))) if is_ca(&error) => {
                    Err(TlsError::InvalidCertificate(CertificateError::UnknownIssuer))
                }
                verified => verified,
            }
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, TlsError> {
            self.verifier.verify_tls12_signature(message, cert, signature)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, TlsError> {
            self.verifier.verify_tls13_signature(message, cert, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.verifier.supported_verify_schemes()
        }
    }

    fn is_ca(error: &rustls::OtherError) -> bool {
        error.to_string().contains("CaUsedAsEndEntity")
    }
}
