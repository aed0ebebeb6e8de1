//! Files that contacts send by URL: fetched before the message is accepted, over real sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::attachments::files_below;
use crate::egress::notations;
use crate::support::dns::Dns;
use crate::support::origin::{Heard, Origin, Part, bare, ok};
use crate::support::until::until;
use crate::support::{Answer, Request, TestApp};

mod alike;
#[cfg(target_os = "linux")]
mod memory;

/// The largest file.
const MAX_BYTES: u64 = 10 * 1024 * 1024;
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR and so on";

async fn app() -> TestApp {
    TestApp::with_env(&[("TERTULIA_EGRESS_ALLOW", "127.0.0.0/8")]).await
}

fn image(url: &str) -> Value {
    json!({"type": "IMAGE", "contactIdentifier": "ana", "content": {"image": {"url": url, "caption": "look"}}})
}

fn send(app: &TestApp, body: Value) -> Request {
    app.post("/api/v1/channels/demo-api/messages").json(body)
}

/// A chunked picture of this size.
fn picture(size: u64) -> Vec<Part> {
    let mut head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    head.extend(format!("{:x}\r\n", PNG.len()).bytes());
    head.extend(PNG);
    head.extend(b"\r\n");
    vec![Part::Bytes(head), Part::Zeros(size - PNG.len() as u64)]
}

/// Checks that nothing was stored: no contact, no conversation, no attachment.
async fn nothing_was_stored(app: &TestApp) {
    for list in ["contacts", "conversations"] {
        let listed = app.get(format!("/api/v1/{list}")).await.expect(200);
        assert_eq!(listed["data"], json!([]), "{list}");
    }
    until(|| files_below(app.files.path()).is_empty()).await;
}

#[tokio::test]
async fn every_kind_of_file_becomes_an_attachment_of_its_message() {
    let answers = |heard: &Heard| match heard.path() {
        "/a/photo.png?x=1" => ok("image/png", PNG),
        "/song" => ok("audio/mpeg", b"ID3\x03\0\0\0\0\0\0"),
        "/film.mp4" => ok("video/mp4", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"),
        "/report" => ok("text/csv; charset=utf-8", b"a,b\n1,2\n"),
        path => unreachable!("{path}"),
    };
    let origin = Origin::serve(answers).await;
    let app = app().await;
    for (kind, content, filename, mime_type, said) in [
        (
            "IMAGE",
            json!({"image": {"url": origin.url("/a/photo.png?x=1"), "caption": "a photo"}}),
            "photo.png",
            "image/png",
            "a photo",
        ),
        ("AUDIO", json!({"audio": {"url": origin.url("/song")}}), "song", "audio/mpeg", "song"),
        ("VIDEO", json!({"video": {"url": origin.url("/film.mp4")}}), "film.mp4", "video/mp4", "film.mp4"),
        (
            "DOCUMENT",
            json!({"document": {"url": origin.url("/report"), "filename": "../r.csv", "caption": "numbers"}}),
            "r.csv",
            "text/csv; charset=utf-8",
            "numbers",
        ),
    ] {
        let body = json!({"type": kind, "contactIdentifier": "ana", "content": content});
        let sent = send(&app, body).await.expect(200);
        assert_eq!(sent["aiMessages"][0]["content"]["text"]["body"], json!(said), "the agent knows of it");
        let path = format!("/api/v1/messages/{}", sent["messageId"].as_str().unwrap());
        let message = app.get(path).await.expect(200);
        let file = &message["attachments"][0];
        let shown = app.get(format!("/api/v1/attachments/{}", file["id"].as_str().unwrap())).await.expect(200);
        assert_eq!(shown["messageId"], sent["messageId"]);
        assert_eq!((&shown["filename"], &shown["mimeType"]), (&json!(filename), &json!(mime_type)), "{kind}");
        let bytes = app.get(format!("/api/v1/attachments/{}/content", file["id"].as_str().unwrap())).await.bytes;
        assert_eq!(json!(bytes.len()), shown["size"]);
    }
    assert!(origin.requests().iter().all(|heard| heard.line.starts_with("GET ")));
    let listed = app.get("/api/v1/conversations").await.expect(200);
    let path = format!("/api/v1/messages?conversationId={}", listed["data"][0]["id"].as_str().unwrap());
    let with_files = app.get(format!("{path}&hasAttachments=true")).await.expect(200);
    assert_eq!(with_files["data"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn the_largest_file_passes_and_one_byte_more_does_not() {
    let origin = Origin::serve(|heard| match heard.path() {
        "/fits" => picture(MAX_BYTES),
        "/one-more" => picture(MAX_BYTES + 1),
        "/endless" => picture(u64::MAX),
        "/no-picture" => {
            let head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n";
            vec![Part::Bytes(head.to_vec()), Part::Zeros(MAX_BYTES + 1)]
        }
        "/says-so" => {
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: {}\r\n\r\n", MAX_BYTES + 1);
            vec![Part::Bytes([head.as_bytes(), PNG].concat()), Part::Silence]
        }
        path => unreachable!("{path}"),
    })
    .await;
    let app = app().await;
    for path in ["/one-more", "/endless", "/no-picture", "/says-so"] {
        let refused = send(&app, image(&origin.url(path))).await;
        assert_eq!(refused.json["success"], json!(false));
        assert_eq!(refused.faults(), ["media_too_large /content/image/url"], "{path}");
    }
    nothing_was_stored(&app).await;
    let sent = send(&app, image(&origin.url("/fits"))).await.expect(200);
    let message = app.get(format!("/api/v1/messages/{}", sent["messageId"].as_str().unwrap())).await.expect(200);
    assert_eq!(message["attachments"][0]["size"], json!(MAX_BYTES));
}

#[tokio::test]
async fn a_document_may_be_of_an_unknown_format_and_is_only_downloaded() {
    let zeros = |media_type: &str, size| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nTransfer-Encoding: chunked\r\n\r\n");
        vec![Part::Bytes(head.into_bytes()), Part::Zeros(size)]
    };
    let origin = Origin::serve(move |heard| match heard.path() {
        "/fits" => zeros("application/octet-stream", MAX_BYTES),
        "/one-more" => zeros("application/octet-stream", MAX_BYTES + 1),
        "/no-pdf" => zeros("application/pdf", 100),
        "/packed.zip" => ok("application/zip", b"PK\x03\x04\x14\0\0\0\0\0"),
        path => unreachable!("{path}"),
    })
    .await;
    let app = app().await;
    let document = |path: &str| json!({"type": "DOCUMENT", "contactIdentifier": "ana", "content": {"document": {"url": origin.url(path)}}});
    for (path, code) in [("/one-more", "media_too_large"), ("/no-pdf", "media_type_mismatch")] {
        let refused = send(&app, document(path)).await;
        assert_eq!(refused.faults(), [format!("{code} /content/document/url")], "{path}");
    }
    nothing_was_stored(&app).await;
    for (path, mime_type, size) in
        [("/fits", "application/octet-stream", MAX_BYTES), ("/packed.zip", "application/zip", 10)]
    {
        let sent = send(&app, document(path)).await.expect(200);
        let message = app.get(format!("/api/v1/messages/{}", sent["messageId"].as_str().unwrap())).await.expect(200);
        let file = format!("/api/v1/attachments/{}", message["attachments"][0]["id"].as_str().unwrap());
        let shown = app.get(&file).await.expect(200);
        assert_eq!((&shown["mimeType"], &shown["size"]), (&json!(mime_type), &json!(size)), "{path}");
        let content = app.get(format!("{file}/content")).await;
        assert_eq!((content.header("content-type"), content.header("x-content-type-options")), (mime_type, "nosniff"));
        assert!(content.header("content-disposition").starts_with("attachment"), "{path}");
    }
}

#[tokio::test]
async fn a_message_with_a_file_that_waits_for_room_has_its_file() {
    let origin = Origin::serve(|_| ok("image/png", PNG)).await;
    let app = app().await;
    app.echo(json!({"builtin": {"latencyMs": 200}})).await;
    let text = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "hello"}}});
    let fill =
        (0..=actors::limits::QUEUED_TURNS).map(|_| send(&app, text.clone()).header("prefer", "respond-async").send());
    for answer in futures_util::future::join_all(fill).await {
        answer.expect(202);
    }
    let sent = send(&app, image(&origin.url("/a.png"))).header("prefer", "wait=1").await.expect(202);
    let message = app.get(format!("/api/v1/messages/{}", sent["messageId"].as_str().unwrap())).await.expect(200);
    let file = format!("/api/v1/attachments/{}", message["attachments"][0]["id"].as_str().unwrap());
    assert_eq!(app.get(file).await.expect(200)["messageId"], sent["messageId"]);
}

#[tokio::test]
async fn media_that_cannot_be_fetched_is_refused_and_stores_nothing() {
    let canary = Origin::canary("::1".parse().unwrap()).await;
    let inside = format!("http://[::1]:{}/", canary.address.port());
    let origin = Origin::serve(move |heard| match heard.path() {
        "/missing" => bare(404, ""),
        "/broken" => bare(500, ""),
        "/nothing" => bare(204, ""),
        "/empty" => ok("image/png", b""),
        "/part" => {
            let head = format!("HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\n\r\n", PNG.len());
            vec![Part::Bytes([head.as_bytes(), PNG].concat())]
        }
        "/closes" => vec![Part::Close],
        "/says-more-than-comes" => {
            let head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 50000\r\n\r\n";
            vec![Part::Bytes([&head[..], PNG].concat()), Part::Close]
        }
        "/page" => ok("image/png", b"<html><body>Log in</body></html>"),
        "/sound" => ok("image/png", b"ID3\x03\0\0\0\0\0\0"),
        "/packed" => ok("image/png", b"\x1f\x8b\x08\0\0\0\0\0\0\x03"),
        "/into-the-inside" => bare(302, &format!("Location: {inside}\r\n")),
        "/into-another-scheme" => bare(302, "Location: file:///etc/passwd\r\n"),
        "/round" => bare(302, "Location: /round\r\n"),
        path => unreachable!("{path}"),
    })
    .await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let app = app().await;
    let unreachable = "media_unreachable";
    let mismatch = "media_type_mismatch";
    let blocked = "blocked_url";
    for (url, code) in [
        (origin.url("/missing"), unreachable),
        (origin.url("/broken"), unreachable),
        (origin.url("/closes"), unreachable),
        (origin.url("/says-more-than-comes"), unreachable),
        (origin.url("/round"), unreachable),
        (origin.url("/part"), unreachable),
        (origin.url("/nothing"), unreachable),
        (origin.url("/empty"), unreachable),
        (format!("http://{closed}/"), unreachable),
        (origin.url("/page"), mismatch),
        (origin.url("/sound"), mismatch),
        (origin.url("/packed"), mismatch),
        (origin.url("/into-the-inside"), blocked),
        (origin.url("/into-another-scheme"), blocked),
    ] {
        let refused = send(&app, image(&url)).idempotency_key("k").await;
        assert_eq!(refused.json["success"], json!(false), "{url}");
        assert_eq!(refused.faults(), [format!("{code} /content/image/url")], "{url}");
    }
    assert_eq!(canary.connections(), 0);
    nothing_was_stored(&app).await;
    // The refused requests have not used up the key.
    let text = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "hello"}}});
    send(&app, text).idempotency_key("k").await.expect(200);
}

#[tokio::test]
async fn no_url_of_the_table_opens_a_connection() {
    let canary = Origin::canary("127.0.0.1".parse().unwrap()).await;
    let dns = Dns::serve(|_| vec!["127.0.0.1".parse().unwrap(), "8.8.8.8".parse().unwrap()]).await;
    let app = TestApp::with_env(&[("TERTULIA_EGRESS_DNS", &dns.address.to_string())]).await;
    let port = canary.address.port();
    let literal = notations::PRIVATE_V4.iter().flat_map(|ip| notations::of_v4(*ip));
    let literal = literal.chain(notations::PRIVATE_V6.iter().map(|ip| format!("[{ip}]")));
    let named = notations::LOCAL_NAMES.iter().map(|name| (*name).to_owned());
    let urls = literal.chain(named).chain(["rebinding.example.com".to_owned()]);
    let urls = urls.map(|host| format!("http://{host}:{port}/x"));
    let urls: Vec<String> =
        urls.chain(notations::TRICKS.iter().map(|url| url.replace("PORT", &port.to_string()))).collect();
    assert!(urls.len() > 400, "{}", urls.len());
    for url in &urls {
        let refused = send(&app, image(url)).await.faults();
        let code = refused[0].split(' ').next().unwrap();
        assert!(matches!(code, "blocked_url" | "invalid_url"), "{url}: {refused:?}");
        let callback = json!({"channelId": "demo", "text": "x", "webhookUrl": url});
        let accepted = app.post("/api/v1/messages").json(callback).await;
        assert!(accepted.status == 400 || url.contains("example.com:"), "{url}");
    }
    assert_eq!(canary.connections(), 0);
    nothing_was_stored(&app).await;
}

#[tokio::test]
async fn a_retry_fetches_nothing_again_and_duplicates_that_race_fetch_once() {
    let fetched = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetched);
    let origin = Origin::serve(move |_| {
        // The content changes with each request.
        let nth = count.fetch_add(1, Ordering::SeqCst);
        ok("image/png", &[PNG, &[u8::try_from(nth).unwrap()]].concat())
    })
    .await;
    let app = app().await;
    let url = origin.url("/p.png");
    let racing = stream::iter((0..10).map(|_| send(&app, image(&url)).idempotency_key("k").send()));
    let answers: Vec<Answer> = racing.buffered(10).collect().await;
    let first = answers[0].bytes.clone();
    for answer in answers {
        assert_eq!((answer.status, &answer.bytes), (200, &first), "{answer:?}");
    }
    let again = send(&app, image(&url)).idempotency_key("k").await;
    assert_eq!((again.header("idempotent-replayed"), &again.bytes), ("true", &first));
    assert_eq!(fetched.load(Ordering::SeqCst), 1);
    send(&app, image(&origin.url("/other.png"))).idempotency_key("k").await.problem(422, "idempotency_key_reused");
    assert_eq!(fetched.load(Ordering::SeqCst), 1);
    assert_eq!(files_below(app.files.path()).len(), 1);
}

#[tokio::test]
async fn a_request_refused_for_another_reason_fetches_no_file() {
    let origin = Origin::serve(|_| ok("image/png", PNG)).await;
    let app = app().await;
    let url = origin.url("/p.png");
    let bare = json!({"id": "quiet", "name": "q", "kind": "api", "agentId": "echo", "enabled": false});
    app.post("/api/v1/channels").json(bare).await.expect(201);
    let to = |channel: &str| app.post(format!("/api/v1/channels/{channel}/messages")).json(image(&url));
    to("nowhere").await.problem(404, "channel_not_found");
    to("quiet").await.problem(409, "channel_disabled");
    let mut wrong = image(&url);
    wrong["contactIdentifier"] = json!("");
    send(&app, wrong).await.problem(400, "required");
    let reader = app.key_with(&["messages:read"]).await;
    send(&app, image(&url)).key(&reader).await.problem(403, "insufficient_scope");
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn changes_made_during_a_fetch_count() {
    let app = app().await;
    let key = app.post("/api/v1/api-keys").json(json!({"name": "k", "scopes": ["messages:write"]})).await.expect(201);
    let text = |member: &str| key[member].as_str().unwrap().to_owned();
    let channel = |id: &str| json!({"id": id, "name": "c", "kind": "api", "agentId": "echo"});
    for id in ["disabled", "deleted"] {
        app.post("/api/v1/channels").json(channel(id)).await.expect(201);
    }
    let of = |id: &str| format!("/api/v1/channels/{id}");
    for (to, change, status, code) in [
        ("disabled", app.patch(of("disabled")).json(json!({"enabled": false})), 409, "channel_disabled"),
        ("deleted", app.delete(of("deleted")), 404, "channel_not_found"),
        ("demo-api", app.delete(format!("/api/v1/api-keys/{}", text("id"))), 401, "unauthenticated"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/p.png", listener.local_addr().unwrap());
        let sending = app.post(format!("{}/messages", of(to))).json(image(&url)).key(&text("key")).send();
        let holding = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
            assert!(change.await.status < 300, "{to}");
            for part in ok("image/png", PNG) {
                let Part::Bytes(bytes) = part else { unreachable!() };
                stream.write_all(&bytes).await.unwrap();
            }
        };
        let (answer, ()) = tokio::join!(sending, holding);
        answer.problem(status, code);
    }
    nothing_was_stored(&app).await;
}

#[tokio::test]
async fn three_redirects_are_followed_to_the_file() {
    let origin = Origin::serve(|heard| match heard.path() {
        "/0" => ok("image/png", PNG),
        path => {
            let left: u32 = path[1..].parse().unwrap();
            bare(302, &format!("Location: /{}\r\n", left - 1))
        }
    })
    .await;
    let app = app().await;
    send(&app, image(&origin.url("/3"))).await.expect(200);
    assert_eq!(send(&app, image(&origin.url("/4"))).await.faults(), ["media_unreachable /content/image/url"]);
}

#[tokio::test]
async fn the_url_of_a_file_may_be_as_long_as_those_that_object_stores_sign() {
    let origin = Origin::serve(|_| ok("image/png", PNG)).await;
    let app = app().await;
    let url = origin.url("/p.png?signature=");
    let long = |chars: usize| format!("{url}{}", "x".repeat(chars - url.len()));
    send(&app, image(&long(8_192))).await.expect(200);
    assert_eq!(send(&app, image(&long(8_193))).await.faults(), ["invalid_url /content/image/url"]);
    assert_eq!(origin.requests().len(), 1);
}

/// Takes half a minute of real time, almost without work.
#[tokio::test]
async fn a_slow_drip_ends_after_thirty_seconds() {
    let origin = Origin::serve(|_| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n";
        vec![Part::Bytes([&head[..], PNG].concat()), Part::Drip]
    })
    .await;
    let app = app().await;
    let begun = std::time::Instant::now();
    let refused = send(&app, image(&origin.url("/drip"))).await;
    assert_eq!(refused.faults(), ["media_timeout /content/image/url"]);
    let took = begun.elapsed().as_secs_f64();
    assert!((29.9..32.0).contains(&took), "{took} s");
    nothing_was_stored(&app).await;
}

#[tokio::test]
async fn a_file_that_does_not_come_is_waited_for_no_longer_when_the_server_stops() {
    let origin = Origin::serve(|_| vec![Part::Silence]).await;
    let app = app().await;
    app.app.leave();
    // An origin that is silent for 30 s would give a 400.
    send(&app, image(&origin.url("/silence"))).idempotency_key("k").await.problem(503, "stopping");
    nothing_was_stored(&app).await;
}
