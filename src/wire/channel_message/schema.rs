//! `responseSchema`: a client's JSON Schema, by which every answer to its review is checked; and `parameters` of a tool,
//! by which the arguments of its calls are.
//!
//! A schema of a few lines can require more work than there is time, memory or stack. The compiler has no bounds of its
//! own, so every path through a schema is walked before it is compiled, and the cost of a validation is calculated before
//! it begins.

use jsonschema::{ValidationError, Validator};
use serde_json::Value;

use crate::json::raw;

mod faults;
mod references;
mod validate;
mod walk;

pub use faults::SchemaFault;
pub use validate::{PlannedValidation, ValidationResult, Violation};

use references::References;
use walk::Walk;

/// The stack that compiling any accepted schema and validating any value need at most: 64 KiB for each subschema on the
/// longest path, which is more than even a build without optimization uses.
pub const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of a schema, as compact JSON with the fewest escapes. It is compiled while its request waits, and again for
/// each answer.
const MAX_BYTES: usize = 64 * 1024;
/// Patterns in a schema.
const MAX_PATTERNS: usize = 64;
/// Bytes that one compiled pattern may need; a few characters may require very many, and the time to build them.
const PATTERN_BYTES: usize = 64 * 1024;
/// Bytes that matching one pattern may need beside it.
const MATCH_BYTES: usize = 256 * 1024;

/// A schema is compiled within a millisecond, on the stack of any thread, if it has at most so many steps, bytes and
/// levels of nesting, no pattern, and does not refer to the draft's own schemas.
const QUICK_STEPS: usize = 256;
const QUICK_BYTES: usize = 2 * 1024;
const QUICK_DEPTH: usize = 32;

/// A schema whose paths are known and bounded. It is self-contained: nothing outside it is ever fetched.
#[derive(Debug)]
pub struct Schema {
    value: Value,
    walk: Walk,
    bytes: usize,
    extent: Extent,
}

/// A client's new schema, which may have faults.
#[derive(Debug)]
pub struct NewSchema {
    value: Value,
    walk: Result<Walk, Vec<SchemaFault>>,
    bytes: usize,
    extent: Extent,
}

/// Counts of a schema as a JSON value, whatever is ever applied.
#[derive(Debug, Default)]
struct Extent {
    patterns: usize,
    depth: usize,
}

impl NewSchema {
    /// Reads one. `text` is valid JSON.
    ///
    /// # Errors
    /// That it is too large to be checked.
    pub fn read(text: &str) -> Result<Self, SchemaFault> {
        let bytes = raw::shortest_len(&raw::compact(text));
        if bytes > MAX_BYTES {
            return Err(SchemaFault::at_root(format!("it has more than {MAX_BYTES} bytes")));
        }
        let value = serde_json::from_str(text).map_err(|error| SchemaFault::at_root(error.to_string()))?;
        let extent = Extent::of(&value);
        if extent.patterns > MAX_PATTERNS {
            return Err(SchemaFault::at_root(format!("it has more than {MAX_PATTERNS} patterns")));
        }
        let walk = Walk::through(&value, References::of(&value));
        Ok(Self { value, walk, bytes, extent })
    }

    /// Whether [`NewSchema::faults`] takes some milliseconds at most, and any thread has the stack for it.
    #[must_use]
    pub fn is_quick(&self) -> bool {
        self.extent.is_quick(self.bytes) && self.walk.as_ref().map_or(true, Walk::is_quick)
    }

    /// Its faults, up to a hundred of those that can be found at once; none if it is usable. Unless this
    /// [is quick](NewSchema::is_quick), the thread needs [`STACK_BYTES`].
    #[must_use]
    pub fn faults(&self) -> Vec<SchemaFault> {
        let (found, error) = match &self.walk {
            Err(found) => (found.as_slice(), None),
            Ok(_) => match compile(&self.value, true) {
                Ok(_) => return Vec::new(),
                Err(error) => (&[][..], Some(error)),
            },
        };
        let mut faults = faults::by_draft(&self.value);
        faults.extend_from_slice(found);
        if self.extent.patterns > 0 {
            faults.extend(faults::by_patterns(&self.value));
        }
        if faults.is_empty() {
            faults.extend(error.map(|error| faults::by_compiler(&self.value, &error)));
        }
        faults.truncate(faults::MAX_FAULTS);
        faults
    }
}

impl Schema {
    /// A schema that was accepted once, by this build or an earlier one.
    ///
    /// # Errors
    /// Its faults.
    pub fn stored(value: Value) -> Result<Self, Vec<SchemaFault>> {
        let walk = Walk::through(&value, References::of(&value))?;
        let bytes = value.to_string().len();
        let extent = Extent::of(&value);
        Ok(Self { value, walk, bytes, extent })
    }

    /// Whether compiling it takes at most a millisecond, and any thread has the stack for it.
    #[must_use]
    pub fn is_quick(&self) -> bool {
        self.extent.is_quick(self.bytes) && self.walk.is_quick()
    }

    /// Compiles it. Unless it [is quick](Schema::is_quick), the thread needs [`STACK_BYTES`].
    ///
    /// # Errors
    /// The compiler's error.
    fn compile(&self) -> Result<Validator, ValidationError<'static>> {
        compile(&self.value, false)
    }
}

/// Compiles a schema. Patterns are matched in linear time; other patterns are refused, and those of a new schema also
/// if they need much memory.
fn compile(schema: &Value, is_new: bool) -> Result<Validator, ValidationError<'static>> {
    let patterns = jsonschema::PatternOptions::regex().dfa_size_limit(MATCH_BYTES);
    let patterns = if is_new { patterns.size_limit(PATTERN_BYTES) } else { patterns };
    jsonschema::draft202012::options().offline().with_pattern_options(patterns).build(schema)
}

impl Extent {
    fn is_quick(&self, bytes: usize) -> bool {
        bytes <= QUICK_BYTES && self.depth <= QUICK_DEPTH && self.patterns == 0
    }

    fn of(value: &Value) -> Self {
        let mut extent = Self::default();
        extent.add(value, 0);
        extent
    }

    fn add(&mut self, value: &Value, depth: usize) {
        self.depth = self.depth.max(depth);
        match value {
            Value::Object(members) => {
                let by_name = members.get("patternProperties").and_then(Value::as_object);
                self.patterns += usize::from(members.contains_key("pattern")) + by_name.map_or(0, serde_json::Map::len);
                members.values().for_each(|value| self.add(value, depth + 1));
            }
            Value::Array(items) => items.iter().for_each(|item| self.add(item, depth + 1)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
