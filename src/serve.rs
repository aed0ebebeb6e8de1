//! The life of a server, from its start to its end.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actors::clock::{Entropy, SystemClock};
use actors::memories::recall::Embeddings;
use actors::node::Node;
use actors::ports::Ports;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout_at};

use crate::app::{App, ExternalClients, OutsideError};
use crate::bootstrap::BootstrapError;
use crate::config::{Config, Secret};
use crate::embeddings::{EmbeddingsError, Endpoint};
use crate::metrics::Sources;
use crate::models::{OpenAi, OpenAiError};
use crate::secret::{NoRandomness, random};
use crate::server::{Drained, ServerOptions, listen, serve};
use crate::stores::StoresError;
use crate::telemetry::push::Push;
use crate::telemetry::{self, Telemetry, TelemetryError};
use crate::tools::AgentTools;
use crate::webhooks::Webhooks;
use crate::{descriptors, http, metrics, shutdown};

mod start;

use start::{Early, Reached, Ready};

/// How long running requests may take once the server is stopping.
const REQUESTS_TIMEOUT: Duration = Duration::from_secs(10);
/// When turns and commands must have ended and the store be closed, counted from the same moment.
const DRAIN_BY: Duration = Duration::from_secs(17);
/// The same for a node that has served no request yet.
const DRAIN_BY_BEFORE_START: Duration = Duration::from_secs(1);
/// How long sending the last metrics may take, once everything that they count has ended; and after them the queued
/// spans.
const FINAL_EXPORT_TIMEOUT: Duration = Duration::from_millis(900);
/// When the server stops waiting for the store, so that there is time for those metrics.
const STORE_CLOSE_BY: Duration = Duration::from_millis(17_600);
/// When the process gives up waiting for that; with the remaining work it ends within the promised 20 seconds. The last
/// metrics are sent by then too.
const SHUTDOWN_BY: Duration = Duration::from_millis(18_500);
const _: () = assert!(
    STORE_CLOSE_BY.as_millis() + FINAL_EXPORT_TIMEOUT.as_millis() <= SHUTDOWN_BY.as_millis(),
    "the last numbers are sent by then"
);
/// The default address of the metrics listener.
const USUAL_METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9464);
/// Scrapers of metrics at once.
const METRICS_CONNECTIONS: usize = 64;

/// Why a server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Logging could not be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The store was not opened.
    #[error(transparent)]
    Store(#[from] StoresError),
    /// An address could not be listened on.
    #[error("{setting} {address}: cannot listen: {source}; choose a free address of this machine")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The setting that names it.
        setting: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The operating system does not allow waiting for signals.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
    /// No ids can be generated.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// Users' URLs cannot be called, or attachments cannot be stored.
    #[error(transparent)]
    ExternalClients(#[from] OutsideError),
    /// The embeddings endpoint cannot be called.
    #[error(transparent)]
    Embeddings(#[from] EmbeddingsError),
    /// Model endpoints cannot be called.
    #[error(transparent)]
    Models(#[from] OpenAiError),
    /// The installation could not be created or read.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The store can store nothing any more. Acknowledged data is safe.
    #[error("the store failed: {0}")]
    StoreFailed(String),
}

/// How a server ends that did not start, or cannot go on.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: ServeError,
    /// The last line of the log says so. There is no log if it could not be set up.
    pub is_logged: bool,
}

/// Serves until the process is asked to stop.
///
/// # Errors
/// [`Failed`], with the reason.
pub async fn run(config: &Config) -> Result<(), Failed> {
    let telemetry = telemetry::init(config).map_err(|error| Failed { error: error.into(), is_logged: false })?;
    // Before the store is opened, which takes its share of the same limit.
    let mut config = config.clone();
    config.max_connections = descriptors::connections(config.max_connections);
    let served = run_traced(&config, &telemetry).await;
    telemetry.finish(FINAL_EXPORT_TIMEOUT).await;
    served.map_err(|error| {
        telemetry::unfiltered(config.log_format, || tracing::error!(%error, "the server cannot go on"));
        Failed { error, is_logged: true }
    })
}

async fn run_traced(config: &Config, telemetry: &Telemetry) -> Result<(), ServeError> {
    let mut asked = std::pin::pin!(shutdown::signal().map_err(ServeError::Signals)?);
    let (failed, failure) = mpsc::channel(1);
    let reached = start::store(config, telemetry, asked.as_mut(), failed).await?;
    let Some(Reached { store, early }) = reached else { return Ok(()) };
    let outside = ExternalClients::open(config)?;
    let node = Node::start(store, Arc::new(SystemClock), entropy()?, ports(config, telemetry, &outside)?);
    let begin = Serving::begin(&node, outside, config, early, telemetry);
    live(&node, begin, asked, failure).await.map(|Stopped| ())
}

/// Runs from the first read of the installation to the end. A start takes as long as its store does, so a stop does not
/// wait for it.
async fn live<'a>(
    node: &Arc<Node>,
    begin: impl Future<Output = Result<Serving<'a>, ServeError>>,
    mut asked: Pin<&mut impl Future<Output = &'static str>>,
    mut failure: mpsc::Receiver<String>,
) -> Result<Stopped, ServeError> {
    let begun = tokio::select! {
        begun = begin => begun.map(Some),
        signal = asked.as_mut() => {
            tracing::info!(signal, "stopping before ready");
            Ok(None)
        }
        Some(why) = failure.recv() => return Err(ServeError::StoreFailed(why)),
    };
    if let Ok(Some(serving)) = begun {
        return serving.until(asked, failure).await;
    }
    // Everything begun ends in order.
    let now = Instant::now();
    if timeout_at(now + SHUTDOWN_BY, node.drain(now + DRAIN_BY_BEFORE_START)).await.is_err() {
        tracing::error!("the store did not close in time");
    }
    begun.map(|_| Stopped)
}

/// A source of ids, seeded by the operating system.
///
/// # Errors
/// [`NoRandomness`].
pub fn entropy() -> Result<Entropy, NoRandomness> {
    random().map(Entropy::seeded)
}

/// The node was drained.
struct Stopped;

/// A serving server.
struct Serving<'a> {
    node: &'a Arc<Node>,
    app: App,
    requests: JoinHandle<Drained>,
    /// The listener that refuses requests during the stop.
    afterwards: (TcpListener, ServerOptions),
    /// The listener of metrics. It ends when this is dropped: a stop is followed like everything before it.
    scraping: JoinSet<Drained>,
    /// The sending of metrics to a collector.
    push: Option<Push>,
}

impl<'a> Serving<'a> {
    /// Begins to serve a node.
    async fn begin(
        node: &'a Arc<Node>,
        outside: ExternalClients,
        config: &Config,
        early: Early,
        telemetry: &Telemetry,
    ) -> Result<Self, ServeError> {
        let configured = config.bootstrap_api_key.as_ref().map(Secret::expose);
        let pepper = start::installation(node, configured).await?;
        let Ready { api, metrics: (scraped, metrics_address), request_telemetry } = early.end().await;
        let (afterwards, (api, address)) = start::shared(api, "--listen")?;
        let app = App::with_telemetry(request_telemetry, Arc::clone(node), pepper, outside, config);
        let options =
            ServerOptions { max_connections: config.max_connections, drain: REQUESTS_TIMEOUT, ..Default::default() };
        let of_metrics = ServerOptions { max_connections: METRICS_CONNECTIONS, ..options };
        let sources = Sources { app: app.clone(), spans: telemetry.span_queue().cloned() };
        // Before any request is answered: its settings may turn out to be invalid.
        let push = telemetry.push(config, sources.clone())?;
        let requests = tokio::spawn(serve(api, http::router(app.clone()), options, app.stopping()));
        let mut scraping = JoinSet::new();
        scraping.spawn(serve(scraped, metrics::router(sources), of_metrics, std::future::pending()));
        tracing::info!(%address, %metrics_address, "ready");
        if let Err(error) = say(&format!("tertulia is ready on http://{address}")) {
            tracing::warn!(%error, "cannot write to standard output");
        }
        Ok(Self { node, app, requests, afterwards: (afterwards, options), scraping, push })
    }

    /// Serves until the process is asked to stop and everything begun has ended, or the store fails.
    async fn until(
        mut self,
        asked: impl Future<Output = &'static str>,
        failure: mpsc::Receiver<String>,
    ) -> Result<Stopped, ServeError> {
        let push = self.push.take();
        let ended = self.ended(asked, failure).await;
        // Whatever the end, the work until then is counted.
        if let Some(push) = push {
            push.finish(FINAL_EXPORT_TIMEOUT).await;
        }
        ended
    }

    async fn ended(
        self,
        asked: impl Future<Output = &'static str>,
        mut failure: mpsc::Receiver<String>,
    ) -> Result<Stopped, ServeError> {
        tokio::select! {
            signal = asked => tracing::info!(signal, "stopping"),
            Some(why) = failure.recv() => return Err(ServeError::StoreFailed(why)),
        }
        let begun = Instant::now();
        self.app.leave();
        tokio::select! {
            ended = timeout_at(begun + STORE_CLOSE_BY, self.stop(begun)) => {
                if ended.is_err() {
                    tracing::error!("the store did not close in time");
                }
                Ok(Stopped)
            }
            Some(why) = failure.recv() => Err(ServeError::StoreFailed(why)),
        }
    }

    /// Lets requests and the node end, by times counted from when the stop has `begun`.
    async fn stop(mut self, begun: Instant) {
        // A client with that answer tries another server; one whose connection is refused has to guess.
        let mut refused = JoinSet::new();
        let (listener, options) = self.afterwards;
        refused.spawn(serve(listener, http::stopping_router(&self.app), options, std::future::pending()));
        // An error here is a panic that was logged already.
        let cut_off = self.requests.await.map_or(0, |drained| drained.cut_off);
        self.node.drain(begun + DRAIN_BY).await;
        refused.shutdown().await;
        self.scraping.shutdown().await;
        tracing::info!(cut_off, "stopped");
    }
}

/// A second server on one machine must not fail because of its default metrics port: if that is taken, it serves
/// metrics on any other, and logs it.
fn bind_metrics(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    match bind(address, "--metrics-listen") {
        Err(ServeError::Bind { source, .. })
            if source.kind() == io::ErrorKind::AddrInUse && address == USUAL_METRICS =>
        {
            let bound = bind(SocketAddr::new(address.ip(), 0), "--metrics-listen")?;
            tracing::warn!(taken = %address, instead = %bound.1, "the default metrics port is in use");
            Ok(bound)
        }
        bound => bound,
    }
}

fn bind(address: SocketAddr, setting: &'static str) -> Result<(TcpListener, SocketAddr), ServeError> {
    let bound = listen(address).and_then(|listener| {
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    bound.map_err(|source| ServeError::Bind { address, setting, source })
}

/// The node's ports.
fn ports(config: &Config, telemetry: &Telemetry, outside: &ExternalClients) -> Result<Ports, ServeError> {
    let models = Arc::new(OpenAi::new(Arc::new(SystemClock))?);
    let tools = Arc::new(AgentTools::new(Arc::new(SystemClock), outside.egress.clone()));
    let deliverer = Arc::new(Webhooks::new(outside.egress.clone(), Arc::new(SystemClock)));
    let files = Arc::new(outside.files.clone());
    let embeddings = config.embeddings.as_ref().map(Endpoint::new).transpose()?;
    let embeddings = embeddings.map(|endpoint| Arc::new(endpoint) as Arc<dyn Embeddings>);
    Ok(Ports { models, tools, deliverer, embeddings, traces: telemetry.traces(), files })
}

/// One line on standard output, for the operator or script that started the server.
fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

#[cfg(test)]
mod tests;
