//! The start of a server whose store is on other machines and may not be reachable yet.
//!
//! Servers and cluster are often started together. So the server waits for an unreachable store as long as it takes,
//! and meanwhile answers that it is alive but not ready: its supervisor has no reason to stop it, and a load balancer
//! sends it no requests. A permanent fault ends the start at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actors::node::Node;
use actors::store::inventory::Inventory;
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{METRICS_CONNECTIONS, ServeError, bind, bind_metrics, entropy, say};
use crate::bootstrap::{self, BootstrapError};
use crate::config::{AttachmentsPlace, Config, StoreKind};
use crate::http::context::RequestTelemetry;
use crate::metrics::Starting;
use crate::secret::Pepper;
use crate::server::{Drained, ServerOptions, serve};
use crate::stores::{self, StoresError};
use crate::telemetry::Telemetry;
use crate::telemetry::sampling::Sampling;
use crate::{http, metrics};

/// Pause after the first attempt; doubled after each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest such pause.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// How long the answers to early requests may take once the installation is known.
const EARLY_ANSWERS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long reading the installation is retried on a store that was reached and then fails.
const INSTALLATION_TIMEOUT: Duration = Duration::from_secs(30);

/// The API's listener.
pub(super) type Bound = (TcpListener, SocketAddr);

/// A store, and the early listeners that answer before the installation is known, if any.
pub(super) struct Reached {
    pub(super) store: Arc<dyn Inventory>,
    pub(super) early: Early,
}

/// Opens the store. `None`: the process was asked to stop before that.
///
/// # Errors
/// If waiting will not open it, or the address cannot be listened on.
pub(super) async fn store(
    config: &Config,
    telemetry: &Telemetry,
    mut asked: impl Future<Output = &'static str> + Unpin,
    failed: mpsc::Sender<String>,
) -> Result<Option<Reached>, ServeError> {
    // Only the first reason counts, and the receiver may be gone.
    let on_fatal = || {
        let failed = failed.clone();
        Box::new(move |why| drop(failed.try_send(why)))
    };
    if config.store == StoreKind::Embedded {
        let store = stores::open(config, on_fatal()).await?;
        return Ok(Some(Reached { store, early: Early::silent(config, telemetry).await? }));
    }
    if let AttachmentsPlace::Directory(directory) = &config.attachments.place {
        let directory = directory.display();
        tracing::warn!(
            %directory,
            "attachments are kept in a directory of this machine; servers of this store on other machines cannot read \
             them: keep them in one bucket (TERTULIA_ATTACHMENTS=s3)"
        );
    }
    // A cluster that accepts connections but does not answer also takes its seconds.
    let early = Early::begin(config, telemetry).await?;
    let mut pause = FIRST_PAUSE;
    loop {
        let opened = tokio::select! {
            opened = stores::open(config, on_fatal()) => opened,
            signal = &mut asked => return Ok(stopped(signal)),
        };
        let error = match opened {
            Ok(store) => return Ok(Some(Reached { store, early })),
            Err(error) if error.may_pass() => error,
            Err(error) => return Err(error.into()),
        };
        if let Some(signal) = wait(&error, &mut pause, &mut asked).await {
            return Ok(stopped(signal));
        }
    }
}

fn stopped(signal: &str) -> Option<Reached> {
    tracing::info!(signal, "stopping before the store was reached");
    None
}

/// Waits for the next attempt; returns the signal that came meanwhile, if one did.
async fn wait(
    error: &StoresError,
    pause: &mut Duration,
    asked: &mut (impl Future<Output = &'static str> + Unpin),
) -> Option<&'static str> {
    tracing::warn!(%error, "waiting for the store");
    let now = *pause;
    *pause = (now * 2).min(MAX_PAUSE);
    tokio::select! {
        () = sleep(now) => None,
        signal = asked => Some(signal),
    }
}

/// The listeners of the API and the metrics, with their answers before the installation is known.
pub(super) struct Early {
    api: Listening,
    metrics: Listening,
    request_telemetry: Arc<RequestTelemetry>,
}

/// The result of the wait: both listeners, and the telemetry that has counted early requests.
pub(super) struct Ready {
    pub(super) api: Bound,
    pub(super) metrics: Bound,
    pub(super) request_telemetry: Arc<RequestTelemetry>,
}

/// A listener, and the task that answers early requests on it, if any.
struct Listening {
    bound: Bound,
    answers: Option<Answers>,
}

struct Answers {
    end: oneshot::Sender<()>,
    serving: JoinHandle<Drained>,
}

impl Early {
    /// Answers that the process lives, and accepts nothing yet.
    pub(super) async fn begin(config: &Config, telemetry: &Telemetry) -> Result<Self, ServeError> {
        let Self { api, metrics, request_telemetry } = Self::silent(config, telemetry).await?;
        let options = ServerOptions {
            max_connections: config.max_connections,
            drain: EARLY_ANSWERS_TIMEOUT,
            ..Default::default()
        };
        let of_metrics = ServerOptions { max_connections: METRICS_CONNECTIONS, ..options };
        let sources =
            Starting { request_telemetry: Arc::clone(&request_telemetry), spans: telemetry.span_queue().cloned() };
        let api =
            api.answering("--listen", http::starting_router(entropy()?, Arc::clone(&request_telemetry)), options)?;
        let metrics = metrics.answering("--metrics-listen", metrics::starting(entropy()?, sources), of_metrics)?;
        let address = api.bound.1;
        let metrics_address = metrics.bound.1;
        tracing::info!(
            %address,
            %metrics_address,
            "listening; requests are refused until the store and the installation are ready"
        );
        Ok(Self { api, metrics, request_telemetry })
    }

    /// No early answers: for a store on this machine, which needs no waiting.
    pub(super) async fn silent(config: &Config, telemetry: &Telemetry) -> Result<Self, ServeError> {
        let api = Listening { bound: bind(config.listen, "--listen")?, answers: None };
        let metrics = Listening { bound: bind_metrics(config.metrics_listen)?, answers: None };
        let request_telemetry = Arc::new(RequestTelemetry::new(Sampling::new(config), telemetry.traces()));
        Ok(Self { api, metrics, request_telemetry })
    }

    /// The addresses of the API and of the metrics.
    #[cfg(test)]
    pub(super) fn addresses(&self) -> [SocketAddr; 2] {
        [self.api.bound.1, self.metrics.bound.1]
    }

    /// Stops answering early requests.
    pub(super) async fn end(self) -> Ready {
        let (api, metrics) = tokio::join!(self.api.end(), self.metrics.end());
        Ready { api, metrics, request_telemetry: self.request_telemetry }
    }
}

impl Listening {
    /// `router` answers until the end.
    fn answering(self, setting: &'static str, router: Router, options: ServerOptions) -> Result<Self, ServeError> {
        let (kept, bound) = shared(self.bound, setting)?;
        let (end, ended) = oneshot::channel::<()>();
        let serving = tokio::spawn(serve(kept, router, options, async { drop(ended.await) }));
        Ok(Self { bound, answers: Some(Answers { end, serving }) })
    }

    async fn end(self) -> Bound {
        if let Some(Answers { end, serving }) = self.answers {
            drop(end);
            // An error here is a panic that was logged already.
            drop(serving.await);
        }
        self.bound
    }
}

/// The same listener twice. Both are one socket: while one of them is closed, clients wait in its backlog for the
/// other.
pub(super) fn shared((listener, address): Bound, setting: &'static str) -> Result<(TcpListener, Bound), ServeError> {
    let failed = |source| ServeError::Bind { address, setting, source };
    let listener = listener.into_std().map_err(failed)?;
    let other = listener.try_clone().and_then(TcpListener::from_std).map_err(failed)?;
    Ok((other, (TcpListener::from_std(listener).map_err(failed)?, address)))
}

/// Creates or reads the installation. A store on other machines may fail at any time, which is no reason to end.
///
/// # Errors
/// See [`BootstrapError`].
pub(super) async fn installation(node: &Arc<Node>, configured: Option<&str>) -> Result<Pepper, BootstrapError> {
    let until = Instant::now() + INSTALLATION_TIMEOUT;
    let mut pause = FIRST_PAUSE;
    loop {
        let made = bootstrap::run(node, configured, |key| {
            say(&format!("tertulia created an admin API key, shown only this once: {key}"))
        });
        match made.await {
            Err(error) if node.shares_its_store() && error.may_pass() && Instant::now() + pause < until => {
                tracing::warn!(%error, "retrying to load the installation");
                sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
            made => return made,
        }
    }
}
