//! Lone surrogates in a model's answer.
//!
//! Models write piece by piece, and a piece may end within a character: some servers then escape one half of a
//! surrogate pair (`"\ud83d"`), which is no text. The answer is not lost: such a half becomes U+FFFD.

use serde::de::DeserializeOwned;
use serde_json::error::Category;

/// The bytes of an escaped UTF-16 unit: `\u` and four digits.
const ESCAPE: usize = 6;

/// Reads JSON, if necessary with U+FFFD for each half of a surrogate pair without the other.
///
/// # Errors
///
/// The error that remains.
pub(super) fn read<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(json).or_else(|error| match error.classify() {
        Category::Syntax | Category::Eof => mended(json).map_or(Err(error), |mended| serde_json::from_slice(&mended)),
        Category::Data | Category::Io => Err(error),
    })
}

/// The same for JSON within a string, such as a call's arguments.
pub(super) fn mend(json: &mut String) {
    if let Some(mended) = mended(json.as_bytes()).and_then(|mended| String::from_utf8(mended).ok()) {
        *json = mended;
    }
}

/// The same with U+FFFD for such halves; `None` if there are none.
fn mended(json: &[u8]) -> Option<Vec<u8>> {
    let mut mended: Option<Vec<u8>> = None;
    let mut at = 0;
    while at < json.len() {
        at += match (json[at], unit(&json[at..])) {
            (_, Some(0xD800..=0xDBFF)) if matches!(unit(&json[at + ESCAPE..]), Some(0xDC00..=0xDFFF)) => 2 * ESCAPE,
            (_, Some(0xD800..=0xDFFF)) => {
                let to = mended.get_or_insert_with(|| json.to_vec());
                to[at..at + ESCAPE].copy_from_slice(br"\ufffd");
                ESCAPE
            }
            // An escaped backslash begins no escape.
            (b'\\', _) => 2,
            _ => 1,
        };
    }
    mended
}

/// The UTF-16 unit of the escape here.
fn unit(json: &[u8]) -> Option<u16> {
    let digits = json.get(..ESCAPE)?.strip_prefix(br"\u")?;
    let digits =
        std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_lone_half_of_a_pair_becomes_a_replacement_character() {
        let read = |json: &str| super::read::<String>(json.as_bytes()).ok();
        for (json, text) in [
            (r#""a\ud83d""#, "a\u{fffd}"),
            (r#""\uDE00b""#, "\u{fffd}b"),
            (r#""\ud83d\ude00""#, "\u{1f600}"),
            (r#""\ud83d\ud83d\ude00\ude00""#, "\u{fffd}\u{1f600}\u{fffd}"),
            (r#""\ud83d\n\ude00""#, "\u{fffd}\n\u{fffd}"),
            (r#""\\ud83d \ud83d""#, "\\ud83d \u{fffd}"),
            (r#""é\ud83dé""#, "é\u{fffd}é"),
        ] {
            assert_eq!(read(json).as_deref(), Some(text), "{json}");
        }
        for wrong in [r#""\ud83d"#, r#""\ud8"#, r#""\ud83d\"#, r#""\ud83d" x"#, r#"{"a":"\udc00"}"#, ""] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
