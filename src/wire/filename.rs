//! Names of files from users.

use url::Url;

/// The longest name, in characters.
pub const MAX_FILENAME_CHARS: usize = 255;

/// The last part of a name, which must not be a path: directories are removed, and so are control characters and those
/// that only change the writing direction, with which `exe.gpj` can look like `jpg.exe`. `None` if nothing remains.
#[must_use]
pub fn basename(name: &str) -> Option<String> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let clean: String = last.chars().filter(|c| !c.is_control() && !turns(*c)).collect();
    let clean = clean.trim();
    (!matches!(clean, "" | "." | "..")).then(|| clean.to_owned())
}

/// Whether a character marks a writing direction and is invisible.
fn turns(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The name at the end of a URL's path, without its percent escapes; `None` if it has none.
#[must_use]
pub fn from_url(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let last = url.path_segments()?.next_back()?.as_bytes();
    let mut bytes = Vec::with_capacity(last.len());
    let mut at = 0;
    while let Some(byte) = last.get(at) {
        let escaped = last
            .get(at + 1..at + 3)
            .filter(|_| *byte == b'%')
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(*byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    let name = basename(&String::from_utf8_lossy(&bytes))?;
    Some(name.chars().take(MAX_FILENAME_CHARS).collect())
}
