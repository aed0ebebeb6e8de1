//! The document and the service agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tertulia::openapi::ERRORS;

use crate::support::TestApp;

mod bounds;
mod clients;
mod events;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

pub(crate) async fn document(app: &TestApp) -> Value {
    app.get("/openapi.json").no_key().await.expect(200)
}

/// Every operation: path, method, and its entry in the document.
pub(crate) fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let each = paths.iter().flat_map(|(path, item)| {
        METHODS.iter().filter_map(move |method| Some((path.clone(), (*method).to_owned(), item.get(method)?)))
    });
    each.collect()
}

/// A validator for a shape of the document, which may refer to its components.
fn validator(document: &Value, schema: &Value) -> jsonschema::Validator {
    // The shape's references begin at the document's root.
    let mut root = schema.clone();
    root["components"] = document["components"].clone();
    jsonschema::draft202012::options().should_validate_formats(true).build(&root).unwrap()
}

#[track_caller]
pub(crate) fn assert_valid(document: &Value, schema: &Value, value: &Value, what: &str) {
    let validator = validator(document, schema);
    let errors: Vec<_> =
        validator.iter_errors(value).map(|error| format!("{} {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}\n{value:#}");
}

fn component(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// The path of the object with this id, whatever its parameter is called.
pub(crate) fn of_thing(path: &str, id: &str) -> String {
    path.replace("{channelId}", id).replace("{id}", id)
}

#[tokio::test]
async fn every_documented_route_is_answered_by_its_handler() {
    let app = TestApp::new().await;
    for (path, method, _) in operations(&document(&app).await) {
        let asked = of_thing(&path, "nothing-of-this-name").replace("{code}", "rate_limited");
        let answer = app.request(method.to_uppercase().parse().unwrap(), &asked).await;
        assert_ne!(answer.status, 405, "{method} {path}");
        // Handlers have their own codes for objects that do not exist.
        assert!(answer.status != 404 || answer.json["code"] != "not_found", "{method} {path}: {}", answer.json);
        assert!(answer.status < 500, "{method} {path}: {}", answer.json);
    }
}

#[tokio::test]
async fn answers_to_requests_without_key_body_or_known_id_are_documented() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    for (path, method, operation) in operations(&document) {
        let asked = of_thing(&path, "nothing-of-this-name").replace("{code}", "rate_limited");
        for key in [true, false] {
            let request = app.request(method.to_uppercase().parse().unwrap(), &asked);
            let answer = if key { request.await } else { request.no_key().await };
            let said = &operation["responses"][answer.status.to_string()];
            assert!(said.is_object(), "{method} {path} answers {} {}", answer.status, answer.json);
            if let Some(schema) = said["content"].get(answer.header("content-type")).map(|content| &content["schema"]) {
                assert_valid(&document, schema, &answer.json, &format!("{method} {path}"));
            }
            if let Some(code) = answer.json["code"].as_str() {
                let listed = said["description"].as_str().unwrap().contains(&format!("`{code}`"));
                assert!(listed, "{method} {path} answers {code}, and the document does not say so");
            }
            // Other headers depend on the request.
            let always = ["X-Request-Id", "traceparent", "RateLimit", "RateLimit-Policy", "WWW-Authenticate", "ETag"];
            for name in always.iter().filter(|name| said["headers"].get(**name).is_some()) {
                assert_ne!(answer.header(&name.to_lowercase()), "", "{method} {path}: {name}");
            }
        }
    }
}

/// The sources of a directory, without tests.
fn sources(under: &Path, out: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let code: Vec<_> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            out.push((path, code.join("\n")));
        }
    }
}

fn all_sources(roots: &[&str]) -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut out = Vec::new();
    for root in roots {
        let path = src.join(root);
        if path.is_dir() {
            sources(&path, &mut out);
        } else {
            out.push((path.clone(), fs::read_to_string(path).unwrap()));
        }
    }
    out.retain(|(path, _)| !path.components().any(|part| part.as_os_str() == "tests"));
    out
}

/// `.route("path", get(…).post(…))` in a source: the path and its methods.
fn routes_of(code: &str) -> Vec<(String, Vec<&'static str>)> {
    let mut out = Vec::new();
    for (at, _) in code.match_indices(".route(") {
        let rest = &code[at + ".route(".len()..];
        let mut depth = 1;
        let end = rest.char_indices().find_map(|(i, c)| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            (depth == 0).then_some(i)
        });
        let arguments = &rest[..end.unwrap()];
        let (path, handlers) = arguments.trim_start().strip_prefix('"').unwrap().split_once('"').unwrap();
        let has =
            |method: &&&str| [" ", ".", "::"].iter().any(|before| handlers.contains(&format!("{before}{method}(")));
        out.push((path.to_owned(), METHODS.iter().filter(has).copied().collect()));
    }
    out
}

#[tokio::test]
async fn every_route_of_the_router_is_documented() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    // A server that waits for its store has a router of its own, with some of the routes.
    let mut found = BTreeSet::new();
    for (file, code) in all_sources(&["http.rs", "http", "openapi.rs"]) {
        for (path, methods) in routes_of(&code) {
            assert!(!methods.is_empty(), "{}: no method of {path} is seen", file.display());
            for method in methods {
                let said = |path: &str| document["paths"][path][method].is_object();
                let known = said(&path) || said(&format!("/api/v1{path}"));
                assert!(known, "{}: {method} {path} is not documented", file.display());
                found.insert((path.clone(), method));
            }
        }
    }
    assert_eq!(found.len(), operations(&document).len(), "the document has routes that no source has");
}

#[tokio::test]
async fn every_operation_says_what_a_client_needs() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    assert_eq!(document["servers"], json!([{"url": "/"}]));
    assert!(document["components"]["securitySchemes"]["bearer"].is_object());
    assert_eq!(document["components"]["securitySchemes"]["apiKey"]["name"], "X-API-Key");
    let tags: BTreeSet<_> = document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].to_string()).collect();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let what = format!("{method} {path}");
        for member in ["summary", "description", "operationId"] {
            assert!(operation[member].as_str().is_some_and(|text| !text.is_empty()), "{what}: {member}");
        }
        assert!(ids.insert(operation["operationId"].to_string()), "{what}: its id is taken");
        assert!(tags.contains(&operation["tags"][0].to_string()), "{what}: its tag is unknown");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{what}");
        let needed: &[&str] = if path.starts_with("/api/") { &["401", "403", "429", "500", "503"] } else { &[] };
        let with_body: &[&str] = if operation["requestBody"].is_object() { &["408", "413", "415"] } else { &[] };
        for status in needed.iter().chain(with_body) {
            assert!(responses.contains_key(*status), "{what}: {status}");
        }
        let in_path = path.matches('{').count();
        let parameters = operation["parameters"].as_array().unwrap();
        let named = parameters.iter().filter(|parameter| parameter["in"] == "path" && parameter["required"] == true);
        assert_eq!(named.count(), in_path, "{what}");
    }
}

#[tokio::test]
async fn every_reference_leads_somewhere_and_every_component_is_used() {
    fn references(value: &Value, out: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                out.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|value| references(value, out));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, out)),
            _ => {}
        }
    }
    let app = TestApp::new().await;
    let document = document(&app).await;
    let mut used = BTreeSet::new();
    references(&document, &mut used);
    for reference in &used {
        let pointer = reference.strip_prefix('#').expect("references stay within the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    for kind in ["schemas", "parameters", "headers"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            let reference = format!("#/components/{kind}/{name}");
            assert!(used.contains(&reference), "{reference} is used nowhere");
        }
    }
}

#[tokio::test]
async fn every_example_fits_its_shape() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let mut seen = 0;
    let mut check = |content: &Value, what: &str| {
        for media in content.as_object().into_iter().flat_map(|content| content.values()) {
            for (name, example) in media["examples"].as_object().into_iter().flatten() {
                assert!(example["value"].is_object() || example["value"].is_array(), "{what} {name} is no JSON");
                assert_valid(&document, &media["schema"], &example["value"], &format!("{what} {name}"));
                seen += 1;
            }
        }
    };
    for (path, method, operation) in operations(&document) {
        check(&operation["requestBody"]["content"], &format!("{method} {path}"));
        for (status, response) in operation["responses"].as_object().unwrap() {
            check(&response["content"], &format!("{method} {path} {status}"));
        }
    }
    assert!(seen >= 20, "{seen}");
}

/// Objects for the examples that need one.
async fn prepared(app: &TestApp) -> BTreeMap<&'static str, String> {
    let endpoint = json!({"url": "https://example.com/", "channelId": "demo"});
    let endpoint = app.post("/api/v1/webhook-endpoints").json(endpoint).await.expect(201);
    let said = app.post("/api/v1/messages").json(json!({"content": {"content": "Hello"}})).await.expect(200);
    let conversation = said[0]["conversation_id"].as_str().unwrap().to_owned();
    let answer = app
        .post("/api/v1/channels/demo-api/messages")
        .json(json!({"type": "TEXT", "contactIdentifier": "ana@example.com", "content": {"text": {"body": "Hi"}}}))
        .await
        .expect(200);
    let memories = format!("/api/v1/contacts/{}/memories", answer["contactId"].as_str().unwrap());
    let memory = app.post(memories).json(json!({"text": "likes tea"})).await.expect(201);
    let review = json!({"channelId": "demo", "text": "Deploy?", "review": {"type": "approval"}});
    let review = app.post("/api/v1/messages").json(review).await.expect(201);
    let file = app.post("/api/v1/attachments?filename=a.txt").body("text/plain", "a file").await.expect(201);
    let deliveries = app.get("/api/v1/webhook-deliveries").await.expect(200);
    let key = app.get("/api/v1/api-keys").await.expect(200);
    let text = |pointer: &str| answer.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    BTreeMap::from([
        ("/api/v1/conversations", conversation),
        ("{memory}", memory["id"].as_str().unwrap().to_owned()),
        ("/api/v1/attachments", file["id"].as_str().unwrap().to_owned()),
        ("/api/v1/messages", said[0]["id"].as_str().unwrap().to_owned()),
        ("/api/v1/reviews", review["id"].as_str().unwrap().to_owned()),
        ("/api/v1/contacts", text("/contactId")),
        ("/api/v1/turns", text("/turn/id")),
        ("/api/v1/channels", "demo".to_owned()),
        ("/api/v1/webhook-deliveries", deliveries["data"][0]["id"].as_str().unwrap().to_owned()),
        ("/api/v1/webhook-endpoints", endpoint["id"].as_str().unwrap().to_owned()),
        ("/api/v1/agents", "echo".to_owned()),
        ("/api/v1/api-keys", key["data"][0]["id"].as_str().unwrap().to_owned()),
        ("/api/v1/workspaces", "default".to_owned()),
    ])
}

/// The prepared object of a path in the document.
fn of_prepared(path: &str, ids: &BTreeMap<&'static str, String>) -> String {
    let known = ids.iter().find(|(before, _)| path.starts_with(**before));
    let asked = known.map_or(path.to_owned(), |(_, id)| of_thing(path, id)).replace("{code}", "rate_limited");
    let asked = asked.replace("{memory}", &ids["{memory}"]);
    let asked = match path {
        "/api/v1/messages" => "/api/v1/messages?channelId=demo".to_owned(),
        "/api/v1/memories" => format!("/api/v1/memories?contactId={}", ids["/api/v1/contacts"]),
        _ => asked,
    };
    asked.replace("/wait", "/wait?timeout=0")
}

#[tokio::test]
async fn every_answer_to_a_get_matches_its_documented_schema() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let ids = prepared(&app).await;
    for (path, _, operation) in operations(&document).into_iter().filter(|(_, method, _)| method == "get") {
        let asked = of_prepared(&path, &ids);
        let answer = app.get(&asked).await;
        assert_eq!(answer.status, 200, "{asked}: {}", answer.json);
        let content = &operation["responses"]["200"]["content"];
        if let Some(schema) = content.get("application/json").map(|content| &content["schema"]) {
            assert_valid(&document, schema, &answer.json, &asked);
        }
    }
}

#[tokio::test]
async fn no_cache_between_hands_one_clients_answer_to_another() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let ids = prepared(&app).await;
    for (path, _, operation) in operations(&document).into_iter().filter(|(_, method, _)| method == "get") {
        let is_public = path.starts_with("/docs") || path == "/openapi.json";
        let unknown = of_thing(&path, "nothing-of-this-name").replace("{code}", "rate_limited");
        for asked in [of_prepared(&path, &ids), unknown] {
            for (method, key) in [(http::Method::GET, true), (http::Method::HEAD, true), (http::Method::GET, false)] {
                let request = app.request(method, &asked);
                let answer = if key { request.await } else { request.no_key().await };
                let said = &operation["responses"][answer.status.to_string()]["headers"]["Cache-Control"];
                assert!(said.is_object(), "{asked} {}", answer.status);
                let told = answer.header("cache-control");
                let is_kept_apart = told.contains("private") || told == "no-store";
                assert_eq!(is_kept_apart, !is_public, "{asked} {}: {told:?}", answer.status);
            }
        }
    }
    let posted = app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "x"})).await;
    assert_eq!((posted.status, posted.header("cache-control")), (201, ""));
    for asked in ["/api/v1/channels/demo/events", "/api/v1/conversations/nothing-of-this-name/events"] {
        let kept = app.get(asked).await;
        assert_eq!(kept.header("vary"), if kept.status == 200 { "accept" } else { "" }, "{asked}");
    }
}

#[tokio::test]
async fn the_examples_of_requests_are_accepted_and_their_answers_fit() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let ids = prepared(&app).await;
    for (path, method, operation) in operations(&document) {
        let examples = &operation["requestBody"]["content"]["application/json"]["examples"];
        for (name, example) in examples.as_object().into_iter().flatten() {
            let mut body = example["value"].clone();
            // An object that an example names must exist.
            if body["conversation_id"].is_string() {
                body["conversation_id"] = ids["/api/v1/conversations"].clone().into();
            }
            let known = ids.iter().find(|(before, _)| path.starts_with(**before));
            let mut asked = known.map_or(path.clone(), |(_, id)| of_thing(&path, id));
            asked = asked.replace("{memory}", &ids["{memory}"]);
            if body.get("contactIdentifier").is_some() {
                asked = asked.replace("/demo/", "/demo-api/");
            }
            if path == "/api/v1/agents/{id}" || path == "/api/v1/conversations/{id}" {
                asked = asked.replace("/echo", "/greeter");
            }
            // Tests fetch nothing, and a closed conversation takes no other example.
            if ["IMAGE", "AUDIO", "VIDEO", "DOCUMENT", "close", "disable"].contains(&name.as_str()) {
                continue;
            }
            let method = method.to_uppercase().parse().unwrap();
            let answer = app.request(method, format!("{asked}?strict=true")).json(body).await;
            let what = format!("{asked} {name}");
            assert!((200..300).contains(&answer.status), "{what}: {}", answer.json);
            let said = &operation["responses"][answer.status.to_string()]["content"]["application/json"]["schema"];
            assert!(said.is_object(), "{what} answers {}", answer.status);
            assert_valid(&document, said, &answer.json, &what);
        }
    }
}

#[tokio::test]
async fn the_document_and_the_page_are_public_named_by_a_tag_and_answer_head() {
    let app = TestApp::new().await;
    for (path, media) in [("/openapi.json", "application/json"), ("/docs", "text/html; charset=utf-8")] {
        let answer = app.get(path).no_key().await;
        assert_eq!((answer.status, answer.header("content-type")), (200, media), "{path}");
        assert!(answer.header("cache-control").contains("max-age"), "{path}");
        let etag = answer.header("etag").to_owned();
        let again = app.get(path).no_key().header("if-none-match", &etag).await;
        assert_eq!((again.status, again.bytes.len(), again.header("etag")), (304, 0, etag.as_str()), "{path}");
        let head = app.request(http::Method::HEAD, path).no_key().await;
        assert_eq!((head.status, head.bytes.len(), head.header("etag")), (200, 0, etag.as_str()), "{path}");
        assert_eq!(head.header("content-length"), answer.bytes.len().to_string(), "{path}");
        assert!(!answer.header("x-request-id").is_empty() && !answer.header("traceparent").is_empty(), "{path}");
    }
}

#[tokio::test]
async fn the_page_loads_and_runs_nothing_and_links_to_what_is_there() {
    let app = TestApp::new().await;
    let answer = app.get("/docs").no_key().await;
    let policy = answer.header("content-security-policy").to_owned();
    assert!(policy.starts_with("default-src 'none'; style-src 'unsafe-inline'"), "{policy}");
    let page = String::from_utf8(answer.bytes).unwrap();
    for forbidden in ["<script", "<link", "<img", "<iframe", "src=", "@import", "url(", " onclick", "javascript:"] {
        assert!(!page.contains(forbidden), "the page has {forbidden}");
    }
    let ids: BTreeSet<&str> = page.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    for target in page.split(" href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        match target.strip_prefix('#') {
            Some(id) => assert!(ids.contains(id), "#{id} is nowhere on the page"),
            None => {
                let status = app.get(target).no_key().await.status;
                assert_eq!(status, 200, "{target}");
            }
        }
    }
    for (path, _, operation) in operations(&document(&app).await) {
        assert!(ids.contains(operation["operationId"].as_str().unwrap()), "{path}");
    }
}

#[tokio::test]
async fn the_type_of_every_problem_is_a_page() {
    let app = TestApp::new().await;
    let problem = app.get("/api/v1/channels/none").await.problem(404, "channel_not_found");
    let page = app.get(problem["type"].as_str().unwrap()).no_key().await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(String::from_utf8(page.bytes).unwrap().contains("channel_not_found"));
    app.get("/docs/errors/no_such_code").no_key().await.problem(404, "not_found");
    let codes: BTreeSet<_> = ERRORS.iter().map(|error| error.code).collect();
    assert_eq!(codes.len(), ERRORS.len(), "a code stands in the table twice");
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors");
    let pages = fs::read_dir(pages).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let pages: BTreeSet<_> = pages.filter(|name| name != "README.md").collect();
    let served: BTreeSet<_> = codes.iter().map(|code| format!("{code}.md")).collect();
    assert_eq!(pages, served, "docs/errors has other pages than src/openapi/errors.rs names");
    for error in ERRORS {
        assert!(error.text.starts_with(&format!("# `{}`: ", error.code)), "{}", error.code);
        assert!(!error.title().is_empty() && !error.status().is_empty(), "{}", error.code);
    }
    for (path, method, operation) in operations(&document(&app).await) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            for code in response["description"].as_str().unwrap().split("(/docs/errors/").skip(1) {
                let code = code.split(')').next().unwrap();
                assert!(codes.contains(code), "{method} {path} {status}: {code} has no page");
            }
        }
    }
}
