//! The client of an OTLP receiver, over HTTP or gRPC: the bytes of a request go out, and those of the answer come back.

use std::io::{self, Write as _};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http::uri::PathAndQuery;
use reqwest::{StatusCode, header};
use rustls::RootCertStore;
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use super::ExportError;
use crate::bounded_body;
use crate::config::otel::{Protocol, Receiver};
use crate::http_client::retry_after;
use crate::{http_client, tls};

/// The kind of data that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Traces,
    Metrics,
}

impl Signal {
    /// The method that accepts it.
    fn method(self) -> PathAndQuery {
        PathAndQuery::from_static(match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        })
    }
}

/// Why a request was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// The server at the address does not speak OTLP.
    Unknown(String),
    /// It may be accepted later, after the receiver's `Retry-After`.
    Later(String, Option<Duration>),
    /// It will not be accepted.
    Never(String),
}

impl Failed {
    /// There was no answer within the timeout.
    pub(super) fn late() -> Self {
        Self::Later("no response in time".to_owned(), None)
    }

    /// Its text.
    pub(super) fn error(self) -> String {
        let (Self::Unknown(error) | Self::Later(error, _) | Self::Never(error)) = self;
        error
    }
}

/// The most bytes read of an answer.
const ANSWER_BYTES: usize = 64 * 1024;

/// See the module's text.
pub(super) struct Sender {
    way: Transport,
    headers: HeaderMap,
    gzip: bool,
    within: Duration,
}

enum Transport {
    Http { client: reqwest::Client, url: String },
    Grpc(Box<GrpcTransport>),
}

struct GrpcTransport {
    endpoint: Endpoint,
    gzip: bool,
    method: PathAndQuery,
    client: Grpc<Channel>,
    /// The last request was given up without an answer.
    is_unanswered: bool,
}

impl GrpcTransport {
    /// A client that connects with its first request.
    fn client(endpoint: &Endpoint, gzip: bool) -> Grpc<Channel> {
        let client = Grpc::new(endpoint.connect_lazy());
        if gzip { client.send_compressed(CompressionEncoding::Gzip) } else { client }
    }

    async fn send(&mut self, request: Request<Bytes>) -> Result<Bytes, Failed> {
        // The receiver may have vanished without closing the connection. Then every request on it would wait in vain
        // until the system gives the connection up, a quarter of an hour later.
        if std::mem::replace(&mut self.is_unanswered, true) {
            self.client = Self::client(&self.endpoint, self.gzip);
        }
        let sent = over_grpc(&mut self.client, self.method.clone(), request).await;
        // Not reached where the request is given up.
        self.is_unanswered = false;
        sent
    }
}

impl Sender {
    /// A client of `receiver` for `signal`; nothing is connected yet. Over gRPC it belongs to the runtime in which it
    /// is created.
    ///
    /// # Errors
    /// If the receiver's settings are invalid.
    pub(super) fn new(receiver: &Receiver, signal: Signal) -> Result<Self, ExportError> {
        let roots = receiver
            .certificates
            .as_deref()
            .map(|path| tls::roots(path).map_err(|why| ExportError::Certificates(path.to_owned(), why)));
        let roots = roots.transpose()?;
        let way = match receiver.protocol {
            Protocol::Http => {
                Transport::Http { client: client(receiver.timeout, roots)?, url: receiver.endpoint.clone() }
            }
            Protocol::Grpc => {
                let mut endpoint = Endpoint::from_shared(receiver.endpoint.clone())?;
                if receiver.endpoint.starts_with("https") {
                    let tls = ClientTlsConfig::new();
                    endpoint = endpoint.tls_config(match roots {
                        Some(roots) => tls.trust_anchors(roots.roots),
                        None => tls.with_enabled_roots(),
                    })?;
                }
                let gzip = receiver.gzip;
                let client = GrpcTransport::client(&endpoint, gzip);
                let method = signal.method();
                Transport::Grpc(Box::new(GrpcTransport { endpoint, gzip, method, client, is_unanswered: false }))
            }
        };
        let headers = receiver.headers.clone();
        let gzip = receiver.gzip;
        let within = receiver.timeout;
        Ok(Self { way, headers, gzip, within })
    }

    /// Sends a request and waits for its answer, up to the receiver's timeout.
    pub(super) async fn send(&mut self, request: Bytes) -> Result<Bytes, Failed> {
        match &mut self.way {
            Transport::Http { client, url } => {
                let post = client.post(url.as_str()).headers(self.headers.clone());
                let mut post = post.header(header::CONTENT_TYPE, "application/x-protobuf");
                let mut body = request;
                if self.gzip {
                    body = compressed(&body).map_err(|error| Failed::Never(error.to_string()))?;
                    post = post.header(header::CONTENT_ENCODING, "gzip");
                }
                over_http(post.body(body)).await
            }
            Transport::Grpc(grpc) => {
                let mut request = Request::new(request);
                *request.metadata_mut() = MetadataMap::from_headers(self.headers.clone());
                tokio::time::timeout(self.within, grpc.send(request)).await.unwrap_or_else(|_| Err(Failed::late()))
            }
        }
    }
}

/// `roots`: the only trusted certificates, if configured.
fn client(within: Duration, roots: Option<RootCertStore>) -> Result<reqwest::Client, ExportError> {
    let mut client = http_client::client()?;
    if let Some(roots) = roots {
        client = client.tls_backend_preconfigured(tls::trusting(roots)?);
    }
    Ok(client.timeout(within).build()?)
}

fn compressed(bytes: &[u8]) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish().map(Bytes::from)
}

async fn over_http(post: reqwest::RequestBuilder) -> Result<Bytes, Failed> {
    let answer = post.send().await.map_err(|error| Failed::Later(http_client::unanswered(error), None))?;
    let (status, error) = (answer.status(), format!("status {}", answer.status().as_u16()));
    match status {
        // It was accepted, even if the answer's body cannot be read.
        _ if status.is_success() => Ok(bounded_body::body(answer, ANSWER_BYTES).await.unwrap_or_default()),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Err(Failed::Unknown(error)),
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Err(Failed::Later(error, retry_after(answer.headers(), None))),
        _ => Err(Failed::Never(error)),
    }
}

async fn over_grpc(client: &mut Grpc<Channel>, method: PathAndQuery, request: Request<Bytes>) -> Result<Bytes, Failed> {
    client.ready().await.map_err(|error| Failed::Later(http_client::described(&error), None))?;
    match client.unary(request, method, Raw).await {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) => Err(refused(&status)),
    }
}

/// Which refusals are temporary, by OTLP. A status that the receiver has not sent itself has a cause.
fn refused(status: &Status) -> Failed {
    let code = status.code();
    let error = http_client::root_cause(status).map_or_else(|| code.to_string(), |cause| format!("{code}: {cause}"));
    match code {
        Code::Unimplemented => Failed::Unknown(error),
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Failed::Later(error, None),
        _ => Failed::Never(error),
    }
}

/// Messages that are bytes already.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A receiver at this address.
    fn receiver(endpoint: &str, protocol: Protocol) -> Receiver {
        let endpoint = endpoint.to_owned();
        let timeout = Duration::from_secs(60);
        Receiver { endpoint, protocol, headers: HeaderMap::new(), gzip: false, timeout, certificates: None }
    }

    #[tokio::test]
    async fn a_receiver_that_is_away_is_reported_with_the_cause() {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for protocol in [Protocol::Http, Protocol::Grpc] {
            let receiver = receiver(&format!("http://{address}/path"), protocol);
            let sent = Sender::new(&receiver, Signal::Traces).unwrap().send(Bytes::new()).await;
            let Err(Failed::Later(error, None)) = sent else { panic!("{protocol:?}: {sent:?}") };
            assert!(error.contains("onnection refused") && !error.contains("/path"), "{protocol:?}: {error}");
        }
    }

    #[tokio::test]
    async fn certificates_that_cannot_be_used_are_named_over_both_protocols() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        for (protocol, path) in [Protocol::Http, Protocol::Grpc].into_iter().flat_map(|protocol| {
            [empty.path(), std::path::Path::new("/nowhere.pem")].map(|path| (protocol, path.to_owned()))
        }) {
            let receiver = receiver("https://localhost:4318/", protocol);
            let receiver = Receiver { certificates: Some(path.clone()), ..receiver };
            let error = Sender::new(&receiver, Signal::Traces).err().expect("it cannot be used").to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn a_transient_refusal_is_distinguished_from_a_permanent_one() {
        assert_eq!(
            refused(&Status::unavailable("x")),
            Failed::Later("The service is currently unavailable".to_owned(), None)
        );
        assert!(matches!(refused(&Status::unimplemented("x")), Failed::Unknown(_)));
        for code in [Code::InvalidArgument, Code::Unauthenticated, Code::PermissionDenied, Code::ResourceExhausted] {
            assert!(matches!(refused(&Status::new(code, "x")), Failed::Never(_)), "{code}");
        }
    }
}
