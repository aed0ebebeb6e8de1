use std::future::{pending, ready};
use std::io::ErrorKind;

use actors::agent::NoModels;
use actors::store::faulty::{FaultyStore, Rates};
use actors::store::memory::MemoryStore;
use actors::store::{Store, StoreError, Table};
use actors::{clock::ManualClock, id::EntityKey};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::bootstrap;
use crate::config::{CidrList, ConfigArgs, LogFormat};
use crate::egress::Egress;
use crate::files::FileStore;
use crate::telemetry::tests::Lines;

/// Any free ports, and a configured key, so that nothing is printed but the ready line.
fn config() -> Config {
    config_with("")
}

/// The same, whose numbers are sent to this receiver.
fn config_with(receiver: &str) -> Config {
    config_of(|name| (name == "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT").then(|| receiver.to_owned()))
}

/// The same, with these variables.
fn config_of(more: impl Fn(&str) -> Option<String>) -> Config {
    let env = |name: &str| match name {
        "TERTULIA_LISTEN" | "TERTULIA_METRICS_LISTEN" => Some("127.0.0.1:0".to_owned()),
        "TERTULIA_BOOTSTRAP_API_KEY" => Some("an-admin-key-of-more-than-32-characters".to_owned()),
        _ => more(name),
    };
    Config::load(&ConfigArgs::default(), &env, &|_| Err(ErrorKind::NotFound.into())).unwrap()
}

/// With a directory of its own for attachments.
fn outside(directory: &tempfile::TempDir) -> ExternalClients {
    ExternalClients {
        egress: Egress::new(CidrList::default(), &[]).unwrap(),
        files: FileStore::directory(directory.path()).unwrap(),
    }
}

/// What exports nothing.
fn telemetry() -> Telemetry {
    Telemetry::start(&config()).unwrap().0
}

fn node(store: &MemoryStore) -> Arc<Node> {
    let entropy = Entropy::seeded([3; 32]);
    Node::start(Arc::new(store.clone()), Arc::new(ManualClock::default()), entropy, Arc::new(NoModels))
}

/// How a server of this node ends.
async fn served(
    node: &Arc<Node>,
    asked: impl Future<Output = &'static str>,
    failure: mpsc::Receiver<String>,
) -> Result<Stopped, ServeError> {
    let config = config();
    let telemetry = telemetry();
    let early = Early::silent(&config, &telemetry).await?;
    let begin = Serving::begin(node, outside(&tempfile::tempdir().unwrap()), &config, early, &telemetry);
    live(node, begin, std::pin::pin!(asked), failure).await
}

#[tokio::test]
async fn a_server_of_a_cluster_warns_of_attachments_that_others_cannot_read() {
    for (place, warns) in [("directory", true), ("s3", false)] {
        let config = config_of(|name| match name {
            "TERTULIA_STORE" => Some("cql".to_owned()),
            // Nobody listens there.
            "TERTULIA_CQL_NODES" => Some("127.0.0.1:1".to_owned()),
            "TERTULIA_ATTACHMENTS" => Some(place.to_owned()),
            "TERTULIA_ATTACHMENTS_S3_BUCKET" => Some("files".to_owned()),
            _ => None,
        });
        let lines = Lines::default();
        let _logged = tracing::subscriber::set_default(lines.subscriber("warn", LogFormat::Text));
        let (failed, _failure) = mpsc::channel(1);
        let reached = start::store(&config, &telemetry(), ready("SIGTERM"), failed).await.unwrap();
        assert!(reached.is_none(), "it was asked to stop");
        let text = lines.text();
        assert_eq!(text.contains("attachments are kept in a directory of this machine"), warns, "{text}");
    }
}

#[tokio::test]
async fn a_server_that_is_asked_to_stop_closes_its_store_and_ends_well() {
    let store = MemoryStore::default();
    let (_failed, failure) = mpsc::channel(1);
    assert!(served(&node(&store), ready("SIGTERM"), failure).await.is_ok());
    let read = store.row(EntityKey::INSTALLATION, Table(35), Bytes::new()).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
}

#[tokio::test]
async fn a_store_that_fails_ends_the_server_with_its_reason() {
    let (failed, failure) = mpsc::channel(1);
    failed.try_send("no space left".to_owned()).unwrap();
    let served = served(&node(&MemoryStore::default()), pending(), failure).await;
    let Err(error) = served else { panic!("it ended well") };
    assert_eq!(error.to_string(), "the store failed: no space left");
}

#[tokio::test]
async fn the_last_numbers_of_a_server_whose_store_fails_are_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = config_with(&format!("http://{}/", listener.local_addr().unwrap()));
    let (came, mut exports) = mpsc::channel(1);
    let take = axum::Router::new().fallback(async move || _ = came.try_send(()));
    tokio::spawn(async move { axum::serve(listener, take).await });
    let node = node(&MemoryStore::default());
    let telemetry = Telemetry::start(&config).unwrap().0;
    let early = Early::silent(&config, &telemetry).await.unwrap();
    let outside = outside(&tempfile::tempdir().unwrap());
    let serving = Serving::begin(&node, outside, &config, early, &telemetry).await.unwrap();
    let (failed, failure) = mpsc::channel(1);
    failed.try_send("no space left".to_owned()).unwrap();
    assert!(serving.until(pending(), failure).await.is_err());
    assert!(exports.try_recv().is_ok(), "before it has ended");
}

#[tokio::test]
async fn a_server_runs_on_after_the_failure_channel_closes() {
    let (failed, failure) = mpsc::channel(1);
    drop(failed);
    let node = node(&MemoryStore::default());
    tokio::select! {
        biased;
        _ = served(&node, pending(), failure) => panic!("nobody asked it to stop"),
        () = async { while bootstrap::pepper(&node).await.ok().flatten().is_none() { tokio::task::yield_now().await } } => {}
    }
}

/// A store of several servers that no read comes back from.
fn lost() -> FaultyStore<MemoryStore> {
    let store = MemoryStore::default().shared();
    FaultyStore::new(store, 1, Rates { unread: 1_000, ..Rates::default() })
}

fn node_on(store: &FaultyStore<MemoryStore>) -> Arc<Node> {
    let entropy = Entropy::seeded([3; 32]);
    Node::start(Arc::new(store.clone()), Arc::new(ManualClock::default()), entropy, Arc::new(NoModels))
}

/// Completes once the installation was asked for in vain.
async fn asked_for(store: &FaultyStore<MemoryStore>) {
    while store.injected().unread == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_start_that_waits_for_its_installation_reports_itself_alive() {
    let store = lost();
    let config = config();
    let telemetry = telemetry();
    let node = node_on(&store);
    let early = Early::begin(&config, &telemetry).await.unwrap();
    let [address, metrics] = early.addresses();
    let outside = outside(&tempfile::tempdir().unwrap());
    let (_failed, failure) = mpsc::channel(1);
    let begin = Serving::begin(&node, outside, &config, early, &telemetry);
    let asked = async {
        asked_for(&store).await;
        let (status, body) = get(address, "/healthz").await;
        assert_eq!((status.as_str(), body.as_str()), ("200", r#"{"status":"ok"}"#));
        assert_eq!(get(address, "/readyz").await.0, "503");
        let (status, page) = get(metrics, "/metrics").await;
        let told =
            ["\ntertulia_up 0\n", "\ntokio_workers ", "\ntertulia_http_problems_total{code=\"store_unavailable\"} 1\n"];
        assert!(status == "200" && told.iter().all(|told| page.contains(told)), "{page}");
        store.calm();
        while get(address, "/readyz").await.0 != "200" {}
        let (_, page) = get(metrics, "/metrics").await;
        let alive = "_count{http_route=\"/healthz\",http_request_method=\"GET\",http_response_status_code=\"200\"} 1\n";
        assert!(page.contains("\ntertulia_up 1\n") && page.contains(alive), "what was counted counts on: {page}");
        "SIGTERM"
    };
    assert!(live(&node, begin, std::pin::pin!(asked), failure).await.is_ok());
}

#[tokio::test]
async fn a_start_that_waits_for_its_installation_ends_when_it_is_asked_to() {
    let store = lost();
    let (node, (_failed, failure)) = (node_on(&store), mpsc::channel(1));
    let begun = std::time::Instant::now();
    let asked = async {
        asked_for(&store).await;
        "SIGTERM"
    };
    assert!(served(&node, asked, failure).await.is_ok());
    assert!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
    let read = store.inner().row(EntityKey::INSTALLATION, Table(35), Bytes::new()).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "its store is closed: {read:?}");
}

#[tokio::test]
async fn a_store_that_fails_before_the_server_is_ready_ends_it_with_its_reason() {
    let store = lost();
    let (node, (failed, failure)) = (node_on(&store), mpsc::channel(1));
    failed.try_send("no space left".to_owned()).unwrap();
    let Err(error) = served(&node, pending(), failure).await else { panic!("it ended well") };
    assert_eq!(error.to_string(), "the store failed: no space left");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_or_is_given_up_waits_a_second_for_what_it_has_begun() {
    for fails in [false, true] {
        let (_failed, failure) = mpsc::channel(1);
        // Of each commit it tells after a minute.
        let store = FaultyStore::new(MemoryStore::default(), 1, Rates::default()).slow(Duration::from_secs(60));
        let node = node_on(&store);
        let made = Arc::clone(&node);
        let making = tokio::spawn(async move { bootstrap::run(&made, None, |_| Ok(())).await.is_ok() });
        tokio::time::sleep(Duration::from_millis(1)).await;
        let begun = Instant::now();
        let begin =
            async { if fails { Err(ServeError::StoreFailed("as it is told".to_owned())) } else { pending().await } };
        let asked = async { if fails { pending().await } else { "SIGTERM" } };
        assert_eq!(live(&node, begin, std::pin::pin!(asked), failure).await.is_err(), fails);
        let took = begun.elapsed();
        assert!(
            (DRAIN_BY_BEFORE_START..DRAIN_BY_BEFORE_START + Duration::from_millis(500)).contains(&took),
            "{fails}: {took:?}"
        );
        let read = store.inner().row(EntityKey::INSTALLATION, Table(35), Bytes::new()).await;
        assert!(matches!(read, Err(StoreError::Unavailable(_))), "its store is closed: {read:?}");
        making.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn an_early_client_that_reads_nothing_delays_the_start_by_a_second() {
    let early = Early::begin(&config(), &telemetry()).await.unwrap();
    let mut slow = TcpStream::connect(early.addresses()[0]).await.unwrap();
    let requests = "GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n".repeat(100);
    let asking = async {
        loop {
            slow.write_all(requests.as_bytes()).await.unwrap();
        }
    };
    let stuck = timeout_at(Instant::now() + Duration::from_millis(100), asking).await;
    assert!(stuck.is_err(), "what it does not take stands in its way");
    let begun = Instant::now();
    early.end().await;
    let took = begun.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_millis(1_500)).contains(&took), "{took:?}");
}

/// Status and body.
async fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].to_owned(), body.to_owned())
}
