//! Media types, by RFC 9110 section 8.3.1 and RFC 6838 section 4.2.

use http::{HeaderMap, header};

/// Whether a request names two types of content that differ; then neither counts.
pub fn differ(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let first = types.next();
    types.any(|other| Some(other) != first)
}

/// The media type without its parameters, in lower case; `None` if it is malformed.
pub fn essence(given: &str) -> Option<String> {
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let (kind, subtype) = essence.split_once('/')?;
    let token = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
    };
    (essence.len() <= 127 && token(kind) && token(subtype)).then_some(essence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_is_a_short_pair_of_tokens_or_none() {
        assert_eq!(essence(" Text/HTML ; charset=utf-8").as_deref(), Some("text/html"));
        for given in ["", "text", "text/", "text/<b>\"x\"", &format!("text/{}", "x".repeat(123))] {
            assert_eq!(essence(given), None, "{given}");
        }
    }
}
