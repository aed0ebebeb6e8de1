//! The faults of a client's schema, each at its keyword.

use std::collections::{HashMap, HashSet};

use jsonschema::ValidationError;
use serde_json::Value;

use super::compile;
use super::walk;
use crate::json::path::escape;

/// Faults of one schema reported at once: more than its author can mend at once, and a short answer.
pub(super) const MAX_FAULTS: usize = 100;
/// The longest message of a fault, in characters: one may quote the whole schema.
const MESSAGE_CHARS: usize = 300;
/// The longest pointer of a fault. Names of members may be very long; then the pointer leads to a part around the fault.
const MAX_POINTER_BYTES: usize = 1024;
/// Faults are listed if they need at most so much memory: the library collects all of them before it returns the first.
/// Of a schema that may have more only the first is found.
const MAX_LISTING_BYTES: usize = 16 * 1024 * 1024;
/// One fault in memory, without its path.
const FAULT_BYTES: usize = 512;
/// How many of the draft's own schemas apply to each subschema: the main one and its vocabularies.
const DRAFT_SCHEMAS: usize = 8;

/// A fault of a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaFault {
    /// JSON Pointer into the schema; empty: the whole of it.
    pub pointer: String,
    /// A sentence about it.
    pub message: String,
}

/// What makes subschemas unusable: a keyword of each, and why.
pub(super) type Unusable = HashMap<*const Value, Vec<(&'static str, String)>>;

impl SchemaFault {
    /// A fault of the whole schema.
    pub(super) fn at_root(message: impl Into<String>) -> Self {
        Self::at("", message)
    }

    /// A fault at this pointer.
    pub(super) fn at(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(MESSAGE_CHARS) {
            message.truncate(end);
        }
        let mut pointer = pointer.into();
        while pointer.len() > MAX_POINTER_BYTES {
            pointer.truncate(pointer.rfind('/').unwrap_or_default());
        }
        Self { pointer, message }
    }

    fn of(error: &ValidationError<'_>) -> Self {
        Self::at(error.instance_path().to_string(), error.to_string())
    }
}

/// Calls `visit` with each part of a value and its JSON Pointer, the whole first.
pub(super) fn each_part<'a>(value: &'a Value, visit: &mut dyn FnMut(&str, &'a Value)) {
    fn descend<'a>(value: &'a Value, pointer: &mut String, visit: &mut dyn FnMut(&str, &'a Value)) {
        visit(pointer, value);
        let length = pointer.len();
        let mut below = |step: &str, part: &'a Value| {
            pointer.push('/');
            pointer.push_str(step);
            descend(part, pointer, visit);
            pointer.truncate(length);
        };
        match value {
            Value::Object(members) => members.iter().for_each(|(name, part)| below(&escape(name), part)),
            Value::Array(items) => items.iter().enumerate().for_each(|(n, part)| below(&n.to_string(), part)),
            _ => {}
        }
    }
    descend(value, &mut String::new(), visit);
}

/// The faults of subschemas that are `unusable` where they are in the schema.
pub(super) fn located(schema: &Value, unusable: &Unusable) -> Vec<SchemaFault> {
    let mut faults = Vec::new();
    if !unusable.is_empty() {
        each_part(schema, &mut |pointer, part| {
            let found = unusable.get(&std::ptr::from_ref(part)).into_iter().flatten();
            let found = found.take(MAX_FAULTS.saturating_sub(faults.len()));
            faults.extend(found.map(|(keyword, why)| SchemaFault::at(format!("{pointer}/{keyword}"), why)));
        });
    }
    faults
}

/// What makes it no schema of the draft.
pub(super) fn by_draft(schema: &Value) -> Vec<SchemaFault> {
    let draft = jsonschema::draft202012::meta::validator();
    if draft.is_valid(schema) {
        return Vec::new();
    }
    if listing_bytes(schema) > MAX_LISTING_BYTES {
        return draft.validate(schema).err().iter().map(SchemaFault::of).collect();
    }
    // Several of the draft's schemas may find the same.
    let mut seen = HashSet::new();
    let found = draft.iter_errors(schema).map(|error| SchemaFault::of(&error));
    found.filter(|fault| seen.insert((fault.pointer.clone(), fault.message.clone()))).take(MAX_FAULTS).collect()
}

/// How much memory a list of its faults needs at most, if each part has one.
fn listing_bytes(schema: &Value) -> usize {
    let mut parts = 0_usize;
    let mut longest = 0;
    each_part(schema, &mut |pointer, _| {
        parts += 1;
        longest = longest.max(pointer.len());
    });
    parts * DRAFT_SCHEMAS * (FAULT_BYTES + longest)
}

/// The patterns that the compiler refuses.
pub(super) fn by_patterns(schema: &Value) -> Vec<SchemaFault> {
    let reachable = walk::reachable(schema);
    let mut faults = Vec::new();
    each_part(schema, &mut |pointer, part| {
        let Some(members) = part.as_object().filter(|_| reachable.contains(&std::ptr::from_ref(part))) else { return };
        let own = members.get("pattern").and_then(Value::as_str).map(|pattern| ("/pattern".to_owned(), pattern));
        let named = members.get("patternProperties").and_then(Value::as_object).into_iter().flatten();
        let named = named.map(|(name, _)| (format!("/patternProperties/{}", escape(name)), name.as_str()));
        for (place, pattern) in own.into_iter().chain(named) {
            if let Err(error) = compile(&serde_json::json!({ "pattern": pattern }), true) {
                faults.push(SchemaFault::at(format!("{pointer}{place}"), error.to_string()));
            }
        }
    });
    faults
}

/// What the compiler found: at its pointer, or at the nearest part of the schema.
pub(super) fn by_compiler(schema: &Value, error: &ValidationError<'_>) -> SchemaFault {
    let mut fault = SchemaFault::of(error);
    while schema.pointer(&fault.pointer).is_none() {
        fault.pointer.truncate(fault.pointer.rfind('/').unwrap_or_default());
    }
    fault
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_part_has_the_pointer_that_leads_to_it() {
        let value = json!({"a/b": [1, {"~": 2}], "c": {}});
        let mut pointers = Vec::new();
        each_part(&value, &mut |pointer, part| {
            assert_eq!(value.pointer(pointer), Some(part));
            pointers.push(pointer.to_owned());
        });
        pointers.sort();
        assert_eq!(pointers, ["", "/a~1b", "/a~1b/0", "/a~1b/1", "/a~1b/1/~0", "/c"]);
    }

    #[test]
    fn faults_that_would_need_too_much_memory_are_not_listed() {
        let name = "x".repeat(30_000);
        let found = by_draft(&json!({"$defs": {name: {"required": vec![1; 10_000]}}}));
        let pointers: Vec<_> = found.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, ["/$defs"], "the first, at a part whose name is not too long");
        assert_eq!(by_draft(&json!({"required": vec![1; 3]})).len(), 3 + 1, "each, and that they are equal");
        assert_eq!(by_draft(&json!({"required": (0..2_000).collect::<Vec<_>>()})).len(), MAX_FAULTS);
    }
}
