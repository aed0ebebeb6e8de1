//! The client for servers that an operator or an admin configures: models, embeddings, buckets, receivers of traces
//! over HTTP, other servers of the store. Users' URLs are called by [`egress`](crate::egress).

use http::HeaderValue;
use http::header::InvalidHeaderValue;
use reqwest::ClientBuilder;
use reqwest::redirect::Policy;
use reqwest::retry;

/// A client without redirects, proxy variables or retries, which trusts the platform's root certificates. Callers add
/// their own settings.
///
/// # Errors
/// If TLS cannot be configured.
pub(crate) fn client() -> Result<ClientBuilder, rustls::Error> {
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(crate::tls::client()?)
        .no_proxy()
        .redirect(Policy::none())
        .retry(retry::never())
        .user_agent(crate::USER_AGENT))
}

/// The value of `Authorization` with a secret that no log shows.
///
/// # Errors
/// If the secret is not valid in a header.
pub(crate) fn bearer(secret: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {secret}"))?;
    value.set_sensitive(true);
    Ok(value)
}
