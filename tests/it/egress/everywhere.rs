//! Every field of the API that takes a URL, against the whole table, and against names whose address changes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Mutex;

use serde_json::{Value, json};

use super::{forbidden, notations};
use crate::support::dns::Dns;
use crate::support::origin::{Origin, Part};
use crate::support::until::seen;
use crate::support::{Request, TestApp};

/// The features that call users' URLs.
const KINDS: [&str; 6] = ["callback", "message", "media", "tool", "channel", "endpoint"];

/// The requests that contain `url`, each with the pointer to it.
fn naming(app: &TestApp, url: &str) -> [(Request, &'static str); 8] {
    let channel = |members: Value| {
        let mut body = json!({"channelId": "demo", "text": "x"});
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        app.post("/api/v1/messages").json(body)
    };
    let image = json!({"type": "IMAGE", "contactIdentifier": "ana", "content": {"image": {"url": url}}});
    let tools = json!([{"name": "look", "url": url}]);
    [
        (channel(json!({"webhookUrl": url})), "/webhookUrl"),
        (channel(json!({"review": {"type": "approval", "callback": {"url": url}}})), "/review/callback/url"),
        (app.post("/api/v1/channels/demo-api/messages").json(image), "/content/image/url"),
        (app.patch("/api/v1/channels/demo").json(json!({"webhookUrl": url})), "/webhookUrl"),
        (app.post("/api/v1/channels").json(json!({"name": "c", "kind": "human", "webhookUrl": url})), "/webhookUrl"),
        (app.post("/api/v1/webhook-endpoints").json(json!({"url": url})), "/url"),
        (app.patch("/api/v1/agents/echo").json(json!({"tools": tools})), "/tools/0/url"),
        (app.post("/api/v1/agents").json(json!({"name": "a", "provider": "builtin", "tools": tools})), "/tools/0/url"),
    ]
}

#[tokio::test]
async fn no_place_of_the_api_takes_a_url_of_the_table() {
    let canary = Origin::canary(Ipv4Addr::LOCALHOST.into()).await;
    let dns = Dns::serve(|_| vec![Ipv4Addr::LOCALHOST.into()]).await;
    let app = TestApp::with_env(&[("TERTULIA_EGRESS_DNS", &dns.address.to_string())]).await;
    let table = forbidden();
    assert!(table.len() >= 300, "{} URLs", table.len());
    for url in &table {
        let url = url.replace("PORT", &canary.address.port().to_string());
        for (request, pointer) in naming(&app, &url) {
            let faults = request.await.faults();
            let expected = ["blocked_url", "invalid_url"].map(|code| format!("{code} {pointer}"));
            assert!(faults.len() == 1 && expected.contains(&faults[0]), "{url} at {pointer}: {faults:?}");
        }
    }
    assert_eq!((canary.connections(), dns.asked()), (0, 0));
    for list in ["messages?channelId=demo", "webhook-endpoints", "contacts", "conversations"] {
        assert_eq!(app.get(format!("/api/v1/{list}")).await.expect(200)["data"], json!([]), "{list}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_follows_a_host_name_that_resolves_to_a_private_address() {
    let canary = Origin::canary(Ipv4Addr::LOCALHOST.into()).await;
    let private = notations::addresses();
    let answers = private.clone();
    let public: IpAddr = Ipv4Addr::new(8, 8, 8, 8).into();
    let dns = Dns::serve(move |name| {
        let index: usize = name.split('.').nth(1).unwrap().parse().unwrap();
        vec![public, answers[index]]
    })
    .await;
    // One address is allowed, so that deliveries are made at all; none of these names leads to it.
    let app = TestApp::with_env(&[
        ("TERTULIA_EGRESS_ALLOW", "127.0.0.9/32"),
        ("TERTULIA_EGRESS_DNS", &dns.address.to_string()),
    ])
    .await;
    let port = canary.address.port();
    let url = |kind: &str, index: usize| format!("http://{kind}.{index}.example.com:{port}/");
    let mut tried = 0;
    for (index, address) in private.iter().enumerate() {
        let callback = json!({"type": "free", "callback": {"url": url("callback", index)}});
        let body = json!({"channelId": "demo", "webhookUrl": url("message", index), "review": callback});
        let asked = app.post("/api/v1/messages").json(body).await.expect(201);
        let respond = format!("/api/v1/reviews/{}/respond", asked["id"].as_str().unwrap());
        app.post(respond).json(json!({"response": {}})).await.expect(200);
        let image =
            json!({"type": "IMAGE", "contactIdentifier": "ana", "content": {"image": {"url": url("media", index)}}});
        let refused = app.post("/api/v1/channels/demo-api/messages").json(image).await.faults();
        assert_eq!(refused, ["blocked_url /content/image/url"], "{address}");
        // A message's own URL and its review's callback are each tried once, and will be retried.
        tried += 2;
        if index % 3 == 0 {
            listened_to(&app, &index.to_string(), &url("channel", index), &url("endpoint", index)).await;
            tried += 2;
        }
    }
    let refused: Vec<Value> = seen(async || {
        let mut refused = deliveries(&app).await;
        refused.retain(|delivery| delivery["attempts"] != json!([]));
        (refused.len() >= tried).then_some(refused)
    })
    .await;
    for delivery in &refused {
        for attempt in delivery["attempts"].as_array().unwrap() {
            assert_eq!(
                (&attempt["error"], &attempt["statusCode"]),
                (&json!("blocked_url"), &Value::Null),
                "{delivery}"
            );
        }
    }
    for index in [0, private.len() / 2, private.len() - 1] {
        let words = ask_a_tool(&app, &url("tool", index)).await;
        assert!(words.contains("blocked_url"), "{words}");
    }
    assert_eq!(canary.connections(), 0);
}

/// Posts a message to a new channel, with a webhook of the channel and an endpoint of the workspace.
async fn listened_to(app: &TestApp, name: &str, webhook: &str, endpoint: &str) {
    let channel = format!("channel-{name}");
    let body = json!({"id": channel, "name": "c", "kind": "human", "webhookUrl": webhook});
    app.post("/api/v1/channels").json(body).await.expect(201);
    let body = json!({"url": endpoint, "channelId": channel, "events": ["message.created"]});
    app.post("/api/v1/webhook-endpoints").json(body).await.expect(201);
    app.post("/api/v1/messages").json(json!({"channelId": channel, "text": "x"})).await.expect(201);
}

/// All deliveries.
async fn deliveries(app: &TestApp) -> Vec<Value> {
    let pages = app.pages("/api/v1/webhook-deliveries?limit=200").await;
    pages.iter().flat_map(|page| page["data"].as_array().unwrap().clone()).collect()
}

/// Lets an agent call a tool at this URL; returns the tool's result.
async fn ask_a_tool(app: &TestApp, url: &str) -> String {
    let line = json!({"match": "look", "reply": [], "toolCall": {"name": "look", "arguments": {}}});
    let body = json!({"tools": [{"name": "look", "url": url}], "builtin": {"behaviour": "scripted", "script": [line]}});
    app.echo(body).await;
    let body = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "please look"}}});
    let said = app.post("/api/v1/channels/demo-api/messages").json(body).await.expect(200);
    said["aiMessages"][0]["content"]["text"]["body"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dns_rebinding_reaches_no_private_address() {
    // 127.0.0.2 plays the public internet, 127.0.0.1 the inside. At each lookup a name leads to the other one.
    let (outside, inside): (IpAddr, IpAddr) = (Ipv4Addr::new(127, 0, 0, 2).into(), Ipv4Addr::LOCALHOST.into());
    let canary = Origin::canary(inside).await;
    let public = Origin::serve_at(SocketAddr::new(outside, canary.address.port()), |_| {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR and so on";
        let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: image/png\r\nContent-Length: 26\r\n\r\n";
        vec![Part::Bytes([&head[..], &png[..26]].concat()), Part::Close]
    })
    .await;
    let queries: Mutex<HashMap<String, usize>> = Mutex::default();
    let dns = Dns::serve(move |name| {
        let mut queries = queries.lock().unwrap();
        let asked = queries.entry(name.to_owned()).or_default();
        // A lookup is two queries, one for each family.
        let look_up = *asked / 2;
        *asked += 1;
        let begins_inside = usize::from(name.contains("odd"));
        vec![if (look_up + begins_inside).is_multiple_of(2) { outside } else { inside }]
    })
    .await;
    let app = TestApp::with_env(&[
        ("TERTULIA_EGRESS_ALLOW", "127.0.0.2/32"),
        ("TERTULIA_EGRESS_DNS", &dns.address.to_string()),
    ])
    .await;
    let url = |kind: &str, mind: &str, n: usize| {
        format!("http://{kind}-{mind}-{n}.example.com:{}/{kind}-{mind}-{n}", canary.address.port())
    };
    for n in 0..10 {
        for mind in ["even", "odd"] {
            let callback = json!({"type": "free", "callback": {"url": url("callback", mind, n)}});
            let body = json!({"channelId": "demo", "webhookUrl": url("message", mind, n), "review": callback});
            let asked = app.post("/api/v1/messages").json(body).await.expect(201);
            let respond = format!("/api/v1/reviews/{}/respond", asked["id"].as_str().unwrap());
            app.post(respond).json(json!({"response": {}})).await.expect(200);
            let image = json!({"type": "IMAGE", "contactIdentifier": format!("{mind}{n}"),
                "content": {"image": {"url": url("media", mind, n)}}});
            let sent = app.post("/api/v1/channels/demo-api/messages").json(image).await;
            assert_eq!(sent.status, if mind == "even" { 200 } else { 400 }, "{}", sent.json);
            let words = ask_a_tool(&app, &url("tool", mind, n)).await;
            assert_eq!(words.contains("blocked_url"), mind == "odd", "{words}");
            listened_to(&app, &format!("{mind}-{n}"), &url("channel", mind, n), &url("endpoint", mind, n)).await;
        }
    }
    // All calls to names that begin outside arrive there: the six kinds, ten times. No others arrive.
    seen(async || {
        // Of names of each sort: ten callbacks, messages' own URLs, channels and endpoints.
        let attempted = deliveries(&app).await.iter().filter(|delivery| delivery["attempts"] != json!([])).count();
        let heard = public.requests();
        let called =
            |kind: &str| heard.iter().filter(|heard| heard.path().starts_with(&format!("/{kind}-even"))).count();
        (attempted >= 80 && KINDS.iter().all(|kind| called(kind) >= 10)).then_some(())
    })
    .await;
    for heard in public.requests() {
        assert!(heard.path().contains("even") || !heard.path().starts_with("/media"), "{}", heard.line);
    }
    assert_eq!(canary.connections(), 0);
}
