//! Request bodies as JSON objects that are read member by member.
//!
//! A body is split once into its top-level members; each remains the received text until it is decoded. So the shape of
//! a message can be chosen before anything is decoded, every fault can be named with its pointer, and the client's own
//! values (metadata, payloads, tool calls) pass through with their digits and member order.

pub mod canonical;
pub mod fields;
pub mod number;
pub mod path;
pub mod raw;
pub mod report;
pub mod write;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use http::StatusCode;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::json::path::escape;
use crate::problem::{Fault, MAX_KEPT_FAULTS, Problem};

/// The deepest nesting that a body may have; the body's own object is depth 1.
pub const MAX_DEPTH: usize = 128;

/// One member of an object, as received.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its value, not yet decoded.
    pub value: &'a RawValue,
}

/// A JSON object, split into its members in their order. Repeated names are kept; see [`Object::repeated`].
#[derive(Clone, Debug, Default)]
pub struct Object<'a> {
    members: Vec<Member<'a>>,
}

impl<'a> Object<'a> {
    /// Splits a request body.
    ///
    /// # Errors
    /// 400 `malformed_json` (with `line` and `column`) if the bytes are not one JSON text in UTF-8 or contain half a
    /// surrogate pair; 400 `too_deep` past [`MAX_DEPTH`]; 400 `invalid_type` if the text is not an object.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Problem> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| malformed_at(bytes, error.valid_up_to(), "the text is not valid UTF-8"))?;
        let parsed: Result<Self, _> = serde_json::from_str(text);
        let object = match parsed {
            Ok(object) => Some(object),
            // A value of another type ends the split early, so only a second parse shows whether the text is JSON.
            Err(error) => match serde_json::from_str::<&RawValue>(text) {
                Ok(_) if error.is_data() => None,
                Err(error) => return Err(malformed(error.line(), error.column(), &plain(&error))),
                Ok(_) => return Err(malformed(error.line(), error.column(), &plain(&error))),
            },
        };
        if let Some(at) = raw::lone_surrogate(text) {
            return Err(malformed_at(bytes, at, "unpaired surrogate"));
        }
        if raw::deeper_than(text, MAX_DEPTH) {
            return Err(too_deep(object.as_ref()));
        }
        object.ok_or_else(|| Problem::fault("", "invalid_type", "the body must be a JSON object"))
    }

    /// Splits a value of a text that was checked before; `None` if it is not an object.
    #[must_use]
    pub fn from_raw(raw: &'a RawValue) -> Option<Self> {
        if !raw.get().starts_with('{') {
            return None;
        }
        serde_json::from_str(raw.get()).ok()
    }

    /// The members, in their order.
    #[must_use]
    pub fn members(&self) -> &[Member<'a>] {
        &self.members
    }

    /// Whether there is a member of this name, with any value.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.name == name)
    }

    /// The value of the first member of this name, `null` included.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.members.iter().find(|member| member.name == name).map(|member| member.value)
    }

    /// Names that occur more than once, each once.
    #[must_use]
    pub fn repeated(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        let mut named = HashSet::new();
        let mut repeated = Vec::new();
        // Usually there are few members, and comparing them with each other is cheaper than hashing.
        let few = self.members.len() <= 24;
        for (i, member) in self.members.iter().enumerate() {
            let name = member.name.as_ref();
            let known = if few { self.members[..i].iter().any(|other| other.name == name) } else { !seen.insert(name) };
            if known && named.insert(name) {
                repeated.push(name);
            }
            if repeated.len() == MAX_KEPT_FAULTS {
                break;
            }
        }
        repeated
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(12);
                while let Some((Text(name), value)) = map.next_entry()? {
                    members.push(Member { name, value });
                }
                Ok(Object { members })
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A string that is borrowed from the text if it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_str(Borrowed)
    }
}

/// The value of a JSON string; `None` if `raw` is of another type.
#[must_use]
pub fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = raw.get();
    if !text.starts_with('"') {
        return None;
    }
    let inner = &text[1..text.len() - 1];
    if !inner.as_bytes().contains(&b'\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(text).ok().map(|Text(text)| text)
}

/// The error in the text, without its position, which the answer has separately.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(what, _)| what.to_owned())
}

fn malformed(line: usize, column: usize, what: &str) -> Problem {
    let detail = format!("the body is not valid JSON: {what} at line {line}, column {column}");
    Problem::new(StatusCode::BAD_REQUEST, "malformed_json", detail).with("line", line).with("column", column)
}

/// Lines count from 1, columns count bytes from 1, as serde_json's own do.
fn malformed_at(bytes: &[u8], offset: usize, what: &str) -> Problem {
    let before = &bytes[..offset.min(bytes.len())];
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    let column = 1 + before.iter().rev().take_while(|byte| **byte != b'\n').count();
    malformed(line, column, what)
}

/// Names the top-level member in which the nesting goes too deep.
fn too_deep(object: Option<&Object<'_>>) -> Problem {
    let message = format!("JSON must not be nested deeper than {MAX_DEPTH} levels");
    let members = object.map_or(&[][..], Object::members);
    let faults: Vec<_> = members
        .iter()
        .filter(|member| raw::deeper_than(member.value.get(), MAX_DEPTH - 1))
        .take(MAX_KEPT_FAULTS)
        .map(|member| Fault::new(format!("/{}", escape(&member.name)), "too_deep", message.clone()))
        .collect();
    if faults.is_empty() { Problem::fault("", "too_deep", message) } else { Problem::invalid(faults) }
}

#[cfg(test)]
mod tests;
