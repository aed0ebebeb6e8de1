//! The references of a client's schema, followed exactly as the compiler follows them. A reference that it could read
//! in another way is refused, so that a walk visits whatever the compiler would.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::faults::{MAX_FAULTS, SchemaFault, each_part};

/// The host of JSON Schema's own schemas.
const DRAFTS_HOST: &str = "json-schema.org";
/// The schemas that are known without being part of the client's: those of the draft. They evaluate a value and each of
/// its parts once, and refer only to each other.
const META_SCHEMAS: [&str; 9] = [
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2020-12/meta/core",
    "https://json-schema.org/draft/2020-12/meta/applicator",
    "https://json-schema.org/draft/2020-12/meta/unevaluated",
    "https://json-schema.org/draft/2020-12/meta/validation",
    "https://json-schema.org/draft/2020-12/meta/meta-data",
    "https://json-schema.org/draft/2020-12/meta/format-annotation",
    "https://json-schema.org/draft/2020-12/meta/format-assertion",
    "https://json-schema.org/draft/2020-12/meta/content",
];
/// A `$dynamicAnchor` of this name takes the place of the draft's own schemas wherever these refer to themselves.
const META_ANCHOR: &str = "meta";
/// Names of the draft by which a schema below the top level may say that it belongs to the same one.
const SAME_DRAFT: [&str; 2] =
    ["https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft/2020-12/schema"];
/// Characters of a client's own text that a message quotes.
const QUOTED_CHARS: usize = 100;

/// The possible targets of a schema's references by name, and the schema itself.
pub(super) struct References<'a> {
    root: &'a Value,
    anchors: HashMap<&'a str, Vec<&'a Value>>,
    replaces_meta_schemas: bool,
    /// Parts that give references a meaning which is not followed here.
    pub(super) faults: Vec<SchemaFault>,
}

/// What the references of one schema lead to.
#[derive(Default)]
pub(super) struct Targets<'a> {
    /// Parts of the client's schema, each with the bytes that the reference adds to the path of an evaluation.
    pub(super) subschemas: Vec<(&'a Value, usize)>,
    /// How many refer to the draft's own schemas.
    pub(super) meta_schemas: usize,
    /// The keywords of those that lead nowhere, or whose meaning is not followed here, and why.
    pub(super) unusable: Vec<(&'static str, String)>,
}

impl<'a> References<'a> {
    /// Those of `root`.
    pub(super) fn of(root: &'a Value) -> Self {
        let mut faults = Vec::new();
        if root.get("$id").and_then(Value::as_str).is_some_and(may_name_meta_schema) {
            faults.push(SchemaFault::at("/$id", format!("it must not be one of {DRAFTS_HOST}")));
        }
        each_part(root, &mut |pointer, part| {
            if !pointer.is_empty() && faults.len() < MAX_FAULTS {
                faults.extend(
                    below_root(part).map(|(keyword, why)| SchemaFault::at(format!("{pointer}/{keyword}"), why)),
                );
            }
        });
        let mut references = Self { root, anchors: HashMap::new(), replaces_meta_schemas: false, faults };
        references.add(root);
        references
    }

    fn add(&mut self, value: &'a Value) {
        match value {
            Value::Object(members) => {
                for key in ["$anchor", "$dynamicAnchor"] {
                    let Some(name) = members.get(key).and_then(Value::as_str) else { continue };
                    self.anchors.entry(name).or_default().push(value);
                    self.replaces_meta_schemas |= name == META_ANCHOR;
                }
                members.values().for_each(|value| self.add(value));
            }
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            _ => {}
        }
    }

    /// The targets of one schema's references.
    pub(super) fn targets(&self, members: &Map<String, Value>) -> Targets<'a> {
        let mut targets = Targets::default();
        for keyword in ["$ref", "$dynamicRef"] {
            let Some(reference) = members.get(keyword).and_then(Value::as_str) else { continue };
            match reference.strip_prefix('#') {
                Some(place) => match self.part(place) {
                    Some(found) => targets.subschemas.extend(found.map(|part| (part, keyword.len() + 1))),
                    None => targets.unusable.push((keyword, unresolvable(reference))),
                },
                None if META_SCHEMAS.contains(&reference) && !self.replaces_meta_schemas => targets.meta_schemas += 1,
                None => targets.unusable.push((keyword, unsupported(reference))),
            }
        }
        // The draft has no such keyword, but `unevaluated…` follows it, whatever its value is.
        if members.contains_key("$recursiveRef") {
            targets.subschemas.push((self.root, "/$recursiveRef".len()));
        }
        targets
    }

    /// The parts that a fragment may refer to, at least one: the one at a pointer, or those with an anchor.
    fn part(&self, place: &str) -> Option<impl Iterator<Item = &'a Value>> {
        let is_pointer = place.is_empty() || place.starts_with('/');
        let pointed = if is_pointer { Some(at_pointer(self.root, place)?) } else { None };
        let named = if is_pointer { None } else { Some(self.anchors.get(place)?) };
        Some(pointed.into_iter().chain(named.into_iter().flatten().copied()))
    }
}

/// The value at a pointer in the one form that every reader understands alike: escapes `~0` and `~1`, no
/// percent-encoding, an array's index without sign and leading zeros.
fn at_pointer<'a>(root: &'a Value, pointer: &str) -> Option<&'a Value> {
    let mut after_tildes = pointer.split('~').skip(1);
    if pointer.contains('%') || !after_tildes.all(|rest| rest.starts_with(['0', '1'])) {
        return None;
    }
    // It refuses such indices.
    root.pointer(pointer)
}

/// The keywords that would make a part of a schema another resource, or one of another draft, and why that is a fault.
fn below_root(part: &Value) -> impl Iterator<Item = (&'static str, &'static str)> {
    // A second base URI would give references a meaning that is not followed here.
    let is_resource = part.get("$id").is_some_and(Value::is_string);
    // Another draft has other keywords.
    let draft = part.get("$schema").and_then(Value::as_str);
    let is_of_another = draft.is_some_and(|draft| !SAME_DRAFT.contains(&draft.trim_end_matches('#')));
    let id = is_resource.then_some(("$id", "an $id below the top level is not supported"));
    let schema = is_of_another.then_some(("$schema", "a $schema below the top level is not supported"));
    id.into_iter().chain(schema)
}

/// Whether this URI may, once normalized, be one of the drafts' own: then a reference to one of those would be a
/// reference to the client's schema.
fn may_name_meta_schema(id: &str) -> bool {
    let authority = id.split_once("//").and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
    authority.is_some_and(|host| host.contains('%') || host.to_ascii_lowercase().contains(DRAFTS_HOST))
}

fn quoted(reference: &str) -> String {
    let start: String = reference.chars().take(QUOTED_CHARS).collect();
    if start.len() < reference.len() { format!("{start:?}…") } else { format!("{start:?}") }
}

fn unresolvable(reference: &str) -> String {
    format!(
        "the reference {} leads nowhere; a JSON Pointer is written without percent-encoding, and an array's index \
         without sign and leading zeros",
        quoted(reference)
    )
}

fn unsupported(reference: &str) -> String {
    format!("the reference {} is not supported; a reference must begin with #", quoted(reference))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn follows(root: &Value, reference: &str) -> bool {
        let members = json!({"$ref": reference});
        let references = References::of(root);
        references.faults.is_empty() && references.targets(members.as_object().unwrap()).unusable.is_empty()
    }

    #[test]
    fn a_pointer_has_one_form() {
        let root = json!({"$defs": {"a": {}, "a/b": {}, "~/": {}, "~~1": {}, "é": {}}, "allOf": [{}, {}], "%24defs": {"a": {}}});
        for right in ["#", "#/$defs/a", "#/$defs/a~1b", "#/$defs/~0~1", "#/$defs/~0~01", "#/$defs/é", "#/allOf/1"] {
            assert!(follows(&root, right), "{right}");
        }
        for wrong in [
            "#/%24defs/a",
            "#/$defs/%61",
            "#/$defs/~~1",
            "#/$defs/a~",
            "#/allOf/+1",
            "#/allOf/01",
            "#/$defs/b",
            "#b",
            "",
        ] {
            assert!(!follows(&root, wrong), "{wrong}");
        }
    }

    #[test]
    fn only_the_drafts_own_schemas_are_known_from_elsewhere() {
        let meta = META_SCHEMAS[0];
        assert!(META_SCHEMAS.iter().all(|known| follows(&json!({}), known)));
        for other in [
            "https://json-schema.org/draft/2020-12/other",
            "https://json-schema.org/draft/2020-12/schema#/$defs/x",
            "http://json-schema.org/draft-07/schema#",
            "https://example.com/s",
        ] {
            assert!(!follows(&json!({}), other), "{other}");
        }
        assert!(follows(&json!({"$id": "https://example.com/a%20b/json-schema.org"}), meta));
        for id in [
            meta,
            "HTTPS://JSON-Schema.org:443/draft/2020-12/schema",
            "https://json%2Dschema.org/draft/2020-12/schema",
            "https://json-schema.org/x/../draft/2020-12/schema",
        ] {
            assert!(!follows(&json!({"$id": id}), "#"), "{id}");
        }
        assert!(!follows(&json!({"$dynamicAnchor": "meta"}), meta));
        assert!(follows(&json!({"$dynamicAnchor": "meta"}), "#meta"));
    }

    #[test]
    fn a_part_of_another_draft_is_refused() {
        let part =
            |draft: &str| json!({"$schema": "http://json-schema.org/draft-07/schema#", "not": {"$schema": draft}});
        assert!(follows(&part("https://json-schema.org/draft/2020-12/schema#"), "#"));
        assert!(!follows(&part("http://json-schema.org/draft-07/schema#"), "#"));
        assert!(!follows(&part("https://example.com/own"), "#"));
        assert!(follows(&json!({"properties": {"$schema": {"type": "string"}, "$id": {}}}), "#"));
    }
}
