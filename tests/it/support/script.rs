//! A day in the life of an installation: requests of every family, and the resulting state, for tests that compare two
//! servers.

use http::Method;
use serde_json::{Value, json};

use super::until::seen;
use super::{Answer, TestApp};

/// A repeatable request, and its answer.
pub(crate) struct Sent {
    method: Method,
    path: String,
    key: Option<String>,
    body: Value,
    pub(crate) answer: Answer,
}

impl Sent {
    /// Sends the same request again.
    pub(crate) async fn again(&self, app: &TestApp) -> Answer {
        send(app, &self.method, &self.path, self.key.as_deref(), &self.body).await
    }

    /// Whether a repetition must get the same answer as the first time.
    pub(crate) fn is_kept(&self) -> bool {
        self.key.is_some() && self.answer.status < 300 && self.answer.status != 202
    }
}

async fn send(app: &TestApp, method: &Method, path: &str, key: Option<&str>, body: &Value) -> Answer {
    let request = app.request(method.clone(), path).json(body.clone());
    match key {
        Some(key) => request.idempotency_key(key).await,
        None => request.await,
    }
}

/// Requests in their order.
pub(crate) struct Script<'a> {
    app: &'a TestApp,
    pub(crate) sent: Vec<Sent>,
}

impl<'a> Script<'a> {
    /// Sends all requests; the clock advances between them.
    pub(crate) async fn play(app: &'a TestApp) -> Vec<Sent> {
        let mut script = Self { app, sent: Vec::new() };
        script.configure().await;
        script.human().await;
        script.contacts().await;
        script.conversations().await;
        script.elsewhere().await;
        script.sent
    }

    /// The same, and changes of the installation: no two installations create the same key.
    pub(crate) async fn play_as_operator(app: &'a TestApp) -> Vec<Sent> {
        let mut script = Self { app, sent: Self::play(app).await };
        script.post("/api/v1/workspaces", Some("w1"), json!({"id": "third", "name": "Third"})).await;
        let key = json!({"name": "for a retry", "scopes": ["messages:read"]});
        script.post("/api/v1/api-keys", Some("k1"), key).await;
        script.sent
    }

    /// Sends a request; returns the answer's body.
    async fn step(&mut self, method: Method, path: impl Into<String>, key: Option<&str>, body: Value) -> Value {
        let path = path.into();
        let key = key.map(str::to_owned);
        // Before the request, so that its background work cannot be overtaken by the clock.
        self.app.clock.advance(1_001);
        let answer = send(self.app, &method, &path, key.as_deref(), &body).await;
        assert!(answer.status < 300, "{method} {path}: {}", answer.json);
        let json = answer.json.clone();
        self.sent.push(Sent { method, path, key, body, answer });
        json
    }

    async fn post(&mut self, path: impl Into<String>, key: Option<&str>, body: Value) -> Value {
        self.step(Method::POST, path, key, body).await
    }

    async fn configure(&mut self) {
        let script = json!([{"match": "weather", "reply": ["Sunny.", "All day."]}]);
        let agent = json!({"id": "clerk", "name": "Clerk", "provider": "builtin",
            "builtin": {"behaviour": "scripted", "script": script}});
        self.post("/api/v1/agents", Some("agent"), agent).await;
        let desk = json!({"id": "desk", "name": "Desk", "kind": "human"});
        self.post("/api/v1/channels", Some("desk"), desk).await;
        let line = json!({"id": "line", "name": "Line", "kind": "api", "agentId": "clerk"});
        self.post("/api/v1/channels", Some("line"), line).await;
        self.step(Method::PATCH, "/api/v1/channels/line", None, json!({"busyPolicy": "merge"})).await;
    }

    async fn human(&mut self) {
        let plain = json!({"channelId": "desk", "text": "Grüße 👋 \"quoted\"", "status": "info",
            "metadata": {"z": 1.10, "a": [1.5e300, null, "\u{0}"]}});
        let plain = self.post("/api/v1/messages", Some("a1"), plain).await;
        let review = json!({"channelId": "desk", "text": "Approve?", "review": {"type": "approval", "payload": {},
            "expiresInSeconds": 3600, "callback": {"url": "https://example.com/done", "headers": {"x-a": "b"}}}});
        let asked = self.post("/api/v1/messages", Some("a2"), review).await;
        let id = asked["id"].as_str().unwrap();
        let answer = json!({"response": {"selectedOption": "approve"}, "feedback": "fine"});
        self.post(format!("/api/v1/reviews/{id}/respond"), Some("r1"), answer).await;
        let pending = json!({"channelId": "desk", "text": "Which?", "review": {"type": "selection", "payload":
            {"mode": "single", "items": [{"id": "x", "label": "X"}, {"id": "y", "label": "Y"}]}}});
        let pending = self.post("/api/v1/messages", Some("a3"), pending).await;
        let revised = json!({"channelId": "desk", "text": "Which, again?", "iterationOf": pending["id"], "review":
            {"type": "text-input", "payload": {"maxLength": 9}}});
        self.post("/api/v1/messages", Some("a4"), revised).await;
        let of = |message: &Value| format!("/api/v1/messages/{}", message["id"].as_str().unwrap());
        self.step(Method::PATCH, of(&plain), None, json!({"text": "Grüße"})).await;
        self.post(format!("{}/ack", of(&plain)), None, json!({"status": "read"})).await;
    }

    async fn contacts(&mut self) {
        for (n, who) in ["ana@example.com", "+34 600 000 000", "ana@example.com"].into_iter().enumerate() {
            let body = json!({"type": "TEXT", "contactIdentifier": who, "contactName": "Ana",
                "content": {"text": {"body": format!("What of the weather, {n}?")}}});
            self.post("/api/v1/channels/line/messages", Some(&format!("b{n}")), body).await;
        }
    }

    async fn conversations(&mut self) {
        let batch = json!({"content": [
            {"content": "first", "tags": ["t", "u"], "meta_data": {"k": 0.10}},
            {"content": "second", "role": "assistant", "parent_message_id": "#0", "tool_calls": [{"id": "1"}, {}]},
        ]});
        let made = self.post("/api/v1/messages", Some("c1"), batch).await;
        let id = made[0]["conversation_id"].as_str().unwrap().to_owned();
        let import = json!({"conversation_id": id, "enable_memories": true, "content":
            {"content": "I live in Lisbon", "created_at": "2020-02-29T12:00:00+02:00", "sender_id": "u1"}});
        self.post("/api/v1/messages", Some("c2"), import).await;
        // The log shows memories a moment later; the next events come after them.
        let events = format!("/api/v1/conversations/{id}/events");
        let told = async || self.app.get(&events).await.expect(200).to_string().contains("memory.created");
        seen(async || told().await.then_some(())).await;
        // Without a key: a repeated answer no longer contains a deleted message.
        let gone = json!({"conversation_id": id, "content": {"content": "to be taken away"}});
        let gone = self.post("/api/v1/messages", None, gone).await;
        let gone = format!("/api/v1/messages/{}", gone[0]["id"].as_str().unwrap());
        self.app.delete(gone).await.expect(204);
        let titled = json!({"title": "Titled", "metadata": {"n": 1}});
        let titled = self.post("/api/v1/conversations", Some("c3"), titled).await;
        let titled = format!("/api/v1/conversations/{}", titled["id"].as_str().unwrap());
        self.step(Method::PATCH, &titled, None, json!({"summary": "Nothing was said."})).await;
        self.step(Method::PATCH, &titled, None, json!({"status": "closed"})).await;
        let turn = self.post(format!("/api/v1/conversations/{id}/turns"), Some("t1"), json!({"agentId": "echo"})).await;
        let turn = format!("/api/v1/turns/{}", turn["id"].as_str().unwrap());
        while self.app.get(&turn).await.expect(200)["status"] != "completed" {}
    }

    /// Requests in another workspace.
    async fn elsewhere(&mut self) {
        let key = self.app.workspace("other").await;
        let body = json!({"content": {"content": "elsewhere"}});
        self.app.post("/api/v1/messages").key(&key).json(body).await.expect(200);
    }
}

/// Everything that the admin of the workspace `default` can read: path and answer.
pub(crate) async fn everything(app: &TestApp) -> Vec<(String, Answer)> {
    let mut waiting: Vec<String> = [
        "channels",
        "agents",
        "api-keys",
        "workspaces",
        "contacts",
        "reviews",
        "reviews?status=pending",
        "conversations",
        "webhook-endpoints",
        "channels/desk",
        "channels/desk/events",
        "messages?channelId=desk",
        "messages?channelId=demo",
        "conversations?order=desc&status=open",
    ]
    .map(|path| format!("/api/v1/{path}"))
    .into();
    waiting.reverse();
    let mut read: Vec<(String, Answer)> = Vec::new();
    while let Some(path) = waiting.pop() {
        if read.iter().any(|(known, _)| *known == path) {
            continue;
        }
        let answer = app.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.json);
        for item in answer.json["data"].as_array().into_iter().flatten() {
            let Some(id) = item["id"].as_str() else { continue };
            let under: &[&str] = match id.split('_').next().unwrap() {
                "conv" => &["conversations/", "conversations/?/messages", "conversations/?/events"],
                "cont" => &["contacts/", "contacts/?/conversations"],
                "msg" => &["messages/", "messages/?/iterations"],
                _ => &[],
            };
            waiting.extend(under.iter().map(|form| {
                let form = if form.ends_with('/') { format!("{form}?") } else { (*form).to_owned() };
                format!("/api/v1/{}", form.replace('?', id))
            }));
        }
        read.push((path, answer));
    }
    read
}
