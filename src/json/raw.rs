//! JSON text that is passed on as it came: measured and compacted, never decoded.

use std::borrow::Cow;

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// The bytes of valid JSON that stand outside strings, with their places; a string shows as its opening quote.
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

/// Where half of a surrogate pair stands alone in an escape of valid JSON. No Unicode string has such a half.
#[must_use]
pub fn lone_surrogate(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let unit = |at: usize| {
        let escape = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(escape).ok()?, 16).ok()
    };
    let mut at = 0;
    while let Some(next) = text.get(at..).and_then(|rest| rest.find('\\')) {
        at += next;
        match unit(at) {
            Some(0xD800..=0xDBFF) if matches!(unit(at + 6), Some(0xDC00..=0xDFFF)) => at += 12,
            Some(0xD800..=0xDFFF) => return Some(at),
            Some(_) => at += 6,
            None => at += 2,
        }
    }
    None
}

/// Valid JSON without the white space between its tokens. Digits, escapes and member order stay.
#[must_use]
pub fn compact(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(is_space) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    // Everything from `from` on is yet to be copied.
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
