//! The start of a server whose store is on other machines and may not be there yet.
//!
//! Whoever starts many machines at once starts servers and cluster together. So a store that cannot be reached is
//! waited for as long as it takes, and meanwhile the server says that it lives and takes nothing yet: its supervisor
//! has no reason to end it, and a load balancer none to ask it. What does not pass by itself ends the start at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actors::node::Node;
use actors::store::inventory::Inventory;
use actors::trace::Traces;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{ServeError, bind, entropy, say};
use crate::bootstrap::{self, BootstrapError};
use crate::config::{Config, StoreKind};
use crate::http;
use crate::http::context::Door;
use crate::secret::Pepper;
use crate::server::{Drained, ServerOptions, serve};
use crate::stores::{self, StoresError};
use crate::telemetry::sampling::Sampling;

/// Pause after the first attempt; doubled after each.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long the answers to those who ask too early may take when the installation is there.
const EARLY_ANSWERS: Duration = Duration::from_secs(1);
/// How long a store that was reached and then fails is asked for the installation.
const INSTALLED_WITHIN: Duration = Duration::from_secs(30);

/// Where the API is listened for.
pub(super) type Bound = (TcpListener, SocketAddr);

/// A store, and what is answered before the installation is known, if anything.
pub(super) struct Reached {
    pub(super) store: Arc<dyn Inventory>,
    pub(super) early: Early,
}

/// Opens the store. `None`: the process was asked to stop before that.
///
/// # Errors
/// Where it will not be opened by waiting, or the address cannot be listened on.
pub(super) async fn store(
    config: &Config,
    traces: Traces,
    mut asked: impl Future<Output = &'static str> + Unpin,
    failed: mpsc::Sender<String>,
) -> Result<Option<Reached>, ServeError> {
    // Only the first reason counts, and only somebody who still listens needs it.
    let on_fatal = || {
        let failed = failed.clone();
        Box::new(move |why| drop(failed.try_send(why)))
    };
    if config.store == StoreKind::Embedded {
        let store = stores::open(config, on_fatal()).await?;
        return Ok(Some(Reached { store, early: Early::silent(config).await? }));
    }
    // A cluster that accepts connections and says nothing takes its seconds too.
    let early = Early::begin(config, traces).await?;
    let mut pause = PAUSE;
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

/// Waits for the next attempt; the signal that came meanwhile, if one did.
async fn wait(
    error: &StoresError,
    pause: &mut Duration,
    asked: &mut (impl Future<Output = &'static str> + Unpin),
) -> Option<&'static str> {
    tracing::warn!(%error, "waiting for the store");
    let now = *pause;
    *pause = (now * 2).min(PAUSE_MAX);
    tokio::select! {
        () = sleep(now) => None,
        signal = asked => Some(signal),
    }
}

/// Where the API will be, and what is answered there before the installation is known.
pub(super) struct Early {
    bound: Bound,
    answers: Option<Answers>,
}

struct Answers {
    end: oneshot::Sender<()>,
    serving: JoinHandle<Drained>,
}

impl Early {
    /// That the process lives, and that it takes nothing yet.
    pub(super) async fn begin(config: &Config, traces: Traces) -> Result<Self, ServeError> {
        let (listener, address) = bind(config.listen, "--listen").await?;
        let failed = |source| ServeError::Bind { address, setting: "--listen", source };
        // Both are the same socket: while one of them is closed, clients wait in its backlog for the other.
        let kept = listener.into_std().map_err(failed)?;
        let listener = TcpListener::from_std(kept.try_clone().map_err(failed)?).map_err(failed)?;
        let kept = TcpListener::from_std(kept).map_err(failed)?;
        let router = http::starting(entropy()?, Door::new(Sampling::new(config), traces));
        let (end, ended) = oneshot::channel::<()>();
        let options =
            ServerOptions { max_connections: config.max_connections, drain: EARLY_ANSWERS, ..Default::default() };
        let serving = tokio::spawn(serve(kept, router, options, async { drop(ended.await) }));
        tracing::info!(%address, "listening; nothing is taken before the store and the installation are there");
        Ok(Self { bound: (listener, address), answers: Some(Answers { end, serving }) })
    }

    /// Nothing: for a store that is here and is waited for by nobody.
    pub(super) async fn silent(config: &Config) -> Result<Self, ServeError> {
        Ok(Self { bound: bind(config.listen, "--listen").await?, answers: None })
    }

    #[cfg(test)]
    pub(super) fn address(&self) -> SocketAddr {
        self.bound.1
    }

    /// Nobody is answered so any more.
    pub(super) async fn end(self) -> Bound {
        if let Some(Answers { end, serving }) = self.answers {
            drop(end);
            // An error here is a panic that was logged already.
            drop(serving.await);
        }
        self.bound
    }
}

/// Makes or reads the installation. A store on other machines may fail at any time, which is no reason to end.
///
/// # Errors
/// See [`BootstrapError`].
pub(super) async fn installation(node: &Arc<Node>, configured: Option<&str>) -> Result<Pepper, BootstrapError> {
    let until = Instant::now() + INSTALLED_WITHIN;
    let mut pause = PAUSE;
    loop {
        let made = bootstrap::run(node, configured, |key| {
            say(&format!("tertulia made an admin API key, shown only this once: {key}"))
        });
        match made.await {
            Err(error) if node.shares_its_store() && error.may_pass() && Instant::now() + pause < until => {
                tracing::warn!(%error, "the installation is asked for again");
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            made => return made,
        }
    }
}
