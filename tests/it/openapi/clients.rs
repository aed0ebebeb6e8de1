//! Programs generated from the document, clients above all, send what was meant and can read the answers.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{all_sources, assert_valid, document, operations};
use crate::support::{Answer, TestApp};

/// The pointers under `value` where a shape has a `default`, following references.
fn defaults(document: &Value, value: &Value, at: &str, seen: &mut BTreeSet<String>, out: &mut Vec<String>) {
    if let Some(reference) = value["$ref"].as_str()
        && seen.insert(reference.to_owned())
    {
        defaults(document, document.pointer(&reference[1..]).unwrap(), reference, seen, out);
    }
    match value {
        Value::Object(members) => {
            if members.contains_key("default") {
                out.push(at.to_owned());
            }
            for (name, member) in members.iter().filter(|(name, _)| !["examples", "enum"].contains(&name.as_str())) {
                defaults(document, member, &format!("{at}/{name}"), seen, out);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| defaults(document, item, at, seen, out)),
        _ => {}
    }
}

#[tokio::test]
async fn no_member_of_a_body_has_a_default_that_a_client_would_send_unasked() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let mut changes = 0;
    for (path, method, operation) in operations(&document) {
        let content = &operation["requestBody"]["content"];
        let mut found = Vec::new();
        defaults(&document, content, "", &mut BTreeSet::new(), &mut found);
        assert!(found.is_empty(), "{method} {path}: {found:?}");
        changes += usize::from(method == "patch" && content.is_object());
    }
    assert!(changes >= 6, "{changes}");
    let about = |pointer: &str| document.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let of_change = about("/components/schemas/ChannelChange/properties/enabled/description");
    assert!(of_change.ends_with("`null` sets `true`."), "{of_change}");
    let of_new = about("/components/schemas/ChannelNew/properties/enabled/description");
    assert!(of_new.ends_with("Default `true`."), "{of_new}");
}

#[tokio::test]
async fn a_post_that_needs_no_body_says_so_and_no_other_does() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    for (path, method, operation) in operations(&document) {
        let body = &operation["requestBody"];
        if !body["content"]["application/json"].is_object() {
            continue;
        }
        let asked = super::of_thing(&path, "nothing-of-this-name");
        let answer = app.request(method.to_uppercase().parse().unwrap(), &asked).await;
        assert_eq!(answer.status == 415, body["required"] == true, "{method} {path} answers {}", answer.status);
    }
}

#[track_caller]
fn assert_declared(document: &Value, operation: &Value, answer: &Answer, members: &[&str]) {
    let said = &operation["responses"][answer.status.to_string()]["content"]["application/problem+json"]["schema"];
    assert_valid(document, said, &answer.json, "a problem");
    let name = said["$ref"].as_str().unwrap();
    let declared = document.pointer(&name[1..]).unwrap()["properties"].as_object().unwrap();
    for member in members {
        assert!(!answer.json[member].is_null(), "{member} is missing: {}", answer.json);
    }
    for member in answer.json.as_object().unwrap().keys() {
        assert!(declared.contains_key(member), "{name} does not declare {member}");
    }
}

#[tokio::test]
async fn extra_members_of_errors_are_declared() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let of = |path: &str| &document["paths"][path]["post"];
    let check = |path: &str, answer: &Answer, members: &[&str]| assert_declared(&document, of(path), answer, members);
    let messages = "/api/v1/messages";
    for text in ["{", "{\n", ""] {
        let broken = app.post(messages).body("application/json", text).await;
        check(messages, &broken, &["line", "column"]);
    }

    let file = app.post("/api/v1/attachments?filename=a.txt").body("text/plain", "a file").await.expect(201);
    let with_file = json!({"channelId": "demo", "text": "x", "attachmentIds": [file["id"]]});
    app.post(messages).json(with_file.clone()).await.expect(201);
    check(messages, &app.post(messages).json(with_file).await, &["attachmentId"]);

    let asked = json!({"channelId": "demo", "text": "Deploy?", "review": {"type": "approval"}});
    let review = app.post(messages).json(asked).await.expect(201)["id"].as_str().unwrap().to_owned();
    let yes = json!({"response": {"selectedOption": "approve"}});
    app.post(format!("/api/v1/reviews/{review}/respond")).json(yes.clone()).await.expect(200);
    for (what, body) in [("respond", yes), ("cancel", json!({}))] {
        let answer = app.post(format!("/api/v1/reviews/{review}/{what}")).json(body).await;
        check(&format!("/api/v1/reviews/{{id}}/{what}"), &answer, &["review"]);
    }

    app.echo(json!({"builtin": {"failEvery": 1}})).await;
    let said = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "Hi"}}});
    let failed = app.post("/api/v1/channels/demo-api/messages").json(said).await;
    check("/api/v1/channels/{channelId}/messages", &failed, &["reason", "messageId", "turnId", "success"]);
}

#[tokio::test]
async fn every_member_that_some_error_adds_is_declared() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let mut seen = BTreeSet::new();
    for (file, code) in all_sources(&["http", "json.rs", "json", "wire"]) {
        for added in code.split(".with(\"").skip(1) {
            let member = added.split('"').next().unwrap().to_owned();
            for shape in ["Problem", "ContactProblem"] {
                let declared = document["components"]["schemas"][shape]["properties"][&member].is_object();
                assert!(declared, "{}: {shape} lacks {member}", file.display());
            }
            seen.insert(member);
        }
    }
    assert!(seen.len() >= 7, "{seen:?}");
}

#[tokio::test]
async fn a_file_is_bytes_on_its_way_up_and_down_and_its_headers_are_documented() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let bytes = |schema: &Value| schema["type"] == "string" && schema["format"] == "binary";
    let up = &document["paths"]["/api/v1/attachments"]["post"]["requestBody"]["content"];
    assert!(bytes(&up["application/octet-stream"]["schema"]), "{up}");
    assert!(bytes(&up["multipart/form-data"]["schema"]["properties"]["file"]), "{up}");
    let file = app.post("/api/v1/attachments?filename=a.txt").body("text/plain", "a file").await.expect(201);
    // With an unknown parameter, because the header for it is documented too.
    let path = format!("/api/v1/attachments/{}/content?skip=1", file["id"].as_str().unwrap());
    let operation = &document["paths"]["/api/v1/attachments/{id}/content"]["get"];
    let mut answers = vec![app.get(&path).await];
    let etag = answers[0].header("etag").to_owned();
    let modified = answers[0].header("last-modified").to_owned();
    for (name, value) in [
        ("range", "bytes=0-1"),
        ("if-none-match", etag.as_str()),
        ("if-modified-since", modified.as_str()),
        ("range", "bytes=99-"),
        ("if-match", "\"other\""),
        ("if-unmodified-since", "Mon, 01 Jan 2024 00:00:00 GMT"),
    ] {
        answers.push(app.get(&path).header(name, value).await);
    }
    answers.push(app.get(&path).header("range", "bytes=0-1").header("if-range", "\"other\"").await);
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 206, 304, 304, 416, 412, 412, 200]);
    for answer in &answers {
        let said = &operation["responses"][answer.status.to_string()];
        for name in said["headers"].as_object().unwrap().keys() {
            assert_ne!(answer.header(&name.to_lowercase()), "", "{}: {name}", answer.status);
        }
        if answer.status < 300 {
            for media in ["application/octet-stream", "*/*"] {
                assert!(bytes(&said["content"][media]["schema"]), "{media}");
            }
        }
    }
    let parameters = operation["parameters"].to_string();
    for name in ["Range", "IfRange", "IfMatch", "IfNoneMatch", "IfModifiedSince", "IfUnmodifiedSince"] {
        assert!(parameters.contains(&format!("/{name}\"")), "{name}");
    }
}

#[tokio::test]
async fn a_stream_has_the_headers_that_the_document_names() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let head = app.get("/api/v1/channels/demo/events").header("accept", "text/event-stream").head().await;
    let said = &document["paths"]["/api/v1/channels/{id}/events"]["get"]["responses"]["200"]["headers"];
    for name in ["Cache-Control", "Vary", "X-Accel-Buffering"] {
        assert!(said[name].is_object() && head.contains_key(name), "{name}");
    }
    assert_eq!(
        (&head["cache-control"], &head["vary"]),
        (&"private, no-cache".parse().unwrap(), &"accept".parse().unwrap())
    );
}

#[tokio::test]
async fn undeclared_members_of_event_data_are_allowed_by_the_document() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let data = &document["components"]["schemas"]["Event"]["properties"]["data"];
    let contact = app.post("/api/v1/contacts").json(json!({"identifier": "ana"})).await.expect(201);
    let events = app.get(format!("/api/v1/contacts/{}/events", contact["id"].as_str().unwrap())).await.expect(200);
    let told = &events["data"][0]["data"];
    assert!(told["identifier"].is_string() && data["properties"]["identifier"].is_null(), "{told}");
    assert_eq!(data["additionalProperties"], true);
    assert!(told["contactId"].is_string() && data["properties"]["contactId"].is_object(), "{told}");
}

#[tokio::test]
async fn a_boolean_of_the_query_is_refused_with_one_code_wherever_it_stands() {
    let app = TestApp::new().await;
    for (path, name) in [("messages?channelId=demo&", "hasAttachments"), ("channels/demo/events?", "deltas")] {
        let faults = app.get(format!("/api/v1/{path}{name}=maybe")).await.faults();
        assert_eq!(faults, [format!("invalid_type /{name}")]);
        app.get(format!("/api/v1/{path}{name}=false")).await.expect(200);
    }
}

#[tokio::test]
async fn a_page_of_an_error_whose_name_is_no_text_is_not_there() {
    let app = TestApp::new().await;
    app.get("/docs/errors/%ff").no_key().await.problem(404, "not_found");
}
