//! Whom TLS trusts: the certificates that this machine's owner trusts.

use rustls::pki_types::CertificateDer;

/// The roots of the system's store, or of `SSL_CERT_FILE` and `SSL_CERT_DIR`. Reads files: call it once. Empty on a machine without
/// any, where every https tracker then fails with a clear error.
#[must_use]
pub fn tls_roots() -> Vec<CertificateDer<'static>> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        log::warn!("some certificates were left out: {error}");
    }
    log::debug!("{} root certificates", found.certs.len());
    found.certs
}
