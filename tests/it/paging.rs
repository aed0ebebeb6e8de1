//! Pages of every list of messages, conversations and contacts.

use std::collections::HashSet;
use std::time::Duration;

use actors::store::faulty::{FaultyStore, Rates};
use serde_json::{Value, json};

use crate::support::{TestApp, ids};

mod filters;

/// A channel with seven messages, a conversation with seven, and seven contacts, each with a conversation.
struct World {
    app: TestApp,
    conversation: String,
    contact: String,
}

async fn world() -> World {
    let app = TestApp::new().await;
    let made = app.post("/api/v1/conversations").json(json!({"title": "first"})).await.expect(201);
    let conversation = made["id"].as_str().unwrap().to_owned();
    let mut contact = String::new();
    for n in 0..7 {
        // The clock goes backwards: the order must not depend on it.
        app.clock.set(actors::clock::Millis(crate::support::BEGIN.0 - n * 1_000));
        app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": format!("m{n}")})).await.expect(201);
        let body = json!({"conversation_id": conversation, "content": {"content": format!("m{n}")}});
        app.post("/api/v1/messages").json(body).await.expect(200);
        let body = json!({"type": "TEXT", "contactIdentifier": format!("c{n}"), "content": {"text": {"body": "x"}}});
        let said = app.post("/api/v1/channels/demo-api/messages").json(body).await.expect(200);
        contact = said["contactId"].as_str().unwrap().to_owned();
    }
    World { app, conversation, contact }
}

impl World {
    /// Every list, and the number of its entries.
    fn lists(&self) -> [(String, usize); 6] {
        [
            ("/api/v1/messages?channelId=demo".to_owned(), 7),
            (format!("/api/v1/messages?conversationId={}", self.conversation), 7),
            (format!("/api/v1/conversations/{}/messages?", self.conversation), 7),
            ("/api/v1/conversations?".to_owned(), 8),
            ("/api/v1/contacts?".to_owned(), 7),
            (format!("/api/v1/contacts/{}/conversations?", self.contact), 1),
        ]
    }

    /// The ids on each page of a list.
    async fn pages(&self, list: &str, limit: usize, order: &str) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        let mut path = format!("{list}&limit={limit}&order={order}");
        loop {
            let answer = self.app.get(&path).await;
            let link = answer.header("link").to_owned();
            let page = answer.expect(200);
            pages.push(ids(&page));
            assert_eq!(page.as_object().unwrap().len(), 3, "data, nextCursor and hasMore: {page}");
            let Some(cursor) = page["nextCursor"].as_str() else {
                assert_eq!((&page["hasMore"], &page["nextCursor"], link.as_str()), (&json!(false), &json!(null), ""));
                return pages;
            };
            assert_eq!(page["hasMore"], true);
            let next = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).unwrap();
            assert!(next.contains(cursor) && next.contains(&format!("limit={limit}")), "{next}");
            path = next.to_owned();
            assert!(pages.len() < 50, "{list} never ends");
        }
    }
}

#[tokio::test]
async fn a_list_is_the_same_in_pages_of_every_size_and_in_both_orders() {
    let world = world().await;
    world.app.clock.advance(1_000);
    for (list, length) in world.lists() {
        let whole = world.pages(&list, 200, "asc").await;
        assert_eq!((whole.len(), whole[0].len()), (1, length), "{list}");
        let mut backwards = whole[0].clone();
        backwards.reverse();
        for (order, expected) in [("asc", &whole[0]), ("desc", &backwards)] {
            for limit in 1..=length + 1 {
                let pages = world.pages(&list, limit, order).await;
                assert_eq!(&pages.concat(), expected, "{list} {limit} {order}");
                assert_eq!(pages.len(), length.div_ceil(limit), "{list} {limit} {order}: no page is empty");
            }
        }
    }
}

#[tokio::test]
async fn lists_keep_the_order_of_creation_while_the_clock_stands() {
    let app = TestApp::new().await;
    for (list, body) in [
        ("/api/v1/conversations", json!({"title": "t"})),
        ("/api/v1/contacts", json!({"identifier": "c{n}"})),
        ("/api/v1/channels", json!({"name": "c", "kind": "human"})),
        ("/api/v1/agents", json!({"name": "a", "provider": "builtin", "model": "echo"})),
        ("/api/v1/workspaces", json!({"name": "w"})),
        ("/api/v1/api-keys", json!({"name": "k", "scopes": ["messages:read"]})),
        ("/api/v1/webhook-endpoints", json!({"url": "https://example.com/{n}"})),
    ] {
        let mut made = Vec::new();
        let mut created = HashSet::new();
        for n in 0..30 {
            let body: Value = serde_json::from_str(&body.to_string().replace("{n}", &n.to_string())).unwrap();
            let mut request = app.post(list).json(body);
            // With a key, the place of a conversation follows from the key.
            if n % 3 == 0 {
                request = request.idempotency_key(&format!("{list}{n}"));
            }
            let answer = request.await.expect(201);
            created.insert(answer["createdAt"].as_str().unwrap().to_owned());
            made.push(answer["id"].as_str().unwrap().to_owned());
        }
        assert_eq!(created.len(), 1, "{list}: no place in a list makes a thing younger than it is");
        let listed = app.ids(format!("{list}?limit=200")).await;
        let new: Vec<_> = listed.into_iter().filter(|id| made.contains(id)).collect();
        assert_eq!(new, made, "{list}");
    }
}

/// Although no time goes by.
#[tokio::test]
async fn reviews_of_all_channels_are_listed_as_they_were_asked_for() {
    let app = TestApp::new().await;
    for n in 0..4 {
        app.post("/api/v1/channels")
            .json(json!({"id": format!("c{n}"), "name": "c", "kind": "human"}))
            .await
            .expect(201);
    }
    let mut asked = Vec::new();
    for n in 0..30 {
        let body = json!({"channelId": format!("c{}", n % 4), "text": "may I?", "review": {"type": "approval"}});
        let answer = app.post("/api/v1/messages").json(body).await.expect(201);
        asked.push(answer["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(all(&app, "/api/v1/reviews", "asc").await, asked);
    let answered = asked.remove(7);
    let answer = json!({"response": {"selectedOption": "approve"}});
    app.post(format!("/api/v1/reviews/{answered}/respond")).json(answer).await.expect(200);
    assert_eq!(all_of(&app, "/api/v1/reviews", "&status=pending", "asc").await, asked);
    asked.reverse();
    assert_eq!(all_of(&app, "/api/v1/reviews", "&status=pending", "desc").await, asked);
}

#[tokio::test]
async fn all_faults_of_a_list_query_are_reported_together() {
    let app = TestApp::new().await;
    let wrong = "limit=0&order=x&hasAttachments=maybe";
    let rest = ["out_of_range /limit", "invalid_enum /order", "invalid_type /hasAttachments"];
    for (path, first) in [
        ("messages?", &["required /channelId", "required /conversationId"][..]),
        ("messages?channelId=demo&conversationId=conv_1&", &["invalid_query /conversationId"]),
        ("messages?channelId=demo&", &[]),
    ] {
        let faults = app.get(format!("/api/v1/{path}{wrong}")).await.faults();
        assert_eq!(faults, [first, &rest].concat(), "{path}");
    }
    let of_api = app.get("/api/v1/messages?channelId=demo-api&limit=0").await.faults();
    assert_eq!(of_api, ["out_of_range /limit", "channel_kind_mismatch /channelId"]);
    let events = app.get("/api/v1/channels/demo-api/events?limit=0&after=x&deltas=maybe").await.faults();
    assert_eq!(events.len(), 4, "{events:?}");
}

#[tokio::test]
async fn ids_that_clients_choose_have_no_part_in_the_order() {
    let app = TestApp::new().await;
    for (list, body) in [
        ("/api/v1/channels", json!({"name": "c", "kind": "api", "agentId": "echo"})),
        ("/api/v1/agents", json!({"name": "a", "provider": "builtin"})),
        ("/api/v1/workspaces", json!({"name": "w"})),
    ] {
        let before = all(&app, list, "asc").await;
        for id in ["m", "zz", "B", "_9", "a"] {
            let mut body = body.clone();
            body["id"] = id.into();
            app.post(list).json(body).await.expect(201);
        }
        let mut ids = [before.clone(), ["m", "zz", "B", "_9", "a"].map(str::to_owned).to_vec()].concat();
        assert_eq!(all(&app, list, "asc").await, ids, "{list}");
        if list != "/api/v1/workspaces" {
            app.patch(format!("{list}/m")).json(json!({"name": "another"})).await.expect(200);
            assert_eq!(all(&app, list, "asc").await, ids, "{list}: a change is no beginning");
            app.delete(format!("{list}/zz")).await.expect(204);
            let mut body = body.clone();
            body["id"] = "zz".into();
            app.post(list).json(body).await.expect(201);
            ids.retain(|id| id != "zz");
            ids.push("zz".to_owned());
        }
        assert_eq!(all(&app, list, "asc").await, ids, "{list}: it was made anew");
        ids.reverse();
        assert_eq!(all(&app, list, "desc").await, ids, "{list}");
    }
}

/// The ids of a whole list, in pages of two.
async fn all(app: &TestApp, list: &str, order: &str) -> Vec<String> {
    all_of(app, list, "", order).await
}

/// The ids that a list's filter selects, in pages of two.
async fn all_of(app: &TestApp, list: &str, filter: &str, order: &str) -> Vec<String> {
    app.ids(format!("{list}?limit=2&order={order}{filter}")).await
}

#[tokio::test]
async fn conversations_are_in_their_order_however_they_began() {
    let app = TestApp::new().await;
    for n in 0..2 {
        app.post("/api/v1/contacts").json(json!({"identifier": format!("known{n}")})).await.expect(201);
    }
    let mut made = Vec::new();
    for n in 0..30 {
        let who = match n % 3 {
            0 => format!("new{n}"),
            // The open conversation is closed below, so the next message begins a new one.
            1 => format!("known{}", n % 2),
            _ => {
                let answer = app.post("/api/v1/conversations").json(json!({})).await.expect(201);
                made.push(answer["id"].as_str().unwrap().to_owned());
                continue;
            }
        };
        let body = json!({"type": "TEXT", "contactIdentifier": who, "content": {"text": {"body": "x"}}});
        let said = app.post("/api/v1/channels/demo-api/messages").json(body).await.expect(200);
        let id = said["conversationId"].as_str().unwrap().to_owned();
        app.patch(format!("/api/v1/conversations/{id}")).json(json!({"status": "closed"})).await.expect(200);
        made.push(id);
    }
    assert_eq!(app.ids("/api/v1/conversations?limit=200").await, made);
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_a_list_misses_nothing_that_is_stored_late() {
    let slow = |store| FaultyStore::new(store, 0, Rates::default()).slow(Duration::from_millis(40));
    let app = TestApp::with_memory(slow).await;
    let body = json!({"type": "TEXT", "contactIdentifier": "c", "content": {"text": {"body": "x"}}});
    // The contact is stored, and 40 ms later its conversation, whose position in the list is fixed from the beginning.
    let first = async { app.post("/api/v1/channels/demo-api/messages").json(body).await.expect(200) };
    let new = async || {
        tokio::time::sleep(Duration::from_millis(10)).await;
        app.post("/api/v1/conversations").json(json!({})).await.expect(201)
    };
    let page = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        app.get("/api/v1/conversations?limit=1").await.expect(200)
    };
    let (first, second, third, page) = tokio::join!(first, new(), new(), page);
    assert_eq!(page["data"][0]["id"], first["conversationId"]);
    let rest =
        app.get(format!("/api/v1/conversations?cursor={}", page["nextCursor"].as_str().unwrap())).await.expect(200);
    let rest: Vec<_> = rest["data"].as_array().unwrap().iter().map(|conversation| &conversation["id"]).collect();
    assert_eq!(rest.len(), 2);
    assert!(rest.contains(&&second["id"]) && rest.contains(&&third["id"]));
}

#[tokio::test]
async fn messages_are_in_order_of_acceptance_whatever_the_clock() {
    let world = world().await;
    for (path, name) in [
        ("/api/v1/messages?channelId=demo".to_owned(), "text"),
        (format!("/api/v1/conversations/{}/messages", world.conversation), "content"),
    ] {
        let page = world.app.get(path).await.expect(200);
        let texts: Vec<_> = page["data"].as_array().unwrap().iter().map(|m| m[name].as_str().unwrap()).collect();
        assert_eq!(texts, ["m0", "m1", "m2", "m3", "m4", "m5", "m6"]);
    }
}

#[tokio::test]
async fn faults_of_limit_order_and_cursor_are_reported_together() {
    let world = world().await;
    for (list, _) in world.lists() {
        for (query, faults) in [
            ("limit=0", vec!["out_of_range /limit"]),
            ("limit=201", vec!["out_of_range /limit"]),
            ("limit=-1", vec!["out_of_range /limit"]),
            ("limit=99999999999999999999", vec!["out_of_range /limit"]),
            ("limit=ten", vec!["invalid_type /limit"]),
            ("limit=", vec!["invalid_type /limit"]),
            ("order=up", vec!["invalid_enum /order"]),
            ("cursor=abc", vec!["invalid_cursor /cursor"]),
            ("cursor=", vec!["invalid_cursor /cursor"]),
            ("limit=x&order=y&cursor=z", vec!["invalid_type /limit", "invalid_cursor /cursor", "invalid_enum /order"]),
            ("limit=1&limit=2", vec!["invalid_query /limit"]),
        ] {
            assert_eq!(world.app.get(format!("{list}&{query}")).await.faults(), faults, "{list}&{query}");
        }
        assert_eq!(world.app.get(format!("{list}&limit=200")).await.status, 200);
    }
}

#[tokio::test]
async fn a_link_leads_to_the_next_page_however_its_cursor_was_written() {
    let world = world().await;
    let (list, _) = &world.lists()[0];
    let first = world.app.get(format!("{list}&limit=1")).await.expect(200);
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = world.app.get(format!("{list}&limit=1&%63ursor={cursor}")).await;
    let link = second.header("link").strip_prefix('<').and_then(|link| link.split_once('>')).unwrap().0.to_owned();
    let second = second.expect(200);
    let third = world.app.get(&link).await.expect(200);
    assert_ne!(ids(&second), ids(&third), "{link}");
}

#[tokio::test]
async fn a_cursor_is_good_for_its_own_list_only_and_cannot_be_made_up() {
    let world = world().await;
    let mut cursors = Vec::new();
    for (list, length) in world.lists().into_iter().filter(|(_, length)| *length > 1) {
        let page = world.app.get(format!("{list}&limit=1")).await.expect(200);
        let cursor = page["nextCursor"].as_str().unwrap().to_owned();
        for at in 0..cursor.len() {
            let mut bytes = cursor.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let tampered = String::from_utf8(bytes).unwrap();
            let answer = world.app.get(format!("{list}&cursor={tampered}")).await;
            answer.problem(400, "invalid_cursor");
        }
        cursors.push((list, cursor, length));
    }
    for (list, cursor, _) in &cursors {
        let other_way = world.app.get(format!("{list}&order=desc&cursor={cursor}")).await;
        assert_eq!(other_way.faults(), ["invalid_cursor /cursor"], "{list}: it does not lead back");
        let newest = world.app.get(format!("{list}&order=desc&limit=1")).await.expect(200);
        let cursor = newest["nextCursor"].as_str().unwrap();
        for other_way in ["", "&order=asc"] {
            let answer = world.app.get(format!("{list}{other_way}&cursor={cursor}")).await;
            assert_eq!(answer.faults(), ["invalid_cursor /cursor"], "{list}{other_way}");
        }
        world.app.get(format!("{list}&order=%64esc&cursor={cursor}")).await.expect(200);
    }
    let other = world.app.post("/api/v1/conversations").json(json!({})).await.expect(201);
    cursors.push((format!("/api/v1/conversations/{}/messages?", other["id"].as_str().unwrap()), String::new(), 0));
    for (list, ..) in &cursors {
        for (of, cursor, _) in cursors.iter().filter(|(of, cursor, _)| of != list && !cursor.is_empty()) {
            // Both are the same list, that of the conversation's messages.
            if list.contains(&world.conversation) && of.contains(&world.conversation) {
                continue;
            }
            let answer = world.app.get(format!("{list}&cursor={cursor}")).await;
            assert_eq!(answer.status, 400, "{list} with a cursor of {of}");
            answer.problem(400, "invalid_cursor");
        }
    }
}

#[tokio::test]
async fn messages_added_between_pages_repeat_and_hide_nothing() {
    let world = world().await;
    let path = "/api/v1/messages?channelId=demo&limit=3&order=desc";
    let first = world.app.get(path).await.expect(200);
    world.app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "new"})).await.expect(201);
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = world.app.get(format!("{path}&cursor={cursor}")).await.expect(200);
    let texts: Vec<_> = second["data"].as_array().unwrap().iter().map(|m| m["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["m3", "m2", "m1"]);
}
