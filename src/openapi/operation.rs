//! One operation of the document, in the terms of this API: common parts of every route are added here once.

use serde_json::Value;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::path::{OperationBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{HttpMethod, Object, Ref, RefOr, Required, Schema};

use super::known::STRICT;
use super::parts::{header_component, parameter};
use super::shape::{bytes, named};

/// The name of an example, and its JSON text.
pub(super) type Example = (&'static str, &'static str);

/// Codes with which any request with a key can be refused.
const ANY: [(u16, &[&str]); 6] = [
    (400, &["unknown_field", "invalid_query"]),
    (401, &["unauthenticated"]),
    (403, &["insufficient_scope", "workspace_forbidden"]),
    (429, &["rate_limited"]),
    (500, &["internal_error"]),
    (503, &["overloaded", "stopping", "store_unavailable"]),
];
/// Codes of reading a body.
const BODY: [(u16, &[&str]); 4] = [
    (
        400,
        &[
            "malformed_json",
            "incomplete_body",
            "invalid_request",
            "required",
            "invalid_type",
            "duplicate_field",
            "too_deep",
        ],
    ),
    (408, &["request_timeout"]),
    (413, &["body_too_large"]),
    (415, &["unsupported_media_type"]),
];

/// An operation being described.
pub(super) struct OperationDoc {
    method: HttpMethod,
    path: &'static str,
    building: OperationBuilder,
    problem: &'static str,
    public: bool,
    answers: Vec<Answer>,
    codes: Vec<(u16, Vec<&'static str>)>,
}

struct Answer {
    status: u16,
    about: &'static str,
    media: &'static str,
    schema: Option<RefOr<Schema>>,
    headers: Vec<&'static str>,
    examples: Vec<Example>,
    also: Option<(&'static str, RefOr<Schema>)>,
}

impl OperationDoc {
    /// A route under `/api/v1` that needs a key with one of `scopes`.
    pub(super) fn new(
        method: HttpMethod,
        path: &'static str,
        (id, summary): (&'static str, &'static str),
        tag: &'static str,
        scopes: &[&'static str],
        about: &str,
    ) -> Self {
        let names: Vec<String> = scopes.iter().map(|scope| format!("`{scope}`")).collect();
        let about = format!("{about}\n\nRequires a key with the scope {}.", names.join(" or "));
        let scheme = |name: &str| SecurityRequirement::new(name, Vec::<String>::new());
        let mut op = Self::describing(method, path, (id, summary), tag, &about);
        op.building = op.building.security(scheme("bearer")).security(scheme("apiKey"));
        let op = op.shared("XWorkspaceId").shared("XRequestId").shared("Traceparent").shared(STRICT);
        ANY.iter().fold(op, |op, (status, codes)| op.refused(*status, codes))
    }

    /// A route that needs no key.
    pub(super) fn public(path: &'static str, named: (&'static str, &'static str), about: &str) -> Self {
        let mut op = Self::describing(HttpMethod::Get, path, named, "Service", about);
        op.public = true;
        op.building = op.building.securities(Some(Vec::new()));
        op.shared("XRequestId").shared("Traceparent")
    }

    fn describing(
        method: HttpMethod,
        path: &'static str,
        (id, summary): (&'static str, &'static str),
        tag: &'static str,
        about: &str,
    ) -> Self {
        let building =
            OperationBuilder::new().operation_id(Some(id)).summary(Some(summary)).description(Some(about)).tag(tag);
        Self { method, path, building, problem: "Problem", public: false, answers: Vec::new(), codes: Vec::new() }
    }

    /// One of the shared parameters.
    pub(super) fn shared(mut self, name: &str) -> Self {
        self.building = self.building.parameter_ref(Ref::new(format!("#/components/parameters/{name}")));
        self
    }

    /// A parameter of the path.
    pub(super) fn path(mut self, name: &str, about: &str, shape: Object) -> Self {
        let mut parameter = parameter(ParameterIn::Path, name, about, shape);
        parameter.required = Required::True;
        self.building = self.building.parameter(parameter);
        self
    }

    /// A parameter of the query.
    pub(super) fn query(mut self, name: &str, about: &str, shape: Object) -> Self {
        self.building = self.building.parameter(parameter(ParameterIn::Query, name, about, shape));
        self
    }

    /// It answers a page of a list.
    pub(super) fn paged(self) -> Self {
        let codes = &["invalid_request", "invalid_type", "out_of_range", "invalid_cursor", "invalid_enum"];
        self.shared("Limit").shared("Cursor").shared("Order").refused(400, codes)
    }

    /// It takes an idempotency key.
    pub(super) fn keyed(self) -> Self {
        self.shared("IdempotencyKey")
            .shared("XIdempotencyKey")
            .refused(400, &["invalid_idempotency_key", "idempotency_key_conflict"])
            .refused(409, &["idempotency_in_progress"])
            .refused(422, &["idempotency_key_reused"])
            .refused(503, &["outcome_unknown"])
    }

    /// It answers 304 if the client's copy is current; the answer described before it has the `ETag`.
    pub(super) fn unless_known(self) -> Self {
        self.shared("IfNoneMatch")
            .answers_nothing(304, "The resource still matches `If-None-Match`.")
            .with_headers(&["ETag"])
    }

    /// Its errors say `success` too.
    pub(super) fn says_success(mut self) -> Self {
        self.problem = "ContactProblem";
        self
    }

    /// It takes a JSON body.
    pub(super) fn body(self, schema: RefOr<Schema>, about: &str, examples: &[Example]) -> Self {
        self.request(schema, about, examples, Required::True).refused_as_body(&[])
    }

    /// It takes a JSON body, and has a code of its own if a required member is absent.
    pub(super) fn body_with_own_code(self, schema: RefOr<Schema>, about: &str, examples: &[Example]) -> Self {
        self.request(schema, about, examples, Required::True).refused_as_body(&["required"])
    }

    /// It takes an empty JSON object, or nothing.
    pub(super) fn empty_body(self) -> Self {
        self.optional_body(Object::new().into(), "No body, or an empty object.", &[])
    }

    /// It takes a JSON body that has no required members and may be left out.
    pub(super) fn optional_body(self, schema: RefOr<Schema>, about: &str, examples: &[Example]) -> Self {
        self.request(schema, about, examples, Required::False).refused_as_body(&["required"])
    }

    /// It may refuse with the codes of reading a body, except these.
    fn refused_as_body(self, except: &[&str]) -> Self {
        BODY.iter().fold(self, |op, (status, codes)| {
            let codes: Vec<_> = codes.iter().copied().filter(|code| !except.contains(code)).collect();
            op.refused(*status, &codes)
        })
    }

    /// It takes a file, in a form or by itself.
    pub(super) fn file(mut self, about: &str) -> Self {
        let form = Object::builder().property("file", bytes("A part that has a filename.")).required("file");
        let content = |schema: Object| ContentBuilder::new().schema(Some(RefOr::from(Schema::from(schema)))).build();
        let body = RequestBodyBuilder::new()
            .description(Some(about))
            .required(Some(Required::True))
            .content("multipart/form-data", content(form.build()))
            .content("application/octet-stream", content(bytes("")));
        self.building = self.building.request_body(Some(body.build()));
        let faults = &["malformed_form", "incomplete_body", "required", "invalid_request"];
        self.refused(400, faults)
            .refused(408, &["request_timeout"])
            .refused(413, &["attachment_too_large"])
            .refused(415, &["unsupported_media_type"])
    }

    fn request(mut self, schema: RefOr<Schema>, about: &str, examples: &[Example], required: Required) -> Self {
        let content = ContentBuilder::new().schema(Some(schema)).examples_from_iter(read(examples)).build();
        let body = RequestBodyBuilder::new()
            .description(Some(about))
            .required(Some(required))
            .content("application/json", content);
        self.building = self.building.request_body(Some(body.build()));
        self
    }

    /// It has this answer.
    pub(super) fn answers(self, status: u16, about: &'static str, schema: RefOr<Schema>, examples: &[Example]) -> Self {
        self.answers_with(status, about, "application/json", Some(schema), examples)
    }

    /// It answers without a body.
    pub(super) fn answers_nothing(self, status: u16, about: &'static str) -> Self {
        self.answers_with(status, about, "", None, &[])
    }

    /// It has an answer in another media type.
    pub(super) fn answers_with(
        mut self,
        status: u16,
        about: &'static str,
        media: &'static str,
        schema: Option<RefOr<Schema>>,
        examples: &[Example],
    ) -> Self {
        self.answers.push(Answer {
            status,
            about,
            media,
            schema,
            headers: Vec::new(),
            examples: examples.to_vec(),
            also: None,
        });
        self
    }

    /// The last described answer may have this media type too.
    pub(super) fn also(mut self, media: &'static str, schema: RefOr<Schema>) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.also = Some((media, schema));
        }
        self
    }

    /// The last described answer has these headers too.
    pub(super) fn with_headers(mut self, names: &[&'static str]) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.headers.extend(names);
        }
        self
    }

    /// It may refuse with one of these codes.
    pub(super) fn refused(mut self, status: u16, codes: &[&'static str]) -> Self {
        match self.codes.iter_mut().find(|(known, _)| *known == status) {
            Some((_, known)) => {
                let new: Vec<_> = codes.iter().copied().filter(|code| !known.contains(code)).collect();
                known.extend(new);
            }
            None => self.codes.push((status, codes.to_vec())),
        }
        self
    }

    /// The path, the method and the finished operation.
    pub(super) fn done(mut self) -> (&'static str, HttpMethod, OperationBuilder) {
        let mut everywhere = vec!["X-Request-Id", "traceparent"];
        if matches!(self.method, HttpMethod::Get) {
            everywhere.push("Cache-Control");
        }
        // An unauthenticated caller has no quota.
        let unknown = everywhere.clone();
        if !self.public {
            everywhere.extend(["RateLimit-Policy", "RateLimit"]);
        }
        for answer in self.answers {
            let mut response = ResponseBuilder::new().description(answer.about);
            let ignored: &[&str] = if self.public { &[] } else { &["X-Ignored-Fields"] };
            for name in everywhere.iter().chain(ignored).chain(&answer.headers) {
                response = response.header_ref(*name, header_ref(name));
            }
            if let Some(schema) = answer.schema {
                let content = ContentBuilder::new().schema(Some(schema)).examples_from_iter(read(&answer.examples));
                response = response.content(answer.media, content.build());
            }
            if let Some((media, schema)) = answer.also {
                response = response.content(media, ContentBuilder::new().schema(Some(schema)).build());
            }
            self.building = self.building.response(answer.status.to_string(), response);
        }
        self.codes.sort_by_key(|(status, _)| *status);
        for (status, codes) in self.codes {
            let everywhere = if status == 401 { &unknown } else { &everywhere };
            let refusal = refusal(status, &codes, self.problem, everywhere);
            self.building = self.building.response(status.to_string(), refusal);
        }
        (self.path, self.method, self.building)
    }
}

fn header_ref(name: &str) -> Ref {
    Ref::new(format!("#/components/headers/{}", header_component(name)))
}

fn refusal(status: u16, codes: &[&str], problem: &str, everywhere: &[&str]) -> ResponseBuilder {
    let links: Vec<String> = codes.iter().map(|code| format!("[`{code}`](/docs/errors/{code})")).collect();
    let about = format!("{}: {}", reason(status), links.join(", "));
    let own: &[&str] = match status {
        401 => &["WWW-Authenticate"],
        416 => &["Content-Range"],
        429 | 503 => &["Retry-After"],
        409 if codes.contains(&"idempotency_in_progress") => &["Retry-After"],
        _ => &[],
    };
    let response = ResponseBuilder::new()
        .description(about)
        .content("application/problem+json", ContentBuilder::new().schema(Some(named(problem))).build());
    everywhere.iter().chain(own).fold(response, |response, name| response.header_ref(*name, header_ref(name)))
}

/// The reason phrase of a status.
fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default()
}

fn read(examples: &[Example]) -> Vec<(String, ExampleBuilder)> {
    let one = |(name, text): &Example| {
        // The tests read every example; a broken one would be shown as the text it is.
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(*text));
        ((*name).to_owned(), ExampleBuilder::new().summary(*name).value(Some(value)))
    };
    examples.iter().map(one).collect()
}
