//! The API key and the workspace of a request. Only parsed here; `caller` checks what the key may do.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::http::resource::is_id;
use crate::problem::Problem;

/// The other header that may carry a key.
pub const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The header that chooses a workspace.
pub const X_WORKSPACE_ID: HeaderName = HeaderName::from_static("x-workspace-id");

/// Longest key that is read, in bytes; longer ones would only cost hashing.
pub const MAX_KEY_BYTES: usize = 512;

/// 401 `unauthenticated` with `WWW-Authenticate`. The detail never says whether a key exists.
#[must_use]
pub fn unauthenticated(detail: &'static str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
        .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

/// The key that the request presents, from `Authorization: Bearer` or `X-API-Key`; well-formed, not yet known. A header
/// without a value counts as absent.
///
/// # Errors
/// 401 `unauthenticated` where no key is presented, where one is malformed, or where two are different.
pub fn presented_key(headers: &HeaderMap) -> Result<&str, Problem> {
    let given =
        |name| headers.get_all(name).iter().filter(|value: &&HeaderValue| !value.as_bytes().trim_ascii().is_empty());
    let bearers = given(header::AUTHORIZATION).map(bearer);
    let plain = given(X_API_KEY).map(|value| value.to_str().ok());
    let mut key = None;
    for given in bearers.chain(plain) {
        let given = given
            .map(str::trim)
            .filter(|given| {
                (1..=MAX_KEY_BYTES).contains(&given.len()) && given.bytes().all(|byte| byte.is_ascii_graphic())
            })
            .ok_or_else(|| unauthenticated("send a key as Authorization: Bearer <key> or X-API-Key: <key>"))?;
        if key.is_some_and(|first| first != given) {
            return Err(unauthenticated("the request presents two different keys"));
        }
        key = Some(given);
    }
    key.ok_or_else(|| unauthenticated("a key is required: Authorization: Bearer <key> or X-API-Key: <key>"))
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key)
}

/// The value of `X-Workspace-Id` for no workspace. So no workspace has this id.
pub const NO_WORKSPACE: &str = "null";

/// The workspace that the request chooses; `None`, as absent, empty or `null`, is the key's own.
///
/// # Errors
/// 403 `workspace_forbidden` for an impossible workspace id, the same answer as for an unknown one.
pub fn workspace_id(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut chosen = None;
    for value in headers.get_all(&X_WORKSPACE_ID) {
        let id = value.to_str().map_err(|_| workspace_forbidden())?.trim();
        if id.is_empty() || id == NO_WORKSPACE {
            continue;
        }
        if !is_id(id) || chosen.is_some_and(|first| first != id) {
            return Err(workspace_forbidden());
        }
        chosen = Some(id);
    }
    Ok(chosen)
}

/// 403 for a workspace that the key may not use, and for one that does not exist.
#[must_use]
pub fn workspace_forbidden() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "workspace_forbidden", "this key is not allowed to use that workspace")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn a_key_comes_as_bearer_or_as_x_api_key_or_as_both_if_equal() {
        for pairs in [
            &[(header::AUTHORIZATION, "Bearer sk_1")][..],
            &[(header::AUTHORIZATION, "bEARER  sk_1 ")],
            &[(X_API_KEY, "sk_1")],
            &[(X_API_KEY, "sk_1"), (header::AUTHORIZATION, "Bearer sk_1")],
            &[(X_API_KEY, ""), (header::AUTHORIZATION, "Bearer sk_1")],
            &[(X_API_KEY, "sk_1"), (header::AUTHORIZATION, "")],
            &[(X_API_KEY, " "), (X_API_KEY, "sk_1")],
        ] {
            assert_eq!(presented_key(&headers(pairs)).unwrap(), "sk_1", "{pairs:?}");
        }
    }

    #[test]
    fn a_missing_malformed_or_ambiguous_key_is_401_with_a_challenge() {
        let long = format!("Bearer {}", "k".repeat(513));
        for pairs in [
            &[][..],
            &[(header::AUTHORIZATION, "sk_1")],
            &[(header::AUTHORIZATION, "Bearer")],
            &[(header::AUTHORIZATION, "Bearer ")],
            &[(header::AUTHORIZATION, "Bearer a b")],
            &[(header::AUTHORIZATION, "Bearer é")],
            &[(header::AUTHORIZATION, "Basic c2tfMQ==")],
            &[(header::AUTHORIZATION, long.as_str())],
            &[(X_API_KEY, "")],
            &[(X_API_KEY, ""), (header::AUTHORIZATION, "")],
            &[(X_API_KEY, ""), (header::AUTHORIZATION, "Bearer")],
            &[(X_API_KEY, "sk_1"), (X_API_KEY, "sk_2")],
            &[(X_API_KEY, "sk_1"), (header::AUTHORIZATION, "Bearer sk_2")],
            &[(X_API_KEY, "sk_1"), (header::AUTHORIZATION, "Basic sk_1")],
        ] {
            let problem = presented_key(&headers(pairs)).unwrap_err();
            assert_eq!((problem.status.as_u16(), problem.code), (401, "unauthenticated"), "{pairs:?}");
            assert_eq!(problem.headers, [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))]);
        }
    }

    #[test]
    fn an_empty_workspace_header_means_the_keys_own_workspace() {
        for pairs in [&[][..], &[(X_WORKSPACE_ID, "")], &[(X_WORKSPACE_ID, "null")], &[(X_WORKSPACE_ID, " ")]] {
            assert_eq!(workspace_id(&headers(pairs)).unwrap(), None, "{pairs:?}");
        }
        assert_eq!(workspace_id(&headers(&[(X_WORKSPACE_ID, "acme_1")])).unwrap(), Some("acme_1"));
    }

    #[test]
    fn an_impossible_workspace_id_answers_like_a_foreign_one() {
        let long = "w".repeat(65);
        for pairs in [
            &[(X_WORKSPACE_ID, "a/b")][..],
            &[(X_WORKSPACE_ID, "é")],
            &[(X_WORKSPACE_ID, long.as_str())],
            &[(X_WORKSPACE_ID, "a"), (X_WORKSPACE_ID, "b")],
        ] {
            let problem = workspace_id(&headers(pairs)).unwrap_err();
            assert_eq!((problem.status.as_u16(), problem.code), (403, "workspace_forbidden"), "{pairs:?}");
        }
    }
}
