//! What readers see of a review around its deadline.

use std::time::Duration;

use actors::id::{EntityKey, MessageId};
use actors::workspace::{DEFAULT, address_of};
use serde_json::json;
use tokio::time::sleep;

use super::{MESSAGES, REVIEWS, SECOND, asked, respond};
use crate::support::TestApp;

#[tokio::test(start_paused = true)]
async fn a_decision_on_its_way_at_the_deadline_is_what_every_reader_sees() {
    for cancelled in [false, true] {
        let (app, store) = TestApp::faulty_in_memory().await;
        let review = asked(&app, json!({"type": "approval", "expiresInSeconds": 1})).await;
        let id = review.rsplit('/').next().unwrap();
        let entity = EntityKey::conversation(address_of(DEFAULT), MessageId::parse(id).unwrap().entity);
        app.clock.advance(SECOND - 1);
        store.hold(Some(entity));
        let deciding = tokio::spawn(match cancelled {
            false => respond(&app, &review, json!({"selectedOption": "approve"})).send(),
            true => app.post(format!("{review}/cancel")).send(),
        });
        // The clock moves only once every task waits: the decision for the store, and the reads for the decision.
        sleep(Duration::from_secs(1)).await;
        app.clock.advance(SECOND);
        let reads = [
            review.clone(),
            format!("{review}/wait?timeout=20"),
            format!("{REVIEWS}?channelId=demo"),
            format!("{MESSAGES}/{id}"),
            format!("{MESSAGES}?channelId=demo"),
            format!("{MESSAGES}/{id}/iterations"),
        ];
        let reading: Vec<_> = reads.iter().map(|path| tokio::spawn(app.get(path).send())).collect();
        sleep(Duration::from_secs(1)).await;
        store.hold(None);
        let decided = deciding.await.unwrap().expect(200);
        assert_eq!(decided["status"], if cancelled { "cancelled" } else { "completed" });
        for (path, read) in reads.iter().zip(reading) {
            let read = read.await.unwrap().expect(200);
            let first = read.get("data").map_or(&read, |data| &data[0]);
            let status = first["review"].get("status").unwrap_or(&first["status"]);
            assert_eq!(status, &decided["status"], "{path}: {read}");
        }
    }
}

#[tokio::test]
async fn a_review_that_cannot_be_ended_now_is_shown_as_pending() {
    let (app, store) = TestApp::faulty_in_memory().await;
    let review = asked(&app, json!({"type": "approval", "expiresInSeconds": 1})).await;
    let id = MessageId::parse(review.rsplit('/').next().unwrap()).unwrap();
    store.refuse(Some(EntityKey::conversation(address_of(DEFAULT), id.entity)));
    app.clock.advance(2 * SECOND);
    assert_eq!(app.get(&review).await.expect(200)["status"], "pending");
    store.refuse(None);
    assert_eq!(app.get(&review).await.expect(200)["status"], "expired");
}
