//! The API's description: the OpenAPI 3.1 document, and the same as HTML pages.
//!
//! Both are rendered once, from the tables under this module, and served as bytes. A page loads nothing from another
//! host, and runs nothing.

mod errors;
mod examples;
mod known;
mod operation;
mod operations;
mod page;
mod parts;
mod schemas;
mod shape;
mod webhooks;

use std::sync::LazyLock;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use utoipa::openapi::info::{InfoBuilder, LicenseBuilder};
use utoipa::openapi::path::{PathItem, PathsBuilder};
use utoipa::openapi::schema::ComponentsBuilder;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{OpenApi, OpenApiBuilder, Paths, Server};

pub use self::errors::{ERRORS, ErrorPage};
pub(crate) use self::known::known;
use crate::app::App;
use crate::http::headers::unless_known;
pub use crate::http::idempotency::KEY_HOURS;
use crate::problem::Problem;

/// How long a client may cache the document without revalidation.
const KEEP: HeaderValue = HeaderValue::from_static("public, max-age=300");
/// Nothing may be loaded, run, sent or framed; only the page's own style counts.
const CONTENT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The document's own description.
const ABOUT: &str = "\
Durable conversations between people, contacts and AI agents.

**Authentication.** Every route under `/api/v1` requires a key, as `Authorization: Bearer <key>` or `X-API-Key: <key>`.

**Errors** are `application/problem+json` (RFC 9457) with a stable `code`; invalid data is reported with all \
faults at once.

**Idempotency.** `Idempotency-Key`, `X-Idempotency-Key` and, in channel messages, `clientId` are equivalent: the same \
key with the same request gets the same status and body again, marked `Idempotent-Replayed: true`. Keys are kept for \
48 hours. Errors do not use up a key.

**Lists** are paged by sequence: `limit`, `cursor`, `order`; the response has `data`, `nextCursor` and `hasMore`.

**Unknown members** of a body and unknown parameters of a query are ignored and listed in `X-Ignored-Fields`, a \
parameter as `?name`; with `?strict=true` they are refused.";

/// The document.
#[must_use]
pub fn document() -> &'static OpenApi {
    static DOCUMENT: LazyLock<OpenApi> = LazyLock::new(build);
    &DOCUMENT
}

fn build() -> OpenApi {
    let info =
        InfoBuilder::new().title("Tertulia").version(env!("CARGO_PKG_VERSION")).description(Some(ABOUT)).license(Some(
            LicenseBuilder::new().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0")).build(),
        ));
    let tags = operations::TAGS.map(|(name, about)| TagBuilder::new().name(name).description(Some(about)).build());
    OpenApiBuilder::new()
        .info(info.build())
        .servers(Some([Server::new("/")]))
        .tags(Some(tags))
        .paths(paths())
        .webhooks(Some(webhooks::all()))
        .components(Some(components().build()))
        .build()
}

fn paths() -> Paths {
    let mut paths = PathsBuilder::new().build();
    for (path, method, operation) in operations::all() {
        let item = PathItem::new(method, operation);
        match paths.paths.get_mut(path) {
            Some(known) => known.merge_operations(item),
            None => drop(paths.paths.insert(path.to_owned(), item)),
        }
    }
    paths
}

fn components() -> ComponentsBuilder {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("The key, as a bearer token."));
    let key = ApiKeyValue::with_description("X-API-Key", "The key, in a header of its own.");
    let mut components = ComponentsBuilder::new()
        .security_scheme("bearer", SecurityScheme::Http(bearer.build()))
        .security_scheme("apiKey", SecurityScheme::ApiKey(ApiKey::Header(key)));
    for (name, schema) in schemas::all() {
        components = components.schema(name, schema);
    }
    for (name, parameter) in parts::parameters() {
        components = components.parameter(name, parameter);
    }
    for (name, header) in parts::headers() {
        components = components.header(name, header);
    }
    components
}

/// Bytes rendered once, and their `ETag`.
struct Cached {
    body: Bytes,
    etag: HeaderValue,
}

impl Cached {
    fn new(body: Vec<u8>) -> Self {
        let tag = format!("\"{}\"", &blake3::hash(&body).to_hex()[..32]);
        // Hexadecimal digits in quotes are always a header value.
        let etag = HeaderValue::try_from(tag).unwrap_or_else(|_| HeaderValue::from_static("\"0\""));
        Self { body: body.into(), etag }
    }

    fn answer(&self, media: &'static str, asked: &HeaderMap) -> Response {
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(media)),
            (header::ETAG, self.etag.clone()),
            (header::CACHE_CONTROL, KEEP),
        ];
        unless_known(asked, (headers, Body::from(self.body.clone())).into_response())
    }
}

/// The routes of this module; they need no key.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/openapi.json", get(json))
        .route("/docs", get(docs))
        .route("/docs/errors/{code}", get(error_docs))
}

async fn json(asked: HeaderMap) -> Response {
    // Only texts, numbers and maps with text keys: it can always be serialized.
    static JSON: LazyLock<Cached> = LazyLock::new(|| Cached::new(serde_json::to_vec(document()).unwrap_or_default()));
    let mut response = JSON.answer("application/json", &asked);
    // Browser tools from any origin may read it: it is public and the same for all.
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

async fn docs(asked: HeaderMap) -> Response {
    static PAGE: LazyLock<Cached> = LazyLock::new(|| Cached::new(page::reference(document()).into_bytes()));
    guarded(PAGE.answer("text/html; charset=utf-8", &asked))
}

async fn error_docs(code: Result<Path<String>, PathRejection>, asked: HeaderMap) -> Response {
    // An undecodable path names nothing, here as under the API.
    let Some(error) = code.ok().and_then(|Path(code)| ERRORS.iter().find(|error| error.code == code)) else {
        return Problem::not_found("not_found", "no error has this code").into_response();
    };
    guarded(Cached::new(page::error(error).into_bytes()).answer("text/html; charset=utf-8", &asked))
}

/// The headers of a page for browsers.
fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, CONTENT_POLICY);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
