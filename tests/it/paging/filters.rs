//! Filters of lists, and that their pages are as exact as those of the whole list.

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::world;
use crate::support::TestApp;

#[tokio::test]
async fn filters_narrow_a_list_and_its_pages_stay_exact() {
    let app = TestApp::new().await;
    let batch = json!({"content": [
        {"content": "Hello World", "role": "user", "sender_id": "ana", "tags": ["Red", "blue"]},
        {"content": "ÉTÉ", "role": "assistant", "sender_id": "bot", "attachments": [{"url": "u"}]},
        {"content": "hello again", "role": "user", "sender_id": "bob", "tags": ["red"], "attachments": [],
         "message_type": "note"},
        {"content": "nothing", "role": "tool", "sender_id": "ana", "tags": []},
    ]});
    let made = app.post("/api/v1/messages").json(batch).await.expect(200);
    let id = made[0]["conversation_id"].as_str().unwrap().to_owned();
    for (query, expected) in [
        ("search=hello", vec![0, 2]),
        ("search=HELLO%20w", vec![0]),
        ("search=%C3%A9t%C3%A9", vec![1]),
        ("search=absent", vec![]),
        ("search=", vec![0, 1, 2, 3]),
        ("senderId=ana", vec![0, 3]),
        ("senderId=an", vec![]),
        ("role=user", vec![0, 2]),
        ("role=system", vec![]),
        ("messageType=note", vec![2]),
        ("messageType=text&role=user", vec![0]),
        ("messageType=Note", vec![]),
        ("messageType=", vec![0, 1, 2, 3]),
        ("tag=red", vec![2]),
        ("tag=Red", vec![0]),
        ("hasAttachments=true", vec![1]),
        ("hasAttachments=false", vec![0, 2, 3]),
        ("search=hello&senderId=bob&role=user&tag=red&hasAttachments=false", vec![2]),
        ("search=hello&senderId=bot", vec![]),
    ] {
        for list in [format!("/api/v1/conversations/{id}/messages?"), format!("/api/v1/messages?conversationId={id}&")]
        {
            let whole = app.get(format!("{list}{query}")).await.expect(200);
            let expected: Vec<Value> = expected.iter().map(|n: &usize| made[*n].clone()).collect();
            assert_eq!(whole["data"], json!(expected), "{query}");
            if expected.is_empty() {
                continue;
            }
            let exact = app.get(format!("{list}{query}&limit={}", expected.len())).await.expect(200);
            assert_eq!((&exact["data"], &exact["hasMore"]), (&whole["data"], &json!(false)), "{query}");
            let one = app.get(format!("{list}{query}&limit=1&order=desc")).await.expect(200);
            assert_eq!((&one["data"][0], one["hasMore"] == true), (expected.last().unwrap(), expected.len() > 1));
        }
    }
    let faults = app.get(format!("/api/v1/conversations/{id}/messages?hasAttachments=yes")).await.faults();
    assert_eq!(faults, ["invalid_type /hasAttachments"]);
    app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "Hello"})).await.expect(201);
    for (query, length) in
        [("search=hello", 1), ("search=bye", 0), ("hasAttachments=true", 0), ("hasAttachments=false", 1)]
    {
        let page = app.get(format!("/api/v1/messages?channelId=demo&{query}")).await.expect(200);
        assert_eq!(page["data"].as_array().unwrap().len(), length, "{query}");
    }
}

#[tokio::test]
async fn a_list_of_messages_needs_to_know_whose() {
    let world = world().await;
    assert_eq!(world.app.get("/api/v1/messages").await.faults(), ["required /channelId", "required /conversationId"]);
    let both = format!("/api/v1/messages?channelId=demo&conversationId={}", world.conversation);
    world.app.get(both).await.problem(400, "invalid_query");
    world.app.get("/api/v1/messages?channelId=none").await.problem(404, "channel_not_found");
    world.app.get("/api/v1/messages?conversationId=none").await.problem(404, "conversation_not_found");
}

#[tokio::test]
async fn conversations_are_listed_by_their_status() {
    let world = world().await;
    let path = format!("/api/v1/conversations/{}", world.conversation);
    world.app.patch(path).json(json!({"status": "closed"})).await.expect(200);
    for (status, length) in [("closed", 1), ("open", 7)] {
        let pages = world.pages(&format!("/api/v1/conversations?status={status}"), 3, "asc").await;
        assert_eq!(pages.concat().len(), length, "{status}");
    }
    assert_eq!(world.app.get("/api/v1/conversations?status=x").await.faults(), ["invalid_enum /status"]);
}

#[tokio::test]
async fn conversations_are_filtered_by_owner_channel_and_contact_together() {
    let app = TestApp::new().await;
    let opened = async |owner: Value| {
        let opened = app.post("/api/v1/conversations").json(json!({"ownerId": owner})).await.expect(201);
        opened["id"].clone()
    };
    let wrote = async |channel: &str, who: &str| {
        let body = json!({"type": "TEXT", "contactIdentifier": who, "content": {"text": {"body": "Hi"}}});
        let path = format!("/api/v1/channels/{channel}/messages");
        let answer = app.post(path).json(body).await.expect(200);
        (answer["conversationId"].clone(), answer["contactId"].as_str().unwrap().to_owned())
    };
    let second = json!({"id": "second", "name": "second", "kind": "api", "agentId": "echo"});
    app.post("/api/v1/channels").json(second).await.expect(201);
    let of_ana = opened(json!("ana")).await;
    let of_bob = opened(json!("bob")).await;
    opened(Value::Null).await;
    let (ana_here, ana) = wrote("demo-api", "ana@example.com").await;
    let (ana_there, _) = wrote("second", "ana@example.com").await;
    let (bob_here, _) = wrote("demo-api", "bob@example.com").await;
    app.patch(format!("/api/v1/conversations/{}", ana_there.as_str().unwrap()))
        .json(json!({"status": "closed", "ownerId": "ana"}))
        .await
        .expect(200);
    for (filter, expected) in [
        ("ownerId=ana".to_owned(), vec![&of_ana, &ana_there]),
        ("ownerId=bob".to_owned(), vec![&of_bob]),
        ("ownerId=Ana".to_owned(), vec![]),
        ("ownerId=ana&status=open".to_owned(), vec![&of_ana]),
        ("channelId=demo-api".to_owned(), vec![&ana_here, &bob_here]),
        ("channelId=second&ownerId=ana".to_owned(), vec![&ana_there]),
        ("channelId=demo".to_owned(), vec![]),
        ("channelId=none".to_owned(), vec![]),
        (format!("contactId={ana}"), vec![&ana_here, &ana_there]),
        (format!("contactId={ana}&channelId=second"), vec![&ana_there]),
        (format!("contactId={ana}&status=open"), vec![&ana_here]),
        (format!("contactId={ana}&ownerId=bob"), vec![]),
        ("contactId=none".to_owned(), vec![]),
        ("contactId=cont_00000000000000000000000000".to_owned(), vec![]),
    ] {
        for (order, limit) in [("asc", 1), ("asc", 50), ("desc", 1), ("desc", 50)] {
            let mut found = app.ids(format!("/api/v1/conversations?{filter}&order={order}&limit={limit}")).await;
            if order == "desc" {
                found.reverse();
            }
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{filter} {order} {limit}");
        }
    }
    let all = app.get("/api/v1/conversations?limit=1&ownerId=").await.expect(200);
    let cursor = all["nextCursor"].as_str().unwrap();
    app.get(format!("/api/v1/conversations?cursor={cursor}&ownerId=ana")).await.expect(200);
    app.get(format!("/api/v1/conversations?cursor={cursor}&contactId={ana}")).await.problem(400, "invalid_cursor");
    let faults = app.get("/api/v1/conversations?status=x&ownerId=ana&limit=0").await.faults();
    assert_eq!(faults, ["out_of_range /limit", "invalid_enum /status"]);
    let other = app.workspace("other").await;
    for filter in ["ownerId=ana".to_owned(), "channelId=demo-api".to_owned(), format!("contactId={ana}")] {
        let page = app.get(format!("/api/v1/conversations?{filter}")).key(&other).await.expect(200);
        assert_eq!(page["data"], json!([]), "{filter}");
    }
}

/// More than are loaded for one page.
#[tokio::test]
async fn a_channels_review_is_found_behind_many_of_another_channel() {
    let app = TestApp::new().await;
    app.post("/api/v1/channels").json(json!({"id": "second", "name": "s", "kind": "human"})).await.expect(201);
    let ask = |channel: &str| {
        let body = json!({"channelId": channel, "review": {"type": "approval"}});
        app.post("/api/v1/messages").json(body).send()
    };
    let before = ask("second").await.expect(201)["id"].clone();
    let others: Vec<_> = stream::iter((0..2_100).map(|_| ask("demo"))).buffer_unordered(64).collect().await;
    others.into_iter().for_each(|answer| drop(answer.expect(201)));
    let behind = ask("second").await.expect(201)["id"].clone();
    for (query, expected) in
        [("", [&before, &behind]), ("&status=pending", [&before, &behind]), ("&order=desc", [&behind, &before])]
    {
        let page = app.get(format!("/api/v1/reviews?channelId=second{query}")).await.expect(200);
        assert_eq!([&page["data"][0]["id"], &page["data"][1]["id"]], expected, "{query}");
        assert_eq!((page["data"].as_array().unwrap().len(), &page["hasMore"]), (2, &json!(false)), "{query}");
    }
}
