//! TLS of a stream that we opened, as a machine over bytes: `rustls` with `ring`.
//!
//! `ring` draws its own entropy: the one thing below the driver that does.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// Why a stream has no TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsError {
    /// The name is none that a certificate could have.
    Name,
    /// The other end's certificate is not to be trusted, or it does not speak TLS.
    Refused,
}

/// How certificates are judged: by these roots. Those that cannot be read are left out.
#[must_use]
pub fn config(roots: Vec<CertificateDer<'static>>) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("ring knows the protocol versions that rustls does");
    Arc::new(builder.with_root_certificates(store).with_no_client_auth())
}

/// One stream's TLS.
pub struct Tls {
    connection: Box<ClientConnection>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls(..)") // it holds keys
    }
}

impl Tls {
    /// Begins towards `host`.
    ///
    /// # Errors
    /// [`TlsError::Name`].
    pub fn new(config: &Arc<ClientConfig>, host: &str) -> Result<Self, TlsError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name)?;
        let connection = ClientConnection::new(Arc::clone(config), name).map_err(|_| TlsError::Name)?;
        Ok(Self { connection: Box::new(connection) })
    }

    /// Takes ciphertext that came, and appends what it means to `plain`.
    ///
    /// # Errors
    /// [`TlsError::Refused`].
    pub fn handle_input(&mut self, mut ciphertext: &[u8], plain: &mut Vec<u8>) -> Result<(), TlsError> {
        while !ciphertext.is_empty() {
            let taken = self.connection.read_tls(&mut ciphertext).map_err(|_| TlsError::Refused)?;
            self.connection.process_new_packets().map_err(|_| TlsError::Refused)?;
            let mut buf = [0; 4096];
            loop {
                match self.connection.reader().read(&mut buf) {
                    Ok(0) => break,
                    Ok(count) => plain.extend_from_slice(&buf[..count]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => return Err(TlsError::Refused),
                }
            }
            if taken == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Takes plain bytes to send.
    pub fn send(&mut self, plain: &[u8]) {
        self.connection.writer().write_all(plain).expect("its buffer takes a request");
    }

    /// Appends what should be sent to `ciphertext`.
    pub fn poll_output(&mut self, ciphertext: &mut Vec<u8>) {
        while self.connection.wants_write() {
            if self.connection.write_tls(ciphertext).is_err() {
                return;
            }
        }
    }
}
