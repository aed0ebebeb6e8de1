//! Servers of one store that forward requests to each other, over sockets.
//!
//! The time until servers know each other passes on a paused clock; work over sockets uses the real one.

use std::net::Ipv4Addr;
use std::time::Duration;

use actors::id::{ConversationId, EntityKey};
use actors::metrics::{CommitEnd, ForwardEnd};
use actors::store::{Heartbeat, NodeId, Store as _};
use actors::trace::Traces;
use actors::workspace::{DEFAULT, address_of};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::{pause, resume, sleep};

use crate::support::origin::{Heard, Origin, Part, bare, ok};
use crate::support::until::{seen, until};
use crate::support::{TestApp, TestStore};

mod bounds;
mod refused;

const MESSAGES: &str = "/api/v1/messages";
const ADDRESS: &str = "TERTULIA_CLUSTER_ADDRESS";
/// Two heartbeats of every server: the first may be from before an address was known.
pub(crate) const KNOWN_AFTER: Duration = Duration::from_secs(7);

/// Contacts that write to one channel: so many that each of two servers owns some, whatever the servers' ids.
const CONTACTS: usize = 24;

/// A listener on this machine, and its URL.
pub(crate) async fn address() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    (listener, address)
}

/// Two servers that know each other's address, and handles that make each unreachable.
async fn servers() -> ([TestApp; 2], [AbortHandle; 2]) {
    let store = TestStore::shared().await;
    let [one, other] = [address().await, address().await];
    let apps = [
        TestApp::start(store.clone(), &[(ADDRESS, &one.1)]).await,
        TestApp::start(store, &[(ADDRESS, &other.1)]).await,
    ];
    let listening = [apps[0].listen(one.0), apps[1].listen(other.0)];
    sleep(KNOWN_AFTER).await;
    resume();
    (apps, listening)
}

/// One server, and nodes that no other server knows and that claim to live at `address`; these own nearly every entity.
async fn beside(store: TestStore, env: &[(&str, &str)], address: &str) -> TestApp {
    beside_traced(store, env, address, Traces::default()).await
}

/// The same, with its spans sent to `traces`.
pub(crate) async fn beside_traced(store: TestStore, env: &[(&str, &str)], address: &str, traces: Traces) -> TestApp {
    let app = TestApp::start_traced(store.clone(), env, traces).await;
    let say = async |count| {
        for n in 1..=64 {
            let node = NodeId([n; 16]);
            store.heartbeat(Heartbeat { node, count, address: Some(address.into()) }).await.unwrap();
        }
    };
    say(1).await;
    sleep(Duration::from_secs(4)).await;
    say(2).await;
    sleep(Duration::from_secs(3)).await;
    resume();
    app
}

fn entity(conversation: &Value) -> EntityKey {
    let id = ConversationId::parse(conversation["id"].as_str().unwrap()).unwrap();
    EntityKey::conversation(address_of(DEFAULT), id.address)
}

/// A conversation that another node than this server owns; returns its id.
pub(crate) async fn theirs(app: &TestApp) -> String {
    for _ in 0..1_000 {
        let made = app.post("/api/v1/conversations").json(json!({})).await.expect(201);
        if app.app.node().members().server_of(entity(&made)).is_some() {
            return made["id"].as_str().unwrap().to_owned();
        }
    }
    panic!("nobody else looks after anything");
}

/// Requests that this server forwarded, handled here after all, and left with an unknown outcome.
fn passed(app: &TestApp) -> [u64; 3] {
    let counted = &app.app.node().metrics().forwarded;
    [ForwardEnd::Sent, ForwardEnd::FellBack, ForwardEnd::Unknown].map(|outcome| counted.of(outcome).get())
}

/// Commits of this server with this end.
fn commits(app: &TestApp, end: CommitEnd) -> u64 {
    app.app.node().metrics().commit.of(end).snapshot().count()
}

/// The texts of a conversation, oldest first.
async fn texts(app: &TestApp, conversation: &str) -> Vec<String> {
    let listed =
        app.get(format!("/api/v1/conversations/{conversation}/messages?order=asc&limit=200")).await.expect(200);
    let text = |message: &Value| message["content"].as_str().unwrap().to_owned();
    listed["data"].as_array().unwrap().iter().map(text).collect()
}

fn message(conversation: &str, text: &str) -> Value {
    json!({"conversation_id": conversation, "content": {"content": text}})
}

/// So is its retry at any other.
#[tokio::test(start_paused = true)]
async fn a_message_is_answered_by_the_server_of_its_conversation() {
    let ([one, other], _listening) = servers().await;
    let conversation = theirs(&one).await;
    let before = commits(&other, CommitEnd::Committed);
    let here = commits(&one, CommitEnd::Committed);
    let send = |app: &TestApp| {
        let request = app.post(format!("{MESSAGES}?strict=true")).json(message(&conversation, "hello"));
        request.idempotency_key("k").header("x-request-id", "mine").header("x-message-schema", "conversation").send()
    };
    let first = send(&one).await;
    assert_eq!((passed(&one), passed(&other)), ([1, 0, 0], [0, 0, 0]));
    assert_eq!(commits(&other, CommitEnd::Committed), before + 1);
    assert_eq!(commits(&one, CommitEnd::Committed), here);
    assert_eq!((first.status, first.header("x-request-id")), (200, "mine"));
    assert_eq!(first.header("content-type"), "application/json");
    for (app, passed_on) in [(&one, 2), (&other, 2)] {
        let again = send(app).await;
        assert_eq!((again.status, again.header("idempotent-replayed")), (200, "true"));
        assert_eq!(again.bytes, first.bytes);
        assert_eq!(passed(&one), [passed_on, 0, 0]);
    }
    assert_eq!(texts(&one, &conversation).await, ["hello"]);
}

/// Posts to both servers in turn; returns the number of conflicts.
async fn alternating(apps: &[TestApp; 2]) -> u64 {
    let made = apps[0].post("/api/v1/conversations").json(json!({})).await.expect(201);
    let conversation = made["id"].as_str().unwrap().to_owned();
    let conflicts = || apps.iter().map(|app| commits(app, CommitEnd::Conflict)).sum::<u64>();
    let before = conflicts();
    for n in 0..20 {
        apps[n % 2].post(MESSAGES).json(message(&conversation, &n.to_string())).await.expect(200);
    }
    assert_eq!(texts(&apps[0], &conversation).await, (0..20).map(|n: u32| n.to_string()).collect::<Vec<_>>());
    conflicts() - before
}

#[tokio::test(start_paused = true)]
async fn servers_that_reach_each_other_post_by_turns_without_conflicts() {
    let (apps, _listening) = servers().await;
    // The server that created the conversation knows it, and may not be its owner.
    assert!(alternating(&apps).await <= 1);
    pause();
    let store = TestStore::shared().await;
    let apart = [TestApp::start(store.clone(), &[]).await, TestApp::start(store, &[]).await];
    sleep(KNOWN_AFTER).await;
    assert!(alternating(&apart).await >= 15);
    assert_eq!(apart.map(|app| passed(&app)), [[0; 3]; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_contact_on_a_channel_always_comes_to_one_server_which_answers_as_any() {
    let ([one, other], _listening) = servers().await;
    let path = "/api/v1/channels/demo-api/messages";
    let body = |who: usize| json!({"type": "TEXT", "contactIdentifier": format!("c{who}@example.com"), "content": {"text": {"body": "Hi"}}});
    for who in 0..CONTACTS {
        let send = |app: &TestApp| app.post(path).json(body(who)).idempotency_key("k").send();
        let first = send(&one).await;
        assert_eq!((first.status, &first.json["aiMessages"][0]["content"]["text"]["body"]), (200, &json!("Hi")));
        let [again, there] = [send(&one).await, send(&other).await];
        for again in [again, there] {
            assert_eq!((again.header("idempotent-replayed"), &again.bytes), ("true", &first.bytes));
        }
        let later = one.post(path).json(body(who)).idempotency_key("later").header("prefer", "respond-async").await;
        assert_eq!((later.status, later.header("preference-applied")), (202, "respond-async"));
        assert!(later.header("location").starts_with("/api/v1/turns/turn_"));
    }
    let [[here, 0, 0], [there, 0, 0]] = [passed(&one), passed(&other)] else { panic!("all arrived") };
    assert!(here > 0 && there > 0 && here.is_multiple_of(3), "all of a contact, or nothing: {here} {there}");
    assert_eq!(here / 3 + there, CONTACTS as u64, "each is of one of them");
    assert_eq!([&one, &other].map(|app| commits(app, CommitEnd::Conflict)), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn every_request_that_changes_a_conversation_is_forwarded() {
    let ([one, other], _listening) = servers().await;
    let conversation = theirs(&one).await;
    let said = one.post(MESSAGES).json(message(&conversation, "first")).await.expect(200);
    let path = format!("{MESSAGES}/{}", said[0]["id"].as_str().unwrap());
    let tag = one.get(&path).await.header("etag").to_owned();
    let edited = one.patch(&path).json(json!({"content": "second"})).header("if-match", &tag).await.expect(200);
    assert_eq!(edited["content"], "second");
    let stale = one.patch(&path).json(json!({"content": "third"})).header("if-match", &tag).await;
    stale.problem(412, "precondition_failed");
    one.post(format!("{path}/ack")).json(json!({"status": "read"})).await.expect(200);
    let turn = one.post(format!("/api/v1/conversations/{conversation}/turns")).json(json!({"agentId": "echo"})).await;
    let turn = turn.expect(202);
    let cancel = one.post(format!("/api/v1/turns/{}/cancel", turn["id"].as_str().unwrap())).await;
    assert!([200, 409].contains(&cancel.status), "{cancel:?}");
    let titled = one.patch(format!("/api/v1/conversations/{conversation}")).json(json!({"title": "t"})).await;
    assert_eq!(titled.expect(200)["title"], "t");
    one.delete(&path).await.expect(204);
    assert_eq!(passed(&one), [8, 0, 0]);
    assert_eq!(passed(&other), [0; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_of_a_delivery_is_requested_at_the_server_that_sends_it() {
    let ([one, other], _listening) = servers().await;
    let endpoint = json!({"url": "https://hooks.invalid/", "events": ["message.*"]});
    one.post("/api/v1/webhook-endpoints").json(endpoint).await.expect(201);
    let conversation = theirs(&one).await;
    one.post(MESSAGES).json(message(&conversation, "hello")).await.expect(200);
    let pending = || one.get("/api/v1/webhook-deliveries?status=pending");
    let delivery = seen(async || pending().await.expect(200)["data"].get(0).cloned()).await;
    let path = format!("/api/v1/webhook-deliveries/{}", delivery["id"].as_str().unwrap());
    let asked = || one.post(format!("{path}/retry")).idempotency_key("r");
    let first = asked().await;
    assert_eq!((first.status, first.header("location")), (202, &*path));
    let again = asked().await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, "true"));
    one.post("/api/v1/webhook-deliveries/whd_nobody/retry").await.problem(404, "delivery_not_found");
    assert_eq!((passed(&one), passed(&other)), ([3, 0, 0], [0; 3]), "the message and the two retries");
}

#[tokio::test(start_paused = true)]
async fn reviews_and_messages_of_a_channel_are_forwarded_with_their_refusals() {
    let ([one, other], _listening) = servers().await;
    let mut asked = Vec::new();
    for _ in 0..2 {
        let review = json!({"channelId": "demo", "review": {"type": "approval"}});
        let made = one.post(MESSAGES).json(review).await.expect(201);
        asked.push(format!("/api/v1/reviews/{}", made["id"].as_str().unwrap()));
    }
    let (from, to) = if passed(&one) == [2, 0, 0] { (one, other) } else { (other, one) };
    let sent = passed(&from)[0];
    let answer = json!({"response": {"selectedOption": "approve"}});
    let told = from.post(format!("{}/respond", asked[0])).json(answer.clone()).idempotency_key("r").await;
    assert_eq!(told.status, 200);
    let again = to.post(format!("{}/respond", asked[0])).json(answer.clone()).idempotency_key("r").await;
    assert_eq!((again.header("idempotent-replayed"), &again.bytes), ("true", &told.bytes));
    let late = from.post(format!("{}/respond", asked[0])).json(answer).header("x-request-id", "late").await;
    assert_eq!(late.header("x-request-id"), "late");
    let late = late.problem(409, "review_already_completed");
    assert_eq!((&late["requestId"], &late["review"]["status"]), (&json!("late"), &json!("completed")));
    from.post(format!("{}/cancel", asked[1])).await.expect(200);
    assert_eq!((passed(&from), passed(&to)), ([sent + 3, 0, 0], [0; 3]));
}

/// A key stays in its workspace.
#[tokio::test(start_paused = true)]
async fn a_bad_request_is_refused_where_it_arrives_and_not_forwarded() {
    let ([one, _other], _listening) = servers().await;
    let conversation = theirs(&one).await;
    let stranger = one.workspace("elsewhere").await;
    let reader = one.key_with(&["messages:read"]).await;
    let send = || one.post(MESSAGES).json(message(&conversation, "x"));
    send().no_key().await.problem(401, "unauthenticated");
    send().key("nobody-knows-this-key-at-all-000000").await.problem(401, "unauthenticated");
    send().key(&reader).await.problem(403, "insufficient_scope");
    assert_eq!(one.post(MESSAGES).json(json!({"conversation_id": conversation})).await.status, 400);
    assert_eq!(passed(&one), [0; 3]);
    send().key(&stranger).await.problem(404, "conversation_not_found");
    send().header("x-workspace-id", "elsewhere").await.problem(404, "conversation_not_found");
    assert!(texts(&one, &conversation).await.is_empty());
    send().header("authorization", "Bearer test-admin-key-of-the-default-workspace").await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_died_costs_one_try() {
    let (listener, gone) = address().await;
    drop(listener);
    let app = beside(TestStore::shared().await, &[], &gone).await;
    let conversation = theirs(&app).await;
    for n in 0..3 {
        app.post(MESSAGES).json(message(&conversation, &n.to_string())).await.expect(200);
    }
    assert_eq!(texts(&app, &conversation).await, ["0", "1", "2"]);
    assert_eq!(passed(&app), [0, 3, 0]);
    // The server that now has the address gets no requests for a while.
    let origin = Origin::serve_at(gone.strip_prefix("http://").unwrap().parse().unwrap(), |_| bare(503, "")).await;
    app.post(MESSAGES).json(message(&conversation, "3")).await.expect(200);
    assert_eq!((origin.connections(), passed(&app)), (0, [0, 4, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_forwarded_request_and_its_answer_arrive_as_they_were_sent() {
    let busy = |_: &Heard| {
        let problem = br#"{"code": "overloaded"}"#;
        let head = "HTTP/1.1 503 X\r\nContent-Type: application/problem+json\r\nRetry-After: 7\r\nX-Other: 1\r\nX-Request-Id: mine\r\n\
            Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nContent-Length: 22\r\n\r\n";
        vec![Part::Bytes([head.as_bytes(), problem].concat())]
    };
    let origin = Origin::serve(busy).await;
    let app = beside(TestStore::shared().await, &[], &origin.url("")).await;
    let conversation = theirs(&app).await;
    let path = format!("/api/v1/conversations/{conversation}/messages?strict=true");
    let body = "{\"content\" :\t{\"content\": \"as it came\"}}";
    let request = app.post(&path).body("application/json; charset=utf-8", body).idempotency_key("k");
    let request = request.header("prefer", "wait=3").header("connection", "keep-alive").header("te", "trailers");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = request.header("traceparent", trace).header("tracestate", "a=b").header("host", "tertulia.example");
    let answer = request.header("x-request-id", "mine").await;
    assert_eq!((answer.status, &answer.bytes[..]), (503, &br#"{"code": "overloaded"}"#[..]));
    let headers = ["retry-after", "x-other", "x-hop", "x-request-id"].map(|name| answer.header(name));
    assert_eq!(headers, ["7", "1", "", "mine"]);
    let [heard] = &origin.requests()[..] else { panic!("one request") };
    assert_eq!(heard.line, format!("POST {path} HTTP/1.1"));
    assert_eq!(heard.body, body.as_bytes());
    let sent = ["x-api-key", "idempotency-key", "prefer", "content-type", "x-request-id", "host"];
    let origin_host = origin.address.to_string();
    let expected = [crate::support::ADMIN_KEY, "k", "wait=3", "application/json; charset=utf-8", "mine", &origin_host];
    assert_eq!(sent.map(|name| heard.header(name)), expected);
    assert!(heard.header("traceparent").starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
    assert_eq!(["te", "connection", "tracestate"].map(|name| heard.header(name)), [""; 3]);
    assert!(heard.header("x-tertulia-forwarded-until").parse::<u64>().unwrap() > app.app.now().0, "until when");
    assert_eq!((passed(&app), texts(&app, &conversation).await.len()), ([1, 0, 0], 0), "it is not done here too");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_another_server_would_read_otherwise_is_handled_here() {
    let origin = Origin::serve(|_| bare(431, "")).await;
    let app = beside(TestStore::shared().await, &[], &origin.url("")).await;
    let conversation = theirs(&app).await;
    let request = app.post(MESSAGES).json(message(&conversation, "0"));
    request.header("connection", "x-workspace-id").await.expect(200);
    let mut request = app.post(MESSAGES).json(message(&conversation, "1"));
    for n in 0..95 {
        request = request.header(&format!("x-many-{n}"), "1");
    }
    request.await.expect(200);
    assert_eq!((origin.connections(), texts(&app, &conversation).await), (0, vec!["0".to_owned(), "1".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_no_node_of_ours_gave_counts_as_none() {
    // Answers of a proxy between the two, or of another program at the address.
    for answer in [bare(502, ""), bare(504, ""), ok("application/json", b"[{\"id\": \"msg_1\"}]")] {
        for key in [None, Some("k")] {
            let answer = answer.clone();
            let origin = Origin::serve(move |_| answer.clone()).await;
            let app = beside(TestStore::shared().await, &[], &origin.url("")).await;
            let conversation = theirs(&app).await;
            let request = app.post(MESSAGES).json(message(&conversation, "once"));
            match key {
                Some(key) => drop(request.idempotency_key(key).await.expect(200)),
                None => drop(request.await.problem(503, "outcome_unknown")),
            }
            let kept = texts(&app, &conversation).await;
            let here = u64::from(key.is_some());
            let unknown = u64::from(key.is_none());
            assert_eq!((kept.len() as u64, passed(&app)), (here, [0, here, unknown]));
            pause();
        }
    }
}

/// With a key, the request is done once.
#[tokio::test(start_paused = true)]
async fn a_broken_off_answer_without_a_key_leaves_the_outcome_unknown() {
    // The origin does nothing with the request, which the forwarding server cannot know.
    for (round, end) in [Part::Close, Part::Reset].into_iter().enumerate() {
        if round > 0 {
            pause();
        }
        let whole = ok("application/json", b"[{\"id\": \"msg_1\"}]");
        let Part::Bytes(bytes) = &whole[0] else { unreachable!() };
        let half = bytes[..bytes.len() - 5].to_vec();
        let origin = Origin::serve(move |_| vec![Part::Bytes(half.clone()), end.clone()]).await;
        let app = beside(TestStore::shared().await, &[], &origin.url("")).await;
        let conversation = theirs(&app).await;
        let unknown = app.post(MESSAGES).json(message(&conversation, "lost")).await;
        assert_eq!(unknown.header("retry-after"), "1");
        unknown.problem(503, "outcome_unknown");
        assert_eq!((origin.requests().len(), passed(&app)), (1, [0, 0, 1]));
        // The node now gets no requests, and this server handles them.
        app.post(MESSAGES).json(message(&conversation, "here")).await.expect(200);
        assert_eq!(texts(&app, &conversation).await, ["here"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_keyed_request_whose_forwarded_answer_is_lost_is_answered_here() {
    let store = TestStore::shared().await;
    let done = TestApp::start(store.clone(), &[]).await;
    let (listener, real) = address().await;
    let _listening = done.listen(listener);
    // A real server handles the request, and its answer is never sent back.
    let way = Origin::serve(move |heard: &Heard| {
        let real = real.strip_prefix("http://").unwrap().to_owned();
        let request = [heard.sent.as_bytes(), &heard.body].concat();
        // On a thread of its own, because the origin must not wait here.
        let carried = std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let mut stream = std::net::TcpStream::connect(real).unwrap();
            stream.write_all(&request).unwrap();
            _ = stream.read(&mut [0; 1_024]).unwrap();
        });
        drop(carried);
        vec![Part::Silence]
    })
    .await;
    let app = beside(store, &[], &way.url("")).await;
    let conversation = theirs(&app).await;
    let sending = tokio::spawn(app.post(MESSAGES).json(message(&conversation, "once")).idempotency_key("k").send());
    seen(async || (!texts(&done, &conversation).await.is_empty()).then_some(())).await;
    // From here on nothing but the timeout can happen.
    pause();
    let answer = sending.await.unwrap();
    assert_eq!((answer.status, answer.header("idempotent-replayed")), (200, "true"));
    assert_eq!(texts(&app, &conversation).await, ["once"]);
    assert_eq!(passed(&app), [0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_server_is_waited_for_and_nothing_is_done_twice() {
    let origin = Origin::serve(|_| vec![Part::Silence]).await;
    let app = beside(TestStore::shared().await, &[], &origin.url("")).await;
    let conversation = theirs(&app).await;
    let sending = tokio::spawn(app.post(MESSAGES).json(message(&conversation, "x")).send());
    until(|| !origin.requests().is_empty()).await;
    pause();
    sending.await.unwrap().problem(503, "outcome_unknown");
    assert!(texts(&app, &conversation).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_ends_its_forwarded_request() {
    let origin = Origin::serve(|_| vec![Part::Silence]).await;
    let app = beside(TestStore::shared().await, &[], &origin.url("")).await;
    let conversation = theirs(&app).await;
    let sending = tokio::spawn(app.post(MESSAGES).json(message(&conversation, "x")).send());
    until(|| !origin.requests().is_empty()).await;
    sending.abort();
    until(|| origin.open_connections() == 0).await;
    assert!(texts(&app, &conversation).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_forwarded_request_is_never_forwarded_again() {
    // The other nodes are at this server's own address, under another name, so it forwards everything to itself.
    let (listener, own) = address().await;
    let by_name = own.replace("127.0.0.1", "localhost");
    let app = beside(TestStore::shared().await, &[(ADDRESS, &own)], &by_name).await;
    let _listening = app.listen(listener);
    let conversation = theirs(&app).await;
    app.post(MESSAGES).json(message(&conversation, "round")).await.expect(200);
    assert_eq!(passed(&app), [1, 0, 0]);
    let forged = app.post(MESSAGES).json(message(&conversation, "straight")).header("x-tertulia-forwarded-until", "");
    forged.await.expect(200);
    assert_eq!((passed(&app), texts(&app, &conversation).await), ([1, 0, 0], vec!["round".into(), "straight".into()]));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_forwarded_that_would_arrive_as_another_request() {
    let origin = Origin::serve(|_| bare(500, "")).await;
    let app = beside(TestStore::shared().await, &[], &origin.url("")).await;
    let conversation = theirs(&app).await;
    let path = format!("/api/v1/conversations/{conversation}/messages?a='");
    app.post(&path).json(json!({"content": {"content": "x"}})).await.expect(200);
    assert_eq!((origin.connections(), passed(&app)), (0, [0, 1, 0]));
}
