//! A file belongs to one message, and a message gets all of its files or is refused.

use super::*;

#[tokio::test]
async fn a_message_shows_its_files_in_their_order_and_they_show_their_message() {
    let app = TestApp::new().await;
    let a = uploaded(&app, "a").await;
    let b = uploaded(&app, "b").await;
    let sent = with_files(&app, "demo", &[&b, &a]).await.expect(201);
    let shown: Vec<&Value> = sent["attachments"].as_array().unwrap().iter().collect();
    assert_eq!([&shown[0]["id"], &shown[1]["id"]], [&json!(b), &json!(a)]);
    for file in shown {
        assert_eq!(file["messageId"], sent["id"]);
        assert_eq!(app.get(format!("/api/v1/attachments/{}", file["id"].as_str().unwrap())).await.expect(200), *file);
    }
    let read = app.get(format!("/api/v1/messages/{}", sent["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(read["attachments"], sent["attachments"]);
    app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "bare"})).await.expect(201);
    for (wanted, expected) in [("true", vec![sent["text"].clone()]), ("false", vec![json!("bare")])] {
        let path = format!("/api/v1/messages?channelId=demo&hasAttachments={wanted}");
        let listed = app.get(path).await.expect(200);
        let texts: Vec<Value> = listed["data"].as_array().unwrap().iter().map(|m| m["text"].clone()).collect();
        assert_eq!(texts, expected, "{wanted}");
    }
    let only = uploaded(&app, "only").await;
    let body = json!({"channelId": "demo", "attachmentIds": [only]});
    assert_eq!(app.post("/api/v1/messages").json(body).await.expect(201)["attachments"][0]["id"], json!(only));
}

#[tokio::test]
async fn one_file_that_cannot_be_had_refuses_the_message_and_the_others_stay_free() {
    let app = TestApp::new().await;
    let a = uploaded(&app, "a").await;
    let b = uploaded(&app, "b").await;
    let faults = with_files(&app, "demo", &[&a, "att_nobody", &b, "x"]).await.faults();
    assert_eq!(faults, ["attachment_not_found /attachmentIds/1", "attachment_not_found /attachmentIds/3"]);
    let both = json!({"channelId": "demo", "status": "loud", "attachmentIds": [a, "att_nobody"]});
    let faults = app.post("/api/v1/messages").json(both).await.faults();
    assert_eq!(faults.len(), 2, "all faults at once: {faults:?}");
    let twice = with_files(&app, "demo", &[&a, &a]).await.faults();
    assert_eq!(twice, ["duplicate_value /attachmentIds/1"]);

    let first = with_files(&app, "demo", &[&a]).await.expect(201);
    let refused = with_files(&app, "demo", &[&b, &a]).await.problem(409, "attachment_already_linked");
    assert_eq!(refused["attachmentId"], json!(a));
    app.post("/api/v1/channels").json(json!({"id": "second", "name": "s", "kind": "human"})).await.expect(201);
    with_files(&app, "second", &[&b, &a]).await.problem(409, "attachment_already_linked");
    let second = with_files(&app, "second", &[&b]).await.expect(201);
    assert_eq!(recorded(&app, &a).await.ready().unwrap().size, 1);
    for (id, message) in [(&a, &first), (&b, &second)] {
        let shown = app.get(format!("/api/v1/attachments/{id}")).await.expect(200);
        assert_eq!(shown["messageId"], message["id"]);
    }
    let listed = app.get("/api/v1/messages?channelId=demo").await.expect(200);
    assert_eq!(listed["data"].as_array().unwrap().len(), 1, "nothing of what was refused was stored");
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_also_when_its_files_have_gone() {
    let app = TestApp::new().await;
    let a = uploaded(&app, "a").await;
    let send = || with_files(&app, "demo", &[&a]).idempotency_key("k");
    let first = send().await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, ""));
    for _ in 0..3 {
        let again = send().await;
        assert_eq!((again.header("idempotent-replayed"), &again.bytes), ("true", &first.bytes));
    }
    with_files(&app, "demo", &[]).idempotency_key("k").await.problem(422, "idempotency_key_reused");
    app.delete(format!("/api/v1/messages/{}", first.json["id"].as_str().unwrap())).await.expect(204);
    until(async || files_below(app.files.path()).is_empty().then_some(())).await;
    let again = send().await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, "true"));
    assert_eq!((&again.json["id"], &again.json["deleted"]), (&first.json["id"], &json!(true)));
    let fresh = with_files(&app, "demo", &[&a]).await.faults();
    assert_eq!(fresh, ["attachment_not_found /attachmentIds/0"]);
}

#[tokio::test]
async fn only_one_of_the_messages_that_race_for_a_file_gets_it() {
    let app = TestApp::new().await;
    for channel in ["c0", "c1", "c2", "c3"] {
        app.post("/api/v1/channels").json(json!({"id": channel, "name": channel, "kind": "human"})).await.expect(201);
    }
    for round in 0..25 {
        let files = [uploaded(&app, "a").await, uploaded(&app, "b").await, uploaded(&app, "c").await];
        let requests = (0..12).map(|n| {
            // The messages go to different channels, with the same files in different orders, and with some of them
            // alone.
            let ids = match n % 3 {
                0 => vec![files[0].as_str(), &files[1], &files[2]],
                1 => vec![files[2].as_str(), &files[0], &files[1]],
                _ => vec![files[1].as_str(), &files[0]],
            };
            with_files(&app, &format!("c{}", n % 4), &ids).send()
        });
        let answers: Vec<Answer> = stream::iter(requests).buffered(12).collect().await;
        let won: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 201).collect();
        let lost = answers.iter().filter(|answer| answer.status == 409).count();
        assert_eq!((won.len(), lost), (1, 11), "round {round}: {answers:?}");
        let message = &won[0].json["id"];
        for file in won[0].json["attachments"].as_array().unwrap() {
            let shown = app.get(format!("/api/v1/attachments/{}", file["id"].as_str().unwrap())).await.expect(200);
            assert_eq!(shown["messageId"], *message);
        }
    }
}

#[tokio::test]
async fn a_file_that_a_dead_attempt_had_bound_is_free_for_another_channel() {
    let app = TestApp::new().await;
    app.post("/api/v1/channels").json(json!({"id": "second", "name": "s", "kind": "human"})).await.expect(201);
    app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "it exists"})).await.expect(201);
    let a = uploaded(&app, "a").await;
    // The steps of a process that dies before it posts.
    let workspace = address_of("default");
    let conversation = actors::channel::conversation_of(workspace, "demo", 0).id;
    let entity = EntityKey::attachment(workspace, AttachmentId::parse(&a).unwrap().address);
    let bind = attachment::Bind { conversation, instead_of: None };
    app.app.node().attachment(entity, bind, Default::default()).await.unwrap();
    assert_eq!(app.get(format!("/api/v1/attachments/{a}")).await.expect(200)["messageId"], Value::Null);

    let sent = with_files(&app, "second", &[&a]).await.expect(201);
    assert_eq!(sent["attachments"][0]["id"], json!(a));
    with_files(&app, "demo", &[&a]).await.problem(409, "attachment_already_linked");
}

#[tokio::test]
async fn a_conversation_message_mentions_uploads_of_its_workspace_and_keeps_them() {
    let app = TestApp::new().await;
    let a = uploaded(&app, "a").await;
    let body = |ids: &[&str]| {
        let attachments: Vec<Value> = ids.iter().map(|id| json!({"id": id, "note": 1})).collect();
        json!({"content": {"content": "see", "attachments": attachments}})
    };
    let sent = app.post("/api/v1/messages").json(body(&[&a])).idempotency_key("k").await.expect(200);
    assert_eq!(sent[0]["attachments"], json!([{"id": a, "note": 1}]));
    let again = app.post("/api/v1/messages").json(body(&[&a])).await.expect(200);
    assert_ne!(sent[0]["conversation_id"], again[0]["conversation_id"], "mentioning is not having");
    let faults = app.post("/api/v1/messages").json(body(&[&a, "att_nobody"])).await.faults();
    assert_eq!(faults, ["attachment_not_found /content/attachments/1/id"]);
    let shown = app.get(format!("/api/v1/attachments/{a}")).await.expect(200);
    assert_eq!(shown["messageId"], Value::Null);
}
