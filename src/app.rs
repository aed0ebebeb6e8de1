//! What every request handler shares.

use std::sync::Arc;
use std::time::Duration;

use actors::clock::Millis;
use actors::node::Node;
use axum::extract::FromRef;
use dashmap::DashMap;
use tokio::sync::watch;

use crate::config::{CidrList, Config};
use crate::egress::Egress;
use crate::http::body::MaxBodyBytes;
use crate::http::rate::{Meter, RateLimiter};
use crate::secret::Pepper;

/// Cheap to clone; one a server.
#[derive(Clone, Debug)]
pub struct App(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    node: Arc<Node>,
    pepper: Pepper,
    limiter: RateLimiter,
    meters: DashMap<actors::id::KeyId, Arc<Meter>>,
    egress_allow: CidrList,
    egress: Egress,
    wait_budget: Duration,
    max_body: MaxBodyBytes,
    sample_new_traces: bool,
    leaving: watch::Sender<bool>,
}

impl App {
    /// The handlers' view of a running node.
    #[must_use]
    pub fn new(node: Arc<Node>, pepper: Pepper, egress: Egress, config: &Config) -> Self {
        Self(Arc::new(Shared {
            node,
            pepper,
            limiter: RateLimiter::new(config.rate_limit),
            meters: DashMap::new(),
            egress_allow: config.egress_allow.clone(),
            egress,
            wait_budget: config.wait_budget,
            max_body: MaxBodyBytes(config.max_body_bytes),
            sample_new_traces: config.otlp_endpoint.is_some(),
            leaving: watch::Sender::new(false),
        }))
    }

    /// The actors.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.0.node
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.0.node.now()
    }

    /// What API keys are hashed with.
    #[must_use]
    pub fn pepper(&self) -> &Pepper {
        &self.0.pepper
    }

    /// How many requests a key may make.
    #[must_use]
    pub fn limiter(&self) -> &RateLimiter {
        &self.0.limiter
    }

    /// What a key has used of it.
    #[must_use]
    pub fn meter(&self, key: actors::id::KeyId) -> Arc<Meter> {
        match self.0.meters.get(&key) {
            Some(meter) => Arc::clone(&meter),
            None => Arc::clone(&self.0.meters.entry(key).or_default()),
        }
    }

    /// Networks that users' URLs may reach although they are not public.
    #[must_use]
    pub fn egress_allow(&self) -> &CidrList {
        &self.0.egress_allow
    }

    /// Calls users' URLs.
    #[must_use]
    pub fn egress(&self) -> &Egress {
        &self.0.egress
    }

    /// The longest a request waits for an agent's reply.
    #[must_use]
    pub fn wait_budget(&self) -> Duration {
        self.0.wait_budget
    }

    /// Whether a trace that begins here is recorded.
    #[must_use]
    pub fn samples_new_traces(&self) -> bool {
        self.0.sample_new_traces
    }

    /// Whether requests are welcome.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !*self.0.leaving.borrow()
    }

    /// From now on `readyz` fails, so that no new requests are sent here, and whatever waits for [`App::left`] ends.
    pub fn leave(&self) {
        self.0.leaving.send_replace(true);
    }

    /// Completes when the server begins to stop. Requests that would go on for long (event streams, long polls)
    /// end with it.
    pub fn left(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut leaving = self.0.leaving.subscribe();
        // The sender lives as long as the app; where even that is gone, the server has stopped.
        async move { drop(leaving.wait_for(|leaving| *leaving).await) }
    }
}

impl FromRef<App> for MaxBodyBytes {
    fn from_ref(app: &App) -> Self {
        app.0.max_body
    }
}
