//! Identical requests with a file that arrive while the first one's file is being fetched.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{PNG, app, image, send};
use crate::support::origin::{Origin, Part, bare, ok};
use crate::support::until::until;
use crate::support::{Answer, TestApp};

/// A file that arrives when the test says so, and requests for a message with it.
struct Held {
    app: TestApp,
    origin: Origin,
    comes: Arc<Notify>,
}

impl Held {
    /// `file` is the origin's answer, once the test releases it.
    async fn with(file: Vec<Part>) -> Self {
        let comes = Arc::new(Notify::new());
        let held = Part::Held(Arc::clone(&comes));
        let origin = Origin::serve(move |_| [std::slice::from_ref(&held), &file].concat()).await;
        Self { app: app().await, origin, comes }
    }

    fn send(&self, prefer: &str) -> JoinHandle<Answer> {
        let body = image(&self.origin.url("/p.png"));
        tokio::spawn(send(&self.app, body).idempotency_key("k").header("prefer", prefer).send())
    }

    /// The first request, once its file is requested.
    async fn first(&self, prefer: &str) -> JoinHandle<Answer> {
        let first = self.send(prefer);
        until(|| !self.origin.requests().is_empty()).await;
        first
    }

    /// Other requests beside it, once they wait.
    async fn others(&self, prefer: &str) -> [JoinHandle<Answer>; 4] {
        let others = [(); 4].map(|()| self.send(prefer));
        // This one comes after them.
        self.send("wait=0").await.unwrap().problem(409, "idempotency_in_progress");
        others
    }
}

#[tokio::test]
async fn a_file_fetched_for_another_is_waited_for_only_as_long_as_wanted() {
    let held = Held::with(ok("image/png", PNG)).await;
    let first = held.first("").await;
    for (prefer, applied) in [("wait=0", "wait=0"), ("respond-async", ""), ("wait=1", "wait=1")] {
        let told = held.send(prefer).await.unwrap();
        assert_eq!((told.header("retry-after"), told.header("preference-applied")), ("1", applied), "{prefer}");
        told.problem(409, "idempotency_in_progress");
    }
    held.comes.notify_one();
    first.await.unwrap().expect(200);
    assert_eq!(held.origin.requests().len(), 1);
}

/// It has waited for the file beside the first one.
#[tokio::test]
async fn a_waiting_request_waits_for_the_agent_as_long_as_it_wants() {
    let held = Held::with(ok("image/png", PNG)).await;
    held.app.echo(json!({"builtin": {"latencyMs": 30_000}})).await;
    let first = held.first("").await;
    let others = held.others("wait=1").await;
    held.comes.notify_one();
    for other in others {
        other.await.unwrap().problem(409, "idempotency_in_progress");
    }
    let in_background = held.send("respond-async").await.unwrap().expect(202);
    assert_eq!(in_background["turn"]["status"], "running");
    assert!(!first.is_finished(), "it waits for a minute");
    assert_eq!(held.origin.requests().len(), 1);
}

#[tokio::test]
async fn a_duplicate_request_can_wait_longer_than_the_first() {
    let held = Held::with(ok("image/png", PNG)).await;
    held.app.echo(json!({"builtin": {"latencyMs": 30_000}})).await;
    let first = held.first("wait=1").await;
    let others = held.others("wait=3").await;
    held.comes.notify_one();
    let first = first.await.unwrap().expect(202);
    assert!(others.iter().all(|other| !other.is_finished()));
    for other in others {
        assert_eq!(other.await.unwrap().expect(202), first);
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_had_is_asked_for_once_by_all_who_wait_for_it() {
    let held = Held::with(bare(404, "")).await;
    let first = held.first("").await;
    let others = held.others("").await;
    held.comes.notify_one();
    let refused = first.await.unwrap().faults();
    assert_eq!(refused, ["media_unreachable /content/image/url"]);
    for other in others {
        assert_eq!(other.await.unwrap().faults(), refused);
    }
    assert_eq!(held.origin.requests().len(), 1);
    held.comes.notify_one();
    assert_eq!(held.send("").await.unwrap().faults(), refused);
    assert_eq!(held.origin.requests().len(), 2, "whoever comes later has it looked for again");
}

#[tokio::test]
async fn an_agent_that_fails_is_asked_once_by_all_who_waited_for_the_file() {
    let held = Held::with(ok("image/png", PNG)).await;
    held.app.echo(json!({"builtin": {"failEvery": 1}})).await;
    let first = held.first("").await;
    let others = held.others("").await;
    held.comes.notify_one();
    let failed = first.await.unwrap().problem(500, "agent_failed");
    for other in others {
        let told = other.await.unwrap().problem(500, "agent_failed");
        assert_eq!((&told["messageId"], &told["turnId"]), (&failed["messageId"], &failed["turnId"]));
    }
    let turn = format!("/api/v1/turns/{}", failed["turnId"].as_str().unwrap());
    assert_eq!(held.app.get(&turn).await.expect(200)["attempt"], 1);
    held.app.echo(json!({"builtin": {"failEvery": 0}})).await;
    held.send("").await.unwrap().expect(200);
    assert_eq!(held.app.get(&turn).await.expect(200)["attempt"], 2, "a retry has it tried again");
    assert_eq!(held.origin.requests().len(), 1);
}

#[tokio::test]
async fn another_takes_the_place_of_the_first_whose_client_hangs_up() {
    let held = Held::with(ok("image/png", PNG)).await;
    let first = held.first("").await;
    let others = held.others("").await;
    first.abort();
    until(|| held.origin.requests().len() == 2).await;
    held.comes.notify_waiters();
    for other in others {
        other.await.unwrap().expect(200);
    }
    assert_eq!(held.origin.requests().len(), 2);
}

#[tokio::test]
async fn a_channel_disabled_while_a_file_comes_refuses_all_who_wait() {
    let held = Held::with(ok("image/png", PNG)).await;
    let first = held.first("").await;
    let others = held.others("").await;
    held.app.patch("/api/v1/channels/demo-api").json(json!({"enabled": false})).await.expect(200);
    held.comes.notify_one();
    for request in [first].into_iter().chain(others) {
        request.await.unwrap().problem(409, "channel_disabled");
    }
    assert_eq!(held.origin.requests().len(), 1);
}

/// Bodies other than the first one's.
fn other_bodies() -> [Value; 2] {
    let text = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "x"}}});
    [text, image("https://example.com/other.png")]
}

#[tokio::test]
async fn a_request_with_another_body_is_refused_while_the_file_comes() {
    let held = Held::with(ok("image/png", PNG)).await;
    let first = held.first("").await;
    for body in other_bodies() {
        for prefer in ["wait=0", "wait=1", "respond-async", ""] {
            let other = send(&held.app, body.clone()).idempotency_key("k").header("prefer", prefer).send().await;
            other.problem(422, "idempotency_key_reused");
        }
    }
    assert!(!first.is_finished());
    held.comes.notify_one();
    first.await.unwrap().expect(200);
    assert_eq!(held.origin.requests().len(), 1);
}

#[tokio::test]
async fn a_key_whose_file_cannot_be_had_is_free_for_another_body() {
    let held = Held::with(bare(404, "")).await;
    let first = held.first("").await;
    let [text, _] = other_bodies();
    let other = || send(&held.app, text.clone()).idempotency_key("k").header("prefer", "wait=5").send();
    other().await.problem(422, "idempotency_key_reused");
    held.comes.notify_one();
    assert_eq!(first.await.unwrap().faults(), ["media_unreachable /content/image/url"]);
    other().await.expect(200);
}
