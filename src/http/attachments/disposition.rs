//! `Content-Disposition`: the names of uploaded and downloaded files (RFC 6266, RFC 8187).

use std::fmt::Write as _;

/// The header's value for a file that is to be saved, not shown.
#[must_use]
pub(super) fn attachment(filename: &str) -> String {
    let plain = |c: char| c == ' ' || (c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%'));
    let fallback: String = filename.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    let mut value = format!("attachment; filename=\"{fallback}\"");
    if fallback != filename {
        value.push_str("; filename*=UTF-8''");
        for byte in filename.bytes() {
            if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
                value.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(value, "%{byte:02X}");
            }
        }
    }
    value
}

/// The name in a header's value, preferring the encoded one; `None` if there is no readable one.
#[must_use]
pub(super) fn filename(value: &str) -> Option<String> {
    let mut plain = None;
    for (name, value) in parameters(value) {
        if name.eq_ignore_ascii_case("filename*")
            && let Some(decoded) = decode(&value)
        {
            return Some(decoded);
        }
        if name.eq_ignore_ascii_case("filename") && plain.is_none() {
            plain = Some(value);
        }
    }
    plain
}

/// The parameters after the type; a quoted value may contain semicolons.
fn parameters(value: &str) -> Vec<(&str, String)> {
    let mut parameters = Vec::new();
    let mut rest = value.split_once(';').map_or("", |(_, rest)| rest);
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after_value) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let (token, after_value) = after.split_once(';').unwrap_or((after, ""));
                (token.trim().to_owned(), after_value)
            }
        };
        parameters.push((name.trim().trim_start_matches(';').trim(), value));
        rest = after_value;
    }
    parameters
}

/// The text before the closing quote, and the text after it. A backslash escapes a quote and itself; before any other
/// character it is literal, because clients send Windows paths unescaped.
fn unquote(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, quoted[at + 1..].trim_start().trim_start_matches(';')),
            '\\' => {
                let escaped = chars.next_if(|(_, next)| matches!(next, '"' | '\\'));
                value.push(escaped.map_or(c, |(_, escaped)| escaped));
            }
            c => value.push(c),
        }
    }
    (value, "")
}

/// `UTF-8''percent-encoded`.
fn decode(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_language, encoded) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.first_chunk::<2>().filter(|_| *first == b'%');
        let byte = escaped.and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_is_sent_in_both_forms_of_content_disposition() {
        for (name, expected) in [
            ("a.png", "attachment; filename=\"a.png\""),
            ("a b (1).txt", "attachment; filename=\"a b (1).txt\""),
            ("a\"b\\c.txt", "attachment; filename=\"a_b_c.txt\"; filename*=UTF-8''a%22b%5Cc.txt"),
            ("größe 50%.pdf", "attachment; filename=\"gr__e 50_.pdf\"; filename*=UTF-8''gr%C3%B6%C3%9Fe%2050%25.pdf"),
            ("日本.txt", "attachment; filename=\"__.txt\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC.txt"),
            ("a\r\nX: y", "attachment; filename=\"a__X: y\"; filename*=UTF-8''a%0D%0AX%3A%20y"),
        ] {
            assert_eq!(attachment(name), expected);
            assert_eq!(filename(expected).as_deref(), Some(name));
        }
    }

    #[test]
    fn a_name_is_read_in_every_form_it_may_have() {
        for (value, expected) in [
            ("attachment; filename=plain.txt", Some("plain.txt")),
            ("attachment;filename = spaced.txt ; x=y", Some("spaced.txt")),
            ("form-data; name=\"file\"; filename=\"a;b=c.txt\"", Some("a;b=c.txt")),
            ("attachment; FILENAME=\"a\\\"b.txt\"", Some("a\"b.txt")),
            ("attachment; filename=\"x.txt\"; filename*=utf-8'de'%e2%82%ac.txt", Some("€.txt")),
            ("attachment; filename*=latin1''x; filename=y", Some("y")),
            ("attachment; filename*=UTF-8''%ff; filename=\"z\"", Some("z")),
            ("attachment; filename=\"never closed", Some("never closed")),
            ("form-data; filename=\"C:\\dir\\b.txt\"", Some("C:\\dir\\b.txt")),
            ("form-data; filename=\"a\\\"b\\\\c.txt\"", Some("a\"b\\c.txt")),
            ("attachment", None),
            ("inline; foo=bar", None),
            ("", None),
        ] {
            assert_eq!(filename(value).as_deref(), expected, "{value}");
        }
    }
}
