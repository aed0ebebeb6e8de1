//! The bounds of forwarding, and the end of forwarded requests.

use std::time::Duration;

use tokio::time::{Instant, pause};

use super::{MESSAGES, beside, message, passed, texts, theirs};
use crate::support::TestStore;
use crate::support::origin::{Origin, Part, bare};
use crate::support::until::until;

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_waits_no_longer_for_another_one() {
    let origin = Origin::serve(|_| vec![Part::Silence]).await;
    let app = beside(TestStore::shared().await, &[], &origin.url("")).await;
    let conversation = theirs(&app).await;
    let send = |text: &str, key: Option<&str>| {
        let request = app.post(MESSAGES).json(message(&conversation, text));
        tokio::spawn(match key {
            Some(key) => request.idempotency_key(key).send(),
            None => request.send(),
        })
    };
    let unkeyed = send("x", None);
    let keyed = send("y", Some("k"));
    until(|| origin.requests().len() >= 2).await;
    app.app.leave();
    pause();
    let begun = Instant::now();
    unkeyed.await.unwrap().problem(503, "outcome_unknown");
    keyed.await.unwrap().expect(200);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(texts(&app, &conversation).await, ["y"]);
}

#[tokio::test(start_paused = true)]
async fn a_stopping_server_passes_on_nothing_and_does_what_it_is_passed() {
    let origin = Origin::serve(|_| bare(500, "")).await;
    let app = beside(TestStore::shared().await, &[], &origin.url("")).await;
    let conversation = theirs(&app).await;
    app.app.leave();
    app.post(MESSAGES).json(message(&conversation, "its own")).await.expect(200);
    let until = (app.app.now().0 + 1_000).to_string();
    let passed_on = app.post(MESSAGES).json(message(&conversation, "another's"));
    passed_on.header("x-tertulia-forwarded-until", &until).await.expect(200);
    assert_eq!(texts(&app, &conversation).await, ["its own", "another's"]);
    assert_eq!((origin.connections(), passed(&app)), (0, [0; 3]));
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_forwarding_limit_are_served_locally() {
    let origin = Origin::serve(|_| vec![Part::Silence]).await;
    let env = [("TERTULIA_MAX_CONNECTIONS", "29")];
    let app = beside(TestStore::shared().await, &env, &origin.url("")).await;
    let conversation = theirs(&app).await;
    let send = |text: &str| tokio::spawn(app.post(MESSAGES).json(message(&conversation, text)).send());
    let passing = [send("away"), send("away too")];
    until(|| origin.requests().len() == 2).await;
    for text in ["here", "here too"] {
        send(text).await.unwrap().expect(200);
    }
    assert_eq!((texts(&app, &conversation).await, passed(&app)), (vec!["here".into(), "here too".into()], [0, 2, 0]));
    // A completed request makes room for another.
    passing[0].abort();
    until(|| origin.open_connections() == 1).await;
    let again = send("away again");
    until(|| origin.requests().len() == 3).await;
    again.abort();
    passing[1].abort();
}
