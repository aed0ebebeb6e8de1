//! The payload of a review, validated for the known types of review. It is stored as received.

use std::collections::HashSet;

use actors::message::Json;

use super::schema::{NewSchema, SchemaFault};
use crate::json::fields::{Fields, Items, Length, Value};
use crate::json::number::MAX_SAFE;
use crate::json::report::Report;
use crate::problem::Fault;

const NAME: Length = Length::chars(1, usize::MAX);

/// Reads `payload` of a review of type `kind`.
pub(super) fn read(review: &mut Fields<'_>, kind: &str, report: &mut Report) -> Option<Json> {
    let needed = matches!(kind, "selection" | "form");
    let value = if needed { review.required(report, "payload") } else { review.optional("payload") }?;
    let mut fields = value.object(report)?;
    match kind {
        "approval" => approval(&mut fields, report),
        "selection" => selection(&mut fields, report),
        "form" => form(&mut fields, report),
        "text-input" => text_input(&mut fields, report),
        _ => {}
    }
    if let Some(schema) = fields.optional("responseSchema") {
        response_schema(&schema, report);
    }
    // Every answer is compared with the payload, so it must be readable as values, not only as text.
    if !report.is_full()
        && let Err(error) = serde_json::from_str::<serde_json::Value>(value.raw.get())
    {
        report.fault(&value.path, "out_of_range", format!("cannot be compared with answers: {error}"));
    }
    // The rest is the client's own: it is shown to reviewers, so it is neither ignored nor unknown.
    Some(value.json())
}

fn approval(fields: &mut Fields<'_>, report: &mut Report) {
    if let Some(items) = fields.optional("options").and_then(|value| some_items(&value, report)) {
        let mut known = HashSet::new();
        items.each(report, |item, report| choice(&item, &mut known, true, report));
    }
    if let Some(value) = fields.optional("allowComment") {
        value.boolean(report);
    }
}

fn selection(fields: &mut Fields<'_>, report: &mut Report) {
    if let Some(value) = fields.optional("mode") {
        value.choice(report, &[("single", ()), ("multi", ())]);
    }
    if let Some(items) = fields.required(report, "items").and_then(|value| some_items(&value, report)) {
        let mut known = HashSet::new();
        items.each(report, |item, report| choice(&item, &mut known, false, report));
    }
}

fn form(fields: &mut Fields<'_>, report: &mut Report) {
    if let Some(items) = fields.required(report, "fields").and_then(|value| some_items(&value, report)) {
        let mut known = HashSet::new();
        items.each(report, |item, report| form_field(&item, &mut known, report));
    }
}

/// A field of a form: `{name, type}`, with a label, options and whether it is required if those are given.
fn form_field(item: &Value<'_>, known: &mut HashSet<String>, report: &mut Report) {
    let Some(mut field) = item.object(report) else { return };
    unique(&mut field, "name", known, report);
    field.string(report, "label", Length::ANY);
    field.required_string(report, "type", NAME);
    if let Some(value) = field.optional("required") {
        value.boolean(report);
    }
    if let Some(options) = field.optional("options").and_then(|value| value.array(report)) {
        let mut known = HashSet::new();
        options.each(report, |option, report| form_option(&option, &mut known, report));
    }
}

/// An option of a form's field: a string, or an object with id and label.
fn form_option(option: &Value<'_>, known: &mut HashSet<String>, report: &mut Report) {
    if option.is_object() {
        choice(option, known, false, report);
    } else if !option.is_string() {
        option.wrong_type(report, "a string or an object with id and label");
    } else if let Some(text) = option.string(report, NAME)
        && !known.insert(text.to_string())
    {
        report.fault(&option.path, "duplicate_value", format!("duplicate {text:?}"));
    }
}

fn text_input(fields: &mut Fields<'_>, report: &mut Report) {
    let mut length = |fields: &mut Fields<'_>, name| {
        fields.optional(name).and_then(|value| Some((value.path, value.integer(report, 0..=MAX_SAFE)?)))
    };
    let min = length(fields, "minLength");
    let max = length(fields, "maxLength");
    if let (Some((path, min)), Some((_, max))) = (min, max)
        && min > max
    {
        report.fault(&path, "out_of_range", format!("must not be more than maxLength, {max}"));
    }
    for name in ["placeholder", "prefill"] {
        fields.string(report, name, Length::ANY);
    }
}

/// The items of an array that must not be empty.
fn some_items<'a>(value: &Value<'a>, report: &mut Report) -> Option<Items<'a>> {
    let items = value.array(report)?;
    if items.is_empty() {
        report.fault(&value.path, "too_few", "must have at least 1 item");
    }
    Some(items)
}

/// A choice: `{id, label}`, with a style if there is one.
fn choice(item: &Value<'_>, known: &mut HashSet<String>, styled: bool, report: &mut Report) {
    let Some(mut fields) = item.object(report) else { return };
    unique(&mut fields, "id", known, report);
    fields.required_string(report, "label", Length::ANY);
    if styled {
        fields.string(report, "style", Length::ANY);
    }
}

/// A name by which an answer will refer to this item, so it must be unique.
fn unique(fields: &mut Fields<'_>, name: &'static str, known: &mut HashSet<String>, report: &mut Report) {
    let Some(text) = fields.required_string(report, name, NAME) else { return };
    if !known.insert(text.to_string()) {
        report.fault(&fields.path().name(name), "duplicate_value", format!("duplicate {text:?}"));
    }
}

fn response_schema(value: &Value<'_>, report: &mut Report) {
    if !value.is_object() && !matches!(value.raw.get(), "true" | "false") {
        value.wrong_type(report, "a JSON Schema, which is an object or a boolean");
    } else {
        usable_schema(value, report);
    }
}

/// Reports why a value is not a usable schema, or defers that check.
pub fn usable_schema(value: &Value<'_>, report: &mut Report) {
    let pointer = value.path.pointer();
    match NewSchema::read(value.raw.get()) {
        Err(fault) => report.push(schema_fault(&pointer, &fault)),
        Ok(schema) if schema.is_quick() => {
            schema.faults().iter().for_each(|fault| report.push(schema_fault(&pointer, fault)));
        }
        Ok(schema) => {
            report.defer(move || schema.faults().iter().map(|fault| schema_fault(&pointer, fault)).collect());
        }
    }
}

/// The fault of a schema at this pointer.
fn schema_fault(schema: &str, fault: &SchemaFault) -> Fault {
    let is = if fault.pointer.is_empty() { "is not a usable" } else { "is not usable in a" };
    let message = format!("{is} JSON Schema (2020-12): {}", fault.message);
    Fault::new(format!("{schema}{}", fault.pointer), "invalid_schema", message)
}
