//! JSON text that is kept as received: measured and compacted, never decoded.

use std::borrow::Cow;

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// The bytes of valid JSON outside strings, with their positions; a string shows as its opening quote.
fn outside_strings(text: &str) -> impl Iterator<Item = (usize, u8)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let here = at;
        let byte = *bytes.get(here)?;
        at += 1;
        if byte == b'"' {
            while let Some(inner) = bytes.get(at) {
                at += 1 + usize::from(*inner == b'\\');
                if *inner == b'"' {
                    break;
                }
            }
        }
        Some((here, byte))
    })
}

/// Whether valid JSON is nested deeper than `limit`; an array or object is itself depth 1, a scalar depth 0.
#[must_use]
pub fn deeper_than(text: &str, limit: usize) -> bool {
    // Most texts have fewer brackets than levels allowed, and counting them is much cheaper than walking.
    if text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() <= limit {
        return false;
    }
    let mut depth = 0usize;
    outside_strings(text).any(|(_, byte)| {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > limit
    })
}

/// The position of a lone surrogate in an escape of valid JSON. No Unicode string has one.
#[must_use]
pub fn lone_surrogate(text: &str) -> Option<usize> {
    let unit_at = |at: usize| text.get(at..).and_then(unit);
    let mut at = 0;
    while let Some(next) = text.get(at..).and_then(|rest| rest.find('\\')) {
        at += next;
        match unit_at(at) {
            Some(0xD800..=0xDBFF) if matches!(unit_at(at + 6), Some(0xDC00..=0xDFFF)) => at += 12,
            Some(0xD800..=0xDFFF) => return Some(at),
            Some(_) => at += 6,
            None => at += 2,
        }
    }
    None
}

/// The length of valid JSON without white space between its tokens and without needless escapes: the same for the same
/// text, however its sender wrote it.
#[must_use]
pub fn shortest_len(text: &str) -> usize {
    let mut len = text.len();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let escape = &rest[at..];
        let (written, needed) = match unit(escape) {
            // No half of a pair is alone: that was checked.
            Some(0xD800..=0xDFFF) => (12, 4),
            Some(0x08 | 0x09 | 0x0A | 0x0C | 0x0D | 0x22 | 0x5C) => (6, 2),
            Some(0..=0x1F) => (6, 6),
            Some(unit) => (6, char::from_u32(unit.into()).map_or(6, char::len_utf8)),
            None if escape.as_bytes().get(1) == Some(&b'/') => (2, 1),
            None => (2, 2),
        };
        len = len.saturating_sub(written - needed);
        rest = escape.get(written..).unwrap_or_default();
    }
    len
}

/// The UTF-16 unit of a numeric escape at the beginning of a text.
fn unit(text: &str) -> Option<u16> {
    let digits = text.get(..6)?.strip_prefix("\\u")?;
    u16::from_str_radix(digits, 16).ok()
}

/// How many members all objects of valid JSON have together, repeated ones too.
#[must_use]
pub fn members(text: &str) -> usize {
    outside_strings(text).filter(|(_, byte)| *byte == b':').count()
}

/// Valid JSON without the white space between its tokens. Digits, escapes and member order stay.
#[must_use]
pub fn compact(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(is_space) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    // Everything from `from` on is not copied yet.
    let mut from = 0;
    for (at, byte) in outside_strings(text) {
        if is_space(byte) {
            out.push_str(&text[from..at]);
            from = at + 1;
        }
    }
    out.push_str(&text[from..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_as_long_as_it_is_with_the_fewest_escapes() {
        for text in [
            r#"{"a":"b"}"#,
            r#"["\u0061\u00e9\u65e5\ud83d\ude00"]"#,
            r#"["\u000a\n\u0000\u0022\u005c\/\\\""]"#,
            r#"{"\u0061":[1.0,"\uD83D\uDE00x"]}"#,
        ] {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(shortest_len(text), value.to_string().len(), "{text}");
        }
    }

    #[test]
    fn members_are_counted_at_every_depth_and_not_within_texts() {
        assert_eq!(members(r#"{"a:b":[{"c":1,"c":":"}],"d":{}}"#), 4);
        assert_eq!(members(r#"[":",1]"#), 0);
    }
}
