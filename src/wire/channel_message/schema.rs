//! `responseSchema`: a client's JSON Schema, by which every answer to its review is checked; and `parameters` of a tool,
//! by which the arguments of its calls are.
//!
//! A schema of a few lines can require more work than there is time, memory or stack. The compiler has no bounds of its
//! own, so every path through a schema is walked before it is compiled, and the cost of a validation is calculated before
//! it begins.

use serde_json::Value;

use crate::json::raw;

mod references;
mod validate;
mod walk;

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
    is_new: bool,
}

/// Counts of a schema as a JSON value, whatever is ever applied.
#[derive(Debug, Default)]
struct Extent {
    patterns: usize,
    depth: usize,
}

impl Schema {
    /// A client's new schema. `text` is valid JSON.
    ///
    /// # Errors
    /// A sentence about the schema's fault.
    pub fn new(text: &str) -> Result<Self, String> {
        let bytes = raw::shortest_len(&raw::compact(text));
        if bytes > MAX_BYTES {
            return Err(format!("it has more than {MAX_BYTES} bytes"));
        }
        let value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let extent = Extent::of(&value);
        if extent.patterns > MAX_PATTERNS {
            return Err(format!("it has more than {MAX_PATTERNS} patterns"));
        }
        let walk = walk(&value)?;
        Ok(Self { value, walk, bytes, extent, is_new: true })
    }

    /// A schema that was accepted once, by this build or an earlier one.
    ///
    /// # Errors
    /// A sentence about the schema's fault.
    pub fn stored(value: Value) -> Result<Self, String> {
        let walk = walk(&value)?;
        let bytes = value.to_string().len();
        let extent = Extent::of(&value);
        Ok(Self { value, walk, bytes, extent, is_new: false })
    }

    /// Whether [`Schema::compile`] takes at most a millisecond, and any thread has the stack for it.
    #[must_use]
    pub fn is_quick(&self) -> bool {
        self.walk.steps <= QUICK_STEPS
            && self.bytes <= QUICK_BYTES
            && self.extent.depth <= QUICK_DEPTH
            && self.extent.patterns == 0
            && !self.walk.meta_schemas
    }

    /// Compiles it. Unless it [is quick](Schema::is_quick), the thread needs [`STACK_BYTES`]. Patterns are matched in
    /// linear time; other patterns are refused.
    ///
    /// # Errors
    /// A sentence about the schema's fault.
    pub fn compile(&self) -> Result<jsonschema::Validator, String> {
        let patterns = jsonschema::PatternOptions::regex().dfa_size_limit(MATCH_BYTES);
        let patterns = if self.is_new { patterns.size_limit(PATTERN_BYTES) } else { patterns };
        let options = jsonschema::draft202012::options().offline().with_pattern_options(patterns);
        options.build(&self.value).map_err(|error| {
            let mut why = error.to_string();
            // A message may quote the whole schema.
            if let Some((at, _)) = why.char_indices().nth(300) {
                why.truncate(at);
            }
            why
        })
    }
}

fn walk(schema: &Value) -> Result<Walk, String> {
    Walk::through(schema, &References::of(schema)?)
}

impl Extent {
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
