//! A due index that cannot be read in part, and entities that cannot be read.

use std::sync::Arc;

use ::schema::cql::{CqlStore, Options};
use actors::clock::{Clock as _, ManualClock, Millis, SystemClock};
use actors::id::{Address, EntityKey};
use actors::random::Random;
use actors::store::{AlarmChange, Commit, CommitId, DuePage, NewRecord, Outcome, Store as _};
use bytes::Bytes;
use futures_util::FutureExt as _;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use tokio::sync::oneshot;

use super::faults::FaultyWay;
use super::support::{contact_at, hex, migrated};

/// The number of shards of the index.
const SHARDS: u8 = 64;
/// By then the scan checks a row.
const OVERDUE: u64 = 130_000;

/// A keyspace of its own, with alarms of two entities that are long overdue.
struct Place {
    nodes: Vec<String>,
    keyspace: &'static str,
    session: Session,
    began: Millis,
    entities: [EntityKey; 2],
}

impl Place {
    async fn new(keyspace: &'static str) -> Option<Self> {
        let nodes = bed::server()?.nodes().to_vec();
        migrated(&nodes, keyspace).await;
        let session = SessionBuilder::new().known_nodes(&nodes).build().await.unwrap();
        let random = || Address::derive("due", &[&Random::unforeseen().to_le_bytes()]);
        let entities = [(); 2].map(|()| EntityKey::conversation(random(), random()));
        let place = Self { nodes, keyspace, session, began: SystemClock.now(), entities };
        let store = place.store(&place.nodes, 0).await;
        for (n, entity) in (1..).zip(entities) {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&Random::unforeseen().to_le_bytes());
            let mut commit = Commit::on(entity, None, CommitId(id), place.began);
            commit.records = vec![NewRecord { event: true, payload: Bytes::from_static(b"a record") }];
            commit.alarm = Some(AlarmChange { previous: None, next: Some(place.began.plus(n)) });
            let (done, ended) = oneshot::channel();
            store.commit(commit, Box::new(move |outcome| drop(done.send(outcome))));
            assert!(matches!(ended.await.unwrap(), Ok(Outcome::Committed(_))));
        }
        Some(place)
    }

    /// A process so much later, which knows nothing yet.
    async fn store(&self, nodes: &[String], later: u64) -> CqlStore {
        let clock = Arc::new(ManualClock::at(self.began.plus(later)));
        CqlStore::open(Options::new(contact_at(nodes, self.keyspace), clock)).await.unwrap()
    }

    /// Which of the two entities the page lists, in its order.
    fn told(&self, page: &DuePage) -> Vec<usize> {
        let of = |entity: EntityKey| self.entities.iter().position(|own| *own == entity);
        page.alarms.iter().filter_map(|due| of(due.entity)).collect()
    }

    async fn run(&self, text: &str) {
        self.session.query_unpaged(text, ()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_entity_or_row_keeps_no_later_alarm_back() {
    let Some(place) = Place::new("cql_due_damage").await else { return };
    let [damaged, healthy] = place.entities.map(|entity| hex(&entity.to_bytes()));
    let keyspace = place.keyspace;
    let now = place.began.plus(OVERDUE);
    let head = format!("entity = {damaged} AND bucket = 0 AND kind = 0 AND n = 0 AND k = 0x00");
    place.run(&format!("UPDATE {keyspace}.entity SET id = 0x00 WHERE {head}")).await;
    let of = format!("SELECT shard, slot FROM {keyspace}.due WHERE entity = {healthy} ALLOW FILTERING");
    let rows = place.session.query_unpaged(of, ()).await.unwrap().into_rows_result().unwrap();
    let (shard, slot) = rows.single_row::<(i8, i64)>().unwrap();
    let values = format!("({shard}, {slot}, 1, 0x01, 0, 0x02)");
    place.run(&format!("INSERT INTO {keyspace}.due (shard, slot, at, entity, kind, id) VALUES {values}")).await;
    let store = place.store(&place.nodes, OVERDUE).await;
    let page = store.due(None, now, 1_000).await.unwrap();
    assert_eq!(place.told(&page), [0, 1]);
    assert!(page.missing.is_none(), "a later read finds no more: {:?}", page.missing);
    let second = store.due(Some(page.alarms[0]), now, 1).await.unwrap();
    assert_eq!(place.told(&second), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_shard_is_reported_and_delays_no_other() {
    let Some(place) = Place::new("cql_due_shard").await else { return };
    let now = place.began.plus(OVERDUE);
    let mut way = FaultyWay::to(&place.nodes[0]).await;
    let store = place.store(std::slice::from_ref(&way.address), OVERDUE).await;
    let mut lost = [0, 0];
    for shard in 0..SHARDS {
        // The bytes of a shard as a value, and of the length of the slot behind it.
        way.unreadable(&[0, 0, 0, 1, shard, 0, 0, 0, 8]);
        match store.due(None, now, 1_000).await {
            Ok(page) => {
                assert!(page.missing.as_ref().is_some_and(|error| error.is_transient()), "{shard}: {page:?}");
                let told = place.told(&page);
                (0..2).filter(|n| !told.contains(n)).for_each(|n| lost[n] += 1);
            }
            // Both entities are in this shard.
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                lost = lost.map(|lost| lost + 1);
            }
        }
    }
    assert_eq!(lost, [1, 1], "each is missing with the one shard that it stands in");
    way.end();
    let page = store.due(None, now, 1_000).await.unwrap();
    assert_eq!((place.told(&page), page.missing.is_none()), (vec![0, 1], true));
}

/// Beside it the index has a row of an entity that cannot be reached, whose check takes longer.
#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_reported_before_other_rows_are_checked() {
    let Some(place) = Place::new("cql_due_later").await else { return };
    let [unreached, _] = place.entities.map(|entity| hex(&entity.to_bytes()));
    let keyspace = place.keyspace;
    let of = format!("SELECT shard, slot, at FROM {keyspace}.due WHERE entity = {unreached} ALLOW FILTERING");
    let rows = place.session.query_unpaged(of, ()).await.unwrap().into_rows_result().unwrap();
    let (shard, slot, at) = rows.single_row::<(i8, i64, i64)>().unwrap();
    let id = hex(&[7; 16]);
    let values = format!("({shard}, {slot}, {at}, {unreached}, 1, {id})");
    place.run(&format!("INSERT INTO {keyspace}.due (shard, slot, at, entity, kind, id) VALUES {values}")).await;
    let mut way = FaultyWay::to(&place.nodes[0]).await;
    let store = place.store(std::slice::from_ref(&way.address), OVERDUE).await;
    way.hang(&place.entities[0].to_bytes());
    let page = store.due(None, place.began.plus(OVERDUE), 1_000).await.unwrap();
    assert_eq!((place.told(&page), page.missing.is_none()), (vec![0, 1], true));
    assert!(store.checked().now_or_never().is_none(), "the row is still being checked");
    store.close().await;
}
