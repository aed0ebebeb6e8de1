//! Encoding spans as OTLP bytes.
//!
//! They are written directly, without the protocol's message types in between: those cost some eighty small allocations
//! for each message of a conversation. Field numbers are those of `opentelemetry/proto/trace/v1`
//! (<https://github.com/open-telemetry/opentelemetry-proto>); they never change.

use std::collections::VecDeque;

use actors::trace::names::ERROR_TYPE;
use actors::trace::{Finished, SpanKind, TraceContext, Value};
use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind as OtlpKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::clock_anchor::ClockAnchor;
use super::span_queue::Ended;

/// The name of the instrumentation.
pub(super) const SCOPE: &str = env!("CARGO_PKG_NAME");
/// The version of the semantic conventions that names follow; those of generative AI have one of their own.
pub(super) const SCHEMA: &str = "https://opentelemetry.io/schemas/1.44.0";
/// Flags of a span or link: whether it is known that its parent, or the link's target, is in another process; and that
/// it is.
const KNOWN_WHETHER_REMOTE: u32 = 0x100;
const REMOTE: u32 = 0x200;
/// Bytes of a number's field: one for the key, eight for the number.
const FIXED64: usize = 9;
/// Bytes of the longest beginning of a field: one for the key, ten for the length.
const MAX_FIELD_PREFIX_BYTES: usize = 11;
/// Bytes of a request with more than one span. Receivers refuse one above 4 MiB, with every span in it.
const MAX_REQUEST_BYTES: usize = 4_000_000;

/// The resource of this process in OTLP's form.
pub(super) fn resource(resource: &Resource) -> OtlpResource {
    let attributes = ResourceAttributesWithSchema::from(resource).attributes.0;
    OtlpResource { attributes, ..OtlpResource::default() }
}

/// The instrumentation scope of the spans.
pub(super) fn scope() -> InstrumentationScope {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    InstrumentationScope { name: SCOPE.to_owned(), version, ..InstrumentationScope::default() }
}

/// Writes requests; their common parts are encoded once.
#[derive(Debug)]
pub(super) struct Encoder {
    resource: Vec<u8>,
    /// The scope with its schema.
    scope: Vec<u8>,
    /// The span that is being written.
    span: Vec<u8>,
    /// The last request, whose memory the next one takes once nobody reads it any more: a piece of this size would be
    /// given back to the system and asked of it again for each request.
    last: Bytes,
}

impl Encoder {
    pub(super) fn new(of: &Resource) -> Self {
        let mut resource_field = Vec::new();
        let mut scope_field = Vec::new();
        bytes(&mut resource_field, 1, &resource(of).encode_to_vec());
        bytes(&mut scope_field, 1, &scope().encode_to_vec());
        bytes(&mut scope_field, 3, SCHEMA.as_bytes());
        Self { resource: resource_field, scope: scope_field, span: Vec::new(), last: Bytes::new() }
    }

    /// An `ExportTraceServiceRequest` of the first of these spans, and at least of one: those that it has room for are
    /// taken away. `now` converts their times.
    pub(super) fn request(&mut self, ended: &mut VecDeque<Ended>, now: ClockAnchor) -> Bytes {
        let mut request = self.memory();
        // What stands before the spans holds their length: it is written last, right before them.
        let room = 2 * MAX_FIELD_PREFIX_BYTES + self.resource.len() + self.scope.len();
        request.resize(room, 0);
        while let Some(span) = ended.front() {
            self.span.clear();
            match span {
                Ended::Stage(stage) => write_stage(&mut self.span, stage, now),
                Ended::Code(span) => Span::from(SpanData::clone(span)).encode_raw(&mut self.span),
            }
            if request.len() > room && request.len() + field_len(self.span.len()) > MAX_REQUEST_BYTES {
                break;
            }
            bytes(&mut request, 2, &self.span);
            ended.pop_front();
        }
        let scope_spans = self.scope.len() + request.len() - room;
        let mut head = Vec::with_capacity(room);
        message(&mut head, 1, self.resource.len() + field_len(scope_spans));
        head.extend_from_slice(&self.resource);
        message(&mut head, 2, scope_spans);
        head.extend_from_slice(&self.scope);
        let begin = room - head.len();
        request[begin..room].copy_from_slice(&head);
        self.last = request.into();
        self.last.slice(begin..)
    }

    /// The memory of the last request, or none if somebody still reads it.
    fn memory(&mut self) -> Vec<u8> {
        let last = std::mem::take(&mut self.last);
        let mut memory = if last.is_unique() { Vec::from(last) } else { Vec::new() };
        memory.clear();
        memory
    }
}

fn write_stage(span: &mut Vec<u8>, stage: &Finished, now: ClockAnchor) {
    bytes(span, 1, &stage.context.trace_id);
    bytes(span, 2, &stage.context.span_id);
    if let Some(parent) = &stage.parent {
        bytes(span, 4, parent);
    }
    bytes(span, 5, stage.name.as_bytes());
    let kind = match stage.kind {
        SpanKind::Internal => OtlpKind::Internal,
        SpanKind::Server => OtlpKind::Server,
        SpanKind::Client => OtlpKind::Client,
        SpanKind::Consumer => OtlpKind::Consumer,
    };
    number(span, 6, kind as u64);
    fixed64(span, 7, now.nanos(stage.began));
    fixed64(span, 8, now.nanos(stage.ended));
    for (name, value) in &stage.attributes {
        attribute(span, name, value);
    }
    if let Some(error) = &stage.error {
        attribute(span, ERROR_TYPE, &Value::Text(error.clone()));
    }
    for cause in &stage.links {
        write_link(span, cause);
    }
    if stage.error.is_some() {
        message(span, 15, 2);
        number(span, 3, StatusCode::Error as u64);
    }
    // A request's parent is the caller's span.
    flags(span, 16, stage.context.flags, Some(stage.kind == SpanKind::Server));
}

fn write_link(span: &mut Vec<u8>, cause: &TraceContext) {
    let mut link = Vec::with_capacity(40);
    bytes(&mut link, 1, &cause.trace_id);
    bytes(&mut link, 2, &cause.span_id);
    // It may be a stage of this process or another's; unknown is left out.
    flags(&mut link, 6, cause.flags, None);
    bytes(span, 13, &link);
}

/// The length of an `ArrayValue` of these words.
fn words_len(words: &[&str]) -> usize {
    words.iter().map(|word| field_len(field_len(word.len()))).sum()
}

/// A `KeyValue` with its `AnyValue`.
fn attribute(span: &mut Vec<u8>, name: &str, value: &Value) {
    let any = match value {
        Value::Text(text) => field_len(text.len()),
        Value::Truth(_) => 2,
        Value::Integer(number) => 1 + encoded_len_varint(*number as u64),
        Value::Float(_) => FIXED64,
        Value::Words(words) => field_len(words_len(words)),
    };
    message(span, 9, field_len(name.len()) + field_len(any));
    bytes(span, 1, name.as_bytes());
    message(span, 2, any);
    match value {
        Value::Text(text) => bytes(span, 1, text.as_bytes()),
        Value::Truth(truth) => number(span, 2, (*truth).into()),
        Value::Integer(whole) => number(span, 3, *whole as u64),
        Value::Float(real) => fixed64(span, 4, real.to_bits()),
        Value::Words(words) => {
            message(span, 5, words_len(words));
            for word in words {
                message(span, 1, field_len(word.len()));
                bytes(span, 1, word.as_bytes());
            }
        }
    }
}

/// `None`: unknown whether it is remote.
fn flags(span: &mut Vec<u8>, field: u32, of_trace: u8, is_remote: Option<bool>) {
    encode_key(field, WireType::ThirtyTwoBit, span);
    let whether = match is_remote {
        None => 0,
        Some(false) => KNOWN_WHETHER_REMOTE,
        Some(true) => KNOWN_WHETHER_REMOTE | REMOTE,
    };
    span.extend_from_slice(&(u32::from(of_trace) | whether).to_le_bytes());
}

fn fixed64(span: &mut Vec<u8>, field: u8, bits: u64) {
    let mut whole = [key(field, WireType::SixtyFourBit); FIXED64];
    whole[1..].copy_from_slice(&bits.to_le_bytes());
    span.extend_from_slice(&whole);
}

fn number(span: &mut Vec<u8>, field: u8, number: u64) {
    varint(span, key(field, WireType::Varint), number);
}

fn bytes(into: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    message(into, field, bytes.len());
    into.extend_from_slice(bytes);
}

/// The beginning of a field of this many bytes.
fn message(into: &mut Vec<u8>, field: u8, length: usize) {
    varint(into, key(field, WireType::LengthDelimited), length as u64);
}

/// The key of a field up to 15, which is one byte.
const fn key(field: u8, wire: WireType) -> u8 {
    field << 3 | wire as u8
}

/// A key and a number. Most are one byte each, and go in together.
fn varint(into: &mut Vec<u8>, key: u8, number: u64) {
    match u8::try_from(number) {
        Ok(small @ 0..0x80) => into.extend_from_slice(&[key, small]),
        _ => {
            into.push(key);
            encode_varint(number, into);
        }
    }
}

/// The encoded length of a field of this many bytes; its number is at most 15.
fn field_len(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::time::{Duration, Instant};

    use opentelemetry::KeyValue;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
    use opentelemetry_proto::tonic::trace::v1::Status;

    use super::*;

    fn stages(ended: impl IntoIterator<Item = Finished>) -> VecDeque<Ended> {
        ended.into_iter().map(Ended::Stage).collect()
    }

    fn stage() -> Finished {
        let context = TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: 1 };
        let began = Instant::now();
        Finished {
            name: Cow::Borrowed("append"),
            kind: SpanKind::Server,
            context,
            parent: Some([3; 8]),
            links: vec![TraceContext { span_id: [4; 8], ..context }, context],
            began,
            ended: began + Duration::from_micros(1_500),
            attributes: vec![
                ("text", "word".into()),
                ("whole", Value::Integer(-7)),
                ("real", Value::Float(0.25)),
                ("truth", Value::Truth(false)),
                ("long", Value::Text("x".repeat(300).into())),
                ("words", Value::Words(vec!["stop", ""])),
            ],
            error: Some(Cow::Borrowed("timeout")),
        }
    }

    fn read(stage: Finished) -> (OtlpResource, InstrumentationScope, Vec<Span>) {
        let resource = Resource::builder_empty().with_attributes([KeyValue::new("service.name", "t")]).build();
        let written = Encoder::new(&resource).request(&mut stages([stage]), ClockAnchor::now());
        let request = ExportTraceServiceRequest::decode(written).unwrap();
        let [all] = <[_; 1]>::try_from(request.resource_spans).unwrap();
        let [of_scope] = <[_; 1]>::try_from(all.scope_spans).unwrap();
        assert_eq!(of_scope.schema_url, SCHEMA);
        (all.resource.unwrap(), of_scope.scope.unwrap(), of_scope.spans)
    }

    #[test]
    fn a_stage_is_read_back_with_everything_that_it_says() {
        let (resource, scope, spans) = read(stage());
        assert_eq!((resource.attributes[0].key.as_str(), scope.name.as_str()), ("service.name", SCOPE));
        let [span] = <[_; 1]>::try_from(spans).unwrap();
        assert_eq!(
            (&span.trace_id[..], &span.span_id[..], &span.parent_span_id[..]),
            (&[1; 16][..], &[2; 8][..], &[3; 8][..])
        );
        assert_eq!((span.name.as_str(), span.kind(), span.flags), ("append", OtlpKind::Server, 0x301));
        assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 1_500_000);
        assert_eq!(span.status, Some(Status { code: StatusCode::Error.into(), message: String::new() }));
        let links: Vec<_> = span.links.iter().map(|link| (link.span_id[0], link.trace_id[0], link.flags)).collect();
        assert_eq!(links, [(4, 1, 1), (2, 1, 1)], "nobody knows whether they are of another process");
        let value = |name: &str| {
            let found = span.attributes.iter().find(|attribute| attribute.key == name);
            found.and_then(|attribute| attribute.value.clone()).and_then(|value| value.value).unwrap()
        };
        assert_eq!(value("text"), AnyValue::StringValue("word".to_owned()));
        assert_eq!(value("whole"), AnyValue::IntValue(-7));
        assert_eq!(value("real"), AnyValue::DoubleValue(0.25));
        assert_eq!(value("truth"), AnyValue::BoolValue(false));
        assert_eq!(value("long"), AnyValue::StringValue("x".repeat(300)));
        let AnyValue::ArrayValue(words) = value("words") else { panic!("a list: {:?}", value("words")) };
        let words: Vec<_> = words.values.into_iter().map(|word| word.value.unwrap()).collect();
        assert_eq!(words, ["stop", ""].map(|word| AnyValue::StringValue(word.to_owned())));
        assert_eq!(value(ERROR_TYPE), AnyValue::StringValue("timeout".to_owned()));
    }

    #[test]
    fn a_stage_without_parent_or_failure_has_neither() {
        let (_, _, spans) = read(Finished {
            kind: SpanKind::Internal,
            parent: None,
            links: Vec::new(),
            attributes: Vec::new(),
            error: None,
            ..stage()
        });
        let [span] = <[_; 1]>::try_from(spans).unwrap();
        assert!(span.parent_span_id.is_empty() && span.status.is_none() && span.attributes.is_empty());
        assert_eq!((span.kind(), span.flags), (OtlpKind::Internal, 0x101));
    }

    #[test]
    fn many_spans_are_one_request_and_an_encoder_keeps_nothing_of_the_last() {
        let mut encoder = Encoder::new(&Resource::builder_empty().build());
        let now = ClockAnchor::now();
        let first = encoder.request(&mut stages([stage(), stage()]), now);
        let again = encoder.request(&mut stages([stage()]), now);
        assert_eq!((count(first), count(again)), (2, 1));
    }

    fn count(written: Bytes) -> usize {
        let request = ExportTraceServiceRequest::decode(written).unwrap();
        request.resource_spans[0].scope_spans[0].spans.len()
    }

    /// Each has as many links as a batch has commands, and more texts than any span.
    #[test]
    fn a_full_batch_of_the_largest_spans_is_sent_in_requests_below_4_mib() {
        let text = || Value::from("x".repeat(10_000));
        let links = vec![stage().context; 64];
        let large = || Finished { links: links.clone(), attributes: vec![("text", text()); 20], ..stage() };
        let mut waiting = stages((0..1_024).map(|_| large()));
        let mut encoder = Encoder::new(&Resource::builder_empty().build());
        let now = ClockAnchor::now();
        let mut sent = Vec::new();
        while !waiting.is_empty() {
            let request = encoder.request(&mut waiting, now);
            assert!(request.len() < 4 * 1024 * 1024, "{} bytes", request.len());
            sent.push(count(request));
        }
        assert_eq!(sent.iter().sum::<usize>(), 1_024);
        assert!(sent.len() > 1 && sent[0] > 400, "{sent:?}");
    }

    #[test]
    fn a_span_that_is_larger_than_a_request_is_sent_alone() {
        let text = Value::Text("x".repeat(MAX_REQUEST_BYTES).into());
        let mut waiting = stages([Finished { attributes: vec![("text", text)], ..stage() }, stage()]);
        let mut encoder = Encoder::new(&Resource::builder_empty().build());
        let [first, second] = [(), ()].map(|()| encoder.request(&mut waiting, ClockAnchor::now()));
        assert_eq!((count(first), count(second), waiting.len()), (1, 1, 0));
    }

    #[test]
    fn a_request_takes_the_memory_of_the_last_one_only_after_its_end() {
        let mut encoder = Encoder::new(&Resource::builder_empty().build());
        let now = ClockAnchor::now();
        let span = stage();
        let mut next = || encoder.request(&mut stages([span.clone()]), now);
        let first = next();
        let place = first.as_ptr();
        let written = first.to_vec();
        let second = next();
        assert!(second.as_ptr() != place && first == written && second == written, "the first is still read");
        let place = second.as_ptr();
        drop((first, second));
        assert_eq!(next().as_ptr(), place);
    }
}
