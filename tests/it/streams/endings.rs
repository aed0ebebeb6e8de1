//! The end of a live stream: its key was revoked, or its channel was deleted, even if another one has the same id
//! since.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::{log, post};
use crate::support::TestApp;

/// Within fifteen seconds, and no other one ends.
#[tokio::test(start_paused = true)]
async fn a_stream_ends_soon_after_its_key_was_revoked() {
    for is_busy in [false, true] {
        let app = TestApp::new().await;
        let made = app.post("/api/v1/api-keys").json(json!({"name": "reader", "scopes": ["messages:read"]}));
        let made = made.await.expect(201);
        let path = "/api/v1/channels/demo/events";
        let mut revoked = app.get(path).key(made["key"].as_str().unwrap()).follow().await;
        let mut other = app.get(path).follow().await;
        sleep(Duration::from_secs(20)).await;
        assert_eq!(revoked.told().await.unwrap().event, None, "until then it is kept alive");
        app.delete(format!("/api/v1/api-keys/{}", made["id"].as_str().unwrap())).await.expect(204);
        let begun = Instant::now();
        let talking = async {
            loop {
                if is_busy {
                    post(&app, "still here").await;
                }
                sleep(Duration::from_secs(1)).await;
            }
        };
        let ending = async { while revoked.told().await.is_some() {} };
        tokio::select! {
            () = ending => {}
            () = talking => unreachable!("who talks does not stop"),
        }
        assert!(begun.elapsed().as_secs() <= 15, "{is_busy} {:?}", begun.elapsed());
        post(&app, "for the other").await;
        other.up_to("message.created").await;
    }
}

#[tokio::test]
async fn a_stream_of_a_revoked_key_gets_no_later_event() {
    let app = TestApp::new().await;
    let made = app.post("/api/v1/api-keys").json(json!({"name": "reader", "scopes": ["messages:read"]}));
    let made = made.await.expect(201);
    let path = "/api/v1/channels/demo/events";
    let mut revoked = app.get(path).key(made["key"].as_str().unwrap()).follow().await;
    post(&app, "before").await;
    revoked.up_to("message.created").await;
    app.delete(format!("/api/v1/api-keys/{}", made["id"].as_str().unwrap())).await.expect(204);
    post(&app, "after").await;
    assert!(revoked.told().await.is_none());
}

/// Deletes the human channel `demo` and creates it again.
async fn made_again(app: &TestApp) {
    app.delete("/api/v1/channels/demo").await.expect(204);
    app.post("/api/v1/channels").json(json!({"id": "demo", "name": "again", "kind": "human"})).await.expect(201);
}

/// Within fifteen seconds; it says to begin anew.
#[tokio::test(start_paused = true)]
async fn a_stream_ends_soon_after_its_channel_was_deleted() {
    for is_made_again in [false, true] {
        let app = TestApp::new().await;
        for text in ["one", "two", "three"] {
            post(&app, text).await;
        }
        let path = "/api/v1/channels/demo/events";
        let mut live = app.get(path).follow().await;
        let conversation = log(&app, "").await[0]["data"]["conversationId"].as_str().unwrap().to_owned();
        let mut of_conversation = app.get(format!("/api/v1/conversations/{conversation}/events")).follow().await;
        sleep(Duration::from_secs(20)).await;
        if is_made_again {
            made_again(&app).await;
        } else {
            app.delete("/api/v1/channels/demo").await.expect(204);
        }
        let begun = Instant::now();
        let mut told = Vec::new();
        while let Some(next) = live.told().await {
            told.push(next);
            assert!(told.len() < 10, "it does not end");
        }
        assert!(begun.elapsed().as_secs() <= 15, "{:?}", begun.elapsed());
        let last = told.pop().unwrap();
        assert_eq!((last.id.as_deref(), last.event), (Some("0"), None), "what its reader comes back with");
        assert!(told.iter().all(|told| told.event.is_none()), "{told:?}");
        if is_made_again {
            post(&app, "of the other").await;
            let mut live = app.get(path).header("last-event-id", "0").follow().await;
            assert_eq!(live.up_to("message.created").await.last().unwrap().data["data"]["text"], "of the other");
        }
        sleep(Duration::from_secs(20)).await;
        assert_eq!(of_conversation.told().await.unwrap().event, None, "the conversation is still there");
    }
}

#[tokio::test]
async fn followers_of_a_deleted_channel_receive_no_further_events() {
    let app = TestApp::new().await;
    let said = post(&app, "one").await;
    let mut live = app.get("/api/v1/channels/demo/events").follow().await;
    made_again(&app).await;
    let path = format!("/api/v1/messages/{}", said["id"].as_str().unwrap());
    app.post(format!("{path}/ack")).json(json!({"status": "read"})).await.expect(200);
    let told = live.told().await.unwrap();
    assert_eq!((told.id.as_deref(), told.event), (Some("0"), None));
    assert!(live.told().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_place_in_a_former_channels_log_hides_nothing_of_the_new_one() {
    let app = TestApp::new().await;
    for n in 0..6 {
        post(&app, &format!("{n}")).await;
    }
    let lists = ["/api/v1/channels/demo/events?limit=1", "/api/v1/messages?channelId=demo&limit=1"];
    let mut cursors = Vec::new();
    for list in lists {
        let page = app.get(list).await.expect(200);
        cursors.push(page["nextCursor"].as_str().unwrap().to_owned());
    }
    made_again(&app).await;
    let path = "/api/v1/channels/demo/events";
    let mut early = app.get(path).header("last-event-id", "7").follow().await;
    post(&app, "new").await;
    let mut late = app.get(path).header("last-event-id", "7").follow().await;
    for live in [&mut early, &mut late] {
        let telling = live.up_to("message.created");
        let told = timeout(Duration::from_secs(60), telling).await.expect("it is told");
        assert_eq!(told.last().unwrap().data["data"]["text"], "new");
    }
    for (list, cursor) in lists.iter().zip(&cursors) {
        assert_eq!(app.get(format!("{list}&cursor={cursor}")).await.faults(), ["invalid_cursor /cursor"], "{list}");
    }
    post(&app, "newer").await;
    let whole = log(&app, "").await;
    assert_eq!(log(&app, "&after=7").await, whole, "a page does not hide it either");
    for order in ["asc", "desc"] {
        let mut cursor = String::new();
        let mut seen = Vec::new();
        loop {
            let page = app.get(format!("{path}?after=7&limit=1&order={order}{cursor}")).await.expect(200);
            seen.extend(page["data"].as_array().unwrap().clone());
            // The log grows past this position while its pages are read.
            if seen.len() == 1 {
                for n in 0..8 {
                    post(&app, &format!("more {n}")).await;
                }
            }
            let Some(next) = page["nextCursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        if order == "desc" {
            seen.reverse();
        }
        let sequences: Vec<u64> = seen.iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
        assert_eq!(sequences[0], if order == "asc" { 1 } else { 8 }, "{sequences:?}");
        assert!(sequences.is_sorted_by(|before, after| before + 1 == *after), "{sequences:?}");
    }
    let last = log(&app, "").await.len();
    assert!(log(&app, &format!("&after={last}")).await.is_empty(), "of its own places each counts");
}
