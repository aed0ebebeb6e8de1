//! Media types, by RFC 9110 section 8.3.1 and RFC 6838 section 4.2.

use http::{HeaderMap, header};

/// The longest media type with its parameters, in bytes.
const MAX_BYTES: usize = 255;

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

/// `essence`, the media type of `given`, with the parameters that it has there, such as its charset. If they are
/// malformed, name one twice, or are very long, none is kept.
pub fn with_parameters(essence: String, given: &str) -> String {
    let named = given.split_once(';').and_then(|(_, rest)| parameters(rest)).unwrap_or_default();
    let mut whole = essence.clone();
    for (name, value) in named {
        whole.extend(["; ", &name, "=", value]);
    }
    if whole.len() > MAX_BYTES { essence } else { whole }
}

/// The parameters in what follows a media type: their names in lower case, and their values as given. `None` if they
/// are malformed.
fn parameters(mut rest: &str) -> Option<Vec<(String, &str)>> {
    if rest.len() > MAX_BYTES {
        return None;
    }
    let mut found: Vec<(String, &str)> = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        if rest.is_empty() {
            return Some(found);
        }
        let (name, behind) = rest.split_once('=')?;
        let (value, behind) = behind.split_at(value_bytes(behind)?);
        let name = name.to_ascii_lowercase();
        if name.is_empty() || !name.chars().all(is_of_token) || found.iter().any(|(known, _)| *known == name) {
            return None;
        }
        found.push((name, value));
        rest = behind.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(';') {
            return None;
        }
    }
}

/// How long the value at the beginning of `text` is, a token or a quoted string; `None` if there is neither.
fn value_bytes(text: &str) -> Option<usize> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| !is_of_token(c)).unwrap_or(text.len());
        return Some(end).filter(|end| *end > 0);
    };
    let mut is_escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            c if !(' '..='~').contains(&c) => return None,
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            // With both quotes.
            '"' => return Some(at + 2),
            _ => {}
        }
    }
    None
}

fn is_of_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
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

    #[test]
    fn parameters_are_kept_as_given_if_all_are_well_formed() {
        let long = |bytes: usize| format!("a=\"{}\"", "x".repeat(bytes));
        let most = MAX_BYTES - "text/plain; a=\"\"".len();
        for (given, kept) in [
            ("charset=utf-8", "; charset=utf-8"),
            ("Charset=UTF-8 ;; format=flowed;", "; charset=UTF-8; format=flowed"),
            (r#"charset="utf-8""#, r#"; charset="utf-8""#),
            (r#"name="a;b=c \" d""#, r#"; name="a;b=c \" d""#),
            (&long(most), &format!("; {}", long(most))),
            (&long(most + 1), ""),
            ("", ""),
            ("charset", ""),
            ("charset=", ""),
            ("charset=utf-8; =x", ""),
            ("charset=utf-8, text/html", ""),
            ("charset=utf-8; charset=utf-16", ""),
            ("charset = utf-8", ""),
            (r#"name="open"#, ""),
            (r#"name="open\""#, ""),
            ("name=\"a\r\nSet-Cookie: b\"", ""),
            ("name=\"\u{fc}\"", ""),
        ] {
            let whole = with_parameters("text/plain".to_owned(), &format!("Text/Plain;{given}"));
            assert_eq!(whole, format!("text/plain{kept}"), "{given:?}");
        }
        assert_eq!(with_parameters("text/plain".to_owned(), "text/plain"), "text/plain");
    }
}
