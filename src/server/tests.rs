use std::net::SocketAddr;

use actors::clock::Entropy;
use actors::trace::Traces;
use actors::trace::recording_tracer::RecordingTracer;
use axum::Extension;
use axum::routing::{get, post};
use futures_util::future::join_all;
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::config::LogFormat;
use crate::http::context::{ContextLayer, RequestTelemetry};
use crate::metrics::page::{Format, Page};
use crate::telemetry::sampling::Sampling;
use crate::telemetry::tests::{Lines, config};

/// A server on a port of its own, with a route that waits until it is told to answer.
struct Running {
    address: SocketAddr,
    entered: Arc<Notify>,
    answer: Arc<Notify>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Drained>,
}

async fn start(options: ServerOptions) -> Running {
    start_with(options, |router| router).await
}

/// The same with something around its routes.
async fn start_with(options: ServerOptions, around: impl FnOnce(Router) -> Router) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let entered = Arc::new(Notify::new());
    let answer = Arc::new(Notify::new());
    let entered_inside = Arc::clone(&entered);
    let answer_inside = Arc::clone(&answer);
    let router = Router::new().route("/ok", get(async || "ok")).route("/echo", post(async |body: String| body)).route(
        "/slow",
        get(move || async move {
            entered_inside.notify_one();
            answer_inside.notified().await;
            "slow"
        }),
    );
    let router = router.fallback(async |unreadable: Option<Extension<Unreadable>>| {
        unreadable.map_or((StatusCode::NOT_FOUND, ""), |Extension(refused)| (refused.status, "no HTTP"))
    });
    let (stop, stopped) = oneshot::channel();
    let ended = tokio::spawn(serve(listener, around(router), options, async move {
        let _ = stopped.await;
    }));
    Running { address, entered, answer, stop, ended }
}

async fn send(address: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Everything until the server closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut all = Vec::new();
    // A reset after the answer is a close too.
    let _ = stream.read_to_end(&mut all).await;
    String::from_utf8(all).unwrap()
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn clients_that_come_at_once_find_a_place_before_any_is_accepted() {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    // One that finds none is told nothing and comes again after a second, and then after two.
    let came = join_all((0..300).map(|_| TcpStream::connect(address)));
    let came = timeout(Duration::from_secs(20), came).await.unwrap();
    assert!(came.iter().all(Result::is_ok), "{came:?}");
}

#[tokio::test]
async fn a_request_is_answered_and_so_is_the_next_on_the_same_connection() {
    let server = start(ServerOptions::default()).await;
    let first = "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nping";
    let answers = rest(send(server.address, &format!("{first}{}", request("/ok"))).await).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    assert!(answers.contains("ping") && answers.ends_with("ok"), "{answers}");
}

#[tokio::test]
async fn a_client_that_is_refused_in_the_middle_of_its_sending_sees_the_answer() {
    let server = start(ServerOptions::default()).await;
    for path in ["/ok", "/echo"] {
        // Far more than what sockets hold, so an unread rest would break the connection while this writes.
        let mut stream =
            send(server.address, &format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 33554432\r\n\r\n")).await;
        let chunk = vec![b'x'; 1024 * 1024];
        for _ in 0..32 {
            stream.write_all(&chunk).await.unwrap();
        }
        stream.write_all(request("/ok").as_bytes()).await.unwrap();
        let answers = rest(stream).await;
        assert!(answers.starts_with("HTTP/1.1 4") && answers.ends_with("ok"), "{answers}");
    }
    // Who was told to go on is one that sends, too.
    let asking = "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 33554432\r\nExpect: 100-continue\r\n\r\n";
    let mut stream = send(server.address, asking).await;
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    for _ in 0..32 {
        stream.write_all(&vec![b'x'; 1024 * 1024]).await.unwrap();
    }
    stream.write_all(request("/ok").as_bytes()).await.unwrap();
    let answers = rest(stream).await;
    assert!(answers.starts_with("HTTP/1.1 413") && answers.ends_with("ok"), "{answers}");
    let waiting = "POST /ok HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    let answer = rest(send(server.address, waiting).await).await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
}

#[tokio::test]
async fn only_unreadable_requests_get_the_routers_explanation() {
    let server = start(ServerOptions::default()).await;
    let long = format!("GET / HTTP/1.1\r\nX-Long: {}\r\n\r\n", "x".repeat(HEADER_BYTES));
    for (sent, status) in [
        ("GET /ok HTTP/1.1\r\nContent-Length: ten\r\n\r\n", "400 Bad Request"),
        ("GET /ok HTTP/1.1\r\nHost: t\r\nno colon\r\n\r\n", "400 Bad Request"),
        ("\u{16}\u{3}\u{1}\r\n\r\n", "400 Bad Request"),
        (&long, "431 Request Header Fields Too Large"),
    ] {
        let answer = rest(send(server.address, sent).await).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        assert!(
            answer.contains("\r\nconnection: close\r\ncontent-length: 7\r\n") && answer.ends_with("\r\n\r\nno HTTP"),
            "{answer}"
        );
        // Behind an answer to a request too, whichever version it was of.
        for before in ["HTTP/1.1\r\nHost: t", "HTTP/1.0\r\nConnection: keep-alive"] {
            let mut stream = send(server.address, &format!("GET /ok {before}\r\n\r\n")).await;
            let mut first = [0; 12];
            stream.read_exact(&mut first).await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            let answers = rest(stream).await;
            assert!(answers.ends_with("no HTTP"), "{before}: {answers}");
        }
    }
    // A body that looks like such a head is what it is.
    let bare = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: Thu\r\n\r\n";
    let echo =
        format!("POST /echo HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{bare}", bare.len());
    assert!(rest(send(server.address, &echo).await).await.ends_with(bare));
}

/// The next request is answered.
#[tokio::test]
async fn a_transfer_coding_other_than_chunked_is_refused() {
    let server = start(ServerOptions::default()).await;
    for (codings, status) in [
        ("Transfer-Encoding: chunked\r\n", "200 OK"),
        ("Transfer-Encoding: Chunked\r\n", "200 OK"),
        ("Transfer-Encoding: gzip, chunked\r\n", "400 Bad Request"),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", "400 Bad Request"),
    ] {
        let head = format!("POST /echo HTTP/1.1\r\nHost: t\r\n{codings}\r\n");
        let sent = format!("{head}4\r\nping\r\n0\r\n\r\n{}", request("/ok"));
        let answers = rest(send(server.address, &sent).await).await;
        assert!(answers.starts_with(&format!("HTTP/1.1 {status}")), "{sent}: {answers}");
        assert!(answers.ends_with("ok"), "{answers}");
    }
}

#[tokio::test]
async fn a_request_names_one_host_or_is_refused_and_the_next_is_answered() {
    let server = start(ServerOptions::default()).await;
    for (head, status) in [
        ("HTTP/1.1\r\n", "400 Bad Request"),
        ("HTTP/1.1\r\nHost: t\r\nhost: t\r\n", "400 Bad Request"),
        ("HTTP/1.0\r\nHost: t\r\nHost: u\r\nConnection: keep-alive\r\n", "400 Bad Request"),
        ("HTTP/1.1\r\nHost: a b\r\n", "400 Bad Request"),
        ("HTTP/1.1\r\nHost: a/b\r\n", "400 Bad Request"),
        ("HTTP/1.1\r\nHost: ana@t\r\n", "400 Bad Request"),
        ("HTTP/1.1\r\nHost: t:80x\r\n", "400 Bad Request"),
        ("HTTP/1.1\r\nHost: [::1\r\n", "400 Bad Request"),
        ("HTTP/1.1\r\nHost: [::1]80\r\n", "400 Bad Request"),
        ("HTTP/1.0\r\nHost: a b\r\nConnection: keep-alive\r\n", "400 Bad Request"),
        ("HTTP/1.1\r\nHost: a_b.example:8080\r\n", "200 OK"),
        ("HTTP/1.1\r\nHost: [::1]:80\r\n", "200 OK"),
        ("HTTP/1.1\r\nHost: t:\r\n", "200 OK"),
        ("HTTP/1.1\r\nHost:\r\n", "200 OK"),
        ("HTTP/1.0\r\nConnection: keep-alive\r\n", "200 OK"),
    ] {
        for (method, path) in [("GET", "/ok"), ("POST", "/echo")] {
            let sent = format!("{method} {path} {head}Content-Length: 4\r\n\r\nping{}", request("/ok"));
            let answers = rest(send(server.address, &sent).await).await;
            assert_eq!(answers.split("\r\n").next().unwrap().split_once(' ').unwrap().1, status, "{sent}: {answers}");
            assert_eq!(answers.contains("no HTTP"), status.starts_with('4'), "{answers}");
            assert!(answers.ends_with("ok"), "{answers}");
        }
    }
}

#[tokio::test]
async fn a_shutdown_lets_a_running_request_end_and_accepts_no_other() {
    let server = start(ServerOptions::default()).await;
    let running = send(server.address, &request("/slow")).await;
    server.entered.notified().await;
    server.stop.send(()).unwrap();
    // Refused once the listener is closed; until then the backlog may take it.
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    server.answer.notify_one();
    assert!(rest(running).await.ends_with("slow"));
    assert_eq!(server.ended.await.unwrap(), Drained { cut_off: 0 });
}

#[tokio::test]
async fn a_shutdown_closes_idle_connections_at_once() {
    // Longer than the drain, so that it is not the timeout that closes the connection.
    let header_read_timeout = Duration::from_secs(3600);
    let server = start(ServerOptions { header_read_timeout, ..ServerOptions::default() }).await;
    let mut idle = send(server.address, "GET /ok HTTP/1.1\r\nHost: t\r\n\r\n").await;
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    server.stop.send(()).unwrap();
    assert!(rest(idle).await.ends_with("ok"));
    assert_eq!(server.ended.await.unwrap(), Drained { cut_off: 0 });
}

#[tokio::test]
async fn a_request_that_outlasts_the_shutdown_is_cut_off() {
    let server = start(ServerOptions { drain: Duration::ZERO, ..ServerOptions::default() }).await;
    let running = send(server.address, &request("/slow")).await;
    server.entered.notified().await;
    server.stop.send(()).unwrap();
    assert_eq!(server.ended.await.unwrap(), Drained { cut_off: 1 });
    assert_eq!(rest(running).await, "");
}

#[tokio::test]
async fn a_request_that_is_cut_off_is_not_recorded_as_a_client_that_left() {
    let kept = Arc::new(RecordingTracer::default());
    let config =
        config(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318"), ("OTEL_TRACES_SAMPLER", "always_off")]);
    let request_telemetry = Arc::new(RequestTelemetry::new(Sampling::new(&config), Traces::to(kept.clone())));
    let layer = ContextLayer::new(Arc::new(Entropy::seeded([7; 32])), Arc::clone(&request_telemetry));
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.subscriber("warn", LogFormat::Json));
    let server =
        start_with(ServerOptions { drain: Duration::ZERO, ..ServerOptions::default() }, |router| router.layer(layer));
    let server = server.await;
    let running = send(server.address, &request("/slow")).await;
    server.entered.notified().await;
    server.stop.send(()).unwrap();
    assert_eq!(server.ended.await.unwrap().cut_off, 1);
    drop(running);
    let [span] = &kept.spans()[..] else { panic!("one span, of what was cut off: {:?}", kept.spans()) };
    assert_eq!(span.error.as_deref(), Some("stopping"));
    assert!(span.attributes.contains(&("tertulia.kept", "error".into())), "{span:?}");
    let text = lines.text();
    let told = text.lines().find(|line| line.contains("\"message\":\"request\"")).expect("it has a line");
    assert!(told.contains("\"error.type\":\"stopping\"") && told.contains("WARN"), "{told}");
    let mut page = Page::new(Format::Text);
    request_telemetry.metrics().write(&mut page);
    let text = page.finish();
    let one = "_count{http_route=\"/slow\",http_request_method=\"GET\",error_type=\"stopping\"} 1\n";
    assert!(text.contains(one) && !text.contains("client_left"), "{text}");
}

#[tokio::test]
async fn a_connection_above_the_cap_waits_until_one_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server {
        http: http(Duration::from_secs(1)),
        reader_timeout: Duration::MAX,
        router: Router::new(),
        places: Arc::new(Semaphore::new(1)),
        ending: Ending::default(),
    };
    let _clients = [
        TcpStream::connect(address).await.unwrap(),
        TcpStream::connect(address).await.unwrap(),
        TcpStream::connect(address).await.unwrap(),
    ];
    let (_, place) = server.accept(&listener).await;
    let mut waiting = std::pin::pin!(server.accept(&listener));
    // The listener itself has more to give, so what waits, waits for the place.
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("a second connection was accepted"),
        more = listener.accept() => drop(more.unwrap()),
    }
    drop(place);
    drop(waiting.await);
}

#[tokio::test]
async fn a_head_that_never_ends_is_given_up() {
    let options = ServerOptions { header_read_timeout: Duration::from_millis(1), ..ServerOptions::default() };
    let server = start(options).await;
    let answer = rest(send(server.address, "GET /ok HTTP/1.1\r\nHost: t\r\nX-Slow: ").await).await;
    assert!(!answer.contains("200 OK"), "{answer}");
}

#[tokio::test]
async fn a_head_above_the_bound_is_refused() {
    let server = start(ServerOptions::default()).await;
    let long = "x".repeat(HEADER_BYTES);
    let stream = send(server.address, &format!("GET /ok HTTP/1.1\r\nHost: t\r\nX-Long: {long}\r\n\r\n")).await;
    // The server closes with bytes of the head unread, so its 431 may be lost on the way.
    let answer = rest(stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[test]
fn only_errors_of_one_connection_are_tried_again_at_once() {
    assert!(is_of_one_connection(&io::ErrorKind::ConnectionAborted.into()));
    // EMFILE: trying again at once would spin.
    assert!(!is_of_one_connection(&io::Error::from_raw_os_error(24)));
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off_and_gives_its_place_to_the_next() {
    let reader_timeout = Duration::from_millis(50);
    let options = ServerOptions { max_connections: 1, reader_timeout, ..ServerOptions::default() };
    let server = start(options).await;
    let much = "x".repeat(1024);
    // Requests without end, whose answers nobody reads: at some point the server cannot send, and does not read on.
    let mut deaf = TcpStream::connect(server.address).await.unwrap();
    let request_of = format!("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{much}", much.len());
    let (mut reader, mut writer) = deaf.split();
    while writer.write_all(request_of.as_bytes()).await.is_ok() {}
    assert!(rest(send(server.address, &request("/ok")).await).await.ends_with("ok"));
    // What had been sent may still be there, and then the connection is over.
    while matches!(reader.read(&mut [0; 4096]).await, Ok(read) if read > 0) {}
}
