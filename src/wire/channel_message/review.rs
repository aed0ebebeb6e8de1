//! The review that a channel message asks for.

use std::collections::{HashMap, HashSet};

use actors::clock::Millis;
use actors::key::PrincipalKind;
use actors::message::{Callback, Json, Quorum, Review};
use http::{HeaderName, HeaderValue};
use serde_json::value::RawValue;

use super::{payload, unique};
use crate::json::fields::{Fields, Length, Value};
use crate::json::number::{self, Integer, MAX_SAFE};
use crate::json::report::Report;
use crate::json::{self, Object};
use crate::wire::bounds::ANSWER;
use crate::wire::{PRINCIPAL_TYPES, Rules, time, url};

/// The longest time a review may stay open: one year of 365 days, in seconds.
pub const MAX_EXPIRY_SECONDS: u64 = 365 * 24 * 60 * 60;
/// Headers of one callback.
pub const MAX_CALLBACK_HEADERS: usize = 20;
/// Bytes of one header's value: the limit of most servers.
const MAX_HEADER_BYTES: usize = 8 * 1024;
/// Principals who may have to agree.
pub const MAX_QUORUM: i64 = 100;
/// Principals who may be allowed to answer.
pub const MAX_ALLOWED: usize = 1_000;

/// When answers are no longer accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// The message sets none; the channel's default decides.
    #[default]
    Default,
    /// This many milliseconds after the message was accepted.
    In(u64),
    /// At this time.
    At(Millis),
}

/// A review as requested.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReviewPost {
    /// `approval`, `selection`, `form`, `text-input`, or a word of the client's own.
    pub kind: String,
    /// The question's payload, as received.
    pub payload: Option<Json>,
    /// The callback that gets the outcome.
    pub callback: Option<Callback>,
    /// Its deadline.
    pub expiry: Expiry,
    /// The response that applies at the deadline if there was no answer.
    pub on_expire: Option<Json>,
    /// How many principals must agree, and which may answer.
    pub quorum: Option<Quorum>,
}

impl ReviewPost {
    /// Reads `review`; `None` only if it is not an object.
    pub fn read(value: &Value<'_>, rules: Rules<'_>, report: &mut Report) -> Option<Self> {
        let mut fields = value.object(report)?;
        let mut review = Self { kind: kind(&mut fields, report).unwrap_or_default(), ..Self::default() };
        review.payload = payload::read(&mut fields, &review.kind, report);
        review.callback = fields.optional("callback").and_then(|value| callback(&value, rules, report));
        review.expiry = expiry(&mut fields, rules.now, report);
        review.on_expire = fields.optional("onExpire").and_then(|value| on_expire(&value, report));
        review.quorum = fields.optional("quorum").and_then(|value| quorum(&value, report));
        fields.finish(report);
        Some(review)
    }

    /// Reads the question and the deadline, without callback and quorum.
    pub fn question(fields: &mut Fields<'_>, now: Millis, report: &mut Report) -> Self {
        let mut review = Self { kind: kind(fields, report).unwrap_or_default(), ..Self::default() };
        review.payload = payload::read(fields, &review.kind, report);
        review.expiry = expiry(fields, now, report);
        review.on_expire = fields.optional("onExpire").and_then(|value| on_expire(&value, report));
        review
    }

    /// How many milliseconds after its acceptance the review ends; `None` if its end is a fixed time.
    #[must_use]
    pub fn expires_in(&self, default_expiry: u64) -> Option<u64> {
        match self.expiry {
            Expiry::Default => Some(default_expiry),
            Expiry::In(millis) => Some(millis),
            Expiry::At(_) => None,
        }
    }

    /// The review to store. `default_expiry` is in milliseconds.
    #[must_use]
    pub fn into_review(self, now: Millis, default_expiry: u64) -> Review {
        let expires_at = match self.expiry {
            Expiry::Default => now.plus(default_expiry),
            Expiry::In(millis) => now.plus(millis),
            Expiry::At(at) => at,
        };
        Review {
            kind: self.kind,
            payload: self.payload,
            callback: self.callback,
            expires_at,
            on_expire: self.on_expire,
            quorum: self.quorum,
            asker: None,
            place: None,
        }
    }
}

fn kind(fields: &mut Fields<'_>, report: &mut Report) -> Option<String> {
    let value = fields.required(report, "type")?;
    let text = value.string(report, Length::chars(0, 64))?;
    if text.is_empty() {
        report.fault(&value.path, "required", "type must not be empty");
        return None;
    }
    Some(text.into_owned())
}

fn expiry(fields: &mut Fields<'_>, now: Millis, report: &mut Report) -> Expiry {
    let absolute = fields.optional("expiresAt");
    let relative = fields.optional("expiresInSeconds");
    let at = absolute.and_then(|value| {
        let at = time::parse(&value.string(report, Length::ANY)?);
        if at.is_none() {
            let message = "must be an RFC 3339 date-time with an offset, such as 2025-01-01T00:00:00Z";
            report.fault(&value.path, "invalid_datetime", message);
        }
        at.map(|at| (value.path, at))
    });
    if let Some(value) = relative {
        return seconds_open(&value, report).map_or(Expiry::Default, |seconds| Expiry::In(seconds * 1000));
    }
    // A time before 1970 is as past as 1970.
    let Some((path, at)) = at.map(|(path, at)| (path, Millis(u64::try_from(at).unwrap_or(0)))) else {
        return Expiry::Default;
    };
    if at > now.plus(MAX_EXPIRY_SECONDS * 1000) {
        report.fault(&path, "expiry_too_far", too_far());
    } else if at <= now {
        report.late(&path, "expiry_in_past", "must be in the future");
    }
    Expiry::At(at)
}

fn too_far() -> String {
    format!("a review may stay open for at most {MAX_EXPIRY_SECONDS} seconds (365 days)")
}

/// How many seconds a review stays open.
pub fn seconds_open(value: &Value<'_>, report: &mut Report) -> Option<u64> {
    // A number beyond the exact integers is certainly too large.
    let beyond = number::integer(value.raw.get()) == Integer::Beyond && !value.raw.get().starts_with('-');
    let seconds = if beyond { MAX_SAFE } else { value.integer(report, 1..=MAX_SAFE)? }.unsigned_abs();
    if seconds > MAX_EXPIRY_SECONDS {
        report.fault(&value.path, "expiry_too_far", too_far());
        return None;
    }
    Some(seconds)
}

fn callback(value: &Value<'_>, rules: Rules<'_>, report: &mut Report) -> Option<Callback> {
    const METHODS: [(&str, &str); 3] = [("POST", "POST"), ("PUT", "PUT"), ("PATCH", "PATCH")];
    let mut fields = value.object(report)?;
    let url = fields.required(report, "url").and_then(|value| url::read(&value, report, rules.allow));
    let method = match fields.optional("method") {
        Some(value) => value.choice(report, &METHODS),
        None => Some("POST"),
    };
    let headers = fields.optional("headers").map(|value| headers(&value, Headers::OfCallback, report));
    let headers = headers.unwrap_or_default();
    fields.finish(report);
    Some(Callback { url: url?, method: method?.to_owned(), headers })
}

/// The owner of headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headers {
    /// A review's callback.
    OfCallback,
    /// A tool of an agent.
    OfTool,
}

/// Whether a client may not set this header: those that frame the request or speak for one hop, and those that
/// sign it. `name` is in lower case.
fn is_forbidden(name: &str) -> bool {
    const FRAMING: [&str; 10] = [
        "host",
        "content-length",
        "connection",
        "transfer-encoding",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
        "expect",
    ];
    FRAMING.contains(&name) || name.starts_with("webhook-")
}

/// A client's headers: at most [`MAX_CALLBACK_HEADERS`], none that clients may not set. Further ones are not read.
pub fn headers(value: &Value<'_>, of: Headers, report: &mut Report) -> Vec<(String, String)> {
    let Some(object) = Object::from_raw(value.raw) else {
        value.wrong_type(report, "an object of strings");
        return Vec::new();
    };
    let read = &object.members()[..object.members().len().min(MAX_CALLBACK_HEADERS)];
    let mut seen = HashSet::new();
    for member in read.iter().filter(|member| !seen.insert(member.name.to_ascii_lowercase())) {
        let message = format!("duplicate header {:?}", member.name);
        report.fault_at(value.path.member(&member.name), "duplicate_field", message);
    }
    if object.members().len() > MAX_CALLBACK_HEADERS {
        let message = format!("must have at most {MAX_CALLBACK_HEADERS} headers, has {}", object.members().len());
        report.fault(&value.path, "too_many", message);
    }
    let mut out = Vec::with_capacity(read.len());
    for member in read {
        let name = member.name.as_ref();
        match header(name, member.value, of) {
            Ok(text) => out.push((name.to_owned(), text)),
            Err((code, why)) => report.fault_at(value.path.member(name), code, format!("{name:?} {why}")),
        }
    }
    out
}

/// A header's value. A name that clients may not set is refused whatever its value is.
fn header(name: &str, value: &RawValue, of: Headers) -> Result<String, (&'static str, &'static str)> {
    let known = HeaderName::from_bytes(name.as_bytes());
    let known = known.map_err(|_| ("forbidden_header", "is not a valid header name"))?;
    if is_forbidden(known.as_str()) {
        let why = match of {
            Headers::OfCallback => "must not be set for a callback",
            Headers::OfTool => "must not be set for a tool",
        };
        return Err(("forbidden_header", why));
    }
    let text = json::string(value).ok_or(("invalid_type", "must have a string as its value"))?;
    if text.len() > MAX_HEADER_BYTES {
        return Err(("too_long", "has a value of more than 8 KiB"));
    }
    if HeaderValue::from_str(&text).is_err() {
        return Err(("forbidden_header", "has a value that is not valid in a header"));
    }
    Ok(text.into_owned())
}

fn on_expire(value: &Value<'_>, report: &mut Report) -> Option<Json> {
    let mut fields = value.object(report)?;
    let response = fields.required(report, "response").and_then(|response| response.free_object(report, ANSWER));
    fields.finish(report);
    response
}

fn quorum(value: &Value<'_>, report: &mut Report) -> Option<Quorum> {
    let mut fields = value.object(report)?;
    let of = match fields.optional("of") {
        Some(value) => value.integer(report, 1..=MAX_QUORUM),
        None => Some(1),
    };
    let mut allowed = fields.optional("allowed").and_then(|value| value.array(report));
    let named = allowed.as_mut().and_then(|items| unique(items, MAX_ALLOWED, report, principal));
    fields.finish(report);
    let of = u32::try_from(of?).ok()?;
    let (Some(items), Some(named)) = (allowed, named) else { return Some(Quorum::new(of, Vec::new())) };
    let named: Vec<_> = named.into_iter().map(|(_, Named { id, kind })| (id, kind)).collect();
    if items.len() - duplicates(&named) < of as usize {
        report.fault(items.path(), "too_few", format!("must name at least {of} principals, as many as must agree"));
    }
    Some(Quorum::new(of, named))
}

/// How many ids are named alone and with each type too.
fn duplicates(named: &[(String, Option<PrincipalKind>)]) -> usize {
    let mut typed = HashMap::new();
    for (id, _) in named.iter().filter(|(_, kind)| kind.is_some()) {
        *typed.entry(id).or_insert(0) += 1;
    }
    named.iter().filter(|(id, kind)| kind.is_none() && typed.get(id) == Some(&PrincipalKind::ALL.len())).count()
}

/// An allowed principal: type and id, or an id alone, which matches both types.
#[derive(PartialEq)]
struct Named {
    id: String,
    kind: Option<PrincipalKind>,
}

impl AsRef<str> for Named {
    fn as_ref(&self) -> &str {
        &self.id
    }
}

/// A principal, by its id alone or in the form of an API key's principal.
fn principal(value: &Value<'_>, report: &mut Report) -> Option<Named> {
    let length = Length::chars(1, usize::MAX);
    if !value.is_object() {
        return Some(Named { id: value.string(report, length)?.into(), kind: None });
    }
    let mut fields = value.object(report)?;
    let kind = fields.required(report, "type").and_then(|kind| kind.choice(report, &PRINCIPAL_TYPES));
    let id = fields.required_string(report, "id", length).map(Into::into);
    fields.finish(report);
    Some(Named { id: id?, kind: Some(kind?) })
}
