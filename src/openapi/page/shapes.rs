//! Shapes of JSON as tables.

use serde_json::Value;
use utoipa::openapi::schema::{AdditionalProperties, ArrayItems, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{OpenApi, RefOr, Schema};

use super::html::{escape, inline};
use super::last;

/// How many levels of nested objects one table opens.
const MAX_OPENED_LEVELS: usize = 3;

/// Every component, with its members.
pub(super) fn section(document: &OpenApi) -> String {
    let mut out = String::from("<section><h2 id=\"shapes\">Shapes</h2>\n");
    for (name, schema) in document.components.iter().flat_map(|components| &components.schemas) {
        out += &format!("<article class=\"shape\"><h3 id=\"shape-{0}\">{0}</h3>\n", escape(name));
        out += &described(schema);
        out += &table(schema);
        out += "</article>\n";
    }
    out + "</section>\n"
}

/// A shape's description as a paragraph.
fn described(schema: &RefOr<Schema>) -> String {
    let text = about(schema);
    if text.is_empty() { String::new() } else { format!("<p>{}</p>\n", inline(text)) }
}

fn about(schema: &RefOr<Schema>) -> &str {
    match schema {
        RefOr::Ref(reference) => &reference.description,
        RefOr::T(Schema::Object(object)) => object.description.as_deref().unwrap_or_default(),
        RefOr::T(Schema::Array(array)) => array.description.as_deref().unwrap_or_default(),
        RefOr::T(Schema::OneOf(one)) => one.description.as_deref().unwrap_or_default(),
        RefOr::T(Schema::AnyOf(any)) => any.description.as_deref().unwrap_or_default(),
        RefOr::T(_) => "",
    }
}

/// The members of an object; for other shapes a line with the type.
pub(super) fn table(schema: &RefOr<Schema>) -> String {
    let mut rows = String::new();
    members(schema, "", 0, &mut rows);
    if rows.is_empty() {
        return format!("<p class=\"type\">{}</p>\n", kind(schema));
    }
    format!(
        "<div class=\"scroll\"><table><thead><tr><th>Member</th><th>Type</th><th>Meaning</th></tr></thead>\
         <tbody>\n{rows}</tbody></table></div>\n"
    )
}

/// The rows of an object's members, and of the objects within.
fn members(schema: &RefOr<Schema>, before: &str, depth: usize, rows: &mut String) {
    match schema {
        RefOr::T(Schema::Object(object)) => {
            for (name, member) in &object.properties {
                let path = format!("{before}{name}");
                let required = object.required.contains(name);
                *rows += &row(&path, member, required);
                if depth < MAX_OPENED_LEVELS {
                    members(member, &format!("{path}."), depth + 1, rows);
                }
            }
        }
        RefOr::T(Schema::Array(array)) if depth > 0 => {
            if let ArrayItems::RefOrSchema(items) = &array.items {
                let before = format!("{}[].", before.trim_end_matches('.'));
                members(items, &before, depth + 1, rows);
            }
        }
        RefOr::T(Schema::OneOf(one)) if depth > 0 => {
            for item in &one.items {
                members(item, before, depth, rows);
            }
        }
        _ => {}
    }
}

fn row(path: &str, schema: &RefOr<Schema>, required: bool) -> String {
    let required = if required { " <span class=\"required\">required</span>" } else { "" };
    format!(
        "<tr><td><code>{}</code>{required}</td><td>{}</td><td>{}{}</td></tr>\n",
        escape(path),
        kind(schema),
        inline(about(schema)),
        bounds(schema)
    )
}

/// A shape in a few words, components as links.
pub(super) fn kind(schema: &RefOr<Schema>) -> String {
    match schema {
        RefOr::Ref(reference) => {
            let name = escape(last(&reference.ref_location));
            format!("<a href=\"#shape-{name}\">{name}</a>")
        }
        RefOr::T(Schema::Object(object)) => {
            let mut words = type_words(&object.schema_type);
            match &object.format {
                Some(SchemaFormat::Custom(format)) => words += &format!(" ({})", escape(format)),
                Some(SchemaFormat::KnownFormat(format)) => {
                    let name = serde_json::to_value(format).ok();
                    words += &format!(" ({})", escape(name.as_ref().and_then(Value::as_str).unwrap_or_default()));
                }
                None => {}
            }
            if let Some(AdditionalProperties::RefOr(values)) = object.additional_properties.as_deref() {
                words += &format!(" of {}", kind(values));
            }
            words
        }
        RefOr::T(Schema::Array(array)) => match &array.items {
            ArrayItems::RefOrSchema(items) => {
                type_words(&array.schema_type).replacen("array", &format!("array of {}", kind(items)), 1)
            }
            ArrayItems::False => type_words(&array.schema_type),
        },
        RefOr::T(Schema::OneOf(one)) => one.items.iter().map(kind).collect::<Vec<_>>().join(" or "),
        RefOr::T(Schema::AnyOf(any)) => any.items.iter().map(kind).collect::<Vec<_>>().join(" or "),
        RefOr::T(_) => String::new(),
    }
}

fn type_words(kind: &SchemaType) -> String {
    let word = |kind: &Type| match kind {
        Type::Object => "object",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
        Type::Array => "array",
        Type::Null => "null",
    };
    match kind {
        SchemaType::Type(kind) => word(kind).to_owned(),
        SchemaType::Array(kinds) => kinds.iter().map(word).collect::<Vec<_>>().join(" | "),
        SchemaType::AnyValue => "any value".to_owned(),
    }
}

/// The bounds of a value.
pub(super) fn bounds(schema: &RefOr<Schema>) -> String {
    let mut parts = Vec::new();
    let mut between = |min: Option<String>, max: Option<String>, unit: &str| {
        let text = match (min, max) {
            (None, None) => return,
            (Some(min), None) if min == "1" => format!("at least 1{}", unit.trim_end_matches('s')),
            (Some(min), None) => format!("at least {min}{unit}"),
            (None, Some(max)) => format!("at most {max}{unit}"),
            (Some(min), Some(max)) => format!("{min} to {max}{unit}"),
        };
        parts.push(text);
    };
    let show = |number: Option<usize>| number.map(|number| number.to_string());
    let mut default = None;
    let mut words = Vec::new();
    match schema {
        RefOr::T(Schema::Object(object)) => {
            between(show(object.min_length), show(object.max_length), " characters");
            between(show(object.min_properties), show(object.max_properties), " members");
            let number = |number: &Option<_>| number.as_ref().and_then(|number| serde_json::to_string(number).ok());
            between(number(&object.minimum), number(&object.maximum), "");
            if let Some(pattern) = &object.pattern {
                parts.push(format!("<code>{}</code>", escape(pattern)));
            }
            default = object.default.as_ref();
            words = object.enum_values.iter().flatten().collect();
        }
        RefOr::T(Schema::Array(array)) => {
            between(show(array.min_items), show(array.max_items), " items");
        }
        _ => {}
    }
    if !words.is_empty() {
        let words: Vec<_> = words.into_iter().map(|word| format!("<code>{}</code>", escape(&shown(word)))).collect();
        parts.push(words.join(" "));
    }
    parts.extend(default.map(|default| format!("default <code>{}</code>", escape(&shown(default)))));
    if parts.is_empty() { String::new() } else { format!(" <span class=\"bounds\">{}</span>", parts.join("; ")) }
}

/// A value without the quotes of a string.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
