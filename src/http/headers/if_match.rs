//! `If-Match` (RFC 9110): change a resource only if it is still the version that the client saw.

use http::{HeaderMap, header};

use crate::http::refusal::precondition_failed;
use crate::problem::Problem;

/// The condition of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`: any existing resource.
    Any,
    /// One of these strong tags, without their quotes. Weak tags never match and are not kept.
    Tags(Vec<String>),
}

impl IfMatch {
    /// Whether the condition holds for a resource with this strong tag, written without quotes.
    #[must_use]
    pub fn holds(&self, tag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Tags(tags) => tags.iter().any(|known| known == tag),
        }
    }

    /// Whether the condition names versions, so that another request's change in the meantime must fail this one.
    #[must_use]
    pub fn is_of_versions(&self) -> bool {
        matches!(self, Self::Tags(_))
    }

    /// Checks that the condition holds for `tag`.
    ///
    /// # Errors
    /// 412 `precondition_failed`.
    pub fn check(&self, tag: &str) -> Result<(), Problem> {
        if self.holds(tag) { Ok(()) } else { Err(precondition_failed()) }
    }
}

/// Reads all `If-Match` headers as one list; `None` if there is none. A tag without quotes counts as a strong one,
/// because clients copy a message's `checksum` as it is.
///
/// # Errors
/// 400 `invalid_header` for a value that is no list of tags.
pub fn if_match(headers: &HeaderMap) -> Result<Option<IfMatch>, Problem> {
    let mut tags = Vec::new();
    let mut present = false;
    for value in headers.get_all(header::IF_MATCH) {
        present = true;
        let text = value.to_str().map_err(|_| malformed())?.trim();
        if text == "*" {
            return Ok(Some(IfMatch::Any));
        }
        read_list(text, &mut tags).ok_or_else(malformed)?;
    }
    Ok(present.then_some(IfMatch::Tags(tags)))
}

/// Tags may contain commas, so the list is read from its front. `None` if it is malformed.
fn read_list(mut rest: &str, tags: &mut Vec<String>) -> Option<()> {
    let mut found = false;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return found.then_some(());
        }
        found = true;
        let weak = rest.strip_prefix("W/");
        if let Some(opened) = weak.unwrap_or(rest).strip_prefix('"') {
            let (tag, after) = opened.split_once('"')?;
            if weak.is_none() {
                tags.push(tag.to_owned());
            }
            rest = after.trim_start_matches([' ', '\t']);
        } else {
            let end = rest.find([' ', '\t', ',']).unwrap_or(rest.len());
            let (tag, after) = rest.split_at(end);
            if tag.contains('"') || tag == "*" || weak.is_some() {
                return None;
            }
            tags.push(tag.to_owned());
            rest = after.trim_start_matches([' ', '\t']);
        }
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
    }
}

fn malformed() -> Problem {
    Problem::fault("/If-Match", "invalid_header", "If-Match must be * or a list of entity tags such as \"abc\"")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(values: &[&'static str]) -> Result<Option<IfMatch>, Problem> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::IF_MATCH, HeaderValue::from_static(value));
        }
        if_match(&headers)
    }

    #[test]
    fn a_list_of_tags_holds_for_each_strong_one() {
        for (values, tags) in [
            (&["\"a\""][..], &["a"][..]),
            (&["\"a\", \"b,c\" ,\"\""], &["a", "b,c", ""]),
            (&["\"a\"", "\"b\""], &["a", "b"]),
            (&["W/\"a\", \"b\""], &["b"]),
            (&["W/\"a\""], &[]),
            (&["sha256:0f , \"b\""], &["sha256:0f", "b"]),
            (&[",\"a\",,"], &["a"]),
        ] {
            let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
            assert_eq!(read(values).unwrap(), Some(IfMatch::Tags(tags)), "{values:?}");
        }
        let condition = read(&["W/\"a\", \"b\""]).unwrap().unwrap();
        assert!(condition.holds("b") && !condition.holds("a"));
        assert_eq!(condition.check("a").unwrap_err().status, 412);
    }

    #[test]
    fn a_star_holds_for_everything_and_no_header_is_no_condition() {
        assert_eq!(read(&["*"]).unwrap(), Some(IfMatch::Any));
        assert!(IfMatch::Any.check("whatever").is_ok());
        assert_eq!(read(&[]).unwrap(), None);
    }

    #[test]
    fn a_malformed_list_is_refused() {
        for values in [&[""][..], &[","], &["\"a"], &["\"a\" \"b\""], &["a\"b"], &["*, \"a\""], &["W/a"]] {
            let problem = read(values).unwrap_err();
            assert_eq!((problem.status.as_u16(), problem.code), (400, "invalid_header"), "{values:?}");
        }
    }
}
