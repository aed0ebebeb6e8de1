//! Reading an object member by member, keeping all faults.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use actors::message::Json;
use serde_json::value::RawValue;

use crate::json::number::{self, Integer};
use crate::json::path::Path;
use crate::json::report::Report;
use crate::json::{Object, raw};

/// The unit of a text's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Unicode scalar values.
    Chars,
    /// Bytes of UTF-8.
    Bytes,
}

/// The bounds of a client's own object.
#[derive(Clone, Copy, Debug)]
pub struct ObjectBounds {
    /// Bytes as compact JSON.
    pub bytes: usize,
    /// Levels of nesting; the object itself is the first.
    pub depth: usize,
}

/// The bounds of a text's length.
#[derive(Clone, Copy, Debug)]
pub struct Length {
    /// The smallest accepted length.
    pub min: usize,
    /// The largest accepted length.
    pub max: usize,
    /// The unit.
    pub unit: Unit,
}

impl Length {
    /// Any text.
    pub const ANY: Self = Self { min: 0, max: usize::MAX, unit: Unit::Bytes };

    /// A number of Unicode scalar values.
    #[must_use]
    pub const fn chars(min: usize, max: usize) -> Self {
        Self { min, max, unit: Unit::Chars }
    }

    /// A number of bytes of UTF-8.
    #[must_use]
    pub const fn bytes(min: usize, max: usize) -> Self {
        Self { min, max, unit: Unit::Bytes }
    }

    /// Reports `text` if it is too short or too long; `true` if it is neither.
    pub fn check(self, report: &mut Report, path: &Path, text: &str) -> bool {
        let unit = match self.unit {
            Unit::Chars => "characters",
            Unit::Bytes => "bytes of UTF-8",
        };
        // No text has more characters than bytes, so most need no counting.
        let count = match self.unit {
            Unit::Chars if text.len() > self.max || text.len() < 4 * self.min => text.chars().count(),
            _ => text.len(),
        };
        if count < self.min {
            report.fault(path, "too_short", format!("must have at least {} {unit}", self.min));
        } else if count > self.max {
            report.fault(path, "too_long", format!("must have at most {} {unit}, has {count}", self.max));
        }
        (self.min..=self.max).contains(&count)
    }
}

/// A member's value and its path. Never `null`.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    /// The text as received.
    pub raw: &'a RawValue,
    /// Its path.
    pub path: Path,
}

impl<'a> Value<'a> {
    /// Reports that the value is of another type than `expected`, a noun with its article.
    pub fn wrong_type(&self, report: &mut Report, expected: &str) {
        report.fault(&self.path, "invalid_type", format!("must be {expected}, is {}", type_name(self.raw)));
    }

    /// A string within `length`.
    pub fn string(&self, report: &mut Report, length: Length) -> Option<Cow<'a, str>> {
        let Some(text) = crate::json::string(self.raw) else {
            self.wrong_type(report, "a string");
            return None;
        };
        length.check(report, &self.path, &text).then_some(text)
    }

    /// `true` or `false`.
    pub fn boolean(&self, report: &mut Report) -> Option<bool> {
        match self.raw.get() {
            "true" => Some(true),
            "false" => Some(false),
            _ => {
                self.wrong_type(report, "a boolean");
                None
            }
        }
    }

    /// An integer within `range`, which must lie within ±(2^53 − 1).
    pub fn integer(&self, report: &mut Report, range: RangeInclusive<i64>) -> Option<i64> {
        match number::integer(self.raw.get()) {
            Integer::Exact(number) if range.contains(&number) => return Some(number),
            Integer::Exact(_) | Integer::Beyond => {
                let message = format!("must be an integer from {} to {}", range.start(), range.end());
                report.fault(&self.path, "out_of_range", message);
            }
            Integer::Fraction => {
                report.fault(&self.path, "invalid_type", "must be an integer, has a fraction");
            }
            Integer::Other => self.wrong_type(report, "an integer"),
        }
        None
    }

    /// One of `choices`, each the word on the wire and its meaning.
    pub fn choice<T: Copy>(&self, report: &mut Report, choices: &[(&str, T)]) -> Option<T> {
        let text = self.string(report, Length::ANY)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let names: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            report.fault(&self.path, "invalid_enum", format!("must be one of {}", names.join(", ")));
        }
        found
    }

    /// The items of an array; `null` items included.
    pub fn array(&self, report: &mut Report) -> Option<Items<'a>> {
        if !self.is_array() {
            self.wrong_type(report, "an array");
            return None;
        }
        let raws: Vec<_> = serde_json::from_str(self.raw.get()).unwrap_or_default();
        Some(Items { readable: raws.len(), raws, path: self.path })
    }

    /// An object whose members this service knows.
    pub fn object(&self, report: &mut Report) -> Option<Fields<'a>> {
        let object = Object::from_raw(self.raw);
        if object.is_none() {
            self.wrong_type(report, "an object");
        }
        object.map(|object| Fields::new(object, self.path, report))
    }

    /// An object of the client's own, compact.
    pub fn free_object(&self, report: &mut Report, most: ObjectBounds) -> Option<Json> {
        if !self.is_object() {
            self.wrong_type(report, "an object");
            return None;
        }
        let text = raw::compact(self.raw.get());
        let len = if text.len() > most.bytes { raw::shortest_len(&text) } else { text.len() };
        let large = len > most.bytes;
        let deep = raw::deeper_than(&text, most.depth);
        if large {
            let message = format!("must have at most {} bytes as compact JSON, has {len}", most.bytes);
            report.fault(&self.path, "too_large", message);
        }
        if deep {
            report.fault(&self.path, "too_deep", format!("must not be nested deeper than {} levels", most.depth));
        }
        (!large && !deep).then(|| Json::from_checked(text))
    }

    /// The value as compact JSON.
    #[must_use]
    pub fn json(&self) -> Json {
        Json::from_checked(raw::compact(self.raw.get()))
    }

    /// Whether the value is an object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.raw.get().starts_with('{')
    }

    /// Whether the value is an array.
    #[must_use]
    pub fn is_array(&self) -> bool {
        self.raw.get().starts_with('[')
    }

    /// Whether the value is a string.
    #[must_use]
    pub fn is_string(&self) -> bool {
        self.raw.get().starts_with('"')
    }
}

/// The items of an array. A body can have millions, so each gets its path only when it is read, and none is read once
/// its faults would not be listed.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    raws: Vec<&'a RawValue>,
    /// How many of them are read at most.
    readable: usize,
    path: Path,
}

impl<'a> Items<'a> {
    /// The array's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.raws.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.raws.is_empty()
    }

    /// Leaves all but the first `max` unread; they still count in [`Items::len`].
    pub fn read_first(&mut self, max: usize) {
        self.readable = self.readable.min(max);
    }

    /// Reports more than `max` items, which the message calls `noun`; only the first `max` are read.
    pub fn at_most(&mut self, max: usize, noun: &str, report: &mut Report) {
        if self.len() > max {
            report.fault(&self.path, "too_many", format!("must have at most {max} {noun}, has {}", self.len()));
        }
        self.read_first(max);
    }

    /// Reads one after another, each with its path, until the report is full: what is found later would not be listed.
    pub fn each(&self, report: &mut Report, mut read: impl FnMut(Value<'a>, &mut Report)) {
        for (i, raw) in self.raws.iter().take(self.readable).enumerate() {
            if report.is_full() {
                return;
            }
            read(Value { raw, path: self.path.index(i) }, report);
        }
    }
}

/// The kind of JSON value, with its article.
fn type_name(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// An object being read. It records the members that were read, so that the others are known to be unknown.
#[derive(Debug)]
pub struct Fields<'a> {
    object: Object<'a>,
    read: Vec<bool>,
    path: Path,
}

impl<'a> Fields<'a> {
    /// Begins to read an object; a repeated member is reported at once.
    pub fn new(object: Object<'a>, path: Path, report: &mut Report) -> Self {
        for name in object.repeated() {
            report.fault_at(path.member(name), "duplicate_field", format!("duplicate member {name:?}"));
        }
        let read = vec![false; object.members().len()];
        Self { object, read, path }
    }

    /// Begins to read a body.
    pub fn root(object: Object<'a>, report: &mut Report) -> Self {
        Self::new(object, Path::ROOT, report)
    }

    /// The object's path.
    #[must_use]
    pub fn path(&self) -> Path {
        self.path
    }

    /// The object.
    #[must_use]
    pub fn object(&self) -> &Object<'a> {
        &self.object
    }

    /// A member; absent and `null` are the same.
    pub fn optional(&mut self, name: &'static str) -> Option<Value<'a>> {
        let mut found = None;
        for (member, read) in self.object.members().iter().zip(&mut self.read) {
            if member.name == name {
                *read = true;
                found = found.or(Some(member.value));
            }
        }
        let raw = found.filter(|raw| raw.get() != "null")?;
        Some(Value { raw, path: self.path.name(name) })
    }

    /// A member that must exist and not be `null`.
    pub fn required(&mut self, report: &mut Report, name: &'static str) -> Option<Value<'a>> {
        let value = self.optional(name);
        if value.is_none() {
            self.missing(report, name);
        }
        value
    }

    /// Reports a required member that is missing.
    pub fn missing(&self, report: &mut Report, name: &'static str) {
        report.fault(&self.path.name(name), "required", format!("{name} is required"));
    }

    /// An optional string within `length`.
    pub fn string(&mut self, report: &mut Report, name: &'static str, length: Length) -> Option<Cow<'a, str>> {
        self.optional(name)?.string(report, length)
    }

    /// A required string within `length`.
    pub fn required_string(&mut self, report: &mut Report, name: &'static str, length: Length) -> Option<Cow<'a, str>> {
        self.required(report, name)?.string(report, length)
    }

    /// Reports every member that was not read.
    pub fn finish(self, report: &mut Report) {
        for (member, read) in self.object.members().iter().zip(&self.read) {
            if !read {
                report.unknown(&self.path, &member.name);
            }
        }
    }
}
