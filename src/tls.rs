//! TLS of outgoing calls.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// A client's settings that trust the platform's root certificates, with a cryptography provider of their own, so that
/// no process-wide default must be installed first. Where the platform has no roots, nothing is trusted.
///
/// # Errors
/// When the provider can do none of the usual TLS versions.
pub fn client() -> Result<ClientConfig, rustls::Error> {
    let builder = || {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
    };
    match builder()?.with_platform_verifier() {
        Ok(builder) => Ok(builder.with_no_client_auth()),
        Err(error) => {
            tracing::warn!(%error, "no trusted root certificates: nothing behind https can be called");
            Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
        }
    }
}
