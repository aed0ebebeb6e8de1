//! The whole API in this process, without sockets or wall clock, on the store of this run.

use std::fmt::Display;
use std::future::{Future, IntoFuture};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actors::clock::{Entropy, ManualClock, Millis, SystemClock};
use actors::id::EntityKey;
use actors::node::Node;
use actors::outbox::Deliverer;
use actors::ports::Ports;
use actors::store::faulty::{FaultyStore, Rates};
use actors::store::memory::MemoryStore;
use actors::store::{KeyRange, LogScan, Order, ReadLevel, Scan, SeqRange, Store, Table};
use actors::trace::Traces;
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tertulia::app::{App, ExternalClients};
use tertulia::config::{Config, ConfigArgs};
use tertulia::egress::Egress;
use tertulia::files::FileStore;
use tertulia::models::OpenAi;
use tertulia::server::{ServerOptions, serve};
use tertulia::tools::AgentTools;
use tertulia::webhooks::Webhooks;
use tertulia::{bootstrap, http as front};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tower::ServiceExt;

pub(crate) use lists::{ids, text, without};
pub(crate) use store::{Kind, TestStore};

pub(crate) mod client;
pub(crate) mod dns;
mod lists;
pub(crate) mod live;
pub(crate) mod origin;
pub(crate) mod program;
pub(crate) mod script;
pub(crate) mod setting;
mod store;
pub(crate) mod until;

/// The admin key of every [`TestApp`].
pub(crate) const ADMIN_KEY: &str = "test-admin-key-of-the-default-workspace";
/// The start time of every [`TestApp`]: 2025-01-01T00:00:00.000Z.
pub(crate) const BEGIN: Millis = Millis(1_735_689_600_000);

/// The configuration from these environment variables and nothing else.
pub(crate) fn config(env: &[(&str, &str)]) -> Config {
    let env = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Config::load(&ConfigArgs::default(), &env, &|_| Err(io::ErrorKind::NotFound.into())).unwrap()
}

/// A server after its first start: the workspace `default` with the agent `echo` and the channels `demo` and
/// `demo-api`. Requests carry the admin key by default.
pub(crate) struct TestApp {
    pub(crate) app: App,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) store: TestStore,
    /// The directory of attachments.
    pub(crate) files: Arc<TempDir>,
    router: Router,
}

impl TestApp {
    /// A server on an empty store.
    pub(crate) async fn new() -> Self {
        Self::start(TestStore::new().await, &[]).await
    }

    /// A server on an empty store, with these environment variables.
    pub(crate) async fn with_env(env: &[(&str, &str)]) -> Self {
        Self::start(TestStore::new().await, env).await
    }

    /// A server on an empty store, with a client for models' endpoints, and allowed to reach the loopback address.
    pub(crate) async fn with_models() -> Self {
        Self::with_models_and(Traces::default()).await
    }

    /// The same, with these traces.
    pub(crate) async fn with_models_and(traces: Traces) -> Self {
        let models = Ports::from(Arc::new(OpenAi::new(Arc::new(SystemClock)).unwrap()));
        let env = [("TERTULIA_EGRESS_ALLOW", "127.0.0.0/8")];
        Self::behind(TestStore::new().await, |store| store, &env, Ports { traces, ..models }).await
    }

    /// A server on `store`, as after a restart.
    pub(crate) async fn start(store: impl Into<TestStore>, env: &[(&str, &str)]) -> Self {
        Self::behind(store.into(), |store| store, env, Ports::default()).await
    }

    /// The same, with these traces.
    pub(crate) async fn start_traced(store: TestStore, env: &[(&str, &str)], traces: Traces) -> Self {
        Self::behind(store, |store| store, env, Ports { traces, ..Ports::default() }).await
    }

    /// A server after its first start on an empty store, on a store that `wrap` makes of it and that may fail.
    pub(crate) async fn with_store<S: Store>(wrap: impl FnOnce(TestStore) -> S) -> Self {
        Self::behind(TestStore::new().await, wrap, &[], Ports::default()).await
    }

    /// The same in memory, whatever store the other tests use: with the clock paused, a moment of waiting for a disk
    /// would end every wait.
    pub(crate) async fn with_memory<S: Store>(wrap: impl FnOnce(TestStore) -> S) -> Self {
        Self::behind(MemoryStore::default().into(), wrap, &[], Ports::default()).await
    }

    /// The same on a store without faults, and the handle that makes some.
    pub(crate) async fn faulty() -> (Self, FaultyStore<TestStore>) {
        Self::on_faulty(TestStore::new().await).await
    }

    /// As [`TestApp::faulty`], and in memory as [`TestApp::with_memory`].
    pub(crate) async fn faulty_in_memory() -> (Self, FaultyStore<TestStore>) {
        Self::on_faulty(MemoryStore::default().into()).await
    }

    async fn on_faulty(store: TestStore) -> (Self, FaultyStore<TestStore>) {
        let mut handle = None;
        let wrap = |store| handle.insert(FaultyStore::new(store, 0, Rates::default())).clone();
        let app = Self::behind(store, wrap, &[], Ports::default()).await;
        (app, handle.unwrap())
    }

    async fn behind<S: Store>(
        store: TestStore,
        wrap: impl FnOnce(TestStore) -> S,
        env: &[(&str, &str)],
        ports: Ports,
    ) -> Self {
        let clock = Arc::new(ManualClock::at(BEGIN));
        let config = config(env);
        let directory = tempfile::tempdir().unwrap();
        let outside = ExternalClients {
            egress: Egress::new(config.egress_allow.clone(), &config.egress_name_servers).unwrap(),
            files: FileStore::directory(directory.path()).unwrap(),
        };
        let tools = Arc::new(AgentTools::new(clock.clone(), outside.egress.clone()));
        // Events are sent only in tests with a receiver.
        let deliverer: Arc<dyn Deliverer> = if env.iter().any(|(name, _)| *name == "TERTULIA_EGRESS_ALLOW") {
            Arc::new(Webhooks::new(outside.egress.clone(), clock.clone()))
        } else {
            Arc::clone(&ports.deliverer)
        };
        let ports = Ports { tools, deliverer, files: Arc::new(outside.files.clone()), ..ports };
        // Where servers know of each other, this node must not be one of them.
        let begin = if store.tells_of_others() { node_without_services } else { node };
        let first = begin(store.clone(), Arc::clone(&clock), ports.clone());
        let announce = |_: &str| -> io::Result<()> { unreachable!("the key is configured") };
        let pepper = bootstrap::run(&first, Some(ADMIN_KEY), announce).await.unwrap();
        let node = node(wrap(store.clone()), Arc::clone(&clock), ports);
        let app = App::new(node, pepper, outside, &config);
        Self { router: front::router(app.clone()), app, clock, store, files: Arc::new(directory) }
    }

    /// Also answers on a socket, until the returned handle is aborted.
    pub(crate) fn listen(&self, listener: TcpListener) -> AbortHandle {
        let serving = serve(listener, self.router.clone(), ServerOptions::default(), self.app.stopping());
        tokio::spawn(serving).abort_handle()
    }

    pub(crate) fn get(&self, path: impl Display) -> Request {
        self.request(Method::GET, path)
    }

    pub(crate) fn post(&self, path: impl Display) -> Request {
        self.request(Method::POST, path)
    }

    pub(crate) fn patch(&self, path: impl Display) -> Request {
        self.request(Method::PATCH, path)
    }

    /// Changes the agent that exists from the start.
    pub(crate) async fn echo(&self, body: Value) {
        self.patch("/api/v1/agents/echo").json(body).await.expect(200);
    }

    pub(crate) fn delete(&self, path: impl Display) -> Request {
        self.request(Method::DELETE, path)
    }

    /// A request with the admin key. It is sent when it is awaited.
    pub(crate) fn request(&self, method: Method, path: impl Display) -> Request {
        let mut request = http::Request::new(Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = path.to_string().parse().unwrap();
        Request { router: self.router.clone(), request }.key(ADMIN_KEY)
    }

    /// Creates a workspace and a key with all scopes in it; returns the key.
    pub(crate) async fn workspace(&self, id: &str) -> String {
        self.post("/api/v1/workspaces").json(json!({"id": id, "name": id})).await.expect(201);
        self.key(json!({"name": "all", "workspaceId": id, "scopes": ALL_SCOPES})).await
    }

    /// Creates a key of the workspace `default` with these scopes.
    pub(crate) async fn key_with(&self, scopes: &[&str]) -> String {
        self.key(json!({"name": scopes.join(" "), "scopes": scopes})).await
    }

    /// Creates the key that `body` describes; returns the secret.
    pub(crate) async fn key(&self, body: Value) -> String {
        let made = self.post("/api/v1/api-keys").json(body).await.expect(201);
        made["key"].as_str().unwrap().to_owned()
    }
}

impl TestApp {
    /// Everything stored of an entity, as far as it is text: its log, its state, its rows.
    pub(crate) async fn stored(&self, entity: EntityKey) -> String {
        let loaded = self.store.load(entity, ReadLevel::Settled).await.unwrap().unwrap();
        let log = self
            .store
            .read_log(entity, LogScan { range: SeqRange::ALL, order: Order::Asc, limit: 10_000 })
            .await
            .unwrap();
        let mut parts: Vec<_> = loaded.tail.into_iter().chain(log).map(|record| record.payload).collect();
        parts.extend(loaded.state);
        for table in (0..=u8::MAX).map(Table) {
            let rows =
                self.store.rows(entity, table, Scan::new(KeyRange::default(), Order::Asc, 10_000)).await.unwrap();
            parts.extend(rows.into_iter().map(|row| row.value));
        }
        parts.iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect()
    }
}

/// All scopes.
pub(crate) const ALL_SCOPES: [&str; 4] = ["messages:write", "messages:read", "reviews:respond", "admin"];

/// A node on `store`, as a process of its own: its random ids differ from those of every other node. Two nodes with the
/// same ids on one store would take each other's commits for their own.
pub(crate) fn node(store: impl Store, clock: Arc<ManualClock>, ports: Ports) -> Arc<Node> {
    Node::start(Arc::new(store), clock, entropy(), ports)
}

/// The same without background services.
fn node_without_services(store: impl Store, clock: Arc<ManualClock>, ports: Ports) -> Arc<Node> {
    Node::without_services(Arc::new(store), clock, entropy(), ports)
}

/// A different one each time.
fn entropy() -> Entropy {
    static NODES: AtomicU64 = AtomicU64::new(0);
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&NODES.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    Entropy::seeded(seed)
}

/// A request; await it to send it.
pub(crate) struct Request {
    router: Router,
    request: http::Request<Body>,
}

impl Request {
    /// Uses this key instead of the admin's.
    pub(crate) fn key(self, key: &str) -> Self {
        self.header("x-api-key", key)
    }

    /// Uses no key.
    pub(crate) fn no_key(mut self) -> Self {
        self.request.headers_mut().remove("x-api-key");
        self
    }

    /// Sets this header, replacing any of the same name.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.request.headers_mut().insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    /// Adds this header beside any of the same name.
    pub(crate) fn one_more_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.request.headers_mut().append(name, HeaderValue::from_static(value));
        self
    }

    /// Sets an idempotency key.
    pub(crate) fn idempotency_key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    /// Sets a JSON body.
    pub(crate) fn json(self, body: Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// Sets these bytes as the body.
    pub(crate) fn body(self, content_type: &str, body: impl Into<Body>) -> Self {
        let mut this = self.header("content-type", content_type);
        *this.request.body_mut() = body.into();
        this
    }

    /// Sets these bytes as the body, without a content type.
    pub(crate) fn bare_body(mut self, body: impl Into<Body>) -> Self {
        *self.request.body_mut() = body.into();
        self
    }

    /// Follows a log live; the answer must be a stream of events.
    pub(crate) async fn follow(self) -> live::Live {
        let request = self.header("accept", "text/event-stream");
        let response = request.router.oneshot(request.request).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        live::Live::open(response.into_body()).await
    }

    /// Sends it; returns the content type without reading the body, which may never end.
    pub(crate) async fn media_type(self) -> String {
        self.head().await["content-type"].to_str().unwrap().to_owned()
    }

    /// The same, with all headers.
    pub(crate) async fn head(self) -> HeaderMap {
        self.router.oneshot(self.request).await.unwrap().into_parts().0.headers
    }

    /// Sends it; returns the body, to be read as it arrives.
    pub(crate) async fn open(self) -> Body {
        self.router.oneshot(self.request).await.unwrap().into_body()
    }

    /// Sends it and reads the whole answer.
    pub(crate) async fn send(self) -> Answer {
        let shown = format!("{} {}", self.request.method(), self.request.uri());
        let response = self.router.oneshot(self.request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { request: shown, status: parts.status.as_u16(), headers: parts.headers, bytes, json }
    }
}

impl IntoFuture for Request {
    type Output = Answer;
    type IntoFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// A completely read answer.
#[derive(Debug)]
pub(crate) struct Answer {
    request: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
    /// `null` if the body is not JSON.
    pub(crate) json: Value,
}

impl Answer {
    /// The body of an answer that must have this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.request, String::from_utf8_lossy(&self.bytes));
        self.json
    }

    /// The body of a problem that must have this status and code.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, code: &str) -> Value {
        let shown = format!("{}: {}", self.request, String::from_utf8_lossy(&self.bytes));
        assert_eq!(self.header("content-type"), "application/problem+json", "{shown}");
        assert_eq!((self.status, self.json["code"].as_str()), (status, Some(code)), "{shown}");
        self.json
    }

    /// The faults of a 400, each as `code pointer`.
    #[track_caller]
    pub(crate) fn faults(self) -> Vec<String> {
        let body = self.expect(400);
        let text = |fault: &Value, name: &str| fault[name].as_str().unwrap().to_owned();
        let faults = body["errors"].as_array().expect("a 400 of the data names its faults");
        faults.iter().map(|fault| format!("{} {}", text(fault, "code"), text(fault, "pointer"))).collect()
    }

    /// A header's value; empty if it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}
