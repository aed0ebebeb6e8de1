//! A client can neither see, name nor guess anything of another workspace, and a key does only what its scopes allow.

use serde_json::{Value, json};

use crate::support::{Answer, Request, TestApp};

/// Ids of objects in the workspace `theirs`.
struct Theirs {
    channel: String,
    api_channel: String,
    message: String,
    channel_message: String,
    conversation: String,
    contact: String,
    turn: String,
    agent: String,
}

async fn theirs(app: &TestApp) -> (Theirs, String) {
    let key = app.workspace("theirs").await;
    let post = async |path: &str, body: Value| app.post(path).key(&key).json(body).await.json;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    post("/api/v1/agents", json!({"id": "their-bot", "name": "b", "provider": "builtin"})).await;
    post("/api/v1/channels", json!({"id": "their-human", "name": "h", "kind": "human"})).await;
    let api = json!({"id": "their-api", "name": "a", "kind": "api", "agentId": "their-bot"});
    post("/api/v1/channels", api).await;
    let sent = post("/api/v1/messages", json!({"channelId": "their-human", "text": "secret"})).await;
    let body = json!({"type": "TEXT", "contactIdentifier": "ana@example.com", "content": {"text": {"body": "secret"}}});
    let said = post("/api/v1/channels/their-api/messages", body).await;
    let ids = Theirs {
        channel: "their-human".to_owned(),
        api_channel: "their-api".to_owned(),
        message: text(&said["messageId"]),
        channel_message: text(&sent["id"]),
        conversation: text(&said["conversationId"]),
        contact: text(&said["contactId"]),
        turn: text(&said["turn"]["id"]),
        agent: "their-bot".to_owned(),
    };
    (ids, key)
}

/// The same ids with one character changed: they name nothing.
fn unknown(ids: &Theirs) -> Theirs {
    let other = |id: &String| {
        let last = if id.ends_with('0') { '1' } else { '0' };
        format!("{}{last}", &id[..id.len() - 1])
    };
    Theirs {
        channel: other(&ids.channel),
        api_channel: other(&ids.api_channel),
        message: other(&ids.message),
        channel_message: other(&ids.channel_message),
        conversation: other(&ids.conversation),
        contact: other(&ids.contact),
        turn: other(&ids.turn),
        agent: other(&ids.agent),
    }
}

/// Every request that names an object by its id.
fn naming(app: &TestApp, ids: &Theirs) -> Vec<Request> {
    let Theirs { channel, api_channel, message, channel_message, conversation, contact, turn, agent } = ids;
    let contact_message = json!({"type": "TEXT", "contactIdentifier": "x", "content": {"text": {"body": "x"}}});
    let mine = |members: Value| {
        let mut body = json!({"content": {"content": "x"}});
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        body
    };
    vec![
        app.get(format!("/api/v1/messages/{message}")),
        app.get(format!("/api/v1/messages/{channel_message}")),
        app.get(format!("/api/v1/messages?channelId={channel}")),
        app.get(format!("/api/v1/messages?channelId={api_channel}")),
        app.get(format!("/api/v1/messages?conversationId={conversation}")),
        app.get(format!("/api/v1/conversations/{conversation}")),
        app.get(format!("/api/v1/conversations/{conversation}/messages")),
        app.patch(format!("/api/v1/conversations/{conversation}")).json(json!({"title": "x"})),
        app.post(format!("/api/v1/conversations/{conversation}/messages")).json(mine(json!({}))),
        app.post(format!("/api/v1/conversations/{conversation}/turns")).json(json!({"agentId": "echo"})),
        app.post("/api/v1/messages").json(mine(json!({"conversation_id": conversation}))),
        app.post("/api/v1/messages").idempotency_key("k").json(mine(json!({"conversation_id": conversation}))),
        app.post("/api/v1/messages").json(json!({"content": {"content": "x", "parent_message_id": message}})),
        app.post("/api/v1/messages").json(json!({"channelId": channel, "text": "x"})),
        app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "x", "iterationOf": channel_message})),
        app.post(format!("/api/v1/channels/{channel}/messages")).json(json!({"text": "x"})),
        app.post(format!("/api/v1/channels/{channel}/messages")).json(contact_message.clone()),
        app.post(format!("/api/v1/channels/{api_channel}/messages")).json(contact_message.clone()),
        app.post(format!("/api/v1/channels/{api_channel}/messages")).idempotency_key("k").json(contact_message),
        app.get(format!("/api/v1/contacts/{contact}")),
        app.patch(format!("/api/v1/contacts/{contact}")).json(json!({"name": "x"})),
        app.get(format!("/api/v1/contacts/{contact}/conversations")),
        app.get(format!("/api/v1/turns/{turn}")),
        app.post(format!("/api/v1/turns/{turn}/cancel")),
        app.get(format!("/api/v1/channels/{channel}")),
        app.patch(format!("/api/v1/channels/{channel}")).json(json!({"name": "x"})),
        app.delete(format!("/api/v1/channels/{channel}")),
        app.post("/api/v1/channels").json(json!({"name": "x", "kind": "api", "agentId": agent})),
        app.get(format!("/api/v1/agents/{agent}")),
        app.patch(format!("/api/v1/agents/{agent}")).json(json!({"name": "x"})),
        app.delete(format!("/api/v1/agents/{agent}")),
    ]
}

/// Everything by which a client can tell answers apart.
fn shown(answer: &Answer) -> (u16, String, Vec<String>) {
    let mut body = answer.json.clone();
    if let Some(body) = body.as_object_mut() {
        body.remove("requestId");
        body.remove("instance");
    }
    let mut names: Vec<_> = answer.headers.keys().map(ToString::to_string).collect();
    names.sort();
    names.retain(|name| name != "content-length");
    (answer.status, body.to_string(), names)
}

#[tokio::test]
async fn a_foreign_id_answers_exactly_as_an_unknown_one() {
    let app = TestApp::new().await;
    let (ids, key) = theirs(&app).await;
    let before = app.get(format!("/api/v1/conversations/{}", ids.conversation)).key(&key).await.expect(200);
    let nothing = unknown(&ids);
    let mine = app.workspace("mine").await;
    for caller in [&mine, crate::support::ADMIN_KEY] {
        for (foreign, unknown) in naming(&app, &ids).into_iter().zip(naming(&app, &nothing)) {
            let foreign = foreign.key(caller).await;
            let unknown = unknown.key(caller).await;
            assert_eq!(shown(&foreign), shown(&unknown));
            assert!((400..500).contains(&foreign.status), "{:?}", shown(&foreign));
        }
    }
    let after = app.get(format!("/api/v1/conversations/{}", ids.conversation)).key(&key).await.expect(200);
    assert_eq!(after, before, "nothing of theirs was changed");
    for request in naming(&app, &ids).into_iter().take(6) {
        assert_ne!(request.key(&key).await.status, 404, "they can name what is theirs");
    }
}

#[tokio::test]
async fn lists_show_only_what_is_ones_own() {
    let app = TestApp::new().await;
    let (_, theirs) = theirs(&app).await;
    let mine = app.workspace("mine").await;
    for list in ["conversations", "contacts", "channels", "agents", "contacts?identifier=ana@example.com"] {
        let page = app.get(format!("/api/v1/{list}")).key(&mine).await.expect(200);
        assert_eq!(page["data"], json!([]), "{list}");
        let page = app.get(format!("/api/v1/{list}")).key(&theirs).await.expect(200);
        assert_ne!(page["data"], json!([]), "{list}");
    }
}

#[tokio::test]
async fn the_same_person_and_the_same_names_are_others_in_another_workspace() {
    let app = TestApp::new().await;
    let (ids, _) = theirs(&app).await;
    let mine = app.workspace("mine").await;
    let post = async |path: &str, body: Value| app.post(path).key(&mine).json(body).await;
    post("/api/v1/agents", json!({"id": "their-bot", "name": "b", "provider": "builtin"})).await.expect(201);
    let api = json!({"id": "their-api", "name": "a", "kind": "api", "agentId": "their-bot"});
    post("/api/v1/channels", api).await.expect(201);
    let body = json!({"type": "TEXT", "contactIdentifier": "ana@example.com", "content": {"text": {"body": "x"}}});
    let said = post("/api/v1/channels/their-api/messages", body).await.expect(200);
    assert_ne!(said["contactId"], ids.contact.as_str());
    assert_ne!(said["conversationId"], ids.conversation.as_str());
    let page = app.get(format!("/api/v1/conversations/{}/messages", said["conversationId"].as_str().unwrap()));
    assert_eq!(page.key(&mine).await.expect(200)["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_workspace_that_a_key_may_not_use_is_forbidden_whether_it_exists_or_not() {
    let app = TestApp::new().await;
    let (ids, theirs) = theirs(&app).await;
    let mine = app.workspace("mine").await;
    let count = naming(&app, &ids).len();
    for at in 0..count {
        let request = || naming(&app, &ids).into_iter().nth(at).unwrap().key(&mine);
        let known = request().header("x-workspace-id", "theirs").await;
        let unknown = request().header("x-workspace-id", "ws_none").await;
        assert_eq!(shown(&known), shown(&unknown));
        known.problem(403, "workspace_forbidden");
    }
    for own in ["mine", "", "null"] {
        app.get("/api/v1/contacts").key(&mine).header("x-workspace-id", own).await.expect(200);
    }
    let path = format!("/api/v1/contacts/{}", ids.contact);
    app.get(&path).key(&theirs).header("x-workspace-id", "theirs").await.expect(200);
    app.get(&path).header("x-workspace-id", "theirs").await.expect(200);
}

#[tokio::test]
async fn each_route_needs_its_scope_before_anything_else_is_looked_at() {
    let app = TestApp::new().await;
    let (ids, _) = theirs(&app).await;
    let scopes = ["messages:write", "messages:read", "reviews:respond", "admin"];
    let mut keys = Vec::new();
    for scope in scopes {
        keys.push(app.key_with(&[scope]).await);
    }
    let routes = [
        ("GET", "/messages?channelId=demo".to_owned(), "messages:read"),
        ("GET", format!("/messages/{}", ids.message), "messages:read"),
        ("GET", "/conversations".to_owned(), "messages:read"),
        ("GET", format!("/conversations/{}", ids.conversation), "messages:read"),
        ("GET", format!("/conversations/{}/messages", ids.conversation), "messages:read"),
        ("GET", "/contacts".to_owned(), "messages:read"),
        ("GET", format!("/contacts/{}", ids.contact), "messages:read"),
        ("GET", format!("/contacts/{}/conversations", ids.contact), "messages:read"),
        ("GET", format!("/turns/{}", ids.turn), "messages:read"),
        ("POST", "/messages".to_owned(), "messages:write"),
        ("POST", "/channels/demo/messages".to_owned(), "messages:write"),
        ("POST", "/channels/demo-api/messages".to_owned(), "messages:write"),
        ("POST", "/conversations".to_owned(), "messages:write"),
        ("PATCH", format!("/conversations/{}", ids.conversation), "messages:write"),
        ("POST", format!("/conversations/{}/messages", ids.conversation), "messages:write"),
        ("POST", format!("/conversations/{}/turns", ids.conversation), "messages:write"),
        ("PATCH", format!("/contacts/{}", ids.contact), "messages:write"),
        ("POST", format!("/turns/{}/cancel", ids.turn), "messages:write"),
        ("POST", "/channels".to_owned(), "admin"),
        ("POST", "/agents".to_owned(), "admin"),
        ("GET", "/api-keys".to_owned(), "admin"),
    ];
    for (method, path, needed) in routes {
        let request = || app.request(method.parse().unwrap(), format!("/api/v1{path}")).body("text/plain", "{");
        for (scope, key) in scopes.iter().zip(&keys) {
            let answer = request().key(key).await;
            if *scope == needed {
                assert!(!matches!(answer.status, 401 | 403), "{method} {path} with {scope}: {}", answer.status);
            } else {
                answer.problem(403, "insufficient_scope");
            }
        }
        request().no_key().await.problem(401, "unauthenticated");
    }
}
