use std::sync::Arc;

use actors::trace::recording_tracer::RecordingTracer;
use actors::trace::{Finished, SpanKind, Traces};
use axum::Router;
use axum::routing::post;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::config::LogFormat;
use crate::metrics::page::{Format, Page};
use crate::problem::Fault;
use crate::telemetry::sampling::Sampling;
use crate::telemetry::tests::{Lines, config};

/// Somebody takes the traces.
const EXPORTED: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317");

/// Request telemetry with these environment variables and nothing else.
fn request_telemetry(env: &[(&str, &str)], traces: Traces) -> Arc<RequestTelemetry> {
    Arc::new(RequestTelemetry::new(Sampling::new(&config(env)), traces))
}

fn layer(request_telemetry: Arc<RequestTelemetry>) -> ContextLayer {
    ContextLayer::new(Arc::new(Entropy::seeded([7; 32])), request_telemetry)
}

/// The layer over routes that end in every way a route can end.
fn app() -> Router {
    behind(request_telemetry(&[EXPORTED], Traces::default()))
}

fn behind(request_telemetry: Arc<RequestTelemetry>) -> Router {
    async fn faulty() -> Problem {
        Problem::invalid(vec![Fault::new("/text", "too_long", "text is too long")])
    }
    async fn busy() -> Problem {
        Problem::unavailable("node_full", "the node is full", 7)
            .with("state", json!("kept"))
            .with("status", json!("not this one"))
    }
    async fn panics() {
        panic!("the secret of the cause");
    }
    async fn who(context: RequestContext) -> String {
        format!("{} {:?}", context.request_id.as_str(), context.route.as_ref().map(MatchedPath::as_str))
    }
    Router::new()
        .route("/ok", axum::routing::get(async || "ok"))
        .route("/who/{id}", axum::routing::get(who))
        .route("/faulty", post(faulty))
        .route("/busy", axum::routing::get(busy))
        .route("/panics", axum::routing::get(panics))
        .route(
            "/plain/{status}",
            axum::routing::get(async |axum::extract::Path(status): axum::extract::Path<u16>| {
                (StatusCode::from_u16(status).unwrap(), [(header::CONTENT_TYPE, "text/plain")], "internal words")
            }),
        )
        .route("/api/v1/channels/{channelId}/messages", post(faulty).get(faulty))
        .layer(layer(request_telemetry))
}

async fn ask(request: Request<Body>) -> Response {
    app().oneshot(request).await.unwrap()
}

async fn get_path(path: &str) -> Response {
    ask(Request::get(path).body(Body::empty()).unwrap()).await
}

async fn body(response: Response) -> Value {
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    let length: usize = response.headers()[header::CONTENT_LENGTH].to_str().unwrap().parse().unwrap();
    let bytes = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
    assert_eq!(bytes.len(), length);
    serde_json::from_slice(&bytes).unwrap()
}

async fn text(response: Response) -> String {
    String::from_utf8(axum::body::to_bytes(response.into_body(), 4096).await.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn every_response_carries_a_request_id_and_a_trace() {
    for path in ["/ok", "/nowhere", "/panics", "/busy"] {
        let response = get_path(path).await;
        let id = response.headers()[REQUEST_ID].to_str().unwrap();
        assert!(id.starts_with("req_") && id.len() == 36, "{path}: {id}");
        let traceparent = response.headers()[TRACEPARENT].to_str().unwrap();
        assert!(traceparent.starts_with("00-") && traceparent.ends_with("-01"), "{path}: {traceparent}");
        assert_eq!(traceparent.len(), 55);
    }
}

#[tokio::test]
async fn a_clients_own_sane_request_id_is_kept_and_another_replaced() {
    for (given, kept) in [
        ("abc-1_2.3:/+=", true),
        (&"x".repeat(128), true),
        (&"x".repeat(129), false),
        ("", false),
        ("a b", false),
        ("<script>", false),
        ("é", false),
    ] {
        let request = Request::get("/ok").header(REQUEST_ID, HeaderValue::from_bytes(given.as_bytes()).unwrap());
        let response = ask(request.body(Body::empty()).unwrap()).await;
        let id = response.headers()[REQUEST_ID].to_str().unwrap();
        assert_eq!(id == given, kept, "{given:?} became {id:?}");
        assert!(kept || id.starts_with("req_"));
    }
    let twice = Request::get("/ok").header(REQUEST_ID, "a").header(REQUEST_ID, "b").body(Body::empty()).unwrap();
    assert!(ask(twice).await.headers()[REQUEST_ID].to_str().unwrap().starts_with("req_"));
}

#[tokio::test]
async fn two_requests_never_share_a_span() {
    let app = app();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let request = Request::get("/ok").body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        seen.push((response.headers()[REQUEST_ID].clone(), response.headers()[TRACEPARENT].clone()));
    }
    assert_ne!(seen[0].0, seen[1].0);
    assert_ne!(seen[0].1, seen[1].1);
}

#[tokio::test]
async fn a_clients_trace_goes_on() {
    let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let request = Request::get("/ok").header(TRACEPARENT, given).body(Body::empty()).unwrap();
    let response = ask(request).await;
    let answered = response.headers()[TRACEPARENT].to_str().unwrap();
    assert!(answered.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && answered.ends_with("-00"), "{answered}");
    assert!(!answered.contains("b7ad6b7169203331"), "{answered}");
}

#[tokio::test]
async fn a_handler_sees_the_id_and_the_route() {
    let request = Request::get("/who/7").header(REQUEST_ID, "mine").body(Body::empty()).unwrap();
    assert_eq!(text(ask(request).await).await, "mine Some(\"/who/{id}\")");
}

#[tokio::test]
async fn a_problem_is_written_with_all_its_members() {
    let request = Request::post("/faulty?x=1").header(REQUEST_ID, "mine").body(Body::empty()).unwrap();
    let response = ask(request).await;
    assert_eq!(response.status(), 400);
    assert_eq!(
        body(response).await,
        json!({
            "type": "/docs/errors/too_long", "title": "Too long", "status": 400, "detail": "text is too long",
            "instance": "/faulty", "code": "too_long", "requestId": "mine",
            "errors": [{"pointer": "/text", "code": "too_long", "message": "text is too long"}],
        })
    );
}

#[tokio::test]
async fn extra_members_and_headers_come_along_but_replace_nothing() {
    let response = get_path("/busy").await;
    assert_eq!(response.headers()[header::RETRY_AFTER], "7");
    let body = body(response).await;
    assert_eq!((&body["state"], &body["status"]), (&json!("kept"), &json!(503)));
    assert!(body.get("errors").is_none() && body.get("success").is_none());
}

#[tokio::test]
async fn only_problems_of_contact_messages_carry_success_false() {
    let path = "/api/v1/channels/demo-api/messages";
    let posted = ask(Request::post(path).body(Body::empty()).unwrap()).await;
    assert_eq!(body(posted).await["success"], json!(false));
    // Also where the handler was never reached.
    let deleted = ask(Request::delete(path).body(Body::empty()).unwrap()).await;
    assert_eq!(deleted.status(), 405);
    assert_eq!(body(deleted).await["success"], json!(false));
    assert_eq!(body(get_path("/api/v1/channels//messages").await).await["success"], json!(false));
    let elsewhere = ask(Request::post("/api/v1/channels/a/b/messages").body(Body::empty()).unwrap()).await;
    assert!(body(elsewhere).await.get("success").is_none());
}

#[tokio::test]
async fn errors_of_the_router_have_the_same_form_and_keep_their_headers() {
    let missing = get_path("/nowhere").await;
    assert_eq!(missing.status(), 404);
    assert_eq!(body(missing).await["code"], "not_found");
    let response = ask(Request::delete("/ok").body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), 405);
    assert_eq!(response.headers()[header::ALLOW], "GET,HEAD");
    assert_eq!(body(response).await["code"], "method_not_allowed");
}

#[tokio::test]
async fn an_error_by_status_alone_loses_its_own_words() {
    for (status, code) in [
        (413, "body_too_large"),
        (415, "unsupported_media_type"),
        (418, "request_failed"),
        (429, "rate_limited"),
        (500, "internal_error"),
        (503, "unavailable"),
        (599, "internal_error"),
    ] {
        let response = get_path(&format!("/plain/{status}")).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.headers().contains_key(header::RETRY_AFTER), matches!(status, 429 | 503), "{status}");
        let body = body(response).await;
        assert_eq!((&body["code"], &body["status"]), (&json!(code), &json!(status)));
        assert!(!body.to_string().contains("internal words"));
    }
}

#[tokio::test]
async fn a_panic_is_500_and_leaks_nothing() {
    let response = get_path("/panics").await;
    assert_eq!(response.status(), 500);
    let body = body(response).await;
    assert_eq!(body["code"], "internal_error");
    assert!(!body.to_string().contains("secret"));
}

#[tokio::test]
async fn a_panic_before_the_first_poll_is_500_too() {
    let service = tower::service_fn(|_: Request<Body>| -> std::future::Ready<Result<Response, Infallible>> {
        panic!("at once");
    });
    let layer = layer(request_telemetry(&[], Traces::default()));
    let response = layer.layer(service).oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 500);
    assert!(response.headers()[TRACEPARENT].to_str().unwrap().ends_with("-00"), "not sampled unless asked");
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    for (path, status, length) in [("/ok", 200, "2"), ("/busy", 503, "")] {
        let response = ask(Request::head(path).body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), status);
        assert!(response.headers()[header::CONTENT_LENGTH].to_str().unwrap().starts_with(length));
        assert_eq!(text(response).await, "");
    }
}

#[tokio::test]
async fn a_broken_invariant_is_named_in_the_log_and_not_in_the_answer() {
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.subscriber("warn", LogFormat::Json));
    let broken = || broken("an answer has a question");
    let app = Router::new().route("/", axum::routing::get(async move || broken()));
    let request = Request::get("/").header(REQUEST_ID, "mine").body(Body::empty()).unwrap();
    let response = app.layer(layer(request_telemetry(&[], Traces::default()))).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 500);
    assert!(!text(response).await.contains("question"));
    let lines: Vec<Value> = lines.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [why, request] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&why["level"], &why["invariant"]), (&json!("ERROR"), &json!("an answer has a question")));
    assert_eq!((&request["request.id"], &request["trace_id"]), (&json!("mine"), &why["trace_id"]));
}

#[tokio::test]
async fn every_request_is_one_line_at_debug_and_a_failure_at_any_level() {
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.subscriber("warn,tertulia::http=debug", LogFormat::Json));
    for path in ["/who/7", "/busy", "/plain/500"] {
        let request = Request::get(path).header(REQUEST_ID, "mine").body(Body::empty()).unwrap();
        ask(request).await;
    }
    let text = lines.text();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<_> = lines
        .iter()
        .map(|line| (line["level"].as_str(), line["http.response.status_code"].as_u64(), line["http.route"].as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            (Some("DEBUG"), Some(200), Some("/who/{id}")),
            (Some("WARN"), Some(503), Some("/busy")),
            (Some("ERROR"), Some(500), Some("/plain/{status}")),
        ]
    );
    let codes: Vec<_> = lines.iter().map(|line| line["problem.code"].as_str()).collect();
    assert_eq!(codes, [None, Some("node_full"), Some("internal_error")]);
    assert!(lines.iter().all(|line| line["request.id"] == "mine" && line["http.request.method"] == "GET"));
    assert!(lines.iter().all(|line| line["trace_id"].as_str().is_some_and(|id| id.len() == 32)));
    assert!(lines.iter().all(|line| line["span_id"].as_str().is_some_and(|id| id.len() == 16)));
    assert!(lines.iter().all(|line| line["duration_ms"].is_f64()));
}

/// Request telemetry whose spans are kept.
fn kept(env: &[(&str, &str)]) -> (Arc<RequestTelemetry>, Arc<RecordingTracer>) {
    let kept = Arc::new(RecordingTracer::default());
    let mut env = env.to_vec();
    env.push(EXPORTED);
    (request_telemetry(&env, Traces::to(kept.clone())), kept)
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).header(REQUEST_ID, "mine").body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_recorded_request_is_a_span_with_the_names_of_the_conventions() {
    let (request_telemetry, kept) = kept(&[]);
    let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut request = get("/who/7?search=secret");
    request.headers_mut().insert(TRACEPARENT, HeaderValue::from_static(given));
    let response = behind(Arc::clone(&request_telemetry)).oneshot(request).await.unwrap();
    let [span] = &kept.spans()[..] else { panic!("one span") };
    assert_eq!((span.name.as_ref(), span.kind), ("GET /who/{id}", SpanKind::Server));
    assert_eq!(span.parent, Some([0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]));
    assert_eq!(crate::trace_context::Hex(&span.context.trace_id).to_string(), &given[3..35]);
    let own = crate::trace_context::Hex(&span.context.span_id).to_string();
    assert!(response.headers()[TRACEPARENT].to_str().unwrap().contains(&own), "the answer names this span");
    let mut attributes = span.attributes.clone();
    attributes.sort_by_key(|(name, _)| *name);
    assert_eq!(
        attributes,
        [
            ("http.request.method", "GET".into()),
            ("http.response.status_code", 200_u32.into()),
            ("http.route", "/who/{id}".into()),
            ("tertulia.request.id", "mine".into()),
            ("url.path", "/who/7".into()),
            ("url.scheme", "http".into()),
        ]
    );
    assert_eq!(span.error, None);
}

#[tokio::test]
async fn unknown_methods_and_paths_name_no_span() {
    let (request_telemetry, kept) = kept(&[]);
    let app = behind(request_telemetry);
    let brew = "BREW".repeat(20);
    for (method, path) in [(&*brew, "/who/7"), ("GET", "/ana@example.com")] {
        let mut request = get(path);
        *request.method_mut() = method.parse().unwrap();
        app.clone().oneshot(request).await.unwrap();
    }
    let [known, unknown] = &kept.spans()[..] else { panic!("two spans") };
    let told =
        |span: &Finished, key: &str| span.attributes.iter().find(|(name, _)| *name == key).map(|(_, v)| v.clone());
    assert_eq!((&*known.name, told(known, "http.request.method")), ("HTTP /who/{id}", Some("_OTHER".into())));
    assert_eq!(told(known, "http.request.method_original"), Some(brew[..32].to_owned().into()));
    assert_eq!(told(known, "url.path"), Some("/who/7".into()));
    assert_eq!((&*unknown.name, told(unknown, "url.path")), ("GET", None));
    assert_eq!(told(unknown, "http.request.method_original"), None);
}

#[tokio::test]
async fn a_span_has_only_the_beginning_of_a_long_path() {
    let (request_telemetry, kept) = kept(&[]);
    let path = format!("/who/{}", "7".repeat(20_000));
    behind(request_telemetry).oneshot(get(&path)).await.unwrap();
    let [span] = &kept.spans()[..] else { panic!("one span") };
    assert!(span.attributes.contains(&("url.path", path[..256].to_owned().into())), "{span:?}");
}

#[tokio::test]
async fn only_failures_are_recorded_of_unsampled_requests() {
    let (request_telemetry, kept) = kept(&[("OTEL_TRACES_SAMPLER", "always_off")]);
    let app = behind(Arc::clone(&request_telemetry));
    for path in ["/ok", "/plain/404", "/busy", "/nowhere", "/plain/429"] {
        let response = app.clone().oneshot(get(path)).await.unwrap();
        assert!(response.headers()[TRACEPARENT].to_str().unwrap().ends_with("-00"));
    }
    let [span] = &kept.spans()[..] else { panic!("one span: {:?}", kept.spans()) };
    assert_eq!((span.name.as_ref(), span.error.as_deref()), ("GET /busy", Some("503")));
    assert!(span.attributes.contains(&("tertulia.kept", "refused".into())) && span.context.is_sampled());
    assert!(span.attributes.contains(&("tertulia.problem.code", "node_full".into())), "{span:?}");
    let mut page = Page::new(Format::OpenMetrics);
    request_telemetry.metrics().write(&mut page);
    let text = page.finish();
    let exemplars: Vec<_> = text.lines().filter(|line| line.contains("trace_id=")).collect();
    let [exemplar] = exemplars[..] else { panic!("one exemplar, of what was recorded: {text}") };
    assert!(text.contains("error_type=\"503\"} 1\n"), "the span has the metric's error: {text}");
    assert!(exemplar.contains(&crate::trace_context::Hex(&span.context.trace_id).to_string()), "{exemplar}");
}

/// Why each of these requests was kept that nobody had sampled; all of them took longer than is slow.
async fn reasons(paths: &[&str]) -> Vec<&'static str> {
    async fn waits(context: RequestContext) {
        context.begin_wait();
    }
    async fn agent_fails(context: RequestContext) -> Problem {
        context.begin_wait();
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "agent_failed", "the agent failed")
    }
    async fn crowded() -> Problem {
        Problem::too_many("conversation_backlog", "too many wait", 1)
    }
    let kept = Arc::new(RecordingTracer::default());
    let mut config = config(&[("OTEL_TRACES_SAMPLER", "always_off"), EXPORTED]);
    config.slow_request = Duration::ZERO;
    let request_telemetry = Arc::new(RequestTelemetry::new(Sampling::new(&config), Traces::to(kept.clone())));
    let app = Router::new()
        .route("/waits", axum::routing::get(waits))
        .route("/agent", axum::routing::get(agent_fails))
        .route("/crowded", axum::routing::get(crowded))
        .route("/api/v1/reviews/{id}/wait", axum::routing::get(waits))
        .layer(layer(Arc::clone(&request_telemetry)));
    let app = behind(request_telemetry).merge(app);
    for path in paths {
        app.clone().oneshot(get(path)).await.unwrap();
    }
    let spans = kept.spans();
    let word = |span: &Finished| match span.attributes.iter().find(|(name, _)| *name == "tertulia.kept") {
        Some((_, actors::trace::Value::Text(std::borrow::Cow::Borrowed(word)))) => *word,
        other => panic!("{other:?}"),
    };
    spans.iter().map(word).collect()
}

#[tokio::test]
async fn kept_requests_carry_their_reason() {
    let paths = ["/ok", "/waits", "/plain/500", "/agent", "/busy", "/crowded", "/api/v1/reviews/7/wait"];
    assert_eq!(reasons(&paths).await, ["slow", "waited", "error", "agent", "refused", "refused"]);
}

#[tokio::test]
async fn however_many_exchanges_wait_for_agents_a_slow_append_is_kept() {
    let mut paths = vec!["/waits"; 1_000];
    paths.push("/ok");
    assert_eq!(reasons(&paths).await.last(), Some(&"slow"));
}

#[tokio::test]
async fn a_client_that_leaves_is_seen_and_counted() {
    let (request_telemetry, kept) = kept(&[]);
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.subscriber("warn,tertulia::http=debug", LogFormat::Json));
    let never = Router::new().route("/never", axum::routing::get(std::future::pending::<&str>));
    let app = never.layer(layer(Arc::clone(&request_telemetry)));
    let mut waiting = std::pin::pin!(app.oneshot(get("/never")));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    assert!(kept.spans().is_empty());
    waiting.set(Router::new().oneshot(get("/")));
    assert_eq!(kept.spans()[0].error.as_deref(), Some("client_left"));
    let line: Value = serde_json::from_str(&lines.text()).unwrap();
    assert_eq!(
        (&line["level"], &line["request.id"], &line["http.route"]),
        (&json!("DEBUG"), &json!("mine"), &json!("/never"))
    );
    assert_eq!(line["trace_id"], crate::trace_context::Hex(&kept.spans()[0].context.trace_id).to_string());
    assert!(line["duration_ms"].is_f64() && line.get("http.response.status_code").is_none(), "{line}");
    let mut page = Page::new(Format::Text);
    request_telemetry.metrics().write(&mut page);
    let text = page.finish();
    assert!(
        text.contains("{http_route=\"/never\",http_request_method=\"GET\",error_type=\"client_left\"} 1\n"),
        "{text}"
    );
    assert!(text.contains("\nhttp_server_active_requests{http_request_method=\"GET\"} 0\n"), "{text}");
}

#[tokio::test]
async fn a_line_names_no_method_that_a_client_made_up() {
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.subscriber("warn,tertulia::http=debug", LogFormat::Json));
    let mut request = get("/who/7");
    *request.method_mut() = "BREW".repeat(8_000).parse().unwrap();
    ask(request).await;
    let text = lines.text();
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["http.request.method"], "_OTHER");
    assert!(text.len() < 1_000, "{} bytes", text.len());
}

#[tokio::test]
async fn methods_and_paths_of_clients_make_no_series_of_their_own() {
    let (request_telemetry, _) = kept(&[]);
    let app = behind(Arc::clone(&request_telemetry));
    for (method, path) in [("GET", "/who/1"), ("GET", "/who/2"), ("HEAD", "/who/3"), ("BREW", "/a"), ("TEA", "/b")] {
        let mut request = get(path);
        *request.method_mut() = method.parse().unwrap();
        app.clone().oneshot(request).await.unwrap();
    }
    let mut page = Page::new(Format::Text);
    request_telemetry.metrics().write(&mut page);
    let text = page.finish();
    let counted = |line: &&str| line.contains("duration_seconds_count") && !line.contains("error_type");
    let counts: Vec<_> = text.lines().filter(counted).collect();
    assert_eq!(
        counts,
        [
            "http_server_request_duration_seconds_count{http_route=\"/who/{id}\",http_request_method=\"GET\",http_response_status_code=\"200\"} 2",
            "http_server_request_duration_seconds_count{http_route=\"/who/{id}\",http_request_method=\"HEAD\",http_response_status_code=\"200\"} 1",
            "http_server_request_duration_seconds_count{http_route=\"unmatched\",http_request_method=\"_OTHER\",http_response_status_code=\"404\"} 2",
        ]
    );
}
