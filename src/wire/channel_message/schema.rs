//! `responseSchema`: a client's JSON Schema, by which every answer to its review is checked.

use std::collections::HashMap;

use serde_json::Value;

use crate::json::{MAX_DEPTH, raw};

/// Subschemas that the check of one value may visit on its way down. A few lines of fanning references may require more
/// steps than there is time, and the check cannot be interrupted.
pub const MAX_STEPS: usize = 4_000;

/// Bytes of a schema, as compact JSON with the fewest escapes. It is compiled while its request waits, and again for
/// each answer.
const MAX_BYTES: usize = 64 * 1024;
/// Patterns in a schema.
const MAX_PATTERNS: usize = 64;
/// Bytes that one compiled pattern may need; a few characters may require very many, and the time to build them.
const PATTERN_BYTES: usize = 512 * 1024;

/// The base URL of JSON Schema's own schemas.
const DRAFTS: &str = "https://json-schema.org/draft/2020-12/";

/// Keywords with parallel schemas for the same value.
const SAME_VALUE_LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
const SAME_VALUE_MAPS: [&str; 1] = ["dependentSchemas"];
const SAME_VALUE: [&str; 4] = ["not", "if", "then", "else"];
/// Keywords with schemas for the value's parts.
const INNER_LISTS: [&str; 1] = ["prefixItems"];
const INNER_MAPS: [&str; 2] = ["properties", "patternProperties"];
const INNER: [&str; 6] =
    ["additionalProperties", "propertyNames", "items", "contains", "unevaluatedProperties", "unevaluatedItems"];

/// Checks that a client's new schema may be compiled, and can be. `text` is valid JSON.
///
/// # Errors
/// A sentence about the schema's fault.
pub fn check(text: &str) -> Result<(), String> {
    if raw::shortest_len(&raw::compact(text)) > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} bytes"));
    }
    let schema = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut extent = Extent::default();
    extent.add(&schema);
    if extent.patterns > MAX_PATTERNS {
        return Err(format!("it has more than {MAX_PATTERNS} patterns"));
    }
    made(&schema, &extent, jsonschema::PatternOptions::regex().size_limit(PATTERN_BYTES)).map(drop)
}

/// Compiles a schema that was accepted once, by this build or an earlier one. It is self-contained: nothing outside it
/// is ever fetched.
///
/// # Errors
/// A sentence about the schema's fault.
pub fn compile(schema: &Value) -> Result<jsonschema::Validator, String> {
    let mut extent = Extent::default();
    extent.add(schema);
    made(schema, &extent, jsonschema::PatternOptions::regex())
}

/// Patterns are matched in linear time; other patterns are refused.
fn made(
    schema: &Value,
    extent: &Extent<'_>,
    patterns: jsonschema::PatternOptions<jsonschema::Regex>,
) -> Result<jsonschema::Validator, String> {
    check_steps(schema, &extent.anchors)?;
    jsonschema::draft202012::options().offline().with_pattern_options(patterns).build(schema).map_err(|error| {
        let mut why = error.to_string();
        // A message may quote the whole schema.
        if let Some((at, _)) = why.char_indices().nth(300) {
            why.truncate(at);
        }
        why
    })
}

/// The extent of a schema.
#[derive(Default)]
struct Extent<'a> {
    patterns: usize,
    /// The possible targets of references by name.
    anchors: HashMap<&'a str, Vec<&'a Value>>,
}

impl<'a> Extent<'a> {
    fn add(&mut self, value: &'a Value) {
        match value {
            Value::Object(members) => {
                for name in ["$anchor", "$dynamicAnchor"].into_iter().filter_map(|key| members.get(key)?.as_str()) {
                    self.anchors.entry(name).or_default().push(value);
                }
                self.patterns += usize::from(members.contains_key("pattern"));
                let by_name = members.get("patternProperties").and_then(Value::as_object);
                self.patterns += by_name.map_or(0, serde_json::Map::len);
                members.values().for_each(|value| self.add(value));
            }
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            _ => {}
        }
    }
}

/// Follows every path that a check can take, until it ends or exceeds the bound.
fn check_steps(root: &Value, anchors: &HashMap<&str, Vec<&Value>>) -> Result<(), String> {
    // A second base URI would give references a meaning that is not followed here.
    if root.as_object().is_some_and(|root| root.values().any(has_id)) {
        return Err("an $id below the top level is not supported".to_owned());
    }
    let mut steps = 0;
    // No answer is nested deeper, so a self-referring schema is followed no further.
    let mut ahead = vec![(root, MAX_DEPTH)];
    while let Some((schema, depth)) = ahead.pop() {
        steps += 1;
        if steps > MAX_STEPS {
            return Err(format!("checking an answer against it may take more than {MAX_STEPS} steps"));
        }
        let Some(members) = schema.as_object() else { continue };
        // `unevaluated…` keywords evaluate the parallel schemas once more.
        let again = members.keys().any(|name| name.starts_with("unevaluated"));
        let named = targets(root, schema, anchors)?;
        for _ in 0..=usize::from(again) {
            let parallel = for_same_value(schema).chain(named.iter().copied());
            ahead.extend(parallel.map(|schema| (schema, depth)));
        }
        if let Some(depth) = depth.checked_sub(1) {
            let inner = subschemas(schema, &INNER, &INNER_LISTS, &INNER_MAPS);
            ahead.extend(inner.map(|inner| (inner, depth)));
        }
    }
    Ok(())
}

/// The schemas evaluated on the same value as this one, by keyword.
fn for_same_value(schema: &Value) -> impl Iterator<Item = &Value> {
    subschemas(schema, &SAME_VALUE, &SAME_VALUE_LISTS, &SAME_VALUE_MAPS)
}

/// The targets of a schema's references; none if one is dangling, which the compiler reports.
///
/// # Errors
/// A reference whose meaning is not followed here.
fn targets<'a>(
    root: &'a Value,
    schema: &Value,
    anchors: &HashMap<&str, Vec<&'a Value>>,
) -> Result<Vec<&'a Value>, String> {
    let mut found = Vec::new();
    for reference in ["$ref", "$dynamicRef"].into_iter().filter_map(|name| schema.get(name)?.as_str()) {
        match reference.strip_prefix('#') {
            Some(place) if place.is_empty() || place.starts_with('/') => found.extend(root.pointer(place)),
            Some(anchor) => found.extend(anchors.get(anchor).into_iter().flatten().copied()),
            // The drafts' own schemas are known, and evaluate a value and its parts once each.
            None if reference.starts_with(DRAFTS) => {}
            None => return Err(format!("the reference {reference:?} is not supported; a reference must begin with #")),
        }
    }
    Ok(found)
}

/// The subschemas under these names: single ones, in lists, and in maps.
fn subschemas<'a>(
    schema: &'a Value,
    single: &'a [&str],
    lists: &'a [&str],
    maps: &'a [&str],
) -> impl Iterator<Item = &'a Value> {
    let get = |name: &&str| schema.get(*name);
    let listed = lists.iter().filter_map(get).filter_map(Value::as_array).flatten();
    let mapped = maps.iter().filter_map(get).filter_map(Value::as_object).flat_map(|map| map.values());
    single.iter().filter_map(get).chain(listed).chain(mapped)
}

fn has_id(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.get("$id").is_some_and(Value::is_string) || members.values().any(has_id),
        Value::Array(items) => items.iter().any(has_id),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn is_taken(schema: &Value) -> bool {
        check(&schema.to_string()).is_ok()
    }

    /// Definitions that each refer to the next one `ways` times.
    fn fan(levels: usize, ways: usize) -> Value {
        let to = |n: usize| json!({"$ref": format!("#/$defs/d{n}")});
        let mut defs = serde_json::Map::new();
        for n in 0..levels {
            defs.insert(format!("d{n}"), json!({"anyOf": vec![to(n + 1); ways]}));
        }
        defs.insert(format!("d{levels}"), json!({"type": "string"}));
        json!({"$defs": defs, "$ref": "#/$defs/d0"})
    }

    #[test]
    fn a_schema_whose_check_could_take_too_long_is_refused() {
        let deep_unevaluated = (0..40)
            .fold(json!({"type": "object"}), |inner, _| json!({"allOf": [inner], "unevaluatedProperties": false}));
        for schema in [
            fan(14, 8),
            json!({"$ref": "#"}),
            json!({"anyOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]}),
            json!({"$dynamicAnchor": "x", "allOf": [{"$dynamicRef": "#x"}]}),
            json!({"$anchor": "x", "allOf": [{"$ref": "#x"}]}),
            deep_unevaluated,
            json!({"$defs": {"a": {"$id": "http://example.com/a", "$ref": "#"}}, "$ref": "http://example.com/a"}),
            json!({"$id": "http://example.com/s", "$ref": "http://example.com/s"}),
            json!({"allOf": [{"$ref": ""}]}),
        ] {
            assert!(!is_taken(&schema), "{schema}");
        }
    }

    #[test]
    fn a_schema_may_refer_to_its_own_parts() {
        for schema in [
            json!({}),
            json!({"type": "object", "required": ["q"], "properties": {"q": {"type": "integer"}}}),
            json!({"$id": "http://example.com/s", "$defs": {"a": {"type": "string"}}, "items": {"$ref": "#/$defs/a"}}),
            json!({"$defs": {"a": {"$anchor": "text", "type": "string"}}, "items": {"$ref": "#text"}}),
            // A list of lists, of any depth.
            json!({"properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}),
            json!({"properties": {"$id": {"type": "string"}}}),
            json!({"$ref": "https://json-schema.org/draft/2020-12/schema"}),
            fan(4, 3),
        ] {
            assert!(is_taken(&schema), "{schema}");
        }
    }

    #[test]
    fn a_pattern_is_matched_in_linear_time_or_refused() {
        let slow = format!("{}b", "a".repeat(50_000));
        assert!(!compile(&json!({"pattern": "^(a+)+$"})).unwrap().is_valid(&json!(slow)));
        assert!(!is_taken(&json!({"pattern": "(?=a)a"})));
    }

    #[test]
    fn a_schema_that_takes_long_to_compile_is_refused() {
        let fields = |n: usize, what: &Value| {
            let properties: serde_json::Map<_, _> = (0..n).map(|n| (format!("f{n}"), what.clone())).collect();
            json!({"properties": properties})
        };
        let short = json!({"type": "string", "pattern": "^[a-z]+$"});
        assert!(is_taken(&fields(MAX_PATTERNS, &short)));
        assert!(!is_taken(&fields(MAX_PATTERNS + 1, &short)));
        assert!(is_taken(&json!({"pattern": "^\\p{L}{1,20}$"})));
        assert!(!is_taken(&json!({"pattern": r"\p{L}{2000}"})));
        let room = MAX_BYTES - json!({"description": ""}).to_string().len();
        assert!(is_taken(&json!({"description": "x".repeat(room)})));
        assert!(!is_taken(&json!({"description": "x".repeat(room + 1)})));
        let named = (0..MAX_PATTERNS + 1).map(|n| (format!("^{n}$"), json!(true))).collect::<serde_json::Map<_, _>>();
        assert!(!is_taken(&json!({"patternProperties": named})));
    }
}
