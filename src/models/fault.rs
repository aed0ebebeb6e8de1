//! Failures of a call, each with its own code and a text that quotes nothing from the endpoint.

use std::time::Duration;

use actors::conversation::Failure;
use http::StatusCode;
use thiserror::Error;

use super::endpoint::InvalidBaseUrl;

/// Why a call has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Fault {
    #[error("the agent's provider is not an endpoint")]
    Provider,
    #[error("the base URL {0}")]
    BaseUrl(#[from] InvalidBaseUrl),
    #[error("the API key is not a valid header value")]
    ApiKey,
    #[error("the model's endpoint could not be reached")]
    Connect,
    #[error("the model did not answer in time")]
    Timeout,
    #[error("the model did not start to answer in time")]
    FirstToken,
    #[error("the model stopped in the middle of its answer")]
    Stalled,
    #[error("the model's endpoint answered 429")]
    RateLimited,
    #[error("the model's endpoint answered {}", .0.as_u16())]
    Upstream(StatusCode),
    #[error("the model's endpoint answered {}", .0.as_u16())]
    Unauthorized(StatusCode),
    #[error("the model's endpoint answered {}", .0.as_u16())]
    BadRequest(StatusCode),
    #[error("the model's endpoint answered {}; redirects are not followed", .0.as_u16())]
    Redirect(StatusCode),
    #[error("the model's endpoint reported an error in its answer")]
    Reported,
    #[error("the model's endpoint answered with neither JSON nor an event stream")]
    NotJson,
    #[error("the model's answer is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the model's answer is empty")]
    EmptyReply,
    #[error("the model endpoint's answer {0}")]
    InvalidReply(&'static str),
    #[error("the model endpoint's content filter withheld the reply")]
    Filtered,
}

impl Fault {
    /// The failure's code, for programs.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Provider => "provider_unavailable",
            Self::BaseUrl(_) => "invalid_base_url",
            Self::ApiKey => "invalid_api_key",
            Self::Connect => "connect_failed",
            Self::Timeout => "timeout",
            Self::FirstToken => "first_token_timeout",
            Self::Stalled => "stalled",
            Self::Reported => "reported_error",
            Self::RateLimited => "rate_limited",
            Self::Upstream(_) => "upstream_error",
            Self::Unauthorized(_) => "unauthorized",
            Self::BadRequest(_) => "bad_request",
            Self::Redirect(_) => "unexpected_redirect",
            Self::NotJson => "not_json",
            Self::TooLarge(_) => "too_large",
            Self::EmptyReply => "empty_reply",
            Self::InvalidReply(_) => "invalid_reply",
            Self::Filtered => "content_filtered",
        }
    }

    /// Whether a retry a moment later may succeed.
    pub(super) fn is_transient(self) -> bool {
        matches!(self, Self::Connect | Self::RateLimited | Self::Upstream(_))
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self { code: fault.code().to_owned(), detail: fault.to_string() }
    }
}

/// A failed exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) fault: Fault,
    /// The endpoint's `Retry-After`.
    pub(super) retry_after: Option<Duration>,
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self { fault, retry_after: None }
    }
}
