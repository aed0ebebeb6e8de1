//! Commits whose writer gets no outcome, and which plain reads show only in part until they are settled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actors::clock::Millis;
use actors::codec;
use actors::conversation::review::Response;
use actors::conversation::{Command, Conversation, Event};
use actors::directory::{Answer, CommandContext, Directory, Refusal};
use actors::id::{Address, EntityKey, MessageId};
use actors::message::Json;
use actors::node::Node;
use actors::registry::{self, RowChange};
use actors::store::memory::MemoryStore;
use actors::store::{
    Commit, Done, Due, DuePage, KeyHash, KeyRow, Loaded, LogRecord, LogScan, ReadLevel, Row, RowWrite, Scan, Store,
    StoreError, Table, View,
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use crate::alarms::ask;
use crate::support::*;

/// What plain reads show of an unsettled commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// The head of the entity; neither keys nor rows.
    Head,
    /// Only the rows.
    Rows,
}

/// An entity as it was before an unsettled commit.
#[derive(Debug)]
struct Before {
    shown: Shown,
    loaded: Option<Loaded>,
    keys: Vec<KeyHash>,
    rows: HashMap<(Table, Bytes), Option<Bytes>>,
}

#[derive(Debug, Default)]
struct Torn {
    /// How the next commit is torn, and how many settled loads fail after it.
    next: Option<(Shown, usize)>,
    before: HashMap<EntityKey, Before>,
    /// How many more settled loads fail.
    failing: usize,
    /// How many settled loads were requested.
    settling: usize,
}

/// A store of several servers that tears commits on request. Clones are one store.
#[derive(Clone, Debug)]
struct Tearing {
    inner: MemoryStore,
    torn: Arc<Mutex<Torn>>,
}

impl Tearing {
    fn new() -> Self {
        Self { inner: MemoryStore::new(1).shared(), torn: Arc::default() }
    }

    /// Tears the next applied commit in this way, after which so many settled loads fail.
    fn tear(&self, shown: Shown, failing: usize) {
        self.torn.lock().unwrap().next = Some((shown, failing));
    }

    /// Whether this commit is torn; if so, keeps the state before it.
    fn tears(&self, commit: &Commit) -> bool {
        let mut torn = self.torn.lock().unwrap();
        // A round of consensus settles commits in flight.
        torn.before.remove(&commit.entity);
        let loaded = self.inner.load(commit.entity, ReadLevel::Settled).now_or_never().unwrap().unwrap();
        let is_applied = loaded.as_ref().map(|loaded| loaded.head) == commit.expected;
        let Some((shown, failing)) = torn.next.take_if(|_| is_applied) else { return false };
        torn.failing = failing;
        let now = |row: &RowWrite| {
            let read = self.inner.row(commit.entity, row.table, row.key.clone()).now_or_never();
            ((row.table, row.key.clone()), read.unwrap().unwrap())
        };
        let keys = commit.keys.iter().map(|(key, _)| *key).collect();
        let before = Before { shown, loaded, keys, rows: commit.rows.iter().map(now).collect() };
        torn.before.insert(commit.entity, before);
        true
    }

    /// What a plain read of an entity shows instead of its current content.
    fn instead<T>(&self, entity: EntityKey, read: impl FnOnce(&Before) -> Option<T>) -> Option<T> {
        self.torn.lock().unwrap().before.get(&entity).and_then(read)
    }
}

impl Store for Tearing {
    fn load(&self, entity: EntityKey, read_level: ReadLevel) -> BoxFuture<'_, Result<Option<Loaded>, StoreError>> {
        if read_level == ReadLevel::Settled {
            let mut torn = self.torn.lock().unwrap();
            torn.settling += 1;
            if let Some(left) = torn.failing.checked_sub(1) {
                torn.failing = left;
                return Box::pin(async { Err(StoreError::Unavailable("told to be".into())) });
            }
            torn.before.remove(&entity);
        }
        let hidden = |before: &Before| (before.shown == Shown::Rows).then(|| before.loaded.clone());
        let shown = self.instead(entity, |before| Some(hidden(before)));
        let loading = self.inner.load(entity, read_level);
        let settled = shown.is_none();
        Box::pin(async move {
            let loaded = match shown.flatten() {
                Some(instead) => instead,
                None => loading.await?,
            };
            Ok(loaded.map(|loaded| Loaded { settled, ..loaded }))
        })
    }

    fn commit(&self, commit: Commit, done: Done) {
        if self.tears(&commit) {
            let unknown = || Err(StoreError::Indeterminate("torn".into()));
            self.inner.commit(commit, Box::new(move |_| done(unknown())));
        } else {
            self.inner.commit(commit, done);
        }
    }

    fn find_key(&self, entity: EntityKey, key: KeyHash) -> BoxFuture<'_, Result<Option<KeyRow>, StoreError>> {
        match self.instead(entity, |before| before.keys.contains(&key).then_some(())) {
            Some(()) => Box::pin(async { Ok(None) }),
            None => self.inner.find_key(entity, key),
        }
    }

    fn read_log(&self, entity: EntityKey, scan: LogScan) -> BoxFuture<'_, Result<Vec<LogRecord>, StoreError>> {
        self.inner.read_log(entity, scan)
    }

    fn row(&self, entity: EntityKey, table: Table, key: Bytes) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        let hidden = |before: &Before| match before.shown {
            Shown::Head => before.rows.get(&(table, key.clone())).cloned(),
            Shown::Rows => None,
        };
        match self.instead(entity, hidden) {
            Some(row) => Box::pin(async { Ok(row) }),
            None => self.inner.row(entity, table, key),
        }
    }

    fn rows(&self, entity: EntityKey, table: Table, scan: Scan) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        self.inner.rows(entity, table, scan)
    }

    fn view(&self, workspace: Address, view: View, scan: Scan) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        self.inner.view(workspace, view, scan)
    }

    fn due(&self, after: Option<Due>, upto: Millis, limit: usize) -> BoxFuture<'_, Result<DuePage, StoreError>> {
        self.inner.due(after, upto, limit)
    }

    fn snapshot_every(&self) -> u64 {
        self.inner.snapshot_every()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

/// Two nodes that both know of a conversation with this review.
async fn two() -> (Tearing, [Arc<Node>; 2], MessageId) {
    let store = Tearing::new();
    let nodes = [node_on(store.clone()), node_on(store.clone())];
    let e = entity(1);
    let asked = nodes[0].conversation(e, ask(e, NOW.plus(3_600_000)), CommandContext::default()).await.unwrap();
    nodes[1].conversation(e, post(e, "known here too"), CommandContext::default()).await.unwrap();
    (store, nodes, messages(asked)[0].id)
}

fn respond(message: MessageId) -> Command {
    let response = Json::from_checked("{\"selectedOption\":\"yes\"}".to_owned());
    Command::Respond(Response { message, response, alike: None, feedback: None, principal: user("ana") })
}

#[tokio::test(start_paused = true)]
async fn i3_a_key_whose_commit_is_half_there_has_one_effect() {
    let (store, [node, other], _) = two().await;
    let e = entity(1);
    store.tear(Shown::Head, 1);
    let told = node.conversation(e, post(e, "once"), key(1, 1)).await;
    assert!(matches!(told, Err(Refusal::Unknown(_))), "{told:?}");
    settle().await;
    let again = node.conversation(e, post(e, "once"), key(1, 1)).await;
    assert!(matches!(again, Ok(Answer::Repeat(_))), "{again:?}");
    // The same in a process that is new to the conversation.
    store.tear(Shown::Head, 1);
    let told = other.conversation(e, post(e, "twice"), key(2, 2)).await;
    assert!(matches!(told, Err(Refusal::Unknown(_) | Refusal::Unavailable(_))), "{told:?}");
    settle().await;
    let third = node_on(store.clone());
    third.conversation(e, post(e, "twice"), key(2, 2)).await.unwrap();
    let said: Vec<String> = texts(&third, e).await.into_iter().map(|(_, text)| text).collect();
    assert_eq!(said[2..], ["once", "twice"], "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_settled_entity_is_loaded_once_and_an_unsettled_one_twice() {
    let (store, [node, _], _) = two().await;
    let e = entity(1);
    for (torn, settled) in [(false, 0), (true, 1), (false, 0)] {
        if torn {
            store.tear(Shown::Head, usize::MAX);
            let told = node.conversation(e, post(e, "a"), CommandContext::default()).await;
            assert!(matches!(told, Err(Refusal::Unknown(_))), "{told:?}");
            settle().await;
            store.torn.lock().unwrap().failing = 0;
        }
        let directory = Directory::<Conversation>::default();
        let before = store.torn.lock().unwrap().settling;
        directory.ask(&node, e, post(e, "b"), CommandContext::default()).await.unwrap();
        assert_eq!(store.torn.lock().unwrap().settling - before, settled, "{torn}");
    }
}

#[tokio::test(start_paused = true)]
async fn i4_a_review_whose_outcome_is_half_there_is_not_decided_once_more() {
    let (store, [node, _], review) = two().await;
    let e = entity(1);
    store.tear(Shown::Head, 1);
    let told = node.conversation(e, respond(review), key(1, 1)).await;
    assert!(matches!(told, Err(Refusal::Unknown(_))), "{told:?}");
    settle().await;
    let again = node.conversation(e, respond(review), key(2, 2)).await;
    assert!(matches!(again, Err(Refusal::Rejected(_))), "{again:?}");
    let log = log(&node, e).await;
    assert_eq!(log.iter().filter(|record| matches!(record.event, Event::ReviewCompleted(_))).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_an_unknown_outcome_is_a_repeat_and_not_refused() {
    let (store, [node, other], review) = two().await;
    let e = entity(1);
    store.tear(Shown::Rows, 2);
    let told = node.conversation(e, respond(review), key(1, 1)).await;
    assert!(matches!(told, Err(Refusal::Unknown(_))), "{told:?}");
    settle().await;
    store.torn.lock().unwrap().failing = 0;
    let again = other.conversation(e, respond(review), key(1, 1)).await;
    assert!(matches!(again, Ok(Answer::Repeat(_))), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_kept_configuration_follows_a_change_that_is_half_there() {
    let store = Tearing::new();
    let workspace = EntityKey::workspace(WORKSPACE);
    let node = |seed: u8| {
        let entropy = actors::clock::Entropy::seeded([seed; 32]);
        Node::start(Arc::new(store.clone()), TokioClock::start(), entropy, Arc::new(actors::agent::NoModels))
    };
    let here = node(1);
    let elsewhere = node(2);
    let put = async |at: u64| {
        let changes = vec![RowChange::put(Table(99), b"row", &codec::encode(&Millis(at)))];
        let command = registry::Command { expected: Vec::new(), changes };
        here.registry(workspace, command, CommandContext::default()).await
    };
    let seen = async || {
        sleep(Duration::from_secs(2)).await;
        elsewhere.configured::<Millis>(workspace, Table(99), b"row").await.unwrap().map(|row| *row)
    };
    put(1).await.unwrap();
    assert_eq!(seen().await, Some(Millis(1)));
    store.tear(Shown::Head, usize::MAX);
    let told = put(2).await;
    assert!(matches!(told, Err(Refusal::Unknown(_))), "{told:?}");
    store.torn.lock().unwrap().failing = 0;
    assert_eq!(seen().await, Some(Millis(2)));
}
