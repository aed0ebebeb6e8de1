//! What makes a retry the same request: a hash of method, path and the body's value.

use crate::json::canonical::canonical;
use crate::json::{self, Object};

/// The fingerprint of a request that carries an idempotency key. Member order, white space, and how numbers and
/// strings are written make no difference; a top-level `clientId` is the key itself and does not count.
#[must_use]
pub fn fingerprint(method: &str, path: &str, body: &Object<'_>) -> [u8; 16] {
    let mut members: Vec<_> = body.members().iter().filter(|member| member.name != "clientId").collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hasher = blake3::Hasher::new();
    // A length in front of each part keeps two parts from running together.
    let mut part = |tag: u8, bytes: &[u8]| {
        hasher.update(&[tag]);
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(b'm', method.as_bytes());
    part(b'p', path.as_bytes());
    for member in members {
        part(b'n', member.name.as_bytes());
        match json::string(member.value) {
            Some(text) => part(b's', text.as_bytes()),
            None => part(b'v', canonical(member.value.get()).as_bytes()),
        }
    }
    let mut out = [0; 16];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str, body: &str) -> [u8; 16] {
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
        let body = Object::parse(br#"{"a":"x","b":1}"#).unwrap();
        assert_ne!(fingerprint("PUT", "/m", &body), first);
        assert_ne!(of("/m", r#"{"a":"null"}"#), of("/m", r#"{"a":null}"#));
    }

    #[test]
    fn numbers_beyond_the_doubles_do_no_harm() {
        assert_eq!(of("/m", r#"{"a":[1e400]}"#), of("/m", r#"{"a":[ 1e400 ]}"#));
        assert_ne!(of("/m", r#"{"a":[1e400]}"#), of("/m", r#"{"a":[1e401]}"#));
        of("/m", r#"{"a":18446744073709551616,"b":12345678901234567890}"#);
    }
}
