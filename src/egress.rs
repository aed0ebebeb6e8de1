//! Calls to URLs that users give: webhooks, callbacks, media.
//!
//! A user's URL must not reach private networks (SSRF). So there is one client for all such calls, and it opens all its
//! sockets in one place, `connect`, which checks the address that it is about to use, not the text that led there: a
//! name is resolved once, refused as a whole if any of its addresses is blocked, and the connection goes to an address
//! of that same answer. Before that, the URL itself passes the same check as in a request ([`url::check`]), again at
//! each redirect.
//!
//! Proxy variables are not read. Compressed answers are neither requested nor unpacked, so every received byte counts.
//! A connection is kept only for calls that may be repeated ([`Egress::send`]), since the receiver may close it just as
//! the next request is on its way. All others open a new one.
//!
//! Everything is bounded: a call by its deadline, an answer's head and body by their sizes, look-ups and idle
//! connections by their number, look-ups also per workspace.

mod connect;
mod download;
mod fault;
mod names;
mod progress;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use actors::id::Address;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};

use self::connect::Connector;
pub use self::download::{Download, Limits};
pub use self::fault::Fault;
use self::names::Names;
use crate::config::CidrList;
use crate::wire::url;

/// Unused connections are closed after this long: long enough for the next event of a busy conversation.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// Unused connections to one host; more are made when they are needed.
const MAX_IDLE_PER_HOST: usize = 4;
/// The bytes of an answer's head, and of the read-ahead buffer for its body.
const HEAD_BYTES: usize = 32 * 1024;
/// Headers of an answer.
const MAX_HEADERS: usize = 100;
/// The bytes that are read of the answer to a [`send`](Egress::send): enough for a message about an error, and for a
/// short answer to be read to its end, so that its connection can be reused.
const EXCERPT_BYTES: usize = 16 * 1024;
/// How long to wait for the rest of such an answer once its head has arrived; the head is what counts.
const EXCERPT_TIMEOUT: Duration = Duration::from_secs(1);

/// The client could not be created.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The cryptography provider cannot do any TLS version.
    #[error("cannot configure TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// Names cannot be looked up.
    #[error("cannot resolve names: {0}")]
    Names(String),
}

/// The reachable addresses: public ones, and those of networks that the operator allows.
#[derive(Clone, Debug, Default)]
struct Guard(Arc<CidrList>);

impl Guard {
    fn admits(&self, ip: IpAddr) -> bool {
        url::may_reach(ip, &|ip| self.0.contains(ip))
    }

    /// The URL, if its text does not forbid the call.
    fn check(&self, text: &str) -> Result<::url::Url, Fault> {
        url::check(text, &|ip| self.0.contains(ip)).map_err(fault_of)
    }

    /// The same for a redirect's target, which may be as long as a header, as signed URLs are, and for a URL together
    /// with its arguments.
    fn check_place(&self, text: &str) -> Result<::url::Url, Fault> {
        url::check_place(text, &|ip| self.0.contains(ip)).map_err(fault_of)
    }
}

fn fault_of((code, message): url::UrlFault) -> Fault {
    if code == "blocked_url" { Fault::Blocked(message) } else { Fault::InvalidUrl(message) }
}

type HttpClient = Client<Connector, Full<Bytes>>;

/// The client. Cheap to clone; the clones share their connections.
#[derive(Clone)]
pub struct Egress {
    /// Keeps connections for the next call.
    kept: HttpClient,
    /// Opens a connection for each call.
    fresh: HttpClient,
    guard: Guard,
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Egress").field("guard", &self.guard).finish_non_exhaustive()
    }
}

/// A request with a body of a known size.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    /// The workspace: look-ups of one workspace do not delay those of others.
    pub workspace: Address,
    /// Its method.
    pub method: Method,
    /// The URL as the user gave it.
    pub url: &'a str,
    /// Its headers. `Host`, `Content-Length` and `Connection` are the client's own and must not be among them.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// A receiver's answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status; any, a redirect too.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// The beginning of its body, at most `EXCERPT_BYTES`; of a [`call`](Egress::call), all of it.
    pub excerpt: Bytes,
}

impl Egress {
    /// A client that reaches public addresses and those of `allow`. Names are looked up at `name_servers`, or, without
    /// any, at those of the system's configuration. Needs a running Tokio runtime.
    ///
    /// # Errors
    /// [`EgressError`].
    pub fn new(allow: CidrList, name_servers: &[SocketAddr]) -> Result<Self, EgressError> {
        let guard = Guard(Arc::new(allow));
        let names = Names::new(guard.clone(), name_servers)?;
        let connector = Connector::new(guard.clone(), names, crate::tls::client()?);
        let client = |idle_connections| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(idle_connections)
                .http1_max_buf_size(HEAD_BYTES)
                .http1_max_headers(MAX_HEADERS)
                .build(connector.clone())
        };
        Ok(Self { kept: client(MAX_IDLE_PER_HOST), fresh: client(0), guard })
    }

    /// Sends a request that may arrive twice, and returns the answer within `within`. Redirects are answers like any
    /// other. Nothing is retried, except, once and at once, on a new connection if a kept one ended before any byte of
    /// an answer.
    ///
    /// # Errors
    /// If no answer came; see [`Fault`].
    pub async fn send(&self, outgoing: Outgoing<'_>, within: Duration) -> Result<Reply, Fault> {
        let deadline = Instant::now() + within;
        let url = self.guard.check(outgoing.url)?;
        let workspace = outgoing.workspace;
        let request = request(&url, outgoing)?;
        let (head, body) = match exchange(&self.kept, workspace, request.clone(), deadline).await {
            Err(Unanswered { ended_unanswered: true, fault }) => {
                tracing::debug!(%fault, "a kept connection was closed; the request is repeated on a new one");
                exchange(&self.fresh, workspace, request, deadline).await
            }
            answered => answered,
        }?
        .into_parts();
        let patience = deadline.min(Instant::now() + EXCERPT_TIMEOUT);
        Ok(Reply { status: head.status, headers: head.headers, excerpt: excerpt(body, patience).await })
    }

    /// Sends a request at most once, on a new connection, and reads its whole answer within `within`, of at most
    /// `at_most` bytes. Its URL may be of any length that can be sent. Redirects are answers like any other.
    ///
    /// # Errors
    /// If no complete answer came; see [`Fault`].
    pub async fn call(&self, outgoing: Outgoing<'_>, within: Duration, at_most: usize) -> Result<Reply, Fault> {
        let deadline = Instant::now() + within;
        // It contains arguments in its query, so it may be longer than a URL that a user may give.
        let url = self.guard.check_place(outgoing.url)?;
        let workspace = outgoing.workspace;
        let (head, body) = exchange(&self.fresh, workspace, request(&url, outgoing)?, deadline).await?.into_parts();
        let reading = timeout_at(deadline, Limited::new(body, at_most).collect()).await;
        let read =
            reading.map_err(|_| Fault::Timeout)?.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
                Some(_) => Fault::TooLarge(at_most as u64),
                None => Fault::of(error.as_ref()),
            });
        Ok(Reply { status: head.status, headers: head.headers, excerpt: read?.to_bytes() })
    }
}

/// Why there is no answer to a request.
struct Unanswered {
    fault: Fault,
    /// A kept connection ended before any byte of the answer.
    ended_unanswered: bool,
}

impl From<Unanswered> for Fault {
    fn from(unanswered: Unanswered) -> Self {
        unanswered.fault
    }
}

/// The request for `url`.
fn request(url: &::url::Url, outgoing: Outgoing<'_>) -> Result<Request<Full<Bytes>>, Fault> {
    let mut request = Request::new(Full::new(outgoing.body));
    *request.method_mut() = outgoing.method;
    *request.uri_mut() = uri(url)?;
    *request.headers_mut() = outgoing.headers;
    Ok(request)
}

/// One request and the head of its answer.
async fn exchange(
    client: &HttpClient,
    workspace: Address,
    mut request: Request<Full<Bytes>>,
    deadline: Instant,
) -> Result<Response<Incoming>, Unanswered> {
    let headers = request.headers_mut();
    headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(crate::USER_AGENT));
    match timeout_at(deadline, names::within(workspace, client.request(request))).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => {
            Err(Unanswered { fault: Fault::of(&error), ended_unanswered: progress::ended_unanswered(&error) })
        }
        Err(_) => Err(Unanswered { fault: Fault::Timeout, ended_unanswered: false }),
    }
}

/// The URL as it is sent, without its fragment.
fn uri(url: &::url::Url) -> Result<Uri, Fault> {
    let mut url = url.clone();
    url.set_fragment(None);
    url.as_str().parse().map_err(|error: http::uri::InvalidUri| Fault::InvalidUrl(error.to_string()))
}

/// The part of a body that arrives until `deadline`, up to [`EXCERPT_BYTES`]. A body that is longer or breaks off only
/// loses its connection: the answer has been given.
async fn excerpt(mut body: Incoming, deadline: Instant) -> Bytes {
    let mut read = BytesMut::new();
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await {
        let Ok(data) = frame.into_data() else { continue };
        let room = EXCERPT_BYTES - read.len();
        read.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            break;
        }
    }
    read.freeze()
}
