//! Contacts: created, found, changed and erased, through HTTP.

use actors::contact::entity_of;
use actors::id::{ContactId, ConversationId, EntityKey};
use actors::limits;
use actors::memories::Subject;
use actors::workspace::{DEFAULT, address_of};
use serde_json::{Value, json};

use crate::support::{TestApp, text};

const CONTACTS: &str = "/api/v1/contacts";

async fn save(app: &TestApp, identifier: &str, name: &str) -> Value {
    app.post(CONTACTS).json(json!({"identifier": identifier, "name": name})).await.expect(201)
}

fn names(page: &Value) -> Vec<&str> {
    page["data"].as_array().unwrap().iter().map(|contact| text(&contact["name"])).collect()
}

fn said(identifier: &str, words: &str) -> Value {
    json!({"type": "TEXT", "contactIdentifier": identifier, "contactName": "Ana", "content": {"text": {"body": words}}})
}

async fn say(app: &TestApp, words: &str) -> Value {
    app.post("/api/v1/channels/demo-api/messages").json(said("Ana@Example.com", words)).await.expect(200)
}

#[tokio::test]
async fn a_contact_is_found_by_any_spelling_of_its_address() {
    let app = TestApp::new().await;
    let made = app.post(CONTACTS).json(json!({"identifier": " Ana@Example.com ", "name": "Ana"})).await;
    assert_eq!(made.header("location"), format!("/api/v1/contacts/{}", text(&made.json["id"])));
    let made = made.expect(201);
    assert_eq!((text(&made["identifier"]), text(&made["name"])), ("Ana@Example.com", "Ana"));
    let same = app.post(CONTACTS).json(json!({"identifier": "ana@example.COM"})).await.expect(200);
    assert_eq!(same, made, "and without a name the name stays");
    let found = app.get(format!("{CONTACTS}?identifier=ANA@example.com")).await.expect(200);
    assert_eq!(found["data"], json!([made]));
    let renamed = app.post(CONTACTS).json(json!({"identifier": "ana@example.com", "name": null})).await.expect(200);
    assert_eq!((&renamed["id"], &renamed["name"]), (&made["id"], &json!(null)));
    assert_eq!(say(&app, "hi").await["contactId"], made["id"], "who writes is that contact");
    let other = app.post(CONTACTS).json(json!({"identifier": "ANA"})).await.expect(201);
    let another = app.post(CONTACTS).json(json!({"identifier": "ana"})).await.expect(201);
    assert_ne!(other["id"], another["id"], "only addresses compare without case");
}

#[tokio::test]
async fn a_contact_never_becomes_another_one_by_a_change() {
    let app = TestApp::new().await;
    let id = save(&app, "ana@example.com", "Ana").await["id"].clone();
    save(&app, "eve@example.com", "Eve").await;
    let path = format!("{CONTACTS}/{}", text(&id));
    let taken = app.patch(&path).json(json!({"identifier": "eve@example.com"})).await;
    assert_eq!(taken.faults(), ["immutable_field /identifier"]);
    let nameless = app.patch(&path).json(json!({"name": "  "})).await.expect(200);
    assert_eq!(nameless["name"], Value::Null, "a name of blanks is none, here as where a contact is made");
    let same = app.patch(&path).json(json!({"identifier": "ana@example.com", "name": "Anna"})).await.expect(200);
    assert_eq!(same["name"], "Anna");
    assert_eq!(names(&app.get(format!("{CONTACTS}?name=an")).await.expect(200)), ["Anna"]);
}

#[tokio::test]
async fn a_change_that_gives_no_name_takes_back_none_that_races_it() {
    let app = TestApp::new().await;
    let ana = save(&app, "ana", "Ana").await;
    let change = |body: Value| app.patch(format!("{CONTACTS}/{}", text(&ana["id"]))).json(body).send();
    for name in ["Bea", "Eve"] {
        let (named, bare) = tokio::join!(change(json!({"name": name})), change(json!({})));
        assert_eq!((named.expect(200)["name"].as_str(), bare.status), (Some(name), 200));
        let bare = change(json!({})).await;
        let now = app.get(format!("{CONTACTS}/{}", text(&ana["id"]))).await;
        assert_eq!((&bare.json["name"], &now.json["name"]), (&json!(name), &json!(name)));
    }
}

#[tokio::test]
async fn contacts_are_found_by_the_beginning_of_their_name_page_by_page() {
    let app = TestApp::new().await;
    let long = "\u{c4}nne ".repeat(20);
    for (n, name) in ["Berta", "ana", "Anabel", "\u{c4}nne", "ANATOL", &long].iter().enumerate() {
        save(&app, &format!("c{n}"), name).await;
    }
    let search = |name: &str| format!("{CONTACTS}?name={name}&limit=2");
    let first = app.get(search("ana")).await.expect(200);
    assert_eq!(names(&first), ["ana", "Anabel"]);
    let rest = app.get(format!("{}&cursor={}", search("ana"), text(&first["nextCursor"]))).await.expect(200);
    assert_eq!((names(&rest), &rest["hasMore"]), (vec!["ANATOL"], &json!(false)));
    let other = app.get(format!("{}&cursor={}", search("anab"), text(&first["nextCursor"]))).await;
    other.problem(400, "invalid_cursor");
    let all = app.get(format!("{CONTACTS}?name=%C3%A4nne")).await.expect(200);
    assert_eq!(names(&all).len(), 2);
    let longer = format!("{CONTACTS}?name={}", "%C3%A4nne+".repeat(15));
    assert_eq!(names(&app.get(longer).await.expect(200)), [long.as_str()]);
    assert_eq!(names(&app.get(format!("{CONTACTS}?name=x")).await.expect(200)), [""; 0]);
}

#[tokio::test]
async fn a_thousand_contacts_are_made_at_once_or_refused_with_every_fault() {
    let app = TestApp::new().await;
    let bulk = format!("{CONTACTS}/bulk");
    let faulty = json!({"contacts": [
        {"identifier": "a"}, {"identifier": " "}, {"name": "x"}, 7, {"identifier": "A@b.cd"},
        {"identifier": "a@B.cd", "name": 5}, {"identifier": "x".repeat(256)},
    ]});
    assert_eq!(
        app.post(&bulk).json(faulty).await.faults(),
        [
            "required /contacts/1/identifier",
            "required /contacts/2/identifier",
            "invalid_type /contacts/3",
            "invalid_type /contacts/5/name",
            "duplicate_value /contacts/5/identifier",
            "too_long /contacts/6/identifier",
        ]
    );
    assert_eq!(app.get(CONTACTS).await.expect(200)["data"], json!([]), "nothing is half done");
    assert_eq!(app.post(&bulk).json(json!({"contacts": []})).await.faults(), ["empty_batch /contacts"]);
    assert_eq!(app.post(&bulk).json(json!({})).await.faults(), ["required /contacts"]);
    let many = |n: usize| json!({"contacts": (0..n).map(|n| json!({"identifier": format!("c{n}"), "name": "N"})).collect::<Vec<_>>()});
    assert_eq!(app.post(&bulk).json(many(1_001)).await.faults(), ["batch_too_large /contacts"]);
    save(&app, "c7", "Seven").await;
    let made = app.post(&bulk).json(many(1_000)).idempotency_key("k").await.expect(200);
    let made = made["data"].as_array().unwrap();
    assert_eq!(made.len(), 1_000);
    assert!(made.iter().enumerate().all(|(n, one)| one["identifier"] == format!("c{n}") && one["created"] == (n != 7)));
    app.post(&bulk).json(many(999)).idempotency_key("k").await.problem(422, "idempotency_key_reused");
    let again = app.post(&bulk).json(many(1_000)).idempotency_key("k").await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.expect(200)["data"].as_array().unwrap(), made);
}

#[tokio::test]
async fn a_request_with_more_faults_than_are_listed_is_told_so() {
    let app = TestApp::new().await;
    for (contacts, detail) in [
        (500, "the request has 1000 faults; see errors"),
        (501, "the request has more than 1000 faults; errors lists the first 1000"),
    ] {
        let faulty = json!({"contacts": vec![json!({"identifier": 1, "name": 1}); contacts]});
        let refused = app.post(format!("{CONTACTS}/bulk")).json(faulty).await.problem(400, "invalid_type");
        let listed = refused["errors"].as_array().unwrap();
        assert_eq!((text(&refused["detail"]), listed.len()), (detail, 1_000), "{contacts}");
    }
}

#[tokio::test]
async fn a_key_belongs_to_one_contact_and_its_retry_shows_what_it_made() {
    let app = TestApp::new().await;
    let body = json!({"identifier": "ana", "name": "Ana"});
    let first = app.post(CONTACTS).json(body.clone()).idempotency_key("k").await.expect(201);
    app.patch(format!("{CONTACTS}/{}", text(&first["id"]))).json(json!({"name": "Anna"})).await.expect(200);
    let retry = app.post(CONTACTS).json(body).idempotency_key("k").await;
    assert_eq!((retry.header("idempotent-replayed"), &retry.json), ("true", &first));
    retry.expect(201);
    let other = app.post(CONTACTS).json(json!({"identifier": "eve"})).idempotency_key("k").await;
    other.problem(422, "idempotency_key_reused");
}

#[tokio::test]
async fn a_key_whose_contact_could_not_be_saved_is_free_for_another_request() {
    let (app, store) = TestApp::faulty().await;
    let make = |name: &str| app.post(CONTACTS).json(json!({"identifier": name, "name": name})).idempotency_key("k");
    store.refuse(Some(entity_of(address_of(DEFAULT), "ana")));
    make("ana").await.problem(503, "store_unavailable");
    store.refuse(None);
    let eve = make("eve").await.expect(201);
    let retry = make("eve").await;
    assert_eq!((retry.header("idempotent-replayed"), retry.status, &retry.json), ("true", 201, &eve));
    make("ana").await.problem(422, "idempotency_key_reused");
    assert_eq!(names(&app.get(CONTACTS).await.expect(200)), ["eve"]);
}

#[tokio::test]
async fn changes_of_a_contact_are_events_in_its_log() {
    let app = TestApp::new().await;
    let id = say(&app, "hi").await["contactId"].clone();
    app.patch(format!("{CONTACTS}/{}", text(&id))).json(json!({"name": "Anna"})).await.expect(200);
    let events = app.get(format!("{CONTACTS}/{}/events", text(&id))).await.expect(200);
    let shown: Vec<_> =
        events["data"].as_array().unwrap().iter().map(|e| (&e["sequence"], &e["type"], &e["data"])).collect();
    let created = json!({"contactId": id, "identifier": "Ana@Example.com", "name": "Ana"});
    let updated = json!({"contactId": id, "name": "Anna"});
    assert_eq!(
        shown,
        [(&json!(1), &json!("contact.created"), &created), (&json!(2), &json!("contact.updated"), &updated)]
    );
    let first = app.get(format!("{CONTACTS}/{}/events?limit=1", text(&id))).await.expect(200);
    assert_eq!(first["hasMore"], true);
}

/// Everything of a conversation that clients can still see.
async fn everything(app: &TestApp, conversation: &str) -> String {
    let mut seen = String::new();
    for path in ["", "/messages", "/events"] {
        seen += &app.get(format!("/api/v1/conversations/{conversation}{path}")).await.expect(200).to_string();
    }
    seen
}

/// Everything stored of the contact and the conversation that an answer names.
async fn stored(app: &TestApp, answer: &Value) -> String {
    let contact = ContactId::parse(text(&answer["contactId"])).unwrap();
    let conversation = ConversationId::parse(text(&answer["conversationId"])).unwrap();
    let workspace = address_of("default");
    let contact = app.stored(EntityKey::contact(workspace, contact.address)).await;
    contact + &app.stored(EntityKey::conversation(workspace, conversation.address)).await
}

#[tokio::test]
async fn an_erased_contact_leaves_sequences_and_no_content() {
    let app = TestApp::new().await;
    let first = say(&app, "secret one").await;
    say(&app, "secret two").await;
    let contact = text(&first["contactId"]);
    let conversation = text(&first["conversationId"]);
    let message = format!("/api/v1/messages/{}", text(&first["messageId"]));
    app.patch(&message).json(json!({"content": "secret, edited"})).await.expect(200);
    let told = json!({"title": "secret", "ownerId": "ana@example.com"});
    app.patch(format!("/api/v1/conversations/{conversation}")).json(told).await.expect(200);
    // A client that keeps conversations of its own names people this way.
    let named = json!({"content": "secret", "sender_id": "ANA@example.com"});
    let named = json!({"conversation_id": conversation, "content": [named, {"content": "x", "sender_id": "bob"}]});
    let named = app.post("/api/v1/messages").json(named).await.expect(200);
    app.delete(format!("/api/v1/messages/{}", text(&named[0]["id"]))).await.expect(204);
    let before = app.get(format!("/api/v1/conversations/{conversation}/messages")).await.expect(200);
    let seen = stored(&app, &first).await;
    assert!(seen.contains("secret") && seen.contains("Ana@Example.com"));

    app.delete(format!("{CONTACTS}/{contact}")).await.expect(204);
    app.get(format!("{CONTACTS}/{contact}")).await.problem(404, "contact_not_found");
    app.delete(format!("{CONTACTS}/{contact}")).await.problem(404, "contact_not_found");
    app.patch(format!("{CONTACTS}/{contact}")).json(json!({"name": "x"})).await.problem(404, "contact_not_found");
    assert_eq!(app.get(CONTACTS).await.expect(200)["data"], json!([]));
    assert_eq!(app.get(format!("{CONTACTS}?name=a")).await.expect(200)["data"], json!([]));
    assert_eq!(app.get(format!("{CONTACTS}?identifier=ana@example.com")).await.expect(200)["data"], json!([]));

    let seen = everything(&app, conversation).await.to_lowercase();
    assert!(!seen.contains("secret") && !seen.contains("ana@"), "{seen}");
    let after = app.get(format!("/api/v1/conversations/{conversation}/messages")).await.expect(200);
    let places =
        |page: &Value| -> Vec<_> { page["data"].as_array().unwrap().iter().map(|m| m["id"].clone()).collect() };
    assert_eq!(places(&after), places(&before), "places and their order stay");
    assert!(after["data"].as_array().unwrap().iter().all(|m| m["erased"] == true && m["content"] == ""));
    let senders: Vec<_> = after["data"].as_array().unwrap().iter().map(|m| text(&m["sender_id"])).collect();
    assert_eq!(
        senders,
        [contact, "echo", contact, "echo", contact, "bob"],
        "who was named by identifier has only an id"
    );
    app.patch(&message).json(json!({"content": "secret"})).await.problem(409, "message_deleted");
    let reopen = app.patch(format!("/api/v1/conversations/{conversation}")).json(json!({"status": "open"})).await;
    reopen.problem(409, "conversation_erased");
    let stored = stored(&app, &first).await.to_lowercase();
    assert!(!stored.contains("secret") && !stored.contains("ana@"), "nor does the store have it");
}

#[tokio::test]
async fn a_repeated_erasure_waits_until_nothing_of_the_contact_is_left() {
    let app = TestApp::new().await;
    let first = say(&app, "secret one").await;
    let path = format!("{CONTACTS}/{}", text(&first["contactId"]));
    let fork = format!("/api/v1/conversations/{}/fork", text(&first["conversationId"]));
    let fork = app.post(fork).json(json!({})).await.expect(201);
    // A process that dies right after the beginning has done this much.
    let id = ContactId::parse(text(&first["contactId"])).unwrap();
    let entity = EntityKey::contact(address_of("default"), id.address);
    app.app.node().contact(entity, actors::contact::Command::Erase { id }, Default::default()).await.unwrap();
    app.get(&path).await.problem(404, "contact_not_found");
    app.delete(&path).await.expect(204);
    for conversation in [&first["conversationId"], &fork["id"]] {
        assert!(!everything(&app, text(conversation)).await.contains("secret"));
    }
    app.delete(&path).await.problem(404, "contact_not_found");
}

#[tokio::test]
async fn an_asynchronous_erasure_names_its_contact_in_location() {
    let app = TestApp::new().await;
    let first = say(&app, "secret one").await;
    let path = format!("{CONTACTS}/{}", text(&first["contactId"]));
    let at_once = app.delete(&path).header("prefer", "respond-async").await;
    assert_eq!((at_once.status, at_once.header("location")), (202, path.as_str()));
}

/// A new api channel for each number.
async fn channel(app: &TestApp, n: usize) -> String {
    let channel = json!({"id": format!("many-{n}"), "name": "Many", "kind": "api", "agentId": "echo"});
    app.post("/api/v1/channels").json(channel).await.expect(201);
    format!("/api/v1/channels/many-{n}/messages")
}

#[tokio::test]
async fn a_retry_finds_its_answer_after_its_contact_used_many_channels() {
    let app = TestApp::new().await;
    let path = channel(&app, 0).await;
    let keyed = || app.post(&path).json(said("ana", "secret")).idempotency_key("k");
    let first = keyed().await.expect(200);
    let conversation = format!("/api/v1/conversations/{}", text(&first["conversationId"]));
    app.patch(conversation).json(json!({"status": "closed"})).await.expect(200);
    let next = app.post(&path).json(said("ana", "next")).await.expect(200);
    assert_ne!(next["conversationId"], first["conversationId"]);
    for n in 1..=limits::CONTACT_CHANNELS {
        let path = channel(&app, n).await;
        app.post(path).json(said("ana", "elsewhere")).await.expect(200);
    }
    let again = keyed().await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.expect(200), first);
    app.delete(format!("{CONTACTS}/{}", text(&first["contactId"]))).await.expect(204);
    let after = keyed().await.expect(200);
    assert_eq!((&after["messageId"], &after["aiMessages"][0]["erased"]), (&first["messageId"], &json!(true)));
    let found = app.get(format!("{CONTACTS}?identifier=ana")).await.expect(200);
    assert_eq!(found["data"], json!([]), "nobody is written down again");
}

#[tokio::test]
async fn a_contact_writes_on_any_number_of_channels_and_all_of_it_goes_with_it() {
    let app = TestApp::new().await;
    let say_on = async |n: usize| {
        let path = format!("/api/v1/channels/many-{n}/messages");
        app.post(path).json(said("ana", &format!("secret {n}"))).await.expect(200)
    };
    let mut first = Vec::new();
    for n in 0..2 * limits::CONTACT_CHANNELS {
        channel(&app, n).await;
        first.push(say_on(n).await);
    }
    for n in [0, limits::CONTACT_CHANNELS] {
        assert_eq!(say_on(n).await["conversationId"], first[n]["conversationId"], "it goes on with the same one");
    }
    let contact = format!("{CONTACTS}/{}", text(&first[0]["contactId"]));
    // An erasure of so many may take longer than a request waits; a retry goes on waiting.
    if app.delete(contact.clone()).await.status == 202 {
        app.delete(contact).await.expect(204);
    }
    for answer in &first {
        assert!(!everything(&app, text(&answer["conversationId"])).await.contains("secret"));
    }
    let new = say_on(0).await;
    assert!(first.iter().all(|answer| answer["conversationId"] != new["conversationId"]));
    assert_ne!(new["contactId"], first[0]["contactId"]);
}

#[tokio::test]
async fn an_erasure_takes_what_the_one_of_the_life_before_has_left() {
    let app = TestApp::new().await;
    let remembered = |words: &str| {
        let mut body = said("ana", words);
        body["enableMemories"] = json!(true);
        app.post("/api/v1/channels/demo-api/messages").json(body)
    };
    let first = remembered("I like secret tea").await.expect(200);
    let id = ContactId::parse(text(&first["contactId"])).unwrap();
    let list = format!("{CONTACTS}/{}/memories", text(&first["contactId"]));
    let is_known = async { while !app.get(&list).await.expect(200).to_string().contains("tea") {} };
    tokio::time::timeout(std::time::Duration::from_secs(30), is_known).await.expect("it is remembered in the end");
    // A process that dies right after the beginning has done this much.
    let entity = EntityKey::contact(address_of("default"), id.address);
    app.app.node().contact(entity, actors::contact::Command::Erase { id }, Default::default()).await.unwrap();
    let second = remembered("I like secret coffee").await.expect(200);
    assert_ne!(second["contactId"], first["contactId"]);
    app.delete(format!("{CONTACTS}/{}", text(&second["contactId"]))).await.expect(204);
    for answer in [&first, &second] {
        assert!(!everything(&app, text(&answer["conversationId"])).await.contains("secret"));
        let subject = Subject::Contact(ContactId::parse(text(&answer["contactId"])).unwrap());
        assert!(!app.stored(subject.entity(address_of("default"))).await.contains("secret"));
    }
}

#[tokio::test]
async fn a_retry_after_the_erasure_reveals_and_restores_nothing() {
    let app = TestApp::new().await;
    let send = || app.post("/api/v1/channels/demo-api/messages").json(said("ana", "secret")).idempotency_key("k");
    let first = send().await.expect(200);
    app.delete(format!("{CONTACTS}/{}", text(&first["contactId"]))).await.expect(204);
    let replay = send().await;
    assert_eq!(replay.header("idempotent-replayed"), "true");
    let replay = replay.expect(200);
    assert!(!replay.to_string().contains("secret"));
    for member in ["contactId", "conversationId", "messageId", "turn"] {
        assert_eq!(replay[member], first[member]);
    }
    assert_eq!(replay["aiMessages"][0]["erased"], true);
    let other = app.post("/api/v1/channels/demo-api/messages").json(said("ana", "other")).idempotency_key("k").await;
    other.problem(422, "idempotency_key_reused");
    let found = app.get(format!("{CONTACTS}?identifier=ana")).await.expect(200);
    assert_eq!(found["data"], json!([]), "nobody is written down again");
    let new = app.post("/api/v1/channels/demo-api/messages").json(said("ana", "hello")).await.expect(200);
    assert_ne!(new["contactId"], first["contactId"], "whoever writes again is somebody new");
    assert_ne!(new["conversationId"], first["conversationId"]);
    assert_eq!(send().await.expect(200), replay, "and the retry is still the old one's");
    let found = app.get(format!("{CONTACTS}?identifier=ana")).await.expect(200);
    assert_eq!(found["data"][0]["id"], new["contactId"]);
    let events = app.get(format!("{CONTACTS}/{}/events", text(&new["contactId"]))).await.expect(200);
    assert_eq!(events["data"].as_array().unwrap().len(), 1, "the one before left nothing in it");
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_comes_after_the_erasure_is_dropped() {
    let app = TestApp::new().await;
    let slow = json!({"builtin": {"behaviour": "echo", "latencyMs": 5_000}});
    app.echo(slow).await;
    let path = "/api/v1/channels/demo-api/messages";
    let asked = app.post(path).json(said("ana", "secret")).header("prefer", "respond-async").await.expect(202);
    app.delete(format!("{CONTACTS}/{}", text(&asked["contactId"]))).await.expect(204);
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let turn = app.get(format!("/api/v1/turns/{}", text(&asked["turn"]["id"]))).await.expect(200);
    assert_eq!((&turn["status"], &turn["aiMessages"]), (&json!("cancelled"), &json!([])));
    assert!(!everything(&app, text(&asked["conversationId"])).await.contains("secret"));
    assert!(!stored(&app, &asked).await.contains("secret"));
}

#[tokio::test]
async fn another_workspace_neither_sees_nor_erases_a_contact() {
    let app = TestApp::new().await;
    let id = save(&app, "ana", "Ana").await["id"].clone();
    let key = app.workspace("other").await;
    let path = format!("{CONTACTS}/{}", text(&id));
    app.delete(&path).key(&key).await.problem(404, "contact_not_found");
    app.get(format!("{path}/events")).key(&key).await.problem(404, "contact_not_found");
    assert_eq!(app.get(format!("{CONTACTS}?name=ana")).key(&key).await.expect(200)["data"], json!([]));
    let reader = app.key_with(&["messages:read"]).await;
    app.delete(&path).key(&reader).await.problem(403, "insufficient_scope");
    app.post(CONTACTS).key(&reader).json(json!({})).await.problem(403, "insufficient_scope");
    app.get(&path).await.expect(200);
}

#[tokio::test]
async fn a_key_remembers_that_nothing_was_changed() {
    let app = TestApp::new().await;
    save(&app, "ana", "Ana").await;
    let body = json!({"identifier": "ana"});
    let found = app.post(CONTACTS).json(body.clone()).idempotency_key("k").await.expect(200);
    app.post(CONTACTS).json(json!({"identifier": "ana", "name": "Anna"})).await.expect(200);
    let retry = app.post(CONTACTS).json(body.clone()).idempotency_key("k").await;
    assert_eq!((retry.header("idempotent-replayed"), retry.status, &retry.json), ("true", 200, &found));
    app.delete(format!("{CONTACTS}/{}", text(&found["id"]))).await.expect(204);
    let retry = app.post(CONTACTS).json(body).idempotency_key("k").await.expect(200);
    assert_eq!((&retry["id"], &retry["identifier"], &retry["name"]), (&found["id"], &json!(""), &json!(null)));
    assert_eq!(app.get(CONTACTS).await.expect(200)["data"], json!([]), "and makes nobody again");
}

#[tokio::test]
async fn a_filter_of_contacts_that_is_empty_filters_nothing_and_two_filter_both() {
    let app = TestApp::new().await;
    for (identifier, name) in [("ana", "Ana"), ("bob", "Bob")] {
        save(&app, identifier, name).await;
    }
    for (query, found) in [
        ("identifier=", vec!["Ana", "Bob"]),
        ("identifier=&name=b", vec!["Bob"]),
        ("identifier=bob&name=", vec!["Bob"]),
        ("identifier=bob&name=BO", vec!["Bob"]),
        ("identifier=bob&name=an", vec![]),
    ] {
        let page = app.get(format!("{CONTACTS}?{query}")).await.expect(200);
        assert_eq!(names(&page), found, "{query}");
    }
}

#[tokio::test]
async fn a_retry_from_a_life_that_was_erased_shows_when_that_life_began() {
    let app = TestApp::new().await;
    let ask = async || app.post(CONTACTS).idempotency_key("k").json(json!({"identifier": "ana"})).await;
    let first = ask().await.expect(201);
    app.delete(format!("{CONTACTS}/{}", text(&first["id"]))).await.expect(204);
    app.clock.advance(60_000);
    // So many contacts at one moment that their ids are ahead of the clock.
    let many: Vec<_> = (0..100).map(|n| json!({"identifier": format!("c{n}")})).collect();
    app.post(format!("{CONTACTS}/bulk")).json(json!({"contacts": many})).await.expect(200);
    let next = app.post(CONTACTS).json(json!({"identifier": "ana"})).await.expect(201);
    let again = ask().await.expect(201);
    assert_ne!(next["createdAt"], first["createdAt"]);
    assert_eq!((&again["id"], &again["createdAt"]), (&first["id"], &first["createdAt"]));
}
