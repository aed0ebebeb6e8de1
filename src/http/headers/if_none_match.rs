//! `If-None-Match` (RFC 9110, 13.1.2): send a resource only if it differs from the client's copy.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};

/// Whether a client has the version named by `etag`, which is written as in an answer; `None` without such a header.
///
/// Tags are compared weakly, `*` is any existing version, and all such headers count as one list. A tag without quotes
/// counts as one with them, because clients copy a message's `checksum` as it is. A malformed tag matches nothing.
#[must_use]
pub fn is_known(headers: &HeaderMap, etag: &str) -> Option<bool> {
    let bare = |tag: &str| {
        let tag = tag.trim();
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag).to_owned()
    };
    let known = bare(etag);
    let mut lists = headers.get_all(header::IF_NONE_MATCH).iter().peekable();
    lists.peek()?;
    // This server's tags contain no comma, so a part of a foreign tag never matches.
    let mut tags = lists.filter_map(|list| list.to_str().ok()).flat_map(|list| list.split(','));
    Some(tags.any(|tag| tag.trim() == "*" || bare(tag) == known))
}

/// The answer, or 304 with its headers and without its body if the client has the version of its `ETag`.
#[must_use]
pub fn unless_known(headers: &HeaderMap, mut answer: Response) -> Response {
    let etag = answer.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
    if answer.status() != StatusCode::OK || etag.and_then(|etag| is_known(headers, etag)) != Some(true) {
        return answer;
    }
    *answer.status_mut() = StatusCode::NOT_MODIFIED;
    *answer.body_mut() = Body::empty();
    answer.headers_mut().remove(header::CONTENT_LENGTH);
    answer.headers_mut().remove(header::CONTENT_TYPE);
    answer
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_tag_is_known_weak_or_strong_alone_or_in_any_list() {
        for (values, known) in [
            (&[][..], None),
            (&["\"a\""], Some(true)),
            (&["W/\"a\""], Some(true)),
            (&["a"], Some(true)),
            (&["*"], Some(true)),
            (&[" \"b\" , W/\"a\""], Some(true)),
            (&["\"b\"", "\"a\""], Some(true)),
            (&["\"b\""], Some(false)),
            (&["\"A\""], Some(false)),
            (&["\"a"], Some(false)),
            (&[""], Some(false)),
        ] {
            let given = values.iter().map(|value| (header::IF_NONE_MATCH, HeaderValue::from_static(value)));
            let headers = HeaderMap::from_iter(given);
            assert_eq!(is_known(&headers, "\"a\""), known, "{values:?}");
        }
    }
}
