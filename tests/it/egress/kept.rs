//! Connections that a receiver closes when it likes: after an answer, or while the next request is on its way.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tertulia::egress::Fault;

use super::{LIMITS, PLENTY, WORKSPACE, egress, get, outgoing, post};
use crate::support::origin::{Origin, Part, bare, ok};

/// A receiver whose answer to the nth request, from 0, is the nth one here; to all later ones it is the last.
async fn receiver(answers: Vec<Vec<Part>>) -> Origin {
    let heard = AtomicUsize::new(0);
    Origin::serve(move |_| {
        let n = heard.fetch_add(1, Ordering::SeqCst);
        answers[n.min(answers.len() - 1)].clone()
    })
    .await
}

#[tokio::test]
async fn a_delivery_that_a_kept_connection_loses_is_repeated_once_on_a_new_one() {
    for end in [Part::Close, Part::Reset] {
        let origin = receiver(vec![bare(204, ""), vec![end.clone()], bare(202, "")]).await;
        let egress = egress("127.0.0.0/8", &[]);
        assert_eq!(post(&egress, &origin.url("/hook")).await.unwrap().status, 204);
        assert_eq!(post(&egress, &origin.url("/hook")).await.unwrap().status, 202, "{end:?}");
        let requests = origin.requests();
        assert_eq!((requests.len(), origin.connections()), (3, 2), "{end:?}");
        assert_eq!((&requests[1].sent, &requests[1].body), (&requests[2].sent, &requests[2].body));

        let origin = receiver(vec![bare(204, ""), vec![end.clone()]]).await;
        assert_eq!(post(&egress, &origin.url("/hook")).await.unwrap().status, 204);
        let fault = post(&egress, &origin.url("/hook")).await.unwrap_err();
        assert!(matches!(fault, Fault::Broken(_)), "{end:?}: {fault:?}");
        assert_eq!(origin.requests().len(), 3, "{end:?}: repeated once");
    }
}

#[tokio::test]
async fn a_delivery_is_not_repeated_where_an_answer_began_or_time_passed() {
    let egress = egress("127.0.0.0/8", &[]);
    let begun = Part::Bytes(b"HTTP/1.1 2".to_vec());
    let origin = receiver(vec![bare(204, ""), vec![begun, Part::Close], bare(204, "")]).await;
    assert_eq!(post(&egress, &origin.url("/hook")).await.unwrap().status, 204);
    let fault = post(&egress, &origin.url("/hook")).await.unwrap_err();
    assert!(matches!(fault, Fault::Broken(_)), "{fault:?}");
    assert_eq!(origin.requests().len(), 2);
    let origin = receiver(vec![bare(204, ""), vec![Part::Silence], bare(204, "")]).await;
    let url = origin.url("/hook");
    assert_eq!(post(&egress, &url).await.unwrap().status, 204);
    let late = egress.send(outgoing(WORKSPACE, &url), Duration::from_millis(300)).await;
    assert_eq!((late.unwrap_err(), origin.requests().len()), (Fault::Timeout, 2));
    // The receiver broke off by itself: nothing says that it would answer now.
    let origin = receiver(vec![vec![Part::Close], bare(204, "")]).await;
    let fault = post(&egress, &origin.url("/hook")).await.unwrap_err();
    assert!(matches!(fault, Fault::Broken(_)), "{fault:?}");
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn a_tool_is_called_once_on_a_connection_of_its_own() {
    let origin = receiver(vec![ok("text/plain", b"first"), vec![Part::Close], ok("text/plain", b"third")]).await;
    let egress = egress("127.0.0.0/8", &[]);
    let url = origin.url("/tool");
    let call = || egress.call(outgoing(WORKSPACE, &url), PLENTY, 1_000);
    assert_eq!(call().await.unwrap().excerpt, "first");
    let fault = call().await.unwrap_err();
    assert!(matches!(fault, Fault::Broken(_)), "{fault:?}");
    assert_eq!((origin.requests().len(), origin.connections()), (2, 2));
}

#[tokio::test]
async fn each_redirect_of_a_file_has_a_connection_of_its_own() {
    let origin = Origin::serve(move |heard| match heard.path() {
        "/moved" => [bare(302, "Location: /file\r\n"), vec![Part::Close]].concat(),
        _ => ok("text/plain", b"here"),
    })
    .await;
    let egress = egress("127.0.0.0/8", &[]);
    for n in 1..=3 {
        assert_eq!(get(&egress, &origin.url("/moved"), LIMITS).await.unwrap(), b"here");
        assert_eq!(origin.connections(), 2 * n);
    }
}
