//! Idempotency keys, from any of the three places that may carry one.

use http::{HeaderMap, HeaderName};

use crate::problem::Fault;

/// The header of the IETF draft.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header by the name that senders of contacts' messages use.
pub const X_IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("x-idempotency-key");

/// Longest key, in bytes.
const MAX_KEY_BYTES: usize = 255;

/// The request's idempotency key, from both headers and, if the body has one, its `clientId`. Surrounding quotes (the
/// draft's structured string) are no part of it. The same key in several places is one key.
///
/// # Errors
/// `invalid_idempotency_key` at each place whose key is not 1 to 255 visible ASCII characters, and
/// `idempotency_key_conflict` at each place whose key differs from the first.
pub fn idempotency_key<'a>(headers: &'a HeaderMap, client_id: Option<&'a str>) -> Result<Option<&'a str>, Vec<Fault>> {
    let from_headers = [("/Idempotency-Key", IDEMPOTENCY_KEY), ("/X-Idempotency-Key", X_IDEMPOTENCY_KEY)]
        .into_iter()
        .flat_map(|(pointer, name)| headers.get_all(name).iter().map(move |value| (pointer, value.to_str().ok())));
    let from_body = client_id.map(|client_id| ("/clientId", Some(client_id)));
    let mut key = None;
    let mut faults = Vec::new();
    for (pointer, given) in from_headers.chain(from_body) {
        match (given.and_then(well_formed), key) {
            (None, _) => faults.push(Fault::new(
                pointer,
                "invalid_idempotency_key",
                format!("an idempotency key must be 1 to {MAX_KEY_BYTES} visible ASCII characters"),
            )),
            (Some(this), None) => key = Some(this),
            (Some(this), Some(first)) if this == first => {}
            (Some(_), Some(_)) => faults.push(Fault::new(
                pointer,
                "idempotency_key_conflict",
                "the request has two different idempotency keys",
            )),
        }
    }
    if faults.is_empty() { Ok(key) } else { Err(faults) }
}

fn well_formed(given: &str) -> Option<&str> {
    let key = given.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(given);
    ((1..=MAX_KEY_BYTES).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())).then_some(key)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(draft: &[&str], other: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, values) in [(IDEMPOTENCY_KEY, draft), (X_IDEMPOTENCY_KEY, other)] {
            for value in values {
                headers.append(name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
        }
        headers
    }

    #[test]
    fn a_key_may_stand_in_any_of_its_places_and_in_several() {
        for (draft, other, client_id, key) in [
            (&[][..], &[][..], None, None),
            (&["a"], &[], None, Some("a")),
            (&["\"a\""], &["a"], Some("a"), Some("a")),
            (&["a", "a"], &[], None, Some("a")),
            (&[], &["b"], None, Some("b")),
            (&[], &[], Some("\"c\""), Some("c")),
            (&["\""], &[], None, Some("\"")),
        ] {
            assert_eq!(idempotency_key(&headers(draft, other), client_id), Ok(key), "{draft:?} {other:?}");
        }
    }

    #[test]
    fn two_different_keys_are_a_conflict_at_the_later_place() {
        let headers = headers(&["a"], &["b"]);
        let faults = idempotency_key(&headers, Some("c")).unwrap_err();
        let found: Vec<_> = faults.iter().map(|fault| (fault.pointer.as_str(), fault.code)).collect();
        assert_eq!(
            found,
            [("/X-Idempotency-Key", "idempotency_key_conflict"), ("/clientId", "idempotency_key_conflict")]
        );
    }

    #[test]
    fn a_key_of_the_wrong_form_is_refused_where_it_stands() {
        let long = "k".repeat(256);
        assert!(idempotency_key(&headers(&[&long[..255]], &[]), None).is_ok());
        for wrong in ["", "\"\"", "a b", "é", &long] {
            let faults = idempotency_key(&HeaderMap::new(), Some(wrong)).unwrap_err();
            assert_eq!((faults[0].pointer.as_str(), faults[0].code), ("/clientId", "invalid_idempotency_key"));
            let headers = headers(&[wrong], &[]);
            let faults = idempotency_key(&headers, None).unwrap_err();
            assert_eq!((faults[0].pointer.as_str(), faults[0].code), ("/Idempotency-Key", "invalid_idempotency_key"));
        }
    }
}
