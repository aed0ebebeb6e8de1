//! Helpers to describe JSON, over the builders of the OpenAPI crate.
//!
//! Bounds are given as numbers, so that a description can use the same constant as the check.

use serde_json::Value;
use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, Array, ArrayBuilder, Discriminator, KnownFormat, OneOfBuilder, SchemaFormat,
    SchemaType, Type,
};
use utoipa::openapi::{Object, Ref, RefOr, Schema};

/// The form of times: RFC 3339, UTC, milliseconds.
const TIME: &str = "2025-01-01T00:00:00.000Z";
/// Characters of a generated id.
const ID_CHARS: &str = "[0-9a-hjkmnp-tv-z]";

fn of(kind: Type, about: &str) -> Object {
    let mut object = Object::with_type(kind);
    object.description = Some(about.to_owned()).filter(|about| !about.is_empty());
    object
}

/// A string.
pub(super) fn text(about: &str) -> Object {
    of(Type::String, about)
}

/// A string that is one of `words`.
pub(super) fn word(about: &str, words: &[&str]) -> Object {
    let mut object = text(about);
    object.enum_values = Some(words.iter().map(|word| Value::from(*word)).collect());
    object
}

/// A point in time in the form of answers.
pub(super) fn time(about: &str) -> Object {
    let mut object = text(about);
    object.format = Some(SchemaFormat::KnownFormat(KnownFormat::DateTime));
    object.examples = vec![TIME.into()];
    object
}

/// A generated id: a prefix and a number of characters.
pub(super) fn made_id(about: &str, prefix: &str, chars: usize) -> Object {
    text(about).pattern(&format!("^{prefix}{ID_CHARS}{{{chars}}}$"))
}

/// An id that a client may choose.
pub(super) fn chosen_id(about: &str) -> Object {
    text(about).pattern("^[A-Za-z0-9_-]{1,64}$")
}

/// A day, such as `2025-01-31`.
pub(super) fn date(about: &str) -> Object {
    let mut object = text(about);
    object.format = Some(SchemaFormat::KnownFormat(KnownFormat::Date));
    object
}

/// Bytes of any kind. Client generators use `format`, JSON Schema uses the media type.
pub(super) fn bytes(about: &str) -> Object {
    let mut object = text(about);
    object.format = Some(SchemaFormat::KnownFormat(KnownFormat::Binary));
    object.content_media_type = "application/octet-stream".to_owned();
    object
}

/// Any JSON value.
pub(super) fn anything(about: &str) -> Object {
    let mut object = text(about);
    object.schema_type = SchemaType::AnyValue;
    object
}

/// An absolute http or https URL.
pub(super) fn url(about: &str) -> Object {
    let mut object = text(about).longest(crate::wire::url::MAX_CHARS);
    object.format = Some(SchemaFormat::Custom("uri".to_owned()));
    object
}

/// An integer within bounds.
pub(super) fn integer(about: &str, min: i64, max: Option<i64>) -> Object {
    let mut object = of(Type::Integer, about);
    object.minimum = Some(min.into());
    object.maximum = max.map(Into::into);
    object
}

/// A number, at least `min`.
pub(super) fn number(about: &str, min: i64, max: Option<i64>) -> Object {
    let mut object = integer(about, min, max);
    object.schema_type = Type::Number.into();
    object
}

/// `true` or `false`.
pub(super) fn boolean(about: &str) -> Object {
    of(Type::Boolean, about)
}

/// An object of the client's own.
pub(super) fn free(about: &str) -> Object {
    let mut object = of(Type::Object, about);
    object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(true)));
    object
}

/// An object whose values all have one shape.
pub(super) fn map(about: &str, values: Object) -> Object {
    let mut object = of(Type::Object, about);
    object.additional_properties = Some(Box::new(Schema::from(values).into()));
    object
}

/// Bounds of a shape.
pub(super) trait Bounded: Sized {
    /// `null` is a value too.
    fn nullable(self) -> Self;
    /// At least this many characters or items.
    fn least(self, min: usize) -> Self;
    /// At most this many characters, items or members.
    fn longest(self, max: usize) -> Self;
}

fn or_type(kind: SchemaType, other: Type) -> SchemaType {
    match kind {
        SchemaType::Type(kind) => SchemaType::Array(vec![kind, other]),
        SchemaType::Array(kinds) => SchemaType::Array([kinds, vec![other]].concat()),
        SchemaType::AnyValue => SchemaType::AnyValue,
    }
}

impl Bounded for Object {
    fn nullable(mut self) -> Self {
        self.schema_type = or_type(self.schema_type, Type::Null);
        if let Some(words) = &mut self.enum_values {
            words.push(Value::Null);
        }
        self
    }

    fn least(mut self, min: usize) -> Self {
        self.min_length = Some(min);
        self
    }

    fn longest(mut self, max: usize) -> Self {
        if self.additional_properties.is_some() {
            self.max_properties = Some(max);
        } else {
            self.max_length = Some(max);
        }
        self
    }
}

/// Details that arrays do not have here.
pub(super) trait Detailed {
    /// The regular expression that a string matches.
    fn pattern(self, pattern: &str) -> Self;
    /// Only sent, never shown.
    fn write_only(self) -> Self;
    /// An example of it.
    fn like(self, example: &str) -> Self;
    /// The default of an absent parameter.
    fn or(self, default: impl Into<Value>) -> Self;
    /// The meaning of an absent or `null` member of a body. It is part of the description: clients generated from a
    /// document with a `default` send it unasked, even if it has no effect or overwrites another client's value.
    fn usually(self, default: Value) -> Self;
    /// The same in such a body: in a change, where an absent member is unchanged, the meaning of `null`.
    fn by_default(self, body: Body, default: Value) -> Self;
}

fn saying(mut object: Object, words: &str, value: &Value) -> Object {
    let about = object.description.unwrap_or_default();
    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    object.description = Some(format!("{about} {words} `{shown}`.").trim_start().to_owned());
    object
}

impl Detailed for Object {
    fn pattern(mut self, pattern: &str) -> Self {
        self.pattern = Some(pattern.to_owned());
        self
    }

    fn write_only(mut self) -> Self {
        self.write_only = Some(true);
        self
    }

    fn like(mut self, example: &str) -> Self {
        self.examples = vec![example.into()];
        self
    }

    fn or(mut self, default: impl Into<Value>) -> Self {
        self.default = Some(default.into());
        self
    }

    fn usually(self, default: Value) -> Self {
        self.by_default(Body::New, default)
    }

    fn by_default(self, body: Body, default: Value) -> Self {
        saying(self, body.pick("Default", "`null` sets"), &default)
    }
}

impl Bounded for Array {
    fn nullable(mut self) -> Self {
        self.schema_type = or_type(self.schema_type, Type::Null);
        self
    }

    fn least(mut self, min: usize) -> Self {
        self.min_items = Some(min);
        self
    }

    fn longest(mut self, max: usize) -> Self {
        self.max_items = Some(max);
        self
    }
}

/// An array.
pub(super) fn list(about: &str, items: impl Into<RefOr<Schema>>) -> Array {
    let about = Some(about).filter(|about| !about.is_empty());
    ArrayBuilder::new().items(items.into()).description(about).build()
}

/// An array of distinct items.
pub(super) fn set(about: &str, items: impl Into<RefOr<Schema>>) -> Array {
    let mut array = list(about, items);
    array.unique_items = true;
    array
}

/// The component with this name.
pub(super) fn named(name: &str) -> RefOr<Schema> {
    Ref::from_schema_name(name).into()
}

/// The component with this name, and its description here.
pub(super) fn component(name: &str, about: &str) -> RefOr<Schema> {
    let mut reference = Ref::from_schema_name(name);
    reference.description = about.to_owned();
    reference.into()
}

/// The component with this name, or `null`.
pub(super) fn nullable(name: &str, about: &str) -> RefOr<Schema> {
    OneOfBuilder::new().description(Some(about)).item(named(name)).item(Object::with_type(Type::Null)).into()
}

/// Exactly one of the shapes.
pub(super) fn one_of(about: &str, shapes: impl IntoIterator<Item = RefOr<Schema>>) -> RefOr<Schema> {
    shapes.into_iter().fold(OneOfBuilder::new().description(Some(about)), OneOfBuilder::item).into()
}

/// Exactly one of these components, selected by the value of its member `by`.
pub(super) fn one_by(about: &str, by: &str, shapes: &[(&str, &str)]) -> RefOr<Schema> {
    let mapping = shapes.iter().map(|(word, name)| (*word, Ref::from_schema_name(*name).ref_location));
    let one =
        OneOfBuilder::new().description(Some(about)).discriminator(Some(Discriminator::with_mapping(by, mapping)));
    shapes.iter().fold(one, |one, (_, name)| one.item(named(name))).into()
}

/// At least one of the shapes.
pub(super) fn any_of(about: &str, shapes: impl IntoIterator<Item = RefOr<Schema>>) -> RefOr<Schema> {
    shapes.into_iter().fold(AnyOfBuilder::new().description(Some(about)), AnyOfBuilder::item).into()
}

/// The kind of body of a configured resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// All of it: the resource is to be created.
    New,
    /// The changed members.
    Change,
}

impl Body {
    /// The text for this body: that for creation or that for a change.
    pub(super) fn pick(self, new: &'static str, change: &'static str) -> &'static str {
        match self {
            Self::New => new,
            Self::Change => change,
        }
    }

    /// The body without members yet; `new` describes it for creation.
    pub(super) fn members(self, new: &'static str) -> Members {
        Members::new(
            self.pick(new, "The members to change; absent ones stay as they are, `null` resets to the default."),
        )
    }

    /// The resource's id, if clients may choose it.
    pub(super) fn id(self) -> Object {
        chosen_id(
            self.pick(
                "An id of your choice; generated if absent.",
                "The id of the resource; a different one is refused.",
            ),
        )
        .nullable()
    }
}

/// An object, member by member.
pub(super) struct Members(Object);

impl Members {
    /// An object without members yet.
    pub(super) fn new(about: &str) -> Self {
        Self(of(Type::Object, about))
    }

    /// A member that is always present.
    pub(super) fn must(mut self, name: &str, shape: impl Into<RefOr<Schema>>) -> Self {
        self.0.required.push(name.to_owned());
        self.may(name, shape)
    }

    /// A member that every such resource has: required for creation.
    pub(super) fn of_all(self, body: Body, name: &str, shape: impl Into<RefOr<Schema>>) -> Self {
        match body {
            Body::New => self.must(name, shape),
            Body::Change => self.may(name, shape),
        }
    }

    /// A member that may be absent.
    pub(super) fn may(mut self, name: &str, shape: impl Into<RefOr<Schema>>) -> Self {
        self.0.properties.insert(name.to_owned(), shape.into());
        self
    }

    /// Other members may exist beside these; a client that keeps only the named ones would lose them.
    pub(super) fn and_others(mut self) -> Self {
        self.0.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(true)));
        self
    }

    /// The object.
    pub(super) fn done(self) -> RefOr<Schema> {
        self.0.into()
    }
}
