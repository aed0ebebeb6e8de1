use serde_json::{Map, json};

use super::*;

fn faults(schema: &Value) -> Vec<SchemaFault> {
    NewSchema::read(&schema.to_string()).map_or_else(|fault| vec![fault], |schema| schema.faults())
}

fn refused(schema: &Value) -> Option<String> {
    faults(schema).into_iter().next().map(|fault| fault.message)
}

fn is_taken(schema: &Value) -> bool {
    refused(schema).is_none()
}

/// Definitions that each refer to the next one `ways` times.
fn fan(levels: usize, ways: usize) -> Value {
    fan_by(levels, &|n| json!({"anyOf": vec![json!({"$ref": format!("#/$defs/d{n}")}); ways]}))
}

/// Definitions of which each is `of` the next one's number.
fn fan_by(levels: usize, of: &dyn Fn(usize) -> Value) -> Value {
    let mut defs: Map<_, _> = (0..levels).map(|n| (format!("d{n}"), of(n + 1))).collect();
    defs.insert(format!("d{levels}"), json!({"type": "string"}));
    json!({"$defs": defs, "$ref": "#/$defs/d0"})
}

#[test]
fn a_schema_whose_check_could_take_too_long_is_refused() {
    let deep_unevaluated =
        (0..40).fold(json!({"type": "object"}), |inner, _| json!({"allOf": [inner], "unevaluatedProperties": false}));
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

/// Each of these would be 8^14 compiled schemas, each in its own way out of sight of a walk that reads references and
/// keywords differently than the compiler.
#[test]
fn no_reference_leads_past_the_bounds() {
    let eight = |reference: String| json!({"allOf": vec![json!({"$ref": reference}); 8]});
    let encoded = fan_by(14, &|n| eight(format!("#/%24defs/d{n}")));
    let mut escaped = fan_by(14, &|n| eight(format!("#/$defs/~~1d{n}")));
    for n in 0..=14 {
        let hidden = escaped["$defs"][format!("d{n}")].take();
        escaped["$defs"][format!("~~1d{n}")] = hidden;
        escaped["$defs"][format!("~/d{n}")] = json!({});
    }
    escaped["$ref"] = json!("#/$defs/~~1d0");
    let index =
        fan_by(14, &|n| json!({"allOf": [{"allOf": vec![json!({"$ref": format!("#/$defs/d{n}/allOf/+0")}); 8]}]}));
    let dependencies = fan_by(14, &|n| {
        let to = json!({"$ref": format!("#/$defs/d{n}")});
        json!({"dependencies": (0..8).map(|n| (n.to_string(), to.clone())).collect::<Map<_, _>>()})
    });
    let own = "https://json-schema.org/draft/2020-12/own";
    let mut drafts = fan_by(14, &|n| eight(format!("{own}#/$defs/d{n}")));
    drafts["$id"] = json!(own);
    let old = fan_by(14, &|n| {
        let to = vec![json!({"$ref": format!("#/$defs/d{n}")}); 8];
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {}, "items": to})
    });
    let meta = "https://json-schema.org/draft/2020-12/schema";
    let extended = json!({"$dynamicAnchor": "meta", "allOf": vec![json!({"$ref": meta}); 8]});
    for (what, mut schema) in [
        ("percent-encoding", encoded),
        ("escapes", escaped),
        ("indices", index),
        ("dependencies", dependencies),
        ("drafts", drafts),
        ("old", old),
        ("extended", extended),
    ] {
        schema["unevaluatedProperties"] = json!(false);
        assert!(Schema::stored(schema).is_err(), "{what}");
    }
}

#[test]
fn a_chain_of_references_that_would_need_too_much_stack_is_refused() {
    for keyword in ["unevaluatedProperties", "unevaluatedItems"] {
        let mut schema = fan_by(1_990, &|n| json!({"$ref": format!("#/$defs/d{n}")}));
        schema[keyword] = json!(false);
        let why = Schema::stored(schema).unwrap_err();
        assert!(why[0].message.contains("apply to one value"), "{why:?}");
    }
}

/// On the stack that such schemas get: this is a build without optimization, whose frames are the largest.
#[test]
fn the_longest_chains_are_compiled_and_validated_on_their_stack() {
    // A chain for each of several depths, where the inner ones are compiled within the outer ones.
    let mut defs = Map::new();
    for level in 0..2 {
        for n in 0..120 {
            let next = json!({"$ref": format!("#/$defs/l{level}n{}", n + 1)});
            defs.insert(format!("l{level}n{n}"), next);
        }
        let inner = json!({"$ref": format!("#/$defs/l{}n0", level + 1), "unevaluatedProperties": false});
        defs.insert(format!("l{level}n120"), json!({"additionalProperties": inner}));
    }
    defs.insert("l2n0".to_owned(), json!({"properties": {"a": {"type": "integer"}}}));
    let schema = json!({"$defs": defs, "$ref": "#/$defs/l0n0", "unevaluatedProperties": false});
    let fits = (0..3).fold(json!(1), |inner, _| json!({"a": inner}));
    let validate = move || {
        let schema = Schema::stored(schema)?;
        assert!(!schema.is_quick());
        Ok::<_, Vec<SchemaFault>>(PlannedValidation::new(schema, &fits).run(&fits, 1))
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(validate).unwrap();
    assert_eq!(thread.join().unwrap(), Ok(ValidationResult::Valid));
}

/// The draft's own schema, by which a client's is checked, takes several steps for each level of it.
#[test]
fn the_most_deeply_nested_schema_is_compiled_on_its_stack() {
    let nested = (0..120).fold(json!({"type": "string"}), |inner, _| json!({"not": inner}));
    let compile = move || faults(&nested);
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(compile).unwrap();
    assert_eq!(thread.join().unwrap(), []);
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

fn violations(schema: &Value, value: &Value) -> Vec<String> {
    let validation = PlannedValidation::new(Schema::stored(schema.clone()).unwrap(), value);
    match validation.run(value, 9) {
        ValidationResult::Valid => Vec::new(),
        ValidationResult::Invalid(found) => found.into_iter().map(|found| found.pointer).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ordinary_schemas_are_accepted_and_validate_as_the_draft_says() {
    let order = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://example.com/order",
        "$defs": {
            "money": {"$anchor": "money", "type": "object", "required": ["amount"],
                "properties": {"amount": {"type": "number", "minimum": 0}, "currency": {"enum": ["EUR", "USD"]}}},
            "item": {"allOf": [{"$ref": "#money"}], "properties": {"name": {"type": "string", "pattern": "^\\S"},
                "parts": {"type": "array", "items": {"$ref": "#/$defs/item"}}}, "unevaluatedProperties": false},
        },
        "type": "object",
        "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/item"}, "uniqueItems": true},
            "gift": {"type": "boolean"}, "message": {"type": "string"}},
        "dependentRequired": {"gift": ["message"]},
        "required": ["items"],
        "unevaluatedProperties": false,
    });
    let violations = |value: Value| violations(&order, &value);
    let cup = json!({"name": "cup", "amount": 3, "parts": [{"amount": 1}]});
    assert!(violations(json!({"items": [cup], "gift": true, "message": "for you"})).is_empty());
    assert_eq!(violations(json!({"items": [{"amount": 3, "size": 5}]})), ["/items/0"]);
    let parts = json!([{"amount": -1}]);
    let found = violations(json!({"items": [{"amount": 1, "parts": parts}]}));
    assert!(found.contains(&"/items/0/parts/0/amount".to_owned()), "{found:?}");
    assert_eq!(violations(json!({"items": [], "gift": true})), [""]);
    assert_eq!(violations(json!({"items": [{"amount": 1, "name": " "}]})), ["/items/0/name"]);
}

#[test]
fn a_schema_that_refers_to_itself_validates_values_of_any_depth() {
    let tree = json!({"type": "object", "properties": {"name": {"type": "string"},
        "children": {"type": "array", "items": {"$ref": "#"}}}, "unevaluatedProperties": false});
    let nested = |name: Value| (0..40).fold(json!({"name": name}), |inner, _| json!({"children": [inner]}));
    assert!(violations(&tree, &nested(json!("leaf"))).is_empty());
    assert_eq!(violations(&tree, &nested(json!(5))), ["/children/0".repeat(40) + "/name"]);
}

#[test]
fn a_refused_reference_is_named() {
    let why = refused(&json!({"$defs": {"a": {}}, "items": {"$ref": "#/%24defs/a"}})).unwrap();
    assert!(why.starts_with("the reference \"#/%24defs/a\" leads nowhere"), "{why}");
}

#[test]
fn each_fault_of_a_schema_is_found_at_its_keyword() {
    for (schema, expected) in [
        (
            json!({"type": "nope", "required": "a", "properties": {"a/b": {"minLength": -1}, "c": 5}}),
            &["/properties/a~1b/minLength", "/properties/c", "/required", "/type"][..],
        ),
        (
            json!({"minimum": "1", "allOf": [{"$ref": "#/$defs/a"}, {"$ref": "https://example.com/a"},
                {"$id": "x", "type": 1}]}),
            &["/allOf/0/$ref", "/allOf/1/$ref", "/allOf/2/$id", "/allOf/2/type", "/minimum"][..],
        ),
        (
            json!({"properties": {"a": {"pattern": "("}, "b": {"patternProperties": {"[": {}, "x": {}}}},
                "default": {"pattern": "("}}),
            &["/properties/a/pattern", "/properties/b/patternProperties/["][..],
        ),
        (json!({"$defs": {"a": {"pattern": "("}}, "$ref": "#/$defs/a", "type": 1}), &["/$defs/a/pattern", "/type"][..]),
        (json!({"$ref": "#"}), &[""][..]),
    ] {
        let mut found: Vec<_> = faults(&schema).into_iter().map(|fault| fault.pointer).collect();
        found.sort();
        assert_eq!(found, expected, "{schema}");
    }
}

#[test]
fn a_pattern_is_matched_in_linear_time_or_refused() {
    let slow = format!("{}b", "a".repeat(50_000));
    let nested = Schema::stored(json!({"pattern": "^(a+)+$"})).unwrap();
    assert!(!nested.compile().unwrap().is_valid(&json!(slow)));
    assert!(!is_taken(&json!({"pattern": "(?=a)a"})));
}

#[test]
fn only_a_small_schema_is_compiled_where_bodies_are_read() {
    let fields = |n: usize| {
        let all: Map<_, _> = (0..n).map(|n| (format!("f{n}"), json!({"type": "string"}))).collect();
        json!({"type": "object", "properties": all})
    };
    let is_quick = |schema: Value| NewSchema::read(&schema.to_string()).unwrap().is_quick();
    assert!(is_quick(fields(50)));
    assert!(is_quick(json!({"properties": {"children": {"items": {"$ref": "#"}}}})));
    assert!(!is_quick(fields(500)));
    assert!(!is_quick(json!({"description": "x".repeat(QUICK_BYTES)})));
    assert!(!is_quick(json!({"pattern": "x"})));
    assert!(!is_quick((0..QUICK_DEPTH).fold(json!({"type": "string"}), |inner, _| json!({"not": inner}))));
    assert!(!is_quick(json!({"$ref": "https://json-schema.org/draft/2020-12/schema"})));
}

#[test]
fn a_schema_that_takes_long_to_compile_is_refused() {
    let fields = |n: usize, what: &Value| {
        let properties: Map<_, _> = (0..n).map(|n| (format!("f{n}"), what.clone())).collect();
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
    let named = (0..MAX_PATTERNS + 1).map(|n| (format!("^{n}$"), json!(true))).collect::<Map<_, _>>();
    assert!(!is_taken(&json!({"patternProperties": named})));
}
