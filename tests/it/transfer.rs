//! Export and import: a moved installation answers the same bytes, and another import completes an interrupted one.
#![cfg(unix)]

use std::io::{Cursor, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actors::store::faulty::{FaultyStore, Rates};
use actors::store::inventory::Inventory;
use actors::store::memory::MemoryStore;
use serde_json::{Value, json};
use tertulia::transfer::{Imported, Options, TransferError, export, import};

use crate::attachments::{files_below, uploaded};
use crate::support::client::Client;
use crate::support::origin::{Origin, bare};
use crate::support::program::{Server, program};
use crate::support::script::{Script, Sent, everything};
use crate::support::until::{seen, until};
use crate::support::{BEGIN, TestApp, TestStore};

mod moments;

/// An installation with much content, its store, and the requests that it was sent.
async fn lived_in() -> (TestApp, MemoryStore, Vec<Sent>) {
    let store = MemoryStore::default();
    let app = TestApp::start(store.clone(), &[]).await;
    let sent = Script::play_as_operator(&app).await;
    // Nothing is written any more once all delivery attempts are noted, because the clock is paused.
    until(|| app.app.node().outbox().active() == 0).await;
    (app, store, sent)
}

async fn exported(store: &dyn Inventory, workspace: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    export(store, workspace, BEGIN, &mut out).await.unwrap();
    out
}

async fn imported(store: &Arc<dyn Inventory>, file: &[u8]) -> Result<Imported, TransferError> {
    import(Arc::<dyn Inventory>::clone(store), Options::default(), Cursor::new(file)).await
}

fn memory() -> Arc<dyn Inventory> {
    Arc::new(MemoryStore::default())
}

/// The lines of an export in any order, except the first, which has the time of the export, and the last, which sums
/// them up. The parts that belong to the store are removed: another store keeps the same content elsewhere.
fn contents(file: &[u8]) -> Vec<String> {
    let lines = std::str::from_utf8(file).unwrap().lines();
    let content = |line: &str| {
        line.split(",\"standing\":").next().unwrap().split(",\"sum\":").next().unwrap().trim_end_matches('}').to_owned()
    };
    let mut lines: Vec<_> = lines.map(content).collect();
    lines.pop();
    lines.remove(0);
    lines.sort();
    lines
}

/// A server on the moved store gives the same answers as the original.
async fn says_the_same(before: &TestApp, sent: &[Sent], moved: TestStore) {
    let after = TestApp::start(moved, &[]).await;
    after.clock.set(actors::clock::Clock::now(&*before.clock));
    for (path, was) in everything(before).await {
        let is = after.get(&path).await;
        assert_eq!(String::from_utf8_lossy(&is.bytes), String::from_utf8_lossy(&was.bytes), "{path}");
        assert_eq!((is.status, is.header("etag")), (was.status, was.header("etag")), "{path}");
    }
    for sent in sent.iter().filter(|sent| sent.is_kept()) {
        let again = sent.again(&after).await;
        assert_eq!(again.header("idempotent-replayed"), "true");
        assert_eq!(String::from_utf8_lossy(&again.bytes), String::from_utf8_lossy(&sent.answer.bytes));
    }
    let key =
        after.post("/api/v1/api-keys").idempotency_key("k1").json(json!({"name": "another", "scopes": ["admin"]}));
    key.await.problem(422, "idempotency_key_reused");
    // The server continues from where the original was.
    let body = json!({"channelId": "desk", "text": "after the move"});
    let next = after.post("/api/v1/messages").json(body).await.expect(201);
    let listed = after.get("/api/v1/messages?channelId=desk&order=desc&limit=1").await.expect(200);
    assert_eq!(listed["data"][0]["id"], next["id"]);
}

#[tokio::test]
async fn an_import_into_the_embedded_store_answers_the_same_bytes() {
    let (before, store, sent) = lived_in().await;
    let file = exported(&store, None).await;
    let (moved, inventory) = TestStore::embedded_inventory();
    let done = imported(&inventory, &file).await.unwrap();
    assert!(done.skipped == 0 && done.entities >= 8, "{done:?}");
    assert_eq!(contents(&exported(&*inventory, None).await), contents(&file));
    says_the_same(&before, &sent, moved).await;
}

#[tokio::test]
async fn a_store_moved_to_cql_and_back_answers_the_same_bytes() {
    if bed::server().is_none() {
        return;
    }
    let (from, inventory) = TestStore::embedded_inventory();
    let before = TestApp::start(from, &[]).await;
    let sent = Script::play_as_operator(&before).await;
    let file = exported(&*inventory, None).await;
    let (moved, cql) = TestStore::cql_inventory().await;
    TestStore::within({
        let cql = Arc::clone(&cql);
        let file = file.clone();
        async move { imported(&cql, &file).await.unwrap() }
    })
    .await;
    let again = TestStore::within(async move { exported(&*cql, None).await }).await;
    assert_eq!(contents(&again), contents(&file));
    says_the_same(&before, &sent, moved).await;
}

/// A receiver that answers 503 until the test makes it well.
async fn receiver() -> (Origin, Arc<AtomicBool>) {
    let is_well = Arc::new(AtomicBool::new(false));
    let well = Arc::clone(&is_well);
    let origin = Origin::serve(move |_| bare(if well.load(Ordering::SeqCst) { 204 } else { 503 }, "")).await;
    (origin, is_well)
}

/// Files that messages have and mention, and events pending for a receiver that is not well. Returns the ids of the
/// files and of the message that has the first of them.
async fn with_files_and_lanes(app: &TestApp, hook: &str) -> ([String; 3], String) {
    let endpoint = json!({"url": hook, "events": ["message.created"], "channelId": "demo"});
    app.post("/api/v1/webhook-endpoints").json(endpoint).await.expect(201);
    let files = [uploaded(app, "had").await, uploaded(app, "mentioned").await, uploaded(app, "nobody's").await];
    let body = json!({"channelId": "demo", "text": "0", "attachmentIds": [files[0]]});
    let has = app.post("/api/v1/messages").json(body).await.expect(201)["id"].as_str().unwrap().to_owned();
    let body = json!({"content": {"content": "see", "attachments": [{"id": files[1]}]}});
    app.post("/api/v1/messages").json(body).await.expect(200);
    for n in 1..4 {
        app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": n.to_string()})).await.expect(201);
    }
    (files, has)
}

/// The pending deliveries, once there are `count` and the first of them was tried.
async fn waiting(app: &TestApp, count: usize) -> Value {
    seen(async || {
        let page = app.get("/api/v1/webhook-deliveries?status=pending&order=asc").await.expect(200);
        let data = page["data"].as_array().unwrap();
        let stand_so = data.len() == count && data.first().is_none_or(|first| first["attempts"] != json!([]));
        stand_so.then_some(page)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_moved_to_cql_goes_on_with_its_files_and_deliveries() {
    if bed::server().is_none() {
        return;
    }
    let loopback = [("TERTULIA_EGRESS_ALLOW", "127.0.0.0/8")];
    let (from, inventory) = TestStore::embedded_inventory();
    let before = TestApp::start(from, &loopback).await;
    let (origin, is_well) = receiver().await;
    let (files, has) = with_files_and_lanes(&before, &origin.url("/hook")).await;
    let pending = waiting(&before, 4).await;
    let file = exported(&*inventory, None).await;
    let (moved, cql) = TestStore::cql_inventory().await;
    let again = TestStore::within({
        let file = file.clone();
        async move {
            imported(&cql, &file).await.unwrap();
            exported(&*cql, None).await
        }
    });
    assert_eq!(contents(&again.await), contents(&file));
    let after = TestApp::start(moved, &loopback).await;
    after.clock.set(actors::clock::Clock::now(&*before.clock));
    for path in files_below(before.files.path()) {
        let to = after.files.path().join(&path);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(before.files.path().join(&path), to).unwrap();
    }
    assert_eq!(waiting(&after, 4).await, pending);
    let records = files.iter().flat_map(|id| ["", "/content"].map(|part| format!("attachments/{id}{part}")));
    let lists = ["messages?channelId=demo", "webhook-endpoints", "conversations"].map(str::to_owned);
    for path in records.chain(lists) {
        let was = before.get(format!("/api/v1/{path}")).await;
        let is = after.get(format!("/api/v1/{path}")).await;
        assert_eq!((is.status, &is.bytes), (200, &was.bytes), "{path}");
    }
    // The new server sends the pending events in order; it stands in for two processes, and both may send an event.
    let tried = origin.requests().len();
    is_well.store(true, Ordering::SeqCst);
    after.clock.advance(60_000);
    waiting(&after, 0).await;
    let events = after.get("/api/v1/channels/demo/events").await.expect(200);
    let created = events["data"].as_array().unwrap().iter().filter(|event| event["type"] == "message.created");
    let sent = origin.requests().split_off(tried);
    let mut ids: Vec<&str> = Vec::new();
    for id in sent.iter().map(|heard| heard.header("webhook-id")) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    assert_eq!(ids, created.map(|event| event["id"].as_str().unwrap()).collect::<Vec<_>>());
    // Unused files are deleted too.
    after.delete(format!("/api/v1/messages/{has}")).await.expect(204);
    after.clock.advance(24 * 3_600_000 + 1_000);
    until(|| files_below(after.files.path()).len() <= 1).await;
    assert_eq!(after.get(format!("/api/v1/attachments/{}/content", files[1])).await.bytes, b"mentioned");
}

#[tokio::test]
async fn one_workspace_is_moved_with_its_keys_and_nothing_of_another() {
    let (before, store, _) = lived_in().await;
    let key = before.key(json!({"name": "moved", "workspaceId": "other", "scopes": ["messages:read"]})).await;
    let file = exported(&store, Some("other")).await;
    let target = memory();
    imported(&target, &file).await.unwrap();
    // The target's first start creates what the export does not contain.
    let after = TestApp::start(TestStore::over(target), &[]).await;
    let here = before.get("/api/v1/conversations").key(&key).await;
    let there = after.get("/api/v1/conversations").key(&key).await;
    assert_eq!(String::from_utf8_lossy(&here.bytes), String::from_utf8_lossy(&there.bytes));
    assert_eq!(there.json["data"].as_array().unwrap().len(), 1);
    assert_eq!(after.get("/api/v1/conversations").await.expect(200)["data"], json!([]));
    assert_eq!(after.get("/api/v1/channels").await.expect(200)["data"].as_array().unwrap().len(), 2);
    assert_eq!(after.ids("/api/v1/workspaces").await, ["default", "other"], "what was moved is listed");
    let missing = export(&store, Some("nowhere"), BEGIN, Vec::new()).await;
    assert!(matches!(missing, Err(TransferError::NoWorkspace(name)) if name == "nowhere"));
}

#[tokio::test]
async fn transient_store_errors_during_a_transfer_are_retried() {
    let (before, store, sent) = lived_in().await;
    let file = exported(&store, None).await;
    let rates = Rates { unread: 50, refused: 50, unanswered: 50, ..Rates::default() };
    let faulty = FaultyStore::new(store, 1, rates);
    let moved = exported(&faulty, None).await;
    assert_eq!(contents(&moved), contents(&file));
    let target = MemoryStore::default();
    let behind: Arc<dyn Inventory> = Arc::new(FaultyStore::new(target.clone(), 2, rates));
    imported(&behind, &moved).await.unwrap();
    assert!(faulty.injected().unread > 0, "{:?}", faulty.injected());
    says_the_same(&before, &sent, TestStore::over(Arc::new(target))).await;
}

#[tokio::test]
async fn an_import_that_was_broken_off_anywhere_is_finished_by_the_next() {
    let (before, store, sent) = lived_in().await;
    let file = exported(&store, None).await;
    let lines = file.iter().filter(|byte| **byte == b'\n').count();
    let ends: Vec<usize> = file.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    let target = memory();
    let mut last = 0;
    // Each import gets a line further; every third one ends within a line.
    for n in 1..lines {
        let end = ends[n - 1] + usize::from(n % 3 == 0) * (ends[n] - ends[n - 1]) / 2;
        let broken = imported(&target, &file[..end]).await;
        assert!(
            matches!(broken, Err(TransferError::Malformed { line, .. }) if line == n as u64 + 1),
            "{n}: {broken:?}"
        );
        last = n;
    }
    assert_eq!(last, lines - 1);
    let done = imported(&target, &file).await.unwrap();
    assert_eq!(done.commits, 0, "each line but the last was done by one of those before");
    assert_eq!(contents(&exported(&*target, None).await), contents(&file));
    says_the_same(&before, &sent, TestStore::over(target)).await;
}

#[tokio::test]
async fn the_program_imports_what_it_was_killed_over_and_exports_it_again() {
    let (before, store, _) = lived_in().await;
    let file = exported(&store, None).await;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let path = dir.path().join("export.jsonl");
    std::fs::write(&path, &file).unwrap();
    let lines: Vec<&[u8]> = file.split_inclusive(|byte| *byte == b'\n').collect();
    for half in [lines.len() / 3, 2 * lines.len() / 3] {
        let mut import = program(&data).arg("import").stdin(Stdio::piped()).spawn().unwrap();
        let mut input = import.stdin.take().unwrap();
        input.write_all(&lines[..half].concat()).unwrap();
        // The import may be anywhere in its input.
        import.kill().unwrap();
        import.wait().unwrap();
    }
    let whole = program(&data).arg("import").arg(&path).output().unwrap();
    let words = String::from_utf8_lossy(&whole.stdout).into_owned();
    assert!(whole.status.success() && words.contains("entities"), "{whole:?}");
    let verified = program(&data).arg("verify").output().unwrap();
    assert!(verified.status.success(), "{verified:?}");
    let again = dir.path().join("again.jsonl");
    let export = program(&data).args(["export", "--out"]).arg(&again).output().unwrap();
    assert!(export.status.success(), "{export:?}");
    assert_eq!(contents(&std::fs::read(&again).unwrap()), contents(&file));
    assert_eq!(std::fs::metadata(&again).unwrap().permissions().mode() & 0o777, 0o600, "it holds secrets");
    let piped = program(&data).args(["export", "--out", "/dev/stdout"]).output().unwrap();
    assert!(piped.status.success() && contents(&piped.stdout) == contents(&file), "a pipe is no earlier export");
    let server = Server::start(&data, &[]);
    let mut client = Client::connect(&server.address).unwrap();
    // By the program's real clock the reviews have expired; conversations do not depend on time.
    let path = "/api/v1/conversations";
    let there = client.send("GET", path, None, "").unwrap();
    assert_eq!(String::from_utf8_lossy(&there.body), String::from_utf8_lossy(&before.get(path).await.bytes));
    assert_eq!(server.terminate(), Some(0));
}

/// The next one does it.
#[tokio::test]
async fn a_killed_export_leaves_the_earlier_file_or_the_whole_new_one() {
    let (app, store, _) = lived_in().await;
    let earlier = exported(&store, None).await;
    // So large that writing it takes a while.
    let long = "x".repeat(250_000);
    for _ in 0..40 {
        app.post("/api/v1/messages").json(json!({"content": {"content": long}})).await.expect(200);
    }
    let now = exported(&store, None).await;
    let dir = tempfile::tempdir().unwrap();
    let [data, path, beside, input] = ["data", "e.jsonl", "e.jsonl.anew", "input"].map(|name| dir.path().join(name));
    std::fs::write(&input, &now).unwrap();
    let whole = program(&data).arg("import").arg(&input).output().unwrap();
    assert!(whole.status.success(), "{whole:?}");
    std::fs::write(&path, &earlier).unwrap();
    let export = |more: &[&str]| {
        let mut export = program(&data);
        export.arg("export").args(more).arg("--out").arg(&path);
        export
    };
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    for at in [1, 1_000_000, 3_000_000] {
        _ = std::fs::remove_file(&beside);
        let mut killed = export(&["--anew"]).stdout(Stdio::null()).spawn().unwrap();
        let before = std::fs::read(&path).unwrap();
        let is_written = || length(&beside) >= at || length(&path) != before.len() as u64;
        while !is_written() && killed.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        killed.kill().unwrap();
        killed.wait().unwrap();
        let left = std::fs::read(&path).unwrap();
        assert!(left == before || contents(&left) == contents(&now), "{at}: {} bytes are left", left.len());
        let refused = export(&[]).output().unwrap();
        assert_eq!(refused.status.success(), left != earlier, "a whole file of another moment is not written over");
        assert_eq!(std::fs::read(&path).unwrap(), left);
    }
    assert!(length(&beside) > 0, "over what was left of the last one");
    let done = export(&["--anew"]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert!(contents(&std::fs::read(&path).unwrap()) == contents(&now) && !beside.exists());
}

#[tokio::test]
async fn a_damaged_export_or_an_occupied_target_is_refused_by_name() {
    let (_, store, _) = lived_in().await;
    let file = exported(&store, None).await;
    let text = String::from_utf8(file.clone()).unwrap();
    let header = text.lines().next().unwrap();
    let refused = async |text: &str| imported(&memory(), text.as_bytes()).await.unwrap_err().to_string();
    let newer = text.replacen("\"version\":1", "\"version\":2", 1);
    assert!(refused(&newer).await.contains("line 1 of the export: tertulia-export 2 is not"));
    assert!(refused("{}\n").await.starts_with("line 1 of the export:"));
    assert!(refused(&text[header.len() + 1..]).await.contains("not the start"));
    // One line twice, and one line missing.
    let second = text.lines().nth(1).unwrap();
    let doubled = text.replacen(second, &format!("{second}\n{second}"), 1);
    assert!(refused(&doubled).await.contains("lines are missing or were changed"));
    let commits: Vec<&str> = text.lines().filter(|line| line.contains("\"line\":\"commit\"")).collect();
    let missing = text.replacen(&format!("{}\n", commits[0]), "", 1);
    assert!(refused(&missing).await.contains("line"));

    // A target after its first start, and one with later changes.
    let started = MemoryStore::default();
    TestApp::start(started.clone(), &[]).await;
    let started: Arc<dyn Inventory> = Arc::new(started);
    let other_pepper = imported(&started, &file).await.unwrap_err();
    assert!(matches!(other_pepper, TransferError::OtherPepper | TransferError::WorkspaceTaken(_)), "{other_pepper}");
    let target = memory();
    imported(&target, &file).await.unwrap();
    let gone_on = TestApp::start(TestStore::over(Arc::<dyn Inventory>::clone(&target)), &[]).await;
    gone_on.post("/api/v1/messages").json(json!({"channelId": "desk", "text": "since"})).await.expect(201);
    assert!(matches!(imported(&target, &file).await, Err(TransferError::Occupied(_))));
}

#[tokio::test]
async fn a_workspace_is_taken_without_its_keys_where_they_would_never_be_accepted() {
    let (before, store, _) = lived_in().await;
    let key = before.key(json!({"name": "left", "workspaceId": "other", "scopes": ["messages:read"]})).await;
    let file = exported(&store, Some("other")).await;
    let target = MemoryStore::default();
    let after = TestApp::start(target.clone(), &[]).await;
    let target: Arc<dyn Inventory> = Arc::new(target);
    assert!(matches!(imported(&target, &file).await, Err(TransferError::OtherPepper)));
    let options = Options { without_keys: true };
    import(Arc::<dyn Inventory>::clone(&target), options, Cursor::new(&file)).await.unwrap();
    let answer: Value = after.get("/api/v1/workspaces/other").await.expect(200);
    assert_eq!(answer["id"], "other");
    after.get("/api/v1/conversations").key(&key).await.problem(401, "unauthenticated");
    let fresh = after.key(json!({"name": "new", "workspaceId": "other", "scopes": ["messages:read"]})).await;
    let listed = after.get("/api/v1/conversations").key(&fresh).await.expect(200);
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    let again = TestApp::start(TestStore::over(target), &[]).await;
    assert_eq!(again.ids("/api/v1/workspaces").await, ["default", "other"], "it has its place since the next start");
}
