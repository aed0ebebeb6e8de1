//! The inbox: finding reviews, waiting for their outcome, and many reviews at once.

use actors::codec;
use actors::conversation::Conversation;

use super::*;
use crate::support::{Answer, BEGIN};

#[tokio::test]
async fn the_inbox_is_filtered_and_comes_in_pages() {
    let app = TestApp::new().await;
    app.post("/api/v1/channels").json(json!({"id": "second", "name": "s", "kind": "human"})).await.expect(201);
    let mut pending = vec![];
    let mut elsewhere = vec![];
    let mut done = vec![];
    let mut expired = vec![];
    let mut cancelled = vec![];
    for n in 0..25 {
        let channel = if n % 5 == 4 { "second" } else { "demo" };
        let seconds = if n % 5 == 3 { 1 } else { 60 };
        let review = json!({"type": "approval", "expiresInSeconds": seconds});
        let made = app.post(MESSAGES).json(json!({"channelId": channel, "review": review})).await.expect(201);
        let id = made["id"].as_str().unwrap().to_owned();
        let path = format!("{REVIEWS}/{id}");
        match n % 5 {
            0 => pending.push(id),
            1 => {
                respond(&app, &path, json!({"selectedOption": "reject"})).await.expect(200);
                done.push(id);
            }
            2 => {
                app.post(format!("{path}/cancel")).await.expect(200);
                cancelled.push(id);
            }
            3 => expired.push(id),
            _ => elsewhere.push(id),
        }
    }
    app.clock.advance(2 * SECOND);
    let sorted = |lists: &[&Vec<String>]| {
        let mut all: Vec<String> = lists.iter().flat_map(|list| list.iter().cloned()).collect();
        all.sort();
        all
    };
    for (query, expected) in [
        ("", sorted(&[&pending, &elsewhere, &done, &expired, &cancelled])),
        ("status=", sorted(&[&pending, &elsewhere, &done, &expired, &cancelled])),
        ("status=pending", sorted(&[&pending, &elsewhere])),
        ("status=completed", sorted(&[&done])),
        ("status=expired", sorted(&[&expired])),
        ("status=cancelled", sorted(&[&cancelled])),
        ("channelId=demo", sorted(&[&pending, &done, &expired, &cancelled])),
        ("status=pending&channelId=demo", pending.clone()),
        ("status=pending&channelId=second", elsewhere.clone()),
        ("status=completed&channelId=second", vec![]),
        ("channelId=demo-api", vec![]),
    ] {
        for limit in [1, 2, 7, 200] {
            let mut found = ids(&app, &format!("{query}&limit={limit}")).await;
            let asc = found.clone();
            found.sort();
            assert_eq!(found, expected, "{query} {limit}");
            let desc = ids(&app, &format!("{query}&limit={limit}&order=desc")).await;
            assert!(desc.iter().rev().eq(asc.iter()), "{query} {limit}");
        }
    }
    assert_eq!(app.get(REVIEWS).key(&app.workspace("other").await).await.expect(200)["data"], json!([]));
    for (query, faults) in [
        ("status=open", &["invalid_enum /status"][..]),
        ("status=PENDING", &["invalid_enum /status"]),
        ("limit=0", &["out_of_range /limit"]),
        ("limit=201", &["out_of_range /limit"]),
        ("limit=ten&order=up", &["invalid_type /limit", "invalid_enum /order"]),
        ("cursor=x", &["invalid_cursor /cursor"]),
        ("status=open&limit=0", &["out_of_range /limit", "invalid_enum /status"]),
        ("status=pending&status=expired", &["invalid_query /status"]),
        ("status=%ff", &["invalid_query /status"]),
    ] {
        assert_eq!(app.get(format!("{REVIEWS}?{query}")).await.faults(), faults, "{query}");
    }
}

#[tokio::test]
async fn a_wait_lasts_0_to_55_seconds() {
    let app = TestApp::new().await;
    let review = asked(&app, json!({"type": "approval"})).await;
    for (timeout, fault) in [
        ("56", "out_of_range /timeout"),
        ("-1", "out_of_range /timeout"),
        ("99999999999999999999999", "out_of_range /timeout"),
        ("-99999999999999999999999", "out_of_range /timeout"),
        ("1.5", "out_of_range /timeout"),
        ("soon", "out_of_range /timeout"),
        ("", "out_of_range /timeout"),
        ("+5", "out_of_range /timeout"),
        ("5s", "out_of_range /timeout"),
    ] {
        assert_eq!(app.get(format!("{review}/wait?timeout={timeout}")).await.faults(), [fault], "{timeout}");
    }
    let pending = app.get(format!("{review}/wait?timeout=0")).await.expect(200);
    assert_eq!(pending["status"], "pending");
    app.get(format!("{REVIEWS}/msg_x/wait?timeout=99")).await.problem(400, "out_of_range");
    app.get(format!("{REVIEWS}/msg_x/wait")).await.problem(404, "review_not_found");
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_no_longer_than_the_client_prefers() {
    let app = TestApp::new().await;
    let review = asked(&app, json!({"type": "approval"})).await;
    for (query, prefer, seconds) in [
        ("", None, 30),
        ("", Some("wait=2"), 2),
        ("", Some("wait=50"), 50),
        ("", Some("wait=1000"), 55),
        ("?timeout=20", Some("wait=3"), 3),
        ("?timeout=4", Some("wait=20"), 4),
        ("?timeout=5", Some("wait=soon"), 5),
    ] {
        let begun = tokio::time::Instant::now();
        let mut request = app.get(format!("{review}/wait{query}"));
        if let Some(prefer) = prefer {
            request = request.header("prefer", prefer);
        }
        let answer = request.await;
        let applied =
            if prefer.is_some_and(|prefer| prefer != "wait=soon") { format!("wait={seconds}") } else { String::new() };
        assert_eq!(answer.header("preference-applied"), applied);
        assert_eq!(answer.expect(200)["status"], "pending");
        assert_eq!(begun.elapsed().as_secs(), seconds, "{query} {prefer:?}");
    }
}

#[tokio::test]
async fn all_waiters_are_notified_when_a_review_ends() {
    let app = TestApp::new().await;
    for end in ["respond", "cancel", "revise"] {
        let review = asked(&app, json!({"type": "approval"})).await;
        let waiting = (0..50).map(|_| app.get(format!("{review}/wait?timeout=55")).send());
        let deciding = async {
            // Lets them begin to wait.
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
            match end {
                "respond" => respond(&app, &review, json!({"selectedOption": "approve"})).await.expect(200),
                "cancel" => app.post(format!("{review}/cancel")).await.expect(200),
                _ => {
                    let id = review.rsplit('/').next().unwrap();
                    let body = json!({"channelId": "demo", "text": "better", "iterationOf": id});
                    app.post(MESSAGES).json(body).await.expect(201)
                }
            }
        };
        let begun = std::time::Instant::now();
        let (told, _): (Vec<Answer>, _) = tokio::join!(futures_util::future::join_all(waiting), deciding);
        assert!(begun.elapsed().as_secs() < 30, "nobody has waited to the end");
        let now = app.get(&review).await.expect(200);
        assert_ne!(now["status"], "pending");
        for answer in told {
            assert_eq!(answer.expect(200), now);
        }
    }
}

#[tokio::test]
async fn a_wait_whose_key_is_revoked_tells_no_outcome() {
    let app = TestApp::new().await;
    let made = app.post("/api/v1/api-keys").json(json!({"name": "waiter", "scopes": ["messages:read"]}));
    let made = made.await.expect(201);
    let review = asked(&app, json!({"type": "approval"})).await;
    let waiting = app.get(format!("{review}/wait?timeout=55")).key(made["key"].as_str().unwrap()).send();
    let deciding = async {
        // Lets it begin to wait.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        app.delete(format!("/api/v1/api-keys/{}", made["id"].as_str().unwrap())).await.expect(204);
        respond(&app, &review, json!({"selectedOption": "approve"})).await.expect(200);
    };
    let (told, ()) = tokio::join!(waiting, deciding);
    told.problem(401, "unauthenticated");
}

/// Posts a hundred messages to the channel `demo`, several times; returns the time of the quickest hundred.
async fn pace(app: &TestApp) -> std::time::Duration {
    let mut quickest = std::time::Duration::MAX;
    for _ in 0..8 {
        let begun = std::time::Instant::now();
        for _ in 0..100 {
            app.post(MESSAGES).json(json!({"channelId": "demo", "text": "x"})).await.expect(201);
        }
        quickest = quickest.min(begun.elapsed());
    }
    quickest
}

#[tokio::test]
async fn thousands_of_pending_reviews_grow_no_head_and_slow_no_message() {
    let app = TestApp::new().await;
    let channel = actors::channel::conversation_of(actors::workspace::address_of("default"), "demo", 0);
    let head = async || codec::encode(&app.app.node().state::<Conversation>(channel).await.unwrap().unwrap()).len();
    let mut reviews = vec![asked(&app, json!({"type": "approval"})).await];
    let head_before = head().await;
    let before = pace(&app).await;
    for n in 0..3_000 {
        reviews.push(asked(&app, json!({"type": "approval", "expiresInSeconds": 3_600 + n})).await);
    }
    let head_after = head().await;
    let after = pace(&app).await;
    crate::support::setting::say(&format!(
        "a hundred messages beside 1 pending review {before:?}, beside 3001 {after:?}; head {head_before} and {head_after} bytes"
    ));
    assert!(head_after <= head_before + 32, "numbers may have grown by a few digits: {head_before}, {head_after}");
    assert!(after < 4 * before, "{before:?}, {after:?}");
    // A review in the middle can still be decided, and the last one ends on time.
    respond(&app, &reviews[1_500], json!({"selectedOption": "approve"})).await.expect(200);
    app.clock.advance(3_600 * SECOND + 3_000 * SECOND);
    let last = app.get(reviews.last().unwrap()).await.expect(200);
    assert_eq!((&last["status"], app.app.now() > BEGIN), (&json!("expired"), true));
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_review_ends_at_once_when_the_server_stops() {
    let app = TestApp::new().await;
    let review = asked(&app, json!({"type": "approval"})).await;
    let before = app.get(&review).await.expect(200);
    let waiting = tokio::spawn(app.get(format!("{review}/wait?timeout=55")).send());
    // Paused time advances only once all tasks wait.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let begun = tokio::time::Instant::now();
    app.app.leave();
    assert_eq!(waiting.await.unwrap().expect(200), before);
    assert!(begun.elapsed().as_secs() < 1, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn long_answers_make_short_pages_of_reviews_and_of_messages() {
    let app = TestApp::new().await;
    let keys = voters(&app).await;
    let mut made = Vec::new();
    for _ in 0..10 {
        let review = asked(&app, json!({"type": "free", "quorum": {"of": 100}})).await;
        for key in &keys {
            respond(&app, &review, json!({"about": "x".repeat(65_000)})).key(key).await.expect(200);
        }
        made.push(json!(review.rsplit('/').next().unwrap()));
    }
    for list in [REVIEWS.to_owned(), format!("{MESSAGES}?channelId=demo")] {
        let and = if list.contains('?') { '&' } else { '?' };
        let first = app.get(format!("{list}{and}limit=200&order=asc")).await.expect(200);
        let shown = first["data"].as_array().unwrap();
        let cursor = first["nextCursor"].as_str().unwrap_or_default();
        let second = app.get(format!("{list}{and}limit=200&order=asc&cursor={cursor}")).await.expect(200);
        let seen: Vec<_> =
            shown.iter().chain(second["data"].as_array().unwrap()).map(|item| item["id"].clone()).collect();
        assert!(shown.len() < made.len(), "{list}: a page has about 8 MiB, not {}", shown.len());
        assert_eq!(seen, made, "{list}");
    }
}

/// The keys of as many people as may each give the longest answer to one review.
async fn voters(app: &TestApp) -> Vec<String> {
    let mut keys = Vec::new();
    for n in 0..15 {
        keys.push(responder(app, &format!("voter-{n}")).await);
    }
    keys
}
