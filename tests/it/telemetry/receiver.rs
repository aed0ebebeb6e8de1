//! A receiver of traces in this process, in the role of a collector: over gRPC, over HTTP, and misbehaving.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use flate2::read::GzDecoder;
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{Span, status};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// How a receiver reacts to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Accepts them.
    Takes,
    /// Answers that it cannot accept them now.
    Refuses,
    /// Refuses every other request, and accepts the rest.
    Hesitates,
    /// Accepts them, after some time.
    Slow,
    /// Never answers.
    Hangs,
    /// Answers with success, and that it has rejected all spans.
    Lies,
}

/// A span as received.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: i32,
    pub(crate) links: Vec<String>,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) failed: bool,
    pub(crate) began: u64,
    pub(crate) ended: u64,
    pub(crate) service: String,
}

#[derive(Debug)]
struct Shared {
    manner: Manner,
    spans: Mutex<Vec<Got>>,
    /// The newest metrics.
    metrics: Mutex<Option<(HeaderMap, ExportMetricsServiceRequest)>>,
    headers: Mutex<HeaderMap>,
    /// The number of requests.
    asked: AtomicUsize,
    /// The number of spans in requests that it has not answered.
    held: AtomicUsize,
}

/// How long a slow receiver takes for an answer.
const SLOW: Duration = Duration::from_millis(300);

/// Spans in a request that is not answered until this is dropped.
struct Held<'a>(&'a Shared, usize);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// How many spans are in a request.
fn count(request: &ExportTraceServiceRequest) -> usize {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.map(|scope| scope.spans.len()).sum()
}

impl Shared {
    fn hold(&self, spans: usize) -> Held<'_> {
        self.held.fetch_add(spans, Ordering::Relaxed);
        Held(self, spans)
    }

    async fn takes(&self) -> bool {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        match self.manner {
            Manner::Hangs => std::future::pending().await,
            Manner::Slow => {
                tokio::time::sleep(SLOW).await;
                true
            }
            Manner::Refuses => false,
            Manner::Hesitates => asked % 2 == 1,
            Manner::Takes | Manner::Lies => true,
        }
    }
}

/// A running receiver; dropping this ends it.
pub(crate) struct Receiver {
    pub(crate) endpoint: String,
    shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
}

impl Receiver {
    /// A receiver that speaks gRPC.
    pub(crate) fn grpc(manner: Manner) -> Self {
        Self::start(manner, |listener, shared, stop| {
            let service = TraceServiceServer::new(Grpc(Arc::clone(&shared)))
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(64 * 1024 * 1024);
            let metrics = MetricsServiceServer::new(Grpc(shared));
            let server = tonic::transport::Server::builder().add_service(service).add_service(metrics);
            async move {
                let stopped = async { drop(stop.await) };
                server.serve_with_incoming_shutdown(TcpIncoming::from(listener), stopped).await.unwrap();
            }
        })
    }

    /// A receiver that speaks HTTP.
    pub(crate) fn http(manner: Manner) -> Self {
        Self::start(manner, |listener, shared, stop| async move {
            let app = Router::new()
                .route("/v1/traces", post(over_http))
                .route("/v1/metrics", post(metrics_over_http))
                .with_state(shared);
            let stopped = async { drop(stop.await) };
            axum::serve(listener, app).with_graceful_shutdown(stopped).await.unwrap();
        })
    }

    fn start<F: Future<Output = ()>>(
        manner: Manner,
        serve: impl FnOnce(TcpListener, Arc<Shared>, oneshot::Receiver<()>) -> F + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            manner,
            spans: Mutex::default(),
            metrics: Mutex::default(),
            headers: Mutex::default(),
            asked: AtomicUsize::default(),
            held: AtomicUsize::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let (bound, address) = std::sync::mpsc::channel::<SocketAddr>();
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                serve(listener, serving, stopped).await;
            });
        });
        let endpoint = format!("http://{}", address.recv().unwrap());
        Self { endpoint, shared, _stop: stop }
    }

    /// The spans received so far.
    pub(crate) fn spans(&self) -> Vec<Got> {
        self.shared.spans.lock().unwrap().clone()
    }

    /// The number of requests received, answered or not.
    pub(crate) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::Relaxed)
    }

    /// The number of spans in requests that it has not answered.
    pub(crate) fn held(&self) -> usize {
        self.shared.held.load(Ordering::Relaxed)
    }

    /// The newest metrics, and the headers of their request.
    pub(crate) fn metrics(&self) -> Option<(HeaderMap, ExportMetricsServiceRequest)> {
        self.shared.metrics.lock().unwrap().clone()
    }

    /// The headers of the last request.
    pub(crate) fn headers(&self) -> HeaderMap {
        self.shared.headers.lock().unwrap().clone()
    }
}

impl Shared {
    /// Takes the spans of a request, and answers it.
    fn take(&self, request: ExportTraceServiceRequest) -> ExportTraceServiceResponse {
        let rejected_spans = count(&request) as i64;
        let mut spans = self.spans.lock().unwrap();
        for resource in request.resource_spans {
            let described = resource.resource.unwrap_or_default().attributes;
            let service = attributes(&described).remove("service.name").unwrap_or_default();
            for scope in resource.scope_spans {
                spans.extend(scope.spans.iter().map(|span| got(span, &service)));
            }
        }
        let lie = ExportTracePartialSuccess { rejected_spans, error_message: "no".to_owned() };
        ExportTraceServiceResponse { partial_success: (self.manner == Manner::Lies).then_some(lie) }
    }
}

struct Grpc(Arc<Shared>);

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let _held = self.0.hold(count(request.get_ref()));
        if !self.0.takes().await {
            return Err(Status::unavailable("busy"));
        }
        *self.0.headers.lock().unwrap() = request.metadata().clone().into_headers();
        Ok(Response::new(self.0.take(request.into_inner())))
    }
}

#[tonic::async_trait]
impl MetricsService for Grpc {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        if !self.0.takes().await {
            return Err(Status::unavailable("busy"));
        }
        let headers = request.metadata().clone().into_headers();
        *self.0.metrics.lock().unwrap() = Some((headers, request.into_inner()));
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

async fn metrics_over_http(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if !shared.takes().await {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let request = ExportMetricsServiceRequest::decode(plain(&headers, body)).unwrap();
    *shared.metrics.lock().unwrap() = Some((headers, request));
    StatusCode::OK
}

async fn over_http(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> (StatusCode, Vec<u8>) {
    let request = ExportTraceServiceRequest::decode(plain(&headers, body)).unwrap();
    let _held = shared.hold(count(&request));
    if !shared.takes().await {
        return (StatusCode::SERVICE_UNAVAILABLE, Vec::new());
    }
    *shared.headers.lock().unwrap() = headers;
    (StatusCode::OK, shared.take(request).encode_to_vec())
}

/// The decompressed body.
fn plain(headers: &HeaderMap, body: Bytes) -> Bytes {
    if headers.get("content-encoding").is_none_or(|coding| coding != "gzip") {
        return body;
    }
    let mut plain = Vec::new();
    GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
    plain.into()
}

fn got(span: &Span, service: &str) -> Got {
    let failed = span.status.as_ref().is_some_and(|status| status.code() == status::StatusCode::Error);
    Got {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name.clone(),
        kind: span.kind,
        links: span.links.iter().map(|link| format!("{}-{}", hex(&link.trace_id), hex(&link.span_id))).collect(),
        attributes: attributes(&span.attributes),
        failed,
        began: span.start_time_unix_nano,
        ended: span.end_time_unix_nano,
        service: service.to_owned(),
    }
}

fn text(value: &any_value::Value) -> String {
    match value {
        any_value::Value::StringValue(text) => text.clone(),
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::DoubleValue(number) => number.to_string(),
        any_value::Value::BoolValue(truth) => truth.to_string(),
        any_value::Value::ArrayValue(list) => {
            let words: Vec<String> = list.values.iter().filter_map(|word| word.value.as_ref()).map(text).collect();
            words.join(",")
        }
        other => panic!("{other:?}"),
    }
}

pub(super) fn attributes(given: &[KeyValue]) -> BTreeMap<String, String> {
    let value = |pair: &KeyValue| text(pair.value.as_ref().unwrap().value.as_ref().unwrap());
    given.iter().map(|pair| (pair.key.clone(), value(pair))).collect()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
