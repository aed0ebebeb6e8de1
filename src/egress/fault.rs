//! Why a call to a user's URL failed.

use std::error::Error;
use std::io;

use actors::outbox::Undelivered;
use http::StatusCode;

use crate::http_client::root_cause;

/// Why there is no answer, or no valid one. The texts are for an operator's log: they may name addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The text is no callable URL, whatever its target.
    #[error("the URL {0}")]
    InvalidUrl(String),
    /// The first URL or a redirect's leads to an address, a name or a port that users' URLs may not reach.
    #[error("{0}")]
    Blocked(String),
    /// The name does not resolve.
    #[error("{0}")]
    Resolve(String),
    /// No server answers at the address.
    #[error("no connection: {0}")]
    Connect(String),
    /// The server's certificate is not trusted, or it speaks no TLS.
    #[error("no TLS connection: {0}")]
    Tls(String),
    /// The connection ended before the answer did, or the answer is not HTTP.
    #[error("the response was interrupted: {0}")]
    Broken(String),
    /// The timeout has passed.
    #[error("timed out")]
    Timeout,
    /// An answer with another status than success.
    #[error("response status {}", .0.as_u16())]
    Status(StatusCode),
    /// A redirect too many, or one without a target.
    #[error("the redirect was not followed: {0}")]
    Redirect(&'static str),
    /// An empty answer instead of a file.
    #[error("the response is empty")]
    Empty,
    /// More bytes than allowed.
    #[error("has more than {0} bytes")]
    TooLarge(u64),
}

impl Fault {
    /// A word for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidUrl(_) => "invalid_url",
            Self::Blocked(_) => "blocked_url",
            Self::Resolve(_) => "name_not_resolved",
            Self::Connect(_) => "connect_failed",
            Self::Tls(_) => "tls_failed",
            Self::Broken(_) => Undelivered::BrokenAnswer.word(),
            Self::Timeout => Undelivered::Timeout.word(),
            Self::Status(_) => "unexpected_status",
            Self::Redirect(_) => "unexpected_redirect",
            Self::Empty => "empty_answer",
            Self::TooLarge(_) => "too_large",
        }
    }

    /// From the client's error; a fault of connecting is returned as it was.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        chain(error)
            .find_map(|cause| cause.downcast_ref::<Self>().cloned())
            .unwrap_or_else(|| Self::Broken(last(error)))
    }

    /// From an error of connecting.
    pub(super) fn of_connecting(error: &(dyn Error + 'static)) -> Self {
        if let Some(fault) = chain(error).find_map(|cause| cause.downcast_ref::<Self>()) {
            return fault.clone();
        }
        let is_tls = chain(error).any(|cause| {
            let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            inner.is_some_and(|inner| inner.is::<rustls::Error>() || inner.is::<io::Error>())
        });
        if is_tls { Self::Tls(last(error)) } else { Self::Connect(last(error)) }
    }
}

fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&cause| cause.source())
}

/// The text of the innermost cause.
fn last(error: &(dyn Error + 'static)) -> String {
    root_cause(error).unwrap_or(error).to_string()
}
