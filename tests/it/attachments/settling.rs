//! Unused files are deleted, and no others.

use super::*;
use crate::support::origin::{Origin, ok};

#[tokio::test(start_paused = true)]
async fn an_upload_that_nobody_links_goes_after_a_day() {
    let app = TestApp::new().await;
    let (orphan, linked, mentioned) =
        (uploaded(&app, "orphan").await, uploaded(&app, "linked").await, uploaded(&app, "mentioned").await);
    with_files(&app, "demo", &[&linked]).await.expect(201);
    let body = json!({"content": {"content": "see", "attachments": [{"id": mentioned}]}});
    app.post("/api/v1/messages").json(body).await.expect(200);
    app.clock.advance(DAY - 1_000);
    app.get(format!("/api/v1/attachments/{orphan}/content")).await.expect(200);
    app.clock.advance(2_000);
    until(async || (app.get(format!("/api/v1/attachments/{orphan}")).await.status == 404).then_some(())).await;
    app.get(format!("/api/v1/attachments/{orphan}/content")).await.problem(404, "attachment_not_found");
    until(async || recorded(&app, &orphan).await.check_at.is_none().then_some(())).await;
    until(async || recorded(&app, &mentioned).await.check_at.is_none().then_some(())).await;
    for (id, text) in [(&linked, "linked"), (&mentioned, "mentioned")] {
        assert_eq!(app.get(format!("/api/v1/attachments/{id}/content")).await.bytes, text.as_bytes());
    }
    assert_eq!(files_below(app.files.path()).len(), 2);
    let late = with_files(&app, "demo", &[&orphan]).await.faults();
    assert_eq!(late, ["attachment_not_found /attachmentIds/0"]);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_never_ended_leaves_nothing() {
    let app = TestApp::new().await;
    let workspace = address_of("default");
    let entity = EntityKey::attachment(workspace, actors::id::Address([7; 10]));
    // A process that dies while it writes leaves this: a record, and a file under a name that no listing shows.
    let begin = attachment::Begin(AttachmentId::new(app.app.now(), entity.id));
    app.app.node().attachment(entity, begin, Default::default()).await.unwrap();
    let folder = app.files.path().join(attachment::folder(entity));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("0123456789abcdef#1"), "half a file").unwrap();
    std::fs::write(folder.join("fedcba9876543210"), "a whole one that was never recorded").unwrap();
    app.clock.advance(DAY + 1_000);
    until(async || files_below(app.files.path()).is_empty().then_some(())).await;
    let gone = async || app.app.node().state::<Attachment>(entity).await.unwrap().unwrap();
    until(async || {
        let state = gone().await;
        (state.erased && state.check_at.is_none()).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn bytes_of_a_lost_upload_attempt_are_removed_and_the_file_stays() {
    let app = TestApp::new().await;
    let id = uploaded(&app, "the file").await;
    with_files(&app, "demo", &[&id]).await.expect(201);
    until(async || recorded(&app, &id).await.message.filter(|_| true)).await;
    let other = uploaded(&app, "other").await;
    let state = recorded(&app, &other).await;
    let folder = app.files.path().join(&state.file.as_ref().unwrap().storage_key);
    std::fs::write(folder.with_file_name("ffffffffffffffff"), "a lost attempt").unwrap();
    let body = json!({"content": {"content": "see", "attachments": [{"id": other}]}});
    app.post("/api/v1/messages").json(body).await.expect(200);
    app.clock.advance(DAY + 1_000);
    until(async || (files_below(app.files.path()).len() == 2).then_some(())).await;
    assert_eq!(app.get(format!("/api/v1/attachments/{other}/content")).await.bytes, b"other");
}

#[tokio::test]
async fn the_files_of_a_deleted_message_go_with_it() {
    let app = TestApp::new().await;
    let a = uploaded(&app, "a").await;
    let b = uploaded(&app, "b").await;
    let sent = with_files(&app, "demo", &[&a]).await.expect(201);
    let kept = with_files(&app, "demo", &[&b]).await.expect(201);
    let path = format!("/api/v1/messages/{}", sent["id"].as_str().unwrap());
    app.delete(&path).header("if-match", "\"sha256:0\"").await.problem(412, "precondition_failed");
    assert_eq!(app.get(format!("/api/v1/attachments/{a}/content")).await.bytes, b"a");
    app.delete(&path).await.expect(204);
    assert_eq!(files_below(app.files.path()).len(), 1, "they are gone when the answer comes");
    app.get(format!("/api/v1/attachments/{a}/content")).await.problem(404, "attachment_not_found");
    let shown = app.get(format!("/api/v1/attachments/{b}")).await.expect(200);
    assert_eq!(shown["messageId"], kept["id"]);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_between_deleting_and_clearing_leaves_no_bytes() {
    let app = TestApp::new().await;
    let a = uploaded(&app, "a").await;
    let sent = with_files(&app, "demo", &[&a]).await.expect(201);
    let linked = until(async || recorded(&app, &a).await.message).await;
    assert_eq!(json!(linked.to_string()), sent["id"]);
    // Every step of a deletion but the last.
    let workspace = address_of("default");
    let entity = EntityKey::attachment(workspace, AttachmentId::parse(&a).unwrap().address);
    app.app.node().attachment(entity, attachment::Command::Doubt, Default::default()).await.unwrap();
    let conversation = actors::channel::conversation_of(workspace, "demo", 0);
    let amendment = actors::conversation::amend::Amendment::Delete { seen: None };
    let delete = actors::conversation::Amend { message: linked, amendment };
    app.app.node().conversation(conversation, delete, Default::default()).await.unwrap();
    assert_eq!(files_below(app.files.path()).len(), 1);
    app.clock.advance(61_000);
    until(async || files_below(app.files.path()).is_empty().then_some(())).await;
}

#[tokio::test]
async fn the_files_of_an_erased_contact_go_with_its_words() {
    let origin = Origin::serve(|_| ok("image/png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR and so on")).await;
    let app = TestApp::with_env(&[("TERTULIA_EGRESS_ALLOW", "127.0.0.0/8")]).await;
    let send = |contact: &str| {
        let content = json!({"image": {"url": origin.url("/private.png")}});
        let body = json!({"type": "IMAGE", "contactIdentifier": contact, "content": content});
        app.post("/api/v1/channels/demo-api/messages").json(body).send()
    };
    let erased = send("ana").await.expect(200);
    let other = send("bob").await.expect(200);
    send("ana").await.expect(200);
    assert_eq!(files_below(app.files.path()).len(), 3);
    let file = async |sent: &Value| {
        let message = app.get(format!("/api/v1/messages/{}", sent["messageId"].as_str().unwrap())).await.expect(200);
        message["attachments"][0]["id"].as_str().unwrap_or_default().to_owned()
    };
    let gone = file(&erased).await;
    let kept = file(&other).await;
    app.delete(format!("/api/v1/contacts/{}", erased["contactId"].as_str().unwrap())).await.expect(204);
    until(async || (files_below(app.files.path()).len() == 1).then_some(())).await;
    for path in [format!("/api/v1/attachments/{gone}"), format!("/api/v1/attachments/{gone}/content")] {
        app.get(path).await.problem(404, "attachment_not_found");
    }
    assert_eq!(file(&erased).await, "", "the place of the message shows no file");
    app.get(format!("/api/v1/attachments/{kept}/content")).await.expect(200);
    assert!(!format!("{:?}", recorded(&app, &gone).await).contains("private"), "nor what it was called");
}

/// Mentions a file in a new conversation, and returns the path of the message.
async fn mentioning(app: &TestApp, id: &str) -> String {
    let body = json!({"content": {"content": "see", "attachments": [{"id": id}]}});
    let sent = app.post("/api/v1/messages").json(body).await.expect(200);
    format!("/api/v1/messages/{}", sent[0]["id"].as_str().unwrap())
}

/// Moves the clock past the time until which a message that mentions a file may still arrive.
fn arrived(app: &TestApp) {
    app.clock.advance(actors::limits::LINKING_MILLIS);
}

/// Moves the time to when every doubt about a file is settled.
async fn settled(app: &TestApp, id: &str) {
    app.clock.advance(61_000);
    until(async || recorded(app, id).await.check_at.is_none().then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_stays_for_a_message_that_mentions_it_long_after_the_first() {
    let app = TestApp::new().await;
    let id = uploaded(&app, "both").await;
    let first = mentioning(&app, &id).await;
    app.clock.advance(DAY + 3_600_000);
    until(async || recorded(&app, &id).await.check_at.is_none().then_some(())).await;
    let second = mentioning(&app, &id).await;
    app.delete(&first).await.expect(204);
    settled(&app, &id).await;
    assert_eq!(app.get(format!("/api/v1/attachments/{id}/content")).await.bytes, b"both");
    app.delete(&second).await.expect(204);
    arrived(&app);
    until(async || files_below(app.files.path()).is_empty().then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_in_its_second_life_answers_a_retry_whose_file_has_gone() {
    let app = TestApp::new().await;
    let say = |content: Value| app.post("/api/v1/messages").json(json!({"content": content})).idempotency_key("k");
    say(json!({"content": "long ago"})).await.expect(200);
    app.clock.advance(actors::limits::KEY_KEPT_MILLIS);
    let id = uploaded(&app, "a").await;
    let mention = json!({"content": "see", "attachments": [{"id": id}]});
    let first = say(mention.clone()).await.expect(200)[0]["id"].clone();
    app.clock.advance(DAY + 3_600_000);
    until(async || recorded(&app, &id).await.check_at.is_none().then_some(())).await;
    app.delete(format!("/api/v1/messages/{}", first.as_str().unwrap())).await.expect(204);
    arrived(&app);
    until(async || files_below(app.files.path()).is_empty().then_some(())).await;
    let retry = say(mention).await;
    assert_eq!((retry.header("idempotent-replayed"), &retry.json[0]["id"]), ("true", &first), "{}", retry.json);
}

#[tokio::test(start_paused = true)]
async fn a_file_outlives_its_message_while_another_mentions_it() {
    let app = TestApp::new().await;
    let id = uploaded(&app, "both").await;
    let sent = with_files(&app, "demo", &[&id]).await.expect(201);
    until(async || recorded(&app, &id).await.message).await;
    let mention = mentioning(&app, &id).await;
    app.delete(format!("/api/v1/messages/{}", sent["id"].as_str().unwrap())).await.expect(204);
    settled(&app, &id).await;
    assert_eq!(app.get(format!("/api/v1/attachments/{id}/content")).await.bytes, b"both");
    app.delete(&mention).await.expect(204);
    arrived(&app);
    until(async || files_below(app.files.path()).is_empty().then_some(())).await;
    app.get(format!("/api/v1/attachments/{id}/content")).await.problem(404, "attachment_not_found");
}

#[tokio::test(start_paused = true)]
async fn a_file_waits_for_a_message_that_is_about_to_mention_it() {
    let app = TestApp::new().await;
    let id = uploaded(&app, "both").await;
    let sent = with_files(&app, "demo", &[&id]).await.expect(201);
    until(async || recorded(&app, &id).await.message).await;
    // The first half of a message that mentions the file.
    let made = app.post("/api/v1/conversations").json(json!({})).await.expect(201);
    let conversation = made["id"].as_str().unwrap();
    let address = actors::id::ConversationId::parse(conversation).unwrap().address;
    let entity = EntityKey::attachment(address_of("default"), AttachmentId::parse(&id).unwrap().address);
    app.app.node().attachment(entity, attachment::Command::Mention(address), Default::default()).await.unwrap();
    app.delete(format!("/api/v1/messages/{}", sent["id"].as_str().unwrap())).await.expect(204);
    // By then the file was checked and found unused.
    let held = until(async || recorded(&app, &id).await.check_at.filter(|at| *at > app.app.now().plus(120_000))).await;
    // The second half.
    let body = json!({"conversation_id": conversation, "content": {"content": "see", "attachments": [{"id": id}]}});
    let second = app.post("/api/v1/messages").json(body).await.expect(200);
    assert!(held > app.app.now());
    arrived(&app);
    until(async || recorded(&app, &id).await.check_at.is_none().then_some(())).await;
    assert_eq!(app.get(format!("/api/v1/attachments/{id}/content")).await.bytes, b"both");
    app.delete(format!("/api/v1/messages/{}", second[0]["id"].as_str().unwrap())).await.expect(204);
    arrived(&app);
    until(async || files_below(app.files.path()).is_empty().then_some(())).await;
}
