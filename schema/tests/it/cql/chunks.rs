//! Large records are stored beside their commit's row: they are deleted if the commit comes to nothing, and only then.

use std::sync::Arc;
use std::time::Duration;

use ::schema::cql::{CqlStore, Options};
use actors::clock::{Clock as _, ManualClock, Millis, SystemClock};
use actors::id::{Address, EntityKey};
use actors::random::Random;
use actors::store::{
    Commit, CommitId, Head, LogScan, NewRecord, Order, Outcome, ReadLevel, SeqRange, Store as _, StoreError,
};
use bytes::Bytes;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use tokio::sync::oneshot;

use super::faults::FaultyWay;
use super::support::{contact_at, hex, migrated, scan};

/// A record of three chunks.
const LARGE: usize = 1_200_000;
/// Milliseconds until the scan checks a row of the due index that was written for a commit.
const LOOKED_AT: u64 = 130_000;
/// Until the scan checks a row again that it could not decide: the next quarter of an hour.
const LOOKED_AT_AGAIN: u64 = LOOKED_AT + 15 * 60_000;

/// A server with a keyspace, and one conversation there.
struct Place {
    nodes: Vec<String>,
    keyspace: &'static str,
    session: Session,
    entity: EntityKey,
    began: Millis,
}

impl Place {
    /// A conversation with a first commit. `None`: there is no server. Each test has its own keyspace, because the scan
    /// checks everything that is due in one.
    async fn new(keyspace: &'static str) -> Option<Self> {
        let server = bed::server()?;
        let nodes = server.nodes().to_vec();
        migrated(&nodes, keyspace).await;
        let session = SessionBuilder::new().known_nodes(&nodes).build().await.unwrap();
        let mut place = Self { nodes, keyspace, session, entity: EntityKey::INSTALLATION, began: SystemClock.now() };
        place.next_conversation().await;
        Some(place)
    }

    async fn next_conversation(&mut self) {
        let random = || Address::derive("chunks", &[&Random::unforeseen().to_le_bytes()]);
        self.entity = EntityKey::conversation(random(), random());
        self.began = SystemClock.now();
        assert!(self.commit(&self.store(&self.nodes, 0).await, None, 10).await.1.is_ok());
    }

    /// A process so much later, with small buckets, which deletes a due row at once if no commit needs it.
    async fn store(&self, nodes: &[String], later: u64) -> CqlStore {
        self.doubting(nodes, later, Duration::ZERO).await
    }

    /// The same, which deletes such a row after this long.
    async fn doubting(&self, nodes: &[String], later: u64, lasting: Duration) -> CqlStore {
        let clock = Arc::new(ManualClock::at(self.began.plus(later)));
        let options = Options::new(contact_at(nodes, self.keyspace), clock);
        CqlStore::open(options.bucket_rows(5).doubted_for(lasting)).await.unwrap()
    }

    /// A store behind a proxy that may fail.
    async fn behind(&self, way: &FaultyWay) -> CqlStore {
        self.store(std::slice::from_ref(&way.address), 0).await
    }

    /// Commits one record of this length.
    async fn commit(
        &self,
        store: &CqlStore,
        expected: Option<Head>,
        bytes: usize,
    ) -> (CommitId, Result<Outcome, StoreError>) {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&Random::unforeseen().to_le_bytes());
        let mut commit = Commit::on(self.entity, expected, CommitId(id), self.began);
        commit.records = vec![NewRecord { event: true, payload: Bytes::from(vec![b'w'; bytes]) }];
        let (done, ended) = oneshot::channel();
        store.commit(commit, Box::new(move |outcome| drop(done.send(outcome))));
        (CommitId(id), ended.await.unwrap())
    }

    /// Makes more commits behind `head`, in more than one bucket.
    async fn goes_on(&self, head: u64) {
        let store = self.store(&self.nodes, 0).await;
        for n in head..head + 6 {
            let (_, outcome) = self.commit(&store, Some(Head { seq: n, commit: n }), 10).await;
            assert!(matches!(outcome, Ok(Outcome::Committed(_))), "{outcome:?}");
        }
    }

    /// Scans the due index so much later.
    async fn scan(&self, later: u64) {
        let now = self.began.plus(later);
        scan(&self.store(&self.nodes, later).await, now).await;
    }

    async fn count(&self, text: String) -> i64 {
        let rows = self.session.query_unpaged(text, ()).await.unwrap().into_rows_result().unwrap();
        rows.single_row::<(i64,)>().unwrap().0
    }

    /// How many chunks with content a commit has.
    async fn chunks(&self, id: CommitId) -> i64 {
        let Self { keyspace, entity, .. } = self;
        let entity = hex(&entity.to_bytes());
        let id = hex(&id.0);
        let of = format!("entity = {entity} AND id = {id} AND n >= 0");
        self.count(format!("SELECT count(*) FROM {keyspace}.chunk WHERE {of}")).await
    }

    /// How many rows of the due index a commit has.
    async fn watched(&self, id: CommitId) -> i64 {
        let Self { keyspace, entity, .. } = self;
        let of = format!("entity = {} AND id = {}", hex(&entity.to_bytes()), hex(&id.0));
        self.count(format!("SELECT count(*) FROM {keyspace}.due WHERE {of} ALLOW FILTERING")).await
    }

    /// The length of the event `seq`.
    async fn said(&self, seq: u64) -> usize {
        let scan = LogScan { range: SeqRange::one(seq), order: Order::Asc, limit: 1 };
        self.store(&self.nodes, 0).await.read_log(self.entity, scan).await.unwrap()[0].payload.len()
    }
}

const FIRST: Option<Head> = Some(Head { seq: 1, commit: 1 });

/// What happens to a commit, and how many of its chunks exist then.
type Trouble = (&'static str, fn(&mut FaultyWay), i64);

const TROUBLES: [Trouble; 3] = [
    ("refused for want of nodes", |way| way.lose_commits(false), 3),
    ("never applied, and nobody knows", |way| way.lose_commits(true), 3),
    // The slot, its row of the due index, the place, and one chunk arrive.
    ("given up in the middle of its chunks", |way| way.die_before_a_commit(4), 1),
];

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_a_failed_commit_go_once_the_conversation_goes_on() {
    let Some(mut place) = Place::new("cql_chunks_in_vain").await else { return };
    for (what, trouble, left) in TROUBLES {
        place.next_conversation().await;
        let mut way = FaultyWay::to(&place.nodes[0]).await;
        let store = place.behind(&way).await;
        // Loads the conversation, so that only the commit is sent later.
        store.load(place.entity, ReadLevel::Settled).await.unwrap().unwrap();
        trouble(&mut way);
        let (id, outcome) = place.commit(&store, FIRST, LARGE).await;
        assert!(outcome.is_err(), "{what}: {outcome:?}");
        assert_eq!((place.chunks(id).await, place.watched(id).await), (left, 1), "{what}");
        place.scan(LOOKED_AT).await;
        assert_eq!((place.chunks(id).await, place.watched(id).await), (left, 1), "{what}: it may still be applied");
        place.goes_on(1).await;
        place.scan(LOOKED_AT_AGAIN).await;
        assert_eq!((place.chunks(id).await, place.watched(id).await), (0, 0), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn words_of_a_message_that_another_one_was_before_go_at_once() {
    let Some(place) = Place::new("cql_chunks_conflict").await else { return };
    let store = place.store(&place.nodes, 0).await;
    store.load(place.entity, ReadLevel::Settled).await.unwrap().unwrap();
    place.goes_on(1).await;
    let (id, outcome) = place.commit(&store, FIRST, LARGE).await;
    assert!(matches!(outcome, Ok(Outcome::Conflict)), "{outcome:?}");
    store.close().await;
    assert!(store.counts().conditional > 0, "it was the server that refused it");
    assert_eq!((place.chunks(id).await, place.watched(id).await), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_a_commit_on_its_way_stay_however_often_one_looks() {
    let Some(place) = Place::new("cql_chunks_late").await else { return };
    let mut way = FaultyWay::to(&place.nodes[0]).await;
    let store = place.behind(&way).await;
    way.slow_commits();
    // The chunks are written within that time, and the commit arrives after it.
    let heir = place.doubting(&place.nodes, LOOKED_AT, Duration::from_millis(700)).await;
    let now = place.began.plus(LOOKED_AT);
    let place = Arc::new(place);
    let committing = Arc::clone(&place);
    let committing = tokio::spawn(async move { committing.commit(&store, FIRST, LARGE).await });
    let mut looks = 0;
    while !committing.is_finished() {
        scan(&heir, now).await;
        looks += 1;
    }
    let (id, outcome) = committing.await.unwrap();
    assert!(matches!(outcome, Ok(Outcome::Committed(_))) && looks > 0, "{outcome:?}");
    assert_eq!((place.chunks(id).await, place.said(2).await), (3, LARGE), "{looks} looks");
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_a_commit_whose_process_died_stay_and_are_unwatched() {
    let Some(mut place) = Place::new("cql_chunks_died").await else { return };
    for others in [false, true] {
        place.next_conversation().await;
        // By then the conversation is in its third bucket.
        place.goes_on(1).await;
        let mut way = FaultyWay::to(&place.nodes[0]).await;
        let dying = place.behind(&way).await;
        dying.load(place.entity, ReadLevel::Settled).await.unwrap().unwrap();
        // The slot, its row of the due index, the place, and three chunks arrive.
        way.die_after_a_commit(6);
        let (id, outcome) = place.commit(&dying, Some(Head { seq: 7, commit: 7 }), LARGE).await;
        assert!(matches!(outcome, Ok(Outcome::Committed(_))), "{outcome:?}");
        dying.close().await;
        assert_eq!((place.chunks(id).await, place.watched(id).await), (3, 1), "others went on: {others}");
        if others {
            place.goes_on(8).await;
        }
        place.scan(LOOKED_AT).await;
        assert_eq!((place.chunks(id).await, place.watched(id).await), (3, 0), "others went on: {others}");
        assert_eq!(place.said(8).await, LARGE, "others went on: {others}");
    }
}
