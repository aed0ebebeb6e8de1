//! Validation of reviews' responses.
//!
//! Each type of review has its own form of answer; an unknown type takes any object. A `responseSchema` in the payload
//! is checked too. Every fault is `invalid_response` with its path.

use std::borrow::Cow;
use std::collections::HashSet;

use actors::message::{Json, Review};
use serde_json::{Map, Value};

use crate::json::number::whole_number;
use crate::json::path::escape;
use crate::json::raw;
use crate::problem::Fault;
use crate::problem::MAX_KEPT_FAULTS;
use crate::validation::Progress;
use crate::wire::channel_message::schema::{PlannedValidation, Schema, ValidationResult, Violation};

/// The member of a payload with a client's own schema for answers.
pub const RESPONSE_SCHEMA: &str = "responseSchema";
/// About how many characters of a client's own text a fault quotes: the allowed answers.
const MESSAGE_CHARS: usize = 500;

/// The options of an approval whose payload names none.
const APPROVAL_OPTIONS: [&str; 2] = ["approve", "reject"];

/// Every fault of `response` as an answer to `review`; none if it fits. `text` is its JSON text. Validation against the
/// client's own schema is deferred if it is not quick.
#[must_use]
pub fn faults(review: &Review, response: Value, text: &Json) -> Progress<Vec<Fault>> {
    // Parsers read either one of duplicate members, so two readers of the response could disagree.
    if raw::members(text.as_str()) != members(&response) {
        return Progress::Done(vec![fault("/response", "contains a JSON object with a duplicate member")]);
    }
    let payload = review.payload.as_ref().map(|json| serde_json::from_str::<Map<String, Value>>(json.as_str()));
    // No answer can be compared with an unreadable payload.
    let Ok(payload) = payload.transpose() else {
        let message = "the review's payload is malformed, so no response can be validated";
        return Progress::Done(vec![fault("/response", message)]);
    };
    let mut payload = payload.unwrap_or_default();
    let Some(given) = response.as_object() else {
        return Progress::Done(vec![fault("/response", "must be an object")]);
    };
    let mut faults = match review.kind.as_str() {
        "approval" => approval(&payload, given),
        "selection" => selection(&payload, given),
        "form" => form(&payload, given),
        "text-input" => text_input(&payload, given),
        _ => Vec::new(),
    };
    // As everywhere, `null` counts as absent.
    let Some(schema) = payload.remove(RESPONSE_SCHEMA).filter(|schema| !schema.is_null()) else {
        return Progress::Done(faults);
    };
    // It was compiled when the review was requested, so it compiles again; an answer that could not be compared with it
    // must not count.
    let Ok(schema) = Schema::stored(schema) else {
        faults.push(unusable_schema());
        return Progress::Done(faults);
    };
    let validation = PlannedValidation::new(schema, &response);
    let is_quick = validation.is_quick();
    let validate = move || {
        faults.extend(by_schema(&validation, &response));
        faults
    };
    if is_quick { Progress::Done(validate()) } else { Progress::Deferred(Box::new(validate)) }
}

/// The decision in a valid response, by which votes of a quorum are compared: an approval's option without its comment,
/// a selection's ids in any order, otherwise the whole response.
#[must_use]
pub fn decision<'a>(review: &Review, response: &'a Json) -> Cow<'a, str> {
    let text = Cow::Borrowed(response.as_str());
    let Ok(Value::Object(mut given)) = serde_json::from_str(&text) else { return text };
    match review.kind.as_str() {
        "approval" => given.retain(|name, _| name == "selectedOption"),
        "selection" => {
            if let Some(Value::Array(ids)) = given.get_mut("selectedIds") {
                ids.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
            }
        }
        _ => return text,
    }
    Cow::Owned(Value::Object(given).to_string())
}

/// How many members all objects of a value have together.
fn members(value: &Value) -> usize {
    match value {
        Value::Object(object) => object.values().map(|value| 1 + members(value)).sum(),
        Value::Array(values) => values.iter().map(members).sum(),
        _ => 0,
    }
}

fn fault(pointer: impl Into<String>, message: impl Into<String>) -> Fault {
    Fault::new(pointer, "invalid_response", message)
}

fn at(name: &str) -> String {
    format!("/response/{}", escape(name))
}

/// The `id`s of a list of choices, each an object with `id` or the text itself.
fn ids(choices: Option<&Value>) -> Vec<&str> {
    let choices = choices.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    choices.iter().filter_map(|choice| choice.get("id").unwrap_or(choice).as_str()).collect()
}

/// The allowed choices, in a message: as many as there is room for.
fn listed(known: &[&str]) -> String {
    let mut named = String::new();
    for (nth, name) in known.iter().enumerate() {
        if nth > 0 && named.len() + name.len() > MESSAGE_CHARS {
            return format!("{named} and {} more", known.len() - nth);
        }
        if nth > 0 {
            named.push_str(", ");
        }
        named.extend(name.chars().take(MESSAGE_CHARS));
    }
    named
}

fn only(given: &Map<String, Value>, known: &[&str], faults: &mut Vec<Fault>) {
    let known_names: HashSet<_> = known.iter().copied().collect();
    let unknown = given.keys().filter(|name| !known_names.contains(name.as_str())).take(MAX_KEPT_FAULTS);
    let has = listed(known);
    faults.extend(unknown.map(|name| fault(at(name), format!("unknown member; allowed are {has}"))));
}

fn approval(payload: &Map<String, Value>, given: &Map<String, Value>) -> Vec<Fault> {
    let mut faults = Vec::new();
    only(given, &["selectedOption", "comment"], &mut faults);
    let mut options = ids(payload.get("options"));
    if options.is_empty() {
        options = APPROVAL_OPTIONS.to_vec();
    }
    match given.get("selectedOption").map(Value::as_str) {
        Some(Some(option)) if options.contains(&option) => {}
        _ => faults.push(fault(at("selectedOption"), format!("must be one of {}", listed(&options)))),
    }
    match given.get("comment") {
        None | Some(Value::Null) => {}
        Some(Value::String(_)) if payload.get("allowComment") != Some(&Value::Bool(false)) => {}
        Some(Value::String(_)) => faults.push(fault(at("comment"), "this review allows no comment")),
        Some(_) => faults.push(fault(at("comment"), "must be a string")),
    }
    faults
}

fn selection(payload: &Map<String, Value>, given: &Map<String, Value>) -> Vec<Fault> {
    let mut faults = Vec::new();
    only(given, &["selectedIds"], &mut faults);
    let items = ids(payload.get("items"));
    let Some(selected) = given.get("selectedIds").and_then(Value::as_array) else {
        faults.push(fault(at("selectedIds"), "must be an array of ids"));
        return faults;
    };
    let known = items.iter().copied().collect::<HashSet<_>>();
    let mut seen = HashSet::new();
    for (i, id) in selected.iter().enumerate() {
        let what = match id.as_str() {
            Some(id) if !known.contains(id) => format!("must be one of {}", listed(&items)),
            Some(id) if !seen.insert(id) => "duplicate id".to_owned(),
            Some(_) => continue,
            None => "must be a string".to_owned(),
        };
        faults.push(fault(format!("/response/selectedIds/{i}"), what));
        if faults.len() >= MAX_KEPT_FAULTS {
            break;
        }
    }
    if payload.get("mode").and_then(Value::as_str) == Some("single") && selected.len() != 1 {
        faults.push(fault(at("selectedIds"), "must have exactly one id"));
    }
    faults
}

fn form(payload: &Map<String, Value>, given: &Map<String, Value>) -> Vec<Fault> {
    let mut faults = Vec::new();
    let fields = payload.get("fields").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let name = |field: &'_ Value| field.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let names: Vec<String> = fields.iter().map(name).collect();
    only(given, &names.iter().map(String::as_str).collect::<Vec<_>>(), &mut faults);
    for (field, name) in fields.iter().zip(&names) {
        let required = field.get("required") == Some(&Value::Bool(true));
        match given.get(name).filter(|value| !value.is_null()) {
            // As in a form on a page, an empty text is no answer to a question that needs one.
            None if required => faults.push(fault(at(name), "is required")),
            Some(Value::String(text)) if required && text.is_empty() => faults.push(fault(at(name), "is required")),
            None => {}
            Some(value) => faults.extend(form_value(field, value).map(|message| fault(at(name), message))),
        }
    }
    faults
}

/// The fault of a field's value; unknown types take any value.
fn form_value(field: &Value, value: &Value) -> Option<String> {
    let kind = field.get("type").and_then(Value::as_str).unwrap_or_default();
    let options = ids(field.get("options"));
    let wrong = match kind {
        "number" => (!value.is_number()).then_some("a number"),
        "integer" => value.as_f64().is_none_or(|number| number.fract() != 0.0).then_some("an integer"),
        "boolean" | "checkbox" | "switch" if options.is_empty() => (!value.is_boolean()).then_some("a boolean"),
        "text" | "string" | "textarea" | "email" | "url" | "date" | "select" | "radio" => {
            (!value.is_string()).then_some("a string")
        }
        _ => None,
    };
    if let Some(expected) = wrong {
        return Some(format!("must be {expected}"));
    }
    let known: HashSet<_> = options.iter().copied().collect();
    let is_option = |value: &Value| value.as_str().is_some_and(|value| known.contains(value));
    let fits = match value {
        _ if options.is_empty() => true,
        Value::Array(values) => values.iter().all(is_option),
        value => is_option(value),
    };
    (!fits).then(|| format!("must be one of {}", listed(&options)))
}

fn text_input(payload: &Map<String, Value>, given: &Map<String, Value>) -> Vec<Fault> {
    let mut faults = Vec::new();
    only(given, &["text"], &mut faults);
    let Some(text) = given.get("text").and_then(Value::as_str) else {
        faults.push(fault(at("text"), "must be a string"));
        return faults;
    };
    let chars = text.chars().count() as u64;
    let bound = |name| payload.get(name).and_then(whole_number);
    if let Some(min) = bound("minLength").filter(|min| chars < *min) {
        faults.push(fault(at("text"), format!("must have at least {min} characters")));
    }
    if let Some(max) = bound("maxLength").filter(|max| chars > *max) {
        faults.push(fault(at("text"), format!("must have at most {max} characters")));
    }
    faults
}

/// Faults by the client's own schema.
fn by_schema(validation: &PlannedValidation, response: &Value) -> Vec<Fault> {
    let to_fault = |found: Violation| fault(format!("/response{}", found.pointer), found.message);
    let message = match validation.run(response, MAX_KEPT_FAULTS) {
        ValidationResult::Valid => return Vec::new(),
        ValidationResult::Invalid(found) => return found.into_iter().map(to_fault).collect(),
        ValidationResult::UnusableSchema => return vec![unusable_schema()],
        ValidationResult::InvalidUnlisted => {
            "does not match the review's responseSchema; it is too long for the differences to be listed"
        }
        ValidationResult::TooExpensive => "is too long to be validated against the review's responseSchema",
    };
    vec![fault("/response", message)]
}

fn unusable_schema() -> Fault {
    fault("/response", "the review's responseSchema is not usable, so no response can be validated")
}

#[cfg(test)]
mod tests {
    use actors::clock::Millis;
    use actors::message::Json;
    use serde_json::json;

    use super::*;

    /// A short answer to a long question gets a short answer too.
    #[test]
    fn faults_are_as_many_and_as_long_as_can_be_read() {
        let items: Vec<_> = (0..5_000).map(|n| json!({"id": format!("item-{n}"), "label": "l"})).collect();
        let answers: Vec<_> = (0..5_000).map(|n| json!(format!("wrong-{n}"))).collect();
        let review = review("selection", Some(json!({"items": items})));
        let answer = json!({"selectedIds": answers});
        let faults = all(&review, answer);
        assert_eq!(faults.len(), MAX_KEPT_FAULTS);
        assert!(faults[0].message.starts_with("must be one of item-0, item-1, "), "{}", faults[0].message);
        assert!(faults[0].message.ends_with(" more") && faults[0].message.len() < MESSAGE_CHARS + 50);
    }

    fn finished(progress: Progress<Vec<Fault>>) -> Vec<Fault> {
        match progress {
            Progress::Done(faults) => faults,
            Progress::Deferred(rest) => rest(),
        }
    }

    fn all(review: &Review, response: Value) -> Vec<Fault> {
        let text = Json::from_checked(response.to_string());
        finished(faults(review, response, &text))
    }

    fn review(kind: &str, payload: Option<Value>) -> Review {
        Review {
            kind: kind.to_owned(),
            payload: payload.map(|payload| Json::from_checked(payload.to_string())),
            callback: None,
            expires_at: Millis(1),
            on_expire: None,
            quorum: None,
            asker: None,
            place: None,
        }
    }

    fn pointers(kind: &str, payload: Value, response: Value) -> Vec<String> {
        let review = review(kind, Some(payload));
        let faults = all(&review, response);
        assert!(faults.iter().all(|fault| fault.code == "invalid_response"));
        faults.into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn a_member_that_stands_twice_is_no_answer() {
        for (kind, text) in [
            ("approval", r#"{"selectedOption":"no","selectedOption":"approve"}"#),
            ("own", r#"{"a":{"b":[{"c":1,"\u0063":1}]}}"#),
        ] {
            let response = serde_json::from_str(text).unwrap();
            let faults = finished(faults(&review(kind, None), response, &Json::from_checked(text)));
            assert_eq!(faults.len(), 1, "{text}");
            assert_eq!((faults[0].pointer.as_str(), faults[0].code), ("/response", "invalid_response"));
        }
    }

    #[test]
    fn an_approval_takes_one_of_its_options_and_a_comment_where_it_may() {
        let own = json!({"options": [{"id": "yes", "label": "Yes"}], "allowComment": false});
        for (payload, response, wrong) in [
            (json!({}), json!({"selectedOption": "approve"}), &[][..]),
            (json!({}), json!({"selectedOption": "reject", "comment": "no"}), &[]),
            (json!({}), json!({"selectedOption": "yes"}), &["/response/selectedOption"]),
            (json!({}), json!({}), &["/response/selectedOption"]),
            (json!({}), json!({"selectedOption": "approve", "comment": 5}), &["/response/comment"]),
            (json!({}), json!({"selectedOption": "approve", "other": 5}), &["/response/other"]),
            (own.clone(), json!({"selectedOption": "yes"}), &[]),
            (own.clone(), json!({"selectedOption": "approve"}), &["/response/selectedOption"]),
            (own, json!({"selectedOption": "yes", "comment": "x"}), &["/response/comment"]),
            (json!({}), json!("approve"), &["/response"]),
        ] {
            assert_eq!(pointers("approval", payload, response.clone()), wrong, "{response}");
        }
    }

    #[test]
    fn a_selection_takes_ids_of_its_items_and_one_of_them_where_it_is_single() {
        let items = json!([{"id": "a", "label": "A"}, {"id": "b", "label": "B"}]);
        let multi = json!({"mode": "multi", "items": items});
        let single = json!({"mode": "single", "items": items});
        for (payload, response, wrong) in [
            (&multi, json!({"selectedIds": ["a", "b"]}), &[][..]),
            (&multi, json!({"selectedIds": []}), &[]),
            (&multi, json!({"selectedIds": ["a", "a"]}), &["/response/selectedIds/1"]),
            (&multi, json!({"selectedIds": ["c", 1]}), &["/response/selectedIds/0", "/response/selectedIds/1"]),
            (&multi, json!({}), &["/response/selectedIds"]),
            (&single, json!({"selectedIds": ["b"]}), &[]),
            (&single, json!({"selectedIds": ["a", "b"]}), &["/response/selectedIds"]),
            (&single, json!({"selectedIds": []}), &["/response/selectedIds"]),
        ] {
            assert_eq!(pointers("selection", payload.clone(), response.clone()), wrong, "{response}");
        }
    }

    #[test]
    fn a_form_takes_a_fitting_value_for_each_of_its_fields() {
        let payload = json!({"fields": [
            {"name": "who", "type": "text", "required": true},
            {"name": "n", "type": "number"},
            {"name": "size", "type": "select", "options": ["s", {"id": "m", "label": "M"}]},
            {"name": "free", "type": "signature"},
        ]});
        for (response, wrong) in [
            (json!({"who": "ana"}), &[][..]),
            (json!({"who": "ana", "n": 5, "size": "m", "free": {"x": 1}}), &[]),
            (json!({}), &["/response/who"]),
            (json!({"who": null}), &["/response/who"]),
            (json!({"who": ""}), &["/response/who"]),
            (json!({"who": "ana", "size": null}), &[]),
            (
                json!({"who": 1, "n": "5", "size": "l", "x": 1}),
                &["/response/x", "/response/who", "/response/n", "/response/size"],
            ),
        ] {
            assert_eq!(pointers("form", payload.clone(), response.clone()), wrong, "{response}");
        }
    }

    #[test]
    fn a_text_has_a_length_in_characters() {
        let payload = json!({"minLength": 2, "maxLength": 3});
        for (text, right) in [("é", false), ("éé", true), ("ééé", true), ("éééé", false)] {
            assert_eq!(pointers("text-input", payload.clone(), json!({"text": text})).is_empty(), right, "{text}");
        }
        assert_eq!(pointers("text-input", payload, json!({})), ["/response/text"]);
    }

    #[test]
    fn a_length_counts_however_its_number_is_written() {
        for bounds in [r#"{"minLength":2.0,"maxLength":1e1}"#, r#"{"minLength":0.2e1,"maxLength":10}"#] {
            let payload: Value = serde_json::from_str(bounds).unwrap();
            for (chars, right) in [(1, false), (2, true), (10, true), (11, false)] {
                let response = json!({"text": "é".repeat(chars)});
                assert_eq!(pointers("text-input", payload.clone(), response).is_empty(), right, "{bounds} {chars}");
            }
        }
    }

    #[test]
    fn a_schema_of_the_clients_own_is_checked_for_any_type() {
        let payload = json!({"responseSchema": {"type": "object", "properties": {"score": {"maximum": 5}}}});
        assert!(pointers("rating", payload.clone(), json!({"score": 5})).is_empty());
        assert_eq!(pointers("rating", payload, json!({"score": 6})), ["/response/score"]);
    }

    /// Sixty types for each of 32,000 numbers would be so many differences that they fill the memory.
    #[test]
    fn an_answer_too_long_for_its_schema_is_refused_with_one_fault() {
        let types = json!({"allOf": vec![json!({"type": "string"}); 60]});
        let items = json!({"allOf": vec![json!({"$ref": "#/$defs/f"}); 60]});
        let schema = json!({"$defs": {"f": types}, "properties": {"a": {"items": items}}});
        let review = review("rating", Some(json!({"responseSchema": schema})));
        for (zeros, message) in [(32_000, "is too long to be validated"), (200, "does not match")] {
            let response = json!({"a": vec![0; zeros]});
            let text = Json::from_checked(response.to_string());
            let progress = faults(&review, response, &text);
            assert!(matches!(progress, Progress::Deferred(_)), "{zeros}");
            let faults = finished(progress);
            assert_eq!((faults.len(), faults[0].pointer.as_str()), (1, "/response"));
            assert!(faults[0].message.starts_with(message), "{}", faults[0].message);
        }
        let small = json!({"responseSchema": {"properties": {"score": {"maximum": 5}}}});
        let response = json!({"score": 6});
        let text = Json::from_checked(response.to_string());
        assert!(matches!(faults(&self::review("rating", Some(small)), response, &text), Progress::Done(_)));
    }

    /// As many comparisons as one for each option and value would be seconds.
    #[test]
    fn an_array_is_compared_with_a_fields_options_at_once() {
        let options: Vec<_> = (0..100_000).map(|n| json!(format!("o{n}"))).collect();
        let payload = json!({"fields": [{"name": "f", "type": "tags", "options": options}]});
        let last: Vec<_> = (0..9_000).map(|n| format!("o{}", 99_999 - n)).collect();
        assert!(pointers("form", payload.clone(), json!({"f": last})).is_empty());
        assert_eq!(pointers("form", payload, json!({"f": ["o1", "other"]})), ["/response/f"]);
    }

    #[test]
    fn a_null_in_a_review_payload_demands_nothing() {
        let items = json!([{"id": "a", "label": null}, {"id": "b", "label": "B"}]);
        let field = json!({"name": "x", "type": "text", "options": null, "required": null, "label": null});
        for (kind, payload, response) in [
            ("rating", json!({"responseSchema": null}), json!({"stars": 5})),
            ("approval", json!({"options": null, "allowComment": null}), json!({"selectedOption": "reject"})),
            ("approval", json!({"allowComment": null}), json!({"selectedOption": "approve", "comment": "so"})),
            ("selection", json!({"mode": null, "items": items}), json!({"selectedIds": ["a", "b"]})),
            ("form", json!({"fields": [field]}), json!({})),
            ("text-input", json!({"minLength": null, "maxLength": null}), json!({"text": ""})),
        ] {
            assert!(pointers(kind, payload.clone(), response).is_empty(), "{payload}");
        }
    }
}
