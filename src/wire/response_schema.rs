//! A client's own schema for the answers to a review (`payload.responseSchema`, JSON Schema 2020-12).
//!
//! Checking an answer must be cheap whatever the schema. So patterns are matched in linear time, nothing is fetched,
//! and references stay within the schema, do not come back to where they are, and do not multiply: a schema of a few
//! lines could otherwise keep a core busy for ever.

use serde_json::Value;

/// The largest schema, in bytes of compact JSON.
pub const MAX_SCHEMA_BYTES: usize = 64 * 1024;
/// Parts of a schema with all its references followed.
const MAX_PARTS: usize = 10_000;
/// Schemas with `unevaluatedProperties` or `unevaluatedItems` inside each other: each asks all those in it again.
const MAX_UNEVALUATED: usize = 4;
/// How long a description of what is wrong may be, in characters; the library's may quote the whole schema.
const MAX_WORDS: usize = 300;

/// The schema, ready to check answers.
///
/// # Errors
///
/// What is wrong with it, in words for its author.
pub fn compile(schema: &Value) -> Result<jsonschema::Validator, String> {
    if schema.to_string().len() > MAX_SCHEMA_BYTES {
        return Err(format!("it has more than {MAX_SCHEMA_BYTES} bytes"));
    }
    let mut parts = 0;
    count(schema, schema, &mut Vec::new(), 0, &mut parts)?;
    let patterns = jsonschema::PatternOptions::regex();
    let options = jsonschema::draft202012::options().offline().with_pattern_options(patterns);
    options.build(schema).map_err(|error| error.to_string().chars().take(MAX_WORDS).collect())
}

/// Counts the parts of `schema`, those behind references each time they are referred to. `following` holds the
/// references that lead here, `unevaluated` is how many schemas around it ask about what is unevaluated.
fn count<'a>(
    root: &'a Value,
    schema: &'a Value,
    following: &mut Vec<&'a str>,
    unevaluated: usize,
    parts: &mut usize,
) -> Result<(), String> {
    *parts += 1;
    if *parts > MAX_PARTS {
        return Err(format!("with its references followed it has more than {MAX_PARTS} parts"));
    }
    match schema {
        Value::Array(items) => items.iter().try_for_each(|item| count(root, item, following, unevaluated, parts)),
        Value::Object(members) => {
            let asks_again = members.contains_key("unevaluatedProperties") || members.contains_key("unevaluatedItems");
            let unevaluated = unevaluated + usize::from(asks_again);
            if unevaluated > MAX_UNEVALUATED {
                return Err(format!("unevaluated parts stand in more than {MAX_UNEVALUATED} of each other"));
            }
            for (name, value) in members {
                match (name.as_str(), value.as_str()) {
                    ("$ref", Some(reference)) => follow(root, reference, following, unevaluated, parts)?,
                    ("$dynamicRef" | "$recursiveRef" | "$id", Some(_)) => {
                        return Err(format!("{name} is not supported here"));
                    }
                    _ => count(root, value, following, unevaluated, parts)?,
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn follow<'a>(
    root: &'a Value,
    reference: &'a str,
    following: &mut Vec<&'a str>,
    unevaluated: usize,
    parts: &mut usize,
) -> Result<(), String> {
    if following.contains(&reference) {
        return Err(format!("the reference {reference:.100} leads back to itself, which is not supported here"));
    }
    let target = reference.strip_prefix('#').filter(|pointer| pointer.starts_with('/'));
    let target = target.and_then(|pointer| root.pointer(pointer));
    let Some(target) = target else {
        return Err(format!("the reference {reference:.100} does not lead to a part of this schema"));
    };
    following.push(reference);
    count(root, target, following, unevaluated, parts)?;
    following.pop();
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_ordinary_schema_with_references_is_compiled() {
        let schema = json!({
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/score"}, "b": {"$ref": "#/$defs/score"}},
            "$defs": {"score": {"type": "integer", "maximum": 5}},
        });
        let validator = compile(&schema).unwrap();
        assert!(validator.is_valid(&json!({"a": 5})));
        assert!(!validator.is_valid(&json!({"b": 6})));
    }

    #[test]
    fn a_schema_that_could_keep_a_core_busy_is_refused() {
        let any = |name: &str| json!({"anyOf": [{"$ref": name}, {"$ref": name}]});
        let mut doubling = serde_json::Map::new();
        for i in 0..40 {
            doubling.insert(format!("d{i}"), any(&format!("#/$defs/d{}", i + 1)));
        }
        doubling.insert("d40".to_owned(), json!({"type": "string"}));
        for schema in [
            json!({"$ref": "#"}),
            json!({"$defs": {"a": any("#/$defs/a")}, "$ref": "#/$defs/a"}),
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
            json!({"$defs": doubling, "$ref": "#/$defs/d0"}),
            (0..5).fold(json!({}), |inner, _| json!({"oneOf": [inner], "unevaluatedProperties": false})),
            json!({"$dynamicRef": "#a"}),
            json!({"$ref": "https://example.com/schema"}),
            json!({"type": "object", "description": "x".repeat(MAX_SCHEMA_BYTES)}),
        ] {
            assert!(compile(&schema).is_err(), "{schema:.200}");
        }
    }

    #[test]
    fn a_pattern_is_matched_in_linear_time_or_refused() {
        let slow = format!("{}b", "a".repeat(50_000));
        let validator = compile(&json!({"pattern": "^(a+)+$"})).unwrap();
        assert!(!validator.is_valid(&json!(slow)));
        assert!(compile(&json!({"pattern": "(?=a)a"})).is_err());
    }

    #[test]
    fn what_is_no_schema_is_told_in_few_words() {
        let why = compile(&json!({"type": "x".repeat(5_000)})).unwrap_err();
        assert!(why.chars().count() <= MAX_WORDS, "{why}");
    }
}
