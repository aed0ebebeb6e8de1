//! The fingerprint of a request, by which a retry is recognised: a hash of method, path and the body's value.

use std::borrow::Cow;
use std::io::{BufWriter, Write as _};

use actors::id::half;
use actors::store::Fingerprint;
use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;

use crate::json::{self, MAX_DEPTH, Member, Object, raw};

/// The fingerprint of a request with an idempotency key. Member order, white space, and the spelling of numbers and
/// strings make no difference, nor does the encoding of the path; below `MAX_WALKED_LEVELS` levels only white space
/// makes none. A top-level `clientId` is the key itself and does not count.
///
/// The value is hashed during the walk; a canonical text would be built only to be dropped.
#[must_use]
pub fn fingerprint(method: &str, path: &str, body: &Object<'_>) -> Fingerprint {
    let mut hasher = blake3::Hasher::new();
    let mut print = Print::new(&mut hasher, MAX_WALKED_LEVELS);
    print.part(b'm', method.as_bytes());
    print.part(b'p', &Cow::from(percent_decode_str(path)));
    print.members(body.members().iter().filter(|member| member.name != "clientId").collect(), 0);
    // Buffered bytes are hashed on drop; a hasher never fails.
    drop(print);
    Fingerprint(half(&hasher.finalize()))
}

/// The hash that equal values share, however they are written: as for [`fingerprint`], at every depth. `text` is valid
/// JSON; the hash is stored with the answer, so it is the same in every version.
#[must_use]
pub fn of_value(text: &str) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    let mut print = Print::new(&mut hasher, MAX_DEPTH);
    match serde_json::from_str::<&RawValue>(text) {
        Ok(raw) => print.value(raw, 0),
        Err(_) => print.part(b'v', text.as_bytes()),
    }
    drop(print);
    half(&hasher.finalize())
}

/// Bytes that are buffered before they are hashed: hashing many small pieces costs several times as much.
const BUFFERED_BYTES: usize = 1024;

/// Levels of a value that are walked. Splitting each level reads everything below it again, so values nested deeper
/// than usual bodies are hashed as written, except for white space: a retry is written like its first request.
const MAX_WALKED_LEVELS: usize = 12;

/// A fingerprint under construction. Neither buffering nor hashing can fail.
struct Print<'a> {
    to: BufWriter<&'a mut blake3::Hasher>,
    /// Levels that are walked.
    levels: usize,
}

impl<'a> Print<'a> {
    fn new(hasher: &'a mut blake3::Hasher, levels: usize) -> Self {
        Self { to: BufWriter::with_capacity(BUFFERED_BYTES, hasher), levels }
    }

    /// A length in front of each part keeps two parts from running together.
    fn part(&mut self, tag: u8, bytes: &[u8]) {
        let mut head = [tag; 9];
        head[1..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        let _ = self.to.write_all(&head).and_then(|()| self.to.write_all(bytes));
    }

    fn members(&mut self, mut members: Vec<&Member<'_>>, depth: usize) {
        members.sort_by(|a, b| a.name.cmp(&b.name));
        self.part(b'o', &(members.len() as u64).to_le_bytes());
        for member in members {
            self.part(b'n', member.name.as_bytes());
            self.value(member.value, depth);
        }
    }

    fn value(&mut self, raw: &RawValue, depth: usize) {
        let text = raw.get();
        match text.as_bytes().first() {
            Some(b'"') => match json::string(raw) {
                Some(string) => self.part(b's', string.as_bytes()),
                None => self.part(b'v', text.as_bytes()),
            },
            Some(b'{' | b'[') if depth == self.levels => self.part(b'c', raw::compact(text).as_bytes()),
            Some(b'{') => match Object::from_raw(raw) {
                Some(object) => self.members(object.members().iter().collect(), depth + 1),
                None => self.part(b'v', text.as_bytes()),
            },
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
                self.part(b'a', &(items.len() as u64).to_le_bytes());
                items.into_iter().for_each(|item| self.value(item, depth + 1));
            }
            // Numbers are compared as in RFC 8785, as doubles: `1` and `1.0` are one number, and so are `0` and `-0`.
            // An integer that is no double counts by its digits.
            Some(b'-' | b'0'..=b'9') => match text.parse::<f64>() {
                Ok(number) if number.is_finite() && !loses_digits(text, number) => {
                    self.part(b'd', &(number + 0.0).to_bits().to_le_bytes())
                }
                _ => self.part(b'v', text.as_bytes()),
            },
            _ => self.part(b'v', text.as_bytes()),
        }
    }
}

/// Digits of an integer that every double keeps exactly.
const KEPT_DIGITS: usize = 15;

/// Whether this is an integer whose nearest double differs.
fn loses_digits(text: &str, number: f64) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    // Without decimal places a double is written with all its digits; JSON has no leading zeros.
    digits.len() > KEPT_DIGITS
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && format!("{:.0}", number.abs()) != digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str, body: &str) -> Fingerprint {
        fingerprint("POST", path, &Object::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn the_same_value_has_the_same_fingerprint_however_it_is_written() {
        let first = of("/m", r#"{"a":"é","b":{"x":1,"y":[true,null]},"clientId":"k"}"#);
        for body in [
            r#"{ "b" : {"y":[true, null],"x":1.0}, "a":"\u00e9" }"#,
            r#"{"clientId":"other","a":"é","b":{"x":1e0,"y":[true,null]}}"#,
        ] {
            assert_eq!(of("/m", body), first, "{body}");
        }
    }

    #[test]
    fn another_value_path_or_method_has_another_fingerprint() {
        let first = of("/m", r#"{"a":"x","b":1}"#);
        for body in [r#"{"a":"x"}"#, r#"{"a":"x","b":"1"}"#, r#"{"a":"x","b":2}"#, r#"{"a":"xb","b":1}"#, "{}"] {
            assert_ne!(of("/m", body), first, "{body}");
        }
        assert_ne!(of("/n", r#"{"a":"x","b":1}"#), first);
        assert_eq!(of("/%6d", r#"{"a":"x","b":1}"#), first);
        let body = Object::parse(br#"{"a":"x","b":1}"#).unwrap();
        assert_ne!(fingerprint("PUT", "/m", &body), first);
        assert_ne!(of("/m", r#"{"a":"null"}"#), of("/m", r#"{"a":null}"#));
    }

    /// Keys outlive the program: a retry may come to a newer version of it.
    #[test]
    fn a_fingerprint_is_the_same_in_every_version() {
        let body = format!(r#"{{"a":"é","b":[1,null,{{}}],"c":"{}"}}"#, "x".repeat(2_000));
        let hex: String = of("/m", &body).0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "7a41c5c5a83e6fdc0375e0469ac0ab69");
    }

    #[test]
    fn integers_that_differ_in_their_last_digit_are_two_however_long_they_are() {
        let with = |number: &str| of("/m", &format!("{{\"a\":{number}}}"));
        for (one, other) in [
            ("9007199254740993", "9007199254740992"),
            ("-9007199254740993", "-9007199254740992"),
            ("9007199254740993", "-9007199254740993"),
            ("12345678901234567890", "12345678901234567891"),
        ] {
            assert_ne!(with(one), with(other), "{one}");
        }
        // Doubles that are integers keep the fingerprint that they have always had, however they are written.
        for (one, other) in [
            ("9007199254740992", "9007199254740992.0"),
            ("18446744073709551616", "18446744073709551616.0"),
            ("100000000000000000000", "1e20"),
            ("-1000000000000000", "-1e15"),
        ] {
            assert_eq!(with(one), with(other), "{one}");
        }
    }

    #[test]
    fn deeply_nested_values_count_regardless_of_white_space() {
        let deep = |inner: &str| of("/m", &format!("{{\"a\":{}{inner}{}}}", "[".repeat(100), "]".repeat(100)));
        let first = deep(r#"{"x":1,"y":"é"}"#);
        assert_eq!(deep(r#"{ "x" : 1, "y": "é" }"#), first);
        assert_ne!(deep(r#"{"x":2,"y":"é"}"#), first);
        assert_ne!(deep(r#"{"y":"é","x":1}"#), first, "and no more than that");
    }

    #[test]
    fn values_are_compared_by_content_at_every_depth() {
        let deep = |inner: &str| of_value(&format!("{}{inner}{}", "[".repeat(100), "]".repeat(100)));
        let first = deep(r#"{"x":1,"y":"é"}"#);
        assert_eq!(deep(r#"{ "y": "\u00e9", "x": 1.0 }"#), first);
        assert_ne!(deep(r#"{"x":2,"y":"é"}"#), first);
        assert_ne!(of_value(r#"{"n":9007199254740993}"#), of_value(r#"{"n":9007199254740992}"#));
    }

    #[test]
    fn numbers_beyond_the_doubles_do_no_harm() {
        assert_eq!(of("/m", r#"{"a":[1e400]}"#), of("/m", r#"{"a":[ 1e400 ]}"#));
        assert_ne!(of("/m", r#"{"a":[1e400]}"#), of("/m", r#"{"a":[1e401]}"#));
        of("/m", r#"{"a":18446744073709551616,"b":12345678901234567890}"#);
    }
}
