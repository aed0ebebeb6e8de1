//! TLS of outgoing calls.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// A client's settings that trust the platform's root certificates, with a cryptography provider of their own, so that
/// no process-wide default must be installed first. If the platform has no roots, nothing is trusted.
///
/// # Errors
/// If the provider supports none of the usual TLS versions.
pub fn client() -> Result<ClientConfig, rustls::Error> {
    match builder()?.with_platform_verifier() {
        Ok(builder) => Ok(builder.with_no_client_auth()),
        Err(error) => {
            tracing::warn!(%error, "no trusted root certificates: https URLs cannot be called");
            Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
        }
    }
}

/// The same, trusting these certificates and no others.
///
/// # Errors
/// As [`client`].
pub fn trusting(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    Ok(builder()?.with_root_certificates(roots).with_no_client_auth())
}

/// The certificates in a PEM file.
///
/// # Errors
/// Why they cannot be used; a file without any is wrong too.
pub fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("it contains no certificate".to_owned()) } else { Ok(roots) }
}

/// Settings with a cryptography provider of their own, before the trusted roots are set.
///
/// # Errors
/// As [`client`].
pub(crate) fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}
