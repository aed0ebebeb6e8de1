//! Forwarded requests that the other server refuses without doing anything.

use tokio::time::pause;

use super::{MESSAGES, beside, message, passed, servers, texts, theirs};
use crate::support::TestStore;
use crate::support::origin::{Heard, Origin, Part};

/// A server's answer that it cannot do this now.
fn cannot(heard: &Heard, code: &str, headers: &str) -> Vec<Part> {
    let id = heard.header("x-request-id");
    let problem = format!("{{\"code\": \"{code}\"}}");
    let head = format!(
        "HTTP/1.1 503 X\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\nX-Request-Id: {id}\r\n\
         {headers}Content-Length: {}\r\n\r\n{problem}",
        problem.len()
    );
    vec![Part::Bytes(head.into_bytes())]
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_too_late_by_anothers_clock_is_done_here() {
    for key in [None, Some("k")] {
        let origin = Origin::serve(|heard| cannot(heard, "store_unavailable", "X-Tertulia-Not-Done: late\r\n")).await;
        let app = beside(TestStore::shared().await, &[], &origin.url("")).await;
        let conversation = theirs(&app).await;
        let request = app.post(MESSAGES).json(message(&conversation, "here"));
        let request = key.into_iter().fold(request, |request, key| request.idempotency_key(key));
        let answer = request.await;
        assert_eq!((answer.status, answer.header("x-tertulia-not-done")), (200, ""));
        assert_eq!((texts(&app, &conversation).await, passed(&app)), (vec!["here".to_owned()], [0, 1, 0]));
        pause();
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_stopping_node_refuses_is_served_locally() {
    let origin = Origin::serve(|heard| cannot(heard, "stopping", "")).await;
    let app = beside(TestStore::shared().await, &[], &origin.url("")).await;
    let conversation = theirs(&app).await;
    app.post(MESSAGES).json(message(&conversation, "kept")).idempotency_key("k").await.expect(200);
    assert_eq!((texts(&app, &conversation).await, passed(&app)), (vec!["kept".to_owned()], [0, 1, 0]));
    // The same with a node that gets its first request, without a key; its answer says that it has stored nothing.
    pause();
    let app = beside(TestStore::shared().await, &[], &origin.url("")).await;
    let conversation = theirs(&app).await;
    app.post(MESSAGES).json(message(&conversation, "without")).await.expect(200);
    assert_eq!((texts(&app, &conversation).await, passed(&app)), (vec!["without".to_owned()], [0, 1, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_forwarded_request_past_its_deadline_is_not_served() {
    let ([one, other], _listening) = servers().await;
    let conversation = theirs(&one).await;
    let until = |millis: u64| {
        let request = other.post(MESSAGES).json(message(&conversation, "late"));
        request.header("x-tertulia-forwarded-until", &millis.to_string())
    };
    let now = other.app.now().0;
    let late = until(now - 1).await;
    assert_eq!(late.header("x-tertulia-not-done"), "late", "the forwarding server may do it");
    late.problem(503, "store_unavailable");
    assert!(texts(&other, &conversation).await.is_empty());
    until(now + 1_000).await.expect(200);
}
