//! Writing JSON text of a fixed form, member by member: the output of a derived serializer, for the most frequent
//! answers.

use std::fmt::Display;
use std::io::Write as _;

/// Whether a byte of a text must be escaped in a JSON string.
fn is_escaped(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// Writes `text` as a JSON string with the shortest escapes, as serde_json and RFC 8785 do.
pub fn string(out: &mut Vec<u8>, text: &str) {
    // Testing every byte before deciding lets the compiler test many at once.
    if text.bytes().fold(false, |any, byte| any | is_escaped(byte)) {
        // Neither a string nor a write into memory can fail.
        let _ = serde_json::to_writer(out, text);
        return;
    }
    out.reserve(text.len() + 2);
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// A JSON object that is being written; [`Members::end`] closes it.
#[derive(Debug)]
#[must_use = "an object that is not ended is no JSON"]
pub struct Members<'a> {
    out: &'a mut Vec<u8>,
    is_first: bool,
}

impl<'a> Members<'a> {
    /// Begins an object.
    pub fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, is_first: true }
    }

    /// The output for the value of a member; `name` needs no escapes.
    fn member(&mut self, name: &'static str) -> &mut Vec<u8> {
        let before: &[u8] = if std::mem::take(&mut self.is_first) { b"\"" } else { b",\"" };
        self.out.extend_from_slice(before);
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// A member that is a string.
    pub fn string(&mut self, name: &'static str, text: &str) {
        string(self.member(name), text);
    }

    /// A member that is a string without characters to escape: an id, a time, a hash.
    pub fn plain(&mut self, name: &'static str, value: impl Display) {
        // Writing into memory does not fail.
        let _ = write!(self.member(name), "\"{value}\"");
    }

    /// A member whose value is JSON already.
    pub fn json(&mut self, name: &'static str, text: &str) {
        self.member(name).extend_from_slice(text.as_bytes());
    }

    /// A member that is an array, one item of which `write` writes.
    pub fn array<T>(
        &mut self,
        name: &'static str,
        items: impl IntoIterator<Item = T>,
        write: impl FnMut(&mut Vec<u8>, T),
    ) {
        array(self.member(name), items, write);
    }

    /// A member that is an object, whose members `write` writes.
    pub fn object(&mut self, name: &'static str, write: impl FnOnce(&mut Members<'_>)) {
        let mut object = Members::begin(self.member(name));
        write(&mut object);
        object.end();
    }

    /// Every member of an object written without surrounding blanks.
    pub fn members_of(&mut self, object: &[u8]) {
        let members = object.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")).unwrap_or_default();
        if members.is_empty() {
            return;
        }
        if !std::mem::take(&mut self.is_first) {
            self.out.push(b',');
        }
        self.out.extend_from_slice(members);
    }

    /// Closes the object.
    pub fn end(self) {
        self.out.push(b'}');
    }
}

/// Writes an array, one item of which `write` writes.
pub fn array<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (place, item) in items.into_iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_string_is_written_as_serde_json_writes_it(
            text in prop_oneof![any::<String>(), "[a-z ]{0,40}", "[\\x00-\\x7f]{0,40}"],
        ) {
            let mut out = Vec::new();
            string(&mut out, &text);
            prop_assert_eq!(out, serde_json::to_vec(&text).unwrap());
        }
    }

    #[test]
    fn an_object_is_written_in_the_order_of_its_members() {
        let mut out = Vec::new();
        let mut members = Members::begin(&mut out);
        members.string("a", "x\"y");
        members.plain("b", 7);
        members.json("c", "null");
        members.array("d", ["p", "q"], string);
        members.array("e", [""; 0], string);
        members.end();
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"a":"x\"y","b":"7","c":null,"d":["p","q"],"e":[]}"#);
        let mut empty = Vec::new();
        Members::begin(&mut empty).end();
        assert_eq!(empty, b"{}");
    }
}
