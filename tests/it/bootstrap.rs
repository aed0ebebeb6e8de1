use std::io;
use std::sync::Arc;

use actors::clock::ManualClock;
use actors::id::EntityKey;
use actors::ports::Ports;
use actors::registry::{Command, RowChange};
use actors::store::faulty::{FaultyStore, Rates};
use actors::store::{KeyRange, Order, Scan, Store as _};
use actors::tables::{IN_ORDER, PLACES, SETTINGS};
use actors::workspace::address_of;
use serde_json::json;
use tertulia::bootstrap::{self, BootstrapError};
use tertulia::secret::Pepper;

use crate::support::{ADMIN_KEY, BEGIN, TestApp, TestStore, node};

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(BEGIN))
}

/// Starts on `store` without a configured key; returns the announced keys and the outcome.
async fn start(store: TestStore) -> (Vec<String>, Result<Pepper, BootstrapError>) {
    let mut announced = Vec::new();
    let node = node(store, clock(), Ports::default());
    let started = bootstrap::run(&node, None, |key| {
        announced.push(key.to_owned());
        Ok(())
    });
    let started = started.await;
    (announced, started)
}

#[tokio::test]
async fn the_first_start_makes_a_workspace_an_admin_key_an_agent_and_two_channels() {
    let app = TestApp::new().await;
    let keys = app.get("/api/v1/api-keys").await.expect(200);
    assert_eq!(keys["data"].as_array().unwrap().len(), 1);
    let key = &keys["data"][0];
    assert_eq!(key["scopes"], json!(["messages:write", "messages:read", "reviews:respond", "admin"]));
    assert_eq!((&key["workspaceId"], &key["principal"]), (&json!("default"), &json!({"type": "agent", "id": "admin"})));
    let workspaces = app.get("/api/v1/workspaces").await.expect(200);
    assert_eq!(workspaces["data"][0]["id"], "default");
    let echo = app.get("/api/v1/agents/echo").await.expect(200);
    assert_eq!((&echo["provider"], &echo["builtin"]["behaviour"]), (&json!("builtin"), &json!("echo")));
    let demo = app.get("/api/v1/channels/demo").await.expect(200);
    assert_eq!((&demo["kind"], &demo["agentId"]), (&json!("human"), &json!(null)));
    let api = app.get("/api/v1/channels/demo-api").await.expect(200);
    assert_eq!((&api["kind"], &api["agentId"]), (&json!("api"), &json!("echo")));
}

#[tokio::test]
async fn a_generated_key_is_announced_once_and_works() {
    let store = TestStore::new().await;
    let (announced, pepper) = start(store.clone()).await;
    assert_eq!(announced.len(), 1);
    assert!(announced[0].starts_with("tert_") && announced[0].len() >= 32);
    let hash = pepper.unwrap().hash(&announced[0]);
    let (again, pepper) = start(store.clone()).await;
    assert!(again.is_empty());
    assert_eq!(pepper.unwrap().hash(&announced[0]), hash);
    let app = TestApp::start(store, &[]).await;
    app.get("/api/v1/channels").key(&announced[0]).await.expect(200);
    // The configured key comes too late.
    app.get("/api/v1/channels").key(ADMIN_KEY).await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn deleted_defaults_do_not_come_back_at_the_next_start() {
    let app = TestApp::new().await;
    for path in ["channels/demo", "channels/demo-api", "agents/echo"] {
        app.delete(format!("/api/v1/{path}")).await.expect(204);
    }
    let again = TestApp::start(app.store.clone(), &[]).await;
    assert_eq!(again.get("/api/v1/channels").await.expect(200)["data"], json!([]));
    assert_eq!(again.get("/api/v1/agents").await.expect(200)["data"], json!([]));
}

#[tokio::test]
async fn rows_stored_without_places_are_listed_as_they_were_made() {
    for half_way in [false, true] {
        is_listed_as_made(half_way).await;
    }
}

/// `half_way`: the first start had not completed.
async fn is_listed_as_made(half_way: bool) {
    let app = TestApp::new().await;
    app.clock.advance(1);
    app.post("/api/v1/channels").json(json!({"id": "a", "name": "A", "kind": "human"})).await.expect(201);
    let registry = EntityKey::workspace(address_of("default"));
    let installation = EntityKey::INSTALLATION;
    for (entity, table) in [(registry, IN_ORDER), (registry, PLACES), (installation, IN_ORDER), (installation, PLACES)]
    {
        let rows = app.store.rows(entity, table, Scan::new(KeyRange::default(), Order::Asc, 100)).await.unwrap();
        let mut changes: Vec<_> = rows.iter().map(|row| RowChange::delete(table, &row.key)).collect();
        assert!(!changes.is_empty());
        if entity == installation {
            changes.push(RowChange::delete(SETTINGS, b"placed"));
            if half_way {
                changes.push(RowChange::delete(SETTINGS, b"bootstrapped"));
            }
        }
        let command = Command { expected: Vec::new(), changes };
        node(app.store.clone(), clock(), Ports::default()).registry(entity, command, Default::default()).await.unwrap();
    }
    let again = TestApp::start(app.store.clone(), &[]).await;
    again.post("/api/v1/channels").json(json!({"id": "0", "name": "0", "kind": "human"})).await.expect(201);
    assert_eq!(again.ids("/api/v1/channels").await, ["demo", "demo-api", "a", "0"]);
    assert_eq!(again.ids("/api/v1/agents").await, ["echo"]);
    assert_eq!(again.ids("/api/v1/workspaces").await, ["default"]);
}

#[tokio::test]
async fn a_key_that_could_not_be_shown_is_replaced_by_the_next_start() {
    let store = TestStore::new().await;
    let mut unseen = String::new();
    let first = node(store.clone(), clock(), Ports::default());
    let started = bootstrap::run(&first, None, |key| {
        key.clone_into(&mut unseen);
        Err(io::ErrorKind::BrokenPipe.into())
    });
    assert!(matches!(started.await, Err(BootstrapError::Announce(_))));
    let (announced, _) = start(store.clone()).await;
    assert_ne!(announced[0], unseen);
    let app = TestApp::start(store, &[]).await;
    app.get("/api/v1/channels").key(&unseen).await.problem(401, "unauthenticated");
    let keys = app.get("/api/v1/api-keys").key(&announced[0]).await.expect(200);
    assert_eq!(keys["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_first_start_that_is_broken_off_anywhere_is_finished_by_a_later_one() {
    for seed in 0..60 {
        let store = TestStore::new().await;
        let mut announced = Vec::new();
        let rates = Rates { refused: 300, unanswered: 200, unread: 60, ..Rates::default() };
        let mut starts = 0;
        loop {
            starts += 1;
            assert!(starts < 200, "seed {seed}: it never ends");
            let faulty = FaultyStore::new(store.clone(), seed * 1_000 + starts, rates);
            let node = node(faulty, clock(), Ports::default());
            let started = bootstrap::run(&node, None, |key| {
                announced.push(key.to_owned());
                Ok(())
            });
            if started.await.is_ok() {
                break;
            }
        }
        let app = TestApp::start(store, &[]).await;
        let key = announced.last().unwrap_or_else(|| panic!("seed {seed}: no key was announced"));
        let keys = app.get("/api/v1/api-keys").key(key).await.expect(200);
        assert_eq!(keys["data"].as_array().unwrap().len(), 1, "seed {seed}");
        let channels = app.get("/api/v1/channels").key(key).await.expect(200);
        assert_eq!(channels["data"].as_array().unwrap().len(), 2, "seed {seed}");
    }
}
