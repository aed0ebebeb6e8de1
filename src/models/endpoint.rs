//! The endpoint of a model.

use thiserror::Error;
use url::Url;

/// Why a base URL cannot be used. The texts follow the name of the setting and do not repeat its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum InvalidBaseUrl {
    /// It cannot be read.
    #[error("is not an absolute URL")]
    Malformed,
    /// Another scheme.
    #[error("is neither http nor https")]
    Scheme,
    /// It contains a name or a password; keys have a setting of their own, which is secret.
    #[error("contains a user name or password")]
    UserInfo,
    /// It has no host.
    #[error("names no host")]
    Host,
}

/// The URL that a chat is posted to: `chat/completions` below `base_url`, whose query is kept.
///
/// # Errors
/// If `base_url` is no absolute `http` or `https` URL with a host and without user information.
pub(super) fn endpoint(base_url: &str) -> Result<Url, InvalidBaseUrl> {
    let mut url = Url::parse(base_url).map_err(|error| match error {
        url::ParseError::EmptyHost => InvalidBaseUrl::Host,
        _ => InvalidBaseUrl::Malformed,
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(InvalidBaseUrl::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(InvalidBaseUrl::UserInfo);
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(InvalidBaseUrl::Host);
    }
    url.set_fragment(None);
    url.path_segments_mut().map_err(|()| InvalidBaseUrl::Malformed)?.pop_if_empty().extend(["chat", "completions"]);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_goes_on_from_the_base_with_or_without_a_slash() {
        for (base, expected) in [
            ("https://models.example/v1", "https://models.example/v1/chat/completions"),
            ("https://models.example/v1/", "https://models.example/v1/chat/completions"),
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000/chat/completions"),
            ("http://[::1]:8000/", "http://[::1]:8000/chat/completions"),
            ("https://models.example/d?api-version=1#top", "https://models.example/d/chat/completions?api-version=1"),
        ] {
            assert_eq!(endpoint(base).map(String::from), Ok(expected.to_owned()), "{base}");
        }
    }

    #[test]
    fn anything_but_a_plain_http_url_is_refused_by_what_is_wrong_with_it() {
        for (base, expected) in [
            ("", InvalidBaseUrl::Malformed),
            ("models.example/v1", InvalidBaseUrl::Malformed),
            ("/v1", InvalidBaseUrl::Malformed),
            ("ftp://models.example", InvalidBaseUrl::Scheme),
            ("file:///etc/passwd", InvalidBaseUrl::Scheme),
            ("mailto:a@models.example", InvalidBaseUrl::Scheme),
            ("https://me@models.example", InvalidBaseUrl::UserInfo),
            ("https://me:pass@models.example", InvalidBaseUrl::UserInfo),
            ("https://:pass@models.example", InvalidBaseUrl::UserInfo),
            ("https://", InvalidBaseUrl::Host),
        ] {
            assert_eq!(endpoint(base), Err(expected), "{base}");
        }
    }
}
