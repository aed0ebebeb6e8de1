//! Traces of waits for other services: a contact's file, the bucket, the endpoint of embeddings.

use serde_json::{Value, json};

use super::receiver::{Got, Manner, Receiver};
use super::{CLIENT, GRPC, contained, place, says_nothing, tables, traced_on_store};
use crate::models::PATH;
use crate::support::client::{Client, Reply};
use crate::support::origin::{Heard, Origin, Part, bare, ok};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR and so on";

/// A vector for each text; none if a text says that it is broken.
fn vectors(heard: &Heard) -> Vec<Part> {
    let asked: Value = serde_json::from_slice(&heard.body).unwrap();
    let texts = asked["input"].as_array().unwrap();
    if texts.iter().any(|text| text.as_str().unwrap().contains("broken")) {
        return bare(500, "");
    }
    let data = (0..texts.len()).map(|index| json!({"index": index, "embedding": [1.0, 0.5]}));
    ok("application/json", json!({"data": data.collect::<Vec<_>>()}).to_string().as_bytes())
}

/// A contact's picture, a bucket that accepts everything and returns nothing, and an endpoint of embeddings.
async fn outside() -> Origin {
    Origin::serve(|heard| match heard.path() {
        "/photo.png?token=secret" => ok("image/png", PNG),
        "/v1/embeddings" => vectors(heard),
        path if path.starts_with("/bucket/") && heard.line.starts_with("PUT ") => bare(200, "ETag: \"x\"\r\n"),
        _ => bare(404, ""),
    })
    .await
}

/// A server that finds all other services at this origin.
struct Asking {
    client: Client,
}

impl Asking {
    fn send(&mut self, method: &str, path: &str, body: &Value, status: u16) -> Reply {
        let reply = self.client.send(method, path, None, &body.to_string()).unwrap();
        assert_eq!(reply.status, status, "{path}: {}", String::from_utf8_lossy(&reply.body));
        reply
    }

    /// Sends a contact's message with the picture at this URL.
    fn picture(&mut self, url: &str, status: u16) -> Reply {
        let content = json!({"image": {"url": url}});
        let body = json!({"type": "IMAGE", "contactIdentifier": "ana@example.com", "content": content});
        self.send("POST", PATH, &body, status)
    }

    fn search(&mut self, query: &str) -> Reply {
        self.send("POST", "/api/v1/memories/search", &json!({"query": query, "ownerId": "ana"}), 200)
    }
}

/// The only span of this name in the trace of an answer, as a part of `parent`; and its error, if any.
#[track_caller]
fn part<'a>(spans: &'a [Got], reply: &Reply, name: &str, parent: Option<&Got>) -> (&'a Got, Option<&'a str>) {
    let (trace, request) = place(reply);
    let parent = parent.map_or(request, |parent| parent.id.clone());
    let found: Vec<&Got> = spans.iter().filter(|span| span.trace == trace && span.name == name).collect();
    let [span] = found[..] else { panic!("one {name}: {found:#?}") };
    assert_eq!((span.kind, &span.parent), (CLIENT, &parent), "{span:?}");
    (span, span.attributes.get("error.type").map(String::as_str))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_for_files_and_embeddings_are_spans_that_name_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::grpc(Manner::Takes);
    let origin = outside().await;
    let bucket = origin.url("");
    let models = origin.url("/v1");
    let env = [
        GRPC,
        ("TERTULIA_EGRESS_ALLOW", "127.0.0.0/8"),
        ("TERTULIA_ATTACHMENTS", "s3"),
        ("TERTULIA_ATTACHMENTS_S3_BUCKET", "bucket"),
        ("TERTULIA_ATTACHMENTS_S3_REGION", "eu-central-1"),
        ("TERTULIA_ATTACHMENTS_S3_ENDPOINT", &*bucket),
        ("TERTULIA_ATTACHMENTS_S3_ACCESS_KEY_ID", "secret-id"),
        ("TERTULIA_ATTACHMENTS_S3_SECRET_ACCESS_KEY", "secret-key"),
        ("TERTULIA_EMBEDDINGS_URL", &*models),
        ("TERTULIA_EMBEDDINGS_MODEL", "small"),
    ];
    let server = traced_on_store(&dir.path().join("data"), &receiver, &env);
    let mut asking = Asking { client: Client::connect(&server.address).unwrap() };
    let taken = asking.picture(&origin.url("/photo.png?token=secret"), 200);
    let missed = asking.picture(&origin.url("/gone.png?token=secret"), 400);
    let message = taken.json()["messageId"].as_str().unwrap().to_owned();
    let shown = asking.send("GET", &format!("/api/v1/messages/{message}"), &json!({}), 200);
    let shown = String::from_utf8(shown.body).unwrap();
    let attachment = &shown[shown.find("att_").expect("it has a file")..][..30];
    let read = asking.send("GET", &format!("/api/v1/attachments/{attachment}/content"), &json!({}), 500);

    let opened = asking.send("POST", "/api/v1/conversations", &json!({"ownerId": "ana"}), 201).json();
    let content = json!({"content": "My secret pet is a dog and I live in Porto", "sender_id": "x"});
    let said = json!({"content": content, "conversation_id": opened["id"], "enable_memories": true});
    asking.send("POST", "/api/v1/messages", &said, 200);
    // The endpoint gets a request as soon as there is a memory.
    while !origin.requests().iter().any(|heard| heard.path() == "/v1/embeddings") {
        asking.search("secret broken");
    }
    let unanswered = asking.search("secret broken");
    let answered = asking.search("secret");
    assert_eq!(server.terminate(), Some(0));

    let spans = receiver.spans();
    let (fetch, error) = part(&spans, &taken, "fetch media", None);
    assert_eq!((error, &*fetch.attributes["server.port"]), (None, &*origin.address.port().to_string()));
    assert_eq!(fetch.attributes["http.response.status_code"], "200");
    assert_eq!(part(&spans, &taken, "write attachment", Some(fetch)).1, None);
    let (missed, error) = part(&spans, &missed, "fetch media", None);
    assert_eq!((error, &*missed.attributes["http.response.status_code"]), (Some("media_unreachable"), "404"));
    let (read, error) = part(&spans, &read, "read attachment", None);
    assert_eq!((error, &*read.attributes["server.address"]), (Some("internal_error"), "127.0.0.1"));
    let questions = |reply: &Reply| -> Vec<Option<&str>> {
        let (trace, request) = place(reply);
        let of_it = |span: &&Got| span.trace == trace && span.parent == request && span.name == "embeddings small";
        spans.iter().filter(of_it).map(|span| span.attributes.get("error.type").map(String::as_str)).collect()
    };
    // Beside the search, the endpoint may be asked about memories without a vector.
    assert!(questions(&unanswered).contains(&Some("unavailable")), "{:?}", questions(&unanswered));
    assert!(questions(&answered).contains(&None), "{:?}", questions(&answered));
    contained(&spans);
    says_nothing(&spans);
    tables::describes(&spans);
}
