//! Serving a router over TCP: HTTP/1.1, bounded in connections, in header size and in time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::TryFutureExt as _;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tower::Service;

use self::drain_body::DrainedBody;
use self::head_timer::HeadTimer;
use self::slow_reader::ReaderTimeout;
pub use self::unreadable::Unreadable;
use self::unreadable::{Answering, Explained, Turn, readable};

mod drain_body;
mod head_timer;
mod slow_reader;
mod unreadable;

/// Bytes of a request's head; the largest usual cookies and tokens fit, and a connection cannot cost more.
pub(crate) const HEADER_BYTES: usize = 32 * 1024;
/// The most headers of a request, which is hyper's default.
pub(crate) const MAX_HEADERS: usize = 100;

/// Connections that may wait to be accepted, if the system allows as many (`net.core.somaxconn`). The usual 128 are fewer
/// than clients that reconnect together after a restart, and the system tells one that finds no place to come again
/// after a second.
const BACKLOG: u32 = 4_096;

/// Pause after an accept that failed for lack of descriptors or memory: it would fail again at once, and only a
/// connection that ends meanwhile helps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long connections continue unchanged once the server stops: a connection accepted just before has its request
/// read and answered. Otherwise it would be closed silently, since nothing has been read from it.
const ARRIVAL_DELAY: Duration = Duration::from_millis(50);

/// Options of serving.
#[derive(Clone, Copy, Debug)]
pub struct ServerOptions {
    /// Connections open at once; at least 1. Further ones wait in the listener's backlog.
    pub max_connections: usize,
    /// The longest that a request's head may take to arrive, and so also how long an idle connection is kept.
    pub header_read_timeout: Duration,
    /// The longest that a client may read nothing before it is cut off.
    pub reader_timeout: Duration,
    /// The longest that running requests may take after the shutdown has begun.
    pub drain: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            header_read_timeout: Duration::from_secs(30),
            reader_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(20),
        }
    }
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections with a request still running when the time was over; they were cut off.
    pub cut_off: usize,
}

/// Whether a stopping server has begun to cut off running requests. Each request has this as an extension, so that its
/// log line can say whether the server or the client ended it.
#[derive(Clone, Debug, Default)]
pub struct Ending(Arc<AtomicBool>);

impl Ending {
    /// Marks the beginning.
    fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A listener at this address, ready for [`serve`].
///
/// # Errors
/// If the address is in use or not of this machine.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted server must not wait until the system has forgotten the connections of the one before.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves `router` on `listener` until `shutdown` completes: then nothing new is accepted, idle connections are closed,
/// running requests end within [`ServerOptions::drain`], and the rest is cut off. Long-lived requests (event streams,
/// long polls) should watch the same signal and end by themselves.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    options: ServerOptions,
    shutdown: impl Future<Output = ()>,
) -> Drained {
    let ending = Ending::default();
    let server = Server {
        http: http(options.header_read_timeout),
        reader_timeout: options.reader_timeout,
        // Done once here instead of in each request.
        router: router.with_state(()),
        places: Arc::new(Semaphore::new(options.max_connections.clamp(1, Semaphore::MAX_PERMITS))),
        ending: ending.clone(),
    };
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let (stream, place) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = server.accept(&listener) => accepted,
        };
        // Ended connections are removed here, so the set stays as small as the number of open ones.
        while connections.try_join_next().is_some() {}
        connections.spawn(server.clone().connection(stream, graceful.watcher(), place));
    }
    // A closed listener refuses connections; an open one would let clients wait in its backlog in vain.
    drop(listener);
    drain(graceful, connections, options.drain, &ending).await
}

/// Lets connections end until the time is over, then ends them.
async fn drain(graceful: GracefulShutdown, mut connections: JoinSet<()>, within: Duration, ending: &Ending) -> Drained {
    let deadline = Instant::now() + within;
    let ended = timeout_at(deadline, async {
        // A server without drain time does not wait for arriving requests either.
        if !within.is_zero() {
            sleep(ARRIVAL_DELAY).await;
        }
        graceful.shutdown().await;
        while connections.join_next().await.is_some() {}
    });
    if ended.await.is_ok() {
        return Drained { cut_off: 0 };
    }
    while connections.try_join_next().is_some() {}
    let cut_off = connections.len();
    tracing::warn!(cut_off, "requests were still running when the time to stop was over");
    ending.begin();
    connections.shutdown().await;
    Drained { cut_off }
}

fn http(header_read_timeout: Duration) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.header_read_timeout(header_read_timeout)
        .max_header_size(HEADER_BYTES)
        .keep_alive(true)
        // A client may close its side as soon as it has sent its request; it still reads the answer.
        .half_close(true)
        // Collecting answers would delay one while half of the next request has arrived.
        .pipeline_flush(false);
    http
}

#[derive(Clone)]
struct Server {
    http: http1::Builder,
    reader_timeout: Duration,
    router: Router,
    places: Arc<Semaphore>,
    ending: Ending,
}

impl Server {
    /// The next connection and its permit; a failed accept is not the end.
    async fn accept(&self, listener: &TcpListener) -> (TcpStream, OwnedSemaphorePermit) {
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
            // Only a closed semaphore refuses, and this one is never closed.
            return std::future::pending().await;
        };
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return (stream, place),
                Err(error) if is_of_one_connection(&error) => tracing::debug!(%error, "a connection ended early"),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(self, stream: TcpStream, watcher: Watcher, place: OwnedSemaphorePermit) {
        // Answers are small and complete; waiting to fill a packet would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let router = self.router;
        let ending = self.ending;
        let turn = Arc::new(Turn::default());
        let stream = Explained::new(ReaderTimeout::new(stream, self.reader_timeout), router.clone(), Arc::clone(&turn));
        let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(ending.clone());
            // A client that waits for `100 Continue` has sent no body; requesting it only to discard it would be wrong.
            let lingers = !request.headers().contains_key(http::header::EXPECT);
            turn.begin();
            let turn = Arc::clone(&turn);
            // A router is always ready; its clone is one reference count.
            let answer = router.clone().call(readable(request).map(|body| Body::new(DrainedBody::new(body, lingers))));
            answer.map_ok(|response| Answering::of(response, turn))
        });
        let mut http = self.http;
        let connection = http.timer(HeadTimer::default()).serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "a connection failed");
        }
        drop(place);
    }
}

/// Whether the error belongs to the connection being accepted, so that the next may be tried at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests;
