//! Leaving a bucket: which content moves, in how many statements, and which content then overlays which.

use std::sync::Arc;
use std::time::Duration;

use ::schema::cql::{Counts, CqlStore, Options};
use actors::clock::{Clock, ManualClock, Millis, SystemClock};
use actors::id::{Address, EntityKey};
use actors::random::Random;
use actors::store::conformance::commit;
use actors::store::inventory::Inventory as _;
use actors::store::{
    AlarmChange, Commit, CommitId, Fingerprint, Head, KeyHash, KeyRange, KeyRow, Loaded, NewRecord, Order, Outcome,
    Pages, ReadLevel, Redaction, RowWrite, SeqRange, Store as _, StoreError, Table, View, ViewWrite,
};
use bytes::Bytes;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::value::{CqlValue, Row};
use tokio::sync::Semaphore;

use super::faults::FaultyWay;
use super::support::{contact_at, hex, migrated, scan};

const KEYSPACE: &str = "cql_buckets";
const T: Table = Table(99);
const OTHER: Table = Table(98);
/// Rows of a bucket that holds nothing else.
const ROWS: usize = 1_000;
/// The most statements that moving them may take: a twentieth of the rows.
const STATEMENTS: u64 = 50;

/// A store whose buckets hold so many rows; `None`: there is no server.
async fn store_of(rows: usize) -> Option<CqlStore> {
    let server = bed::server()?;
    migrated(server.nodes(), KEYSPACE).await;
    Some(another(server.nodes(), rows).await)
}

async fn another(nodes: &[String], rows: usize) -> CqlStore {
    let options = Options::new(contact_at(nodes, KEYSPACE), Arc::new(SystemClock));
    CqlStore::open(options.bucket_rows(i32::try_from(rows).unwrap())).await.unwrap()
}

fn entity() -> EntityKey {
    let salt = Random::unforeseen().to_le_bytes();
    EntityKey::conversation(Address::derive("buckets", &[&salt]), Address::derive("bucket", &[&salt]))
}

/// The `n`th commit of an entity, from 1, with one event.
fn nth(entity: EntityKey, n: u8) -> Commit {
    let expected = (n > 1).then(|| Head { seq: u64::from(n) - 1, commit: u64::from(n) - 1 });
    let records = vec![NewRecord { event: true, payload: Bytes::from_static(b"a record") }];
    Commit { records, ..Commit::on(entity, expected, CommitId([n; 16]), SystemClock.now()) }
}

fn row(table: Table, n: usize, value: Option<&'static str>) -> RowWrite {
    RowWrite { table, key: n.to_be_bytes().to_vec().into(), value: value.map(Bytes::from) }
}

async fn applied(store: &CqlStore, that: Commit) -> Counts {
    let before = store.counts();
    assert!(matches!(commit(store, that).await, Ok(Outcome::Committed(_))));
    let after = store.counts();
    Counts { writes: after.writes - before.writes, reads: after.reads - before.reads, ..after }
}

async fn all(store: &CqlStore, entity: EntityKey, table: Table) -> Vec<(usize, Bytes)> {
    let mut pages = Pages::of_rows(store, entity, table, KeyRange::default(), 300);
    let mut all = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        all.extend(page.into_iter().map(|row| (usize::from_be_bytes(row.key[..].try_into().unwrap()), row.value)));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_full_of_rows_is_left_in_few_statements() {
    let Some(store) = store_of(ROWS).await else { return };
    let entity = entity();
    let first = (0..ROWS).map(|n| row(T, n, Some("first"))).chain([row(OTHER, 7, Some("other"))]).collect();
    applied(&store, Commit { rows: first, ..nth(entity, 1) }).await;
    // Deletes every other row, and as many rows that do not exist.
    let gone = (0..ROWS).filter(|n| n % 2 == 0).chain(ROWS..ROWS + ROWS / 2).map(|n| row(T, n, None));
    let left = applied(&store, Commit { rows: gone.collect(), ..nth(entity, 2) }).await;
    assert!(left.writes + left.reads <= STATEMENTS, "{left:?}");
    let left = applied(&store, Commit { rows: vec![row(T, 0, Some("again"))], ..nth(entity, 3) }).await;
    assert!(left.writes + left.reads <= STATEMENTS, "{left:?}");
    let mut expected: Vec<_> = (0..ROWS).filter(|n| n % 2 == 1).map(|n| (n, Bytes::from("first"))).collect();
    expected.insert(0, (0, Bytes::from("again")));
    assert_eq!(all(&store, entity, T).await, expected);
    assert_eq!(all(&store, entity, OTHER).await, [(7, Bytes::from("other"))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_used_again_is_listed_as_it_is_now() {
    let Some(store) = store_of(3).await else { return };
    let entity = entity();
    let hash = KeyHash([7; 16]);
    let key = |seq| (hash, KeyRow::new(Fingerprint([1; 16]), SeqRange::one(seq), SystemClock.now()));
    for n in 1..=3 {
        applied(&store, Commit { keys: vec![key(u64::from(n))], ..nth(entity, n) }).await;
        let found = store.find_key(entity, hash).await.unwrap().and_then(|row| row.events()).map(|events| events.last);
        let listed: Vec<_> =
            store.keys(entity, None, 10).await.unwrap().iter().filter_map(|(_, row)| row.events()).collect();
        assert_eq!((found, listed), (Some(u64::from(n)), vec![SeqRange::one(u64::from(n))]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_copy_of_a_bucket_that_was_left_undoes_no_effect_of_a_key() {
    let Some(store) = store_of(3).await else { return };
    let entity = entity();
    let hash = KeyHash([7; 16]);
    let now = SystemClock.now();
    let key = |seq| (hash, KeyRow::new(Fingerprint([1; 16]), SeqRange::one(seq), now));
    for n in 1..=3 {
        applied(&store, Commit { keys: vec![key(u64::from(n))], ..nth(entity, n) }).await;
    }
    applied(&store, nth(entity, 4)).await;
    for (bucket, seq) in [(1, 2), (0, 1)] {
        store.leave_bucket_late(entity, bucket, Head { seq, commit: seq }).await.unwrap();
        let found = store.find_key(entity, hash).await.unwrap().and_then(|row| row.events()).map(|events| events.last);
        assert_eq!(found, Some(3), "after bucket {bucket}");
    }
}

#[tokio::test]
async fn a_commit_that_is_late_before_it_is_sent_is_not_sent_any_more() {
    let Some(store) = store_of(1_000).await else { return };
    let Some(server) = bed::server() else { return };
    let sends = Arc::new(Semaphore::new(0));
    let options = Options::new(contact_at(server.nodes(), KEYSPACE), Arc::new(SystemClock));
    let late = CqlStore::open(options.sending_by(Arc::clone(&sends))).await.unwrap();
    let entity = entity();
    let at = SystemClock.now().plus(60_000);
    let first = Commit { alarm: Some(AlarmChange { previous: None, next: Some(at) }), ..nth(entity, 1) };
    let stalled = tokio::spawn(async move { commit(&late, first).await });
    // Its alarm's row is there, so it is prepared.
    let mut is_prepared = false;
    for _ in 0..1_000 {
        let page = store.due(None, at, 100_000).await.unwrap();
        is_prepared = page.alarms.iter().any(|due| due.entity == entity);
        if is_prepared {
            break;
        }
    }
    assert!(is_prepared);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(7)).await;
    tokio::time::resume();
    sends.add_permits(1);
    let outcome = stalled.await.unwrap();
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    assert_eq!(store.head(entity, ReadLevel::Settled).await.unwrap(), None);
}

/// How often the store settled something for this, and the result.
async fn settling<T>(store: &CqlStore, what: impl Future<Output = T>) -> (u64, T) {
    let before = store.counts().settling;
    let done = what.await;
    (store.counts().settling - before, done)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_is_settled_once_unless_this_process_saw_it_applied() {
    let Some(store) = store_of(1_000).await else { return };
    let Some(server) = bed::server() else { return };
    let entity = entity();
    let key = KeyHash([7; 16]);
    let keys = vec![(key, KeyRow::new(Fingerprint([1; 16]), SeqRange::one(1), Millis(1)))];
    let state = Some(Bytes::from_static(b"state"));
    let first = Commit { keys, state: state.clone(), ..nth(entity, 1) };
    for n in 1..=3 {
        let next = if n == 1 { first.clone() } else { nth(entity, n) };
        assert_eq!(settling(&store, applied(&store, next)).await.0, 0, "{n}");
    }
    // A process that has seen nothing of the entity.
    let other = another(server.nodes(), 1_000).await;
    let (settled, plain) = settling(&other, other.load(entity, ReadLevel::Acknowledged)).await;
    assert_eq!(settled, 0);
    let (settled, whole) = settling(&other, other.load(entity, ReadLevel::Settled)).await;
    let plain = plain.unwrap().unwrap();
    let whole = whole.unwrap().unwrap();
    assert!(!plain.settled && whole.settled);
    assert_eq!((settled, &whole), (1, &Loaded { settled: true, ..plain }));
    let (settled, again) = settling(&other, other.load(entity, ReadLevel::Acknowledged)).await;
    assert_eq!((settled, again.unwrap()), (0, Some(whole.clone())));
    assert_eq!((whole.head, whole.state, whole.tail.len()), (Head { seq: 3, commit: 3 }, state, 2));
    assert_eq!(settling(&other, applied(&other, nth(entity, 4))).await.0, 0);
    // The third process commits after a plain read, and the fourth looks up a key.
    let third = another(server.nodes(), 1_000).await;
    third.load(entity, ReadLevel::Acknowledged).await.unwrap();
    assert_eq!(settling(&third, applied(&third, nth(entity, 5))).await.0, 1);
    let fourth = another(server.nodes(), 1_000).await;
    for settled in [1, 0] {
        let (counted, found) = settling(&fourth, fourth.find_key(entity, key)).await;
        assert_eq!(
            (counted, found.unwrap().and_then(|row| row.events()).map(|events| events.last)),
            (settled, Some(1))
        );
    }
    let (settled, head) = settling(&third, third.head(entity, ReadLevel::Settled)).await;
    assert_eq!((settled, head.unwrap()), (1, Some(Head { seq: 5, commit: 5 })));
    let (settled, unknown) = settling(&fourth, fourth.find_key(entity, KeyHash([8; 16]))).await;
    assert_eq!((settled, unknown.unwrap()), (0, None));
}

/// One that is only held never is.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_events_is_settled_until_the_next_event_is() {
    let Some(store) = store_of(1_000).await else { return };
    let Some(server) = bed::server() else { return };
    let entity = entity();
    let marked = KeyHash([7; 16]);
    let held = KeyHash([8; 16]);
    let row = |first, last| KeyRow::new(Fingerprint([1; 16]), SeqRange::new(first, last), SystemClock.now());
    applied(&store, nth(entity, 1)).await;
    let other = another(server.nodes(), 1_000).await;
    other.load(entity, ReadLevel::Settled).await.unwrap();
    let mark = vec![NewRecord { event: false, payload: Bytes::from_static(b"a mark") }];
    applied(
        &store,
        Commit {
            keys: vec![(marked, row(2, 1)), (held, KeyRow::held(Fingerprint([1; 16]), 9, SystemClock.now()))],
            records: mark,
            ..nth(entity, 2)
        },
    )
    .await;
    for (key, settled) in [(held, 0), (marked, 1), (held, 0)] {
        assert_eq!(settling(&other, other.find_key(entity, key)).await.0, settled, "{key:?}");
    }
    let third = Commit { expected: Some(Head { seq: 1, commit: 2 }), ..nth(entity, 3) };
    assert_eq!(settling(&other, applied(&other, third)).await.0, 0);
    assert_eq!(settling(&other, other.find_key(entity, marked)).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_settled_before_another_process_leaves_it() {
    let Some(store) = store_of(4).await else { return };
    let Some(server) = bed::server() else { return };
    let entity = entity();
    applied(&store, nth(entity, 1)).await;
    applied(&store, nth(entity, 2)).await;
    let other = another(server.nodes(), 4).await;
    other.load(entity, ReadLevel::Acknowledged).await.unwrap();
    // The closed bucket, and the next one, which does not exist.
    assert_eq!(settling(&other, applied(&other, nth(entity, 3))).await.0, 2);
    let nobody = EntityKey { id: Address([9; 10]), ..entity };
    assert!(other.load(nobody, ReadLevel::Settled).await.unwrap().is_none());
    assert!(other.load(nobody, ReadLevel::Acknowledged).await.unwrap().is_none());
    let order = Order::Asc;
    let log =
        other.read_log(entity, actors::store::LogScan { range: SeqRange::upto(9), order, limit: 9 }).await.unwrap();
    assert_eq!(log.iter().map(|record| record.seq).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_taken_for_one_of_nothing_only_once_its_entity_is_settled() {
    let Some(store) = store_of(1_000).await else { return };
    let Some(server) = bed::server() else { return };
    let entity = entity();
    let now = SystemClock.now();
    let [stands, lost] = [120_000, 90_000].map(|overdue| Some(Millis(now.0 - overdue)));
    let alarm = Some(AlarmChange { previous: None, next: stands });
    applied(&store, Commit { alarm, ..nth(entity, 1) }).await;
    let mut way = FaultyWay::to(&server.nodes()[0]).await;
    let dying = another(std::slice::from_ref(&way.address), 1_000).await;
    dying.load(entity, ReadLevel::Settled).await.unwrap();
    way.lose_commits(false);
    let alarm = Some(AlarmChange { previous: stands, next: lost });
    assert!(commit(&dying, Commit { alarm, ..nth(entity, 2) }).await.is_err());
    let options = Options::new(contact_at(server.nodes(), KEYSPACE), Arc::new(SystemClock));
    let scanning = CqlStore::open(options.doubted_for(Duration::ZERO)).await.unwrap();
    for settled in [1, 0] {
        let (counted, page) = settling(&scanning, scan(&scanning, now)).await;
        let due = page.alarms.into_iter().filter(|due| due.entity == entity);
        assert_eq!((counted, due.map(|due| Some(due.at)).collect()), (settled, vec![stands]));
    }
}

/// The cells of the tables of an entity's log and rows that contain `text`.
async fn cells_with(session: &Session, entity: EntityKey, text: &str) -> usize {
    let mut found = 0;
    for table in ["entity", "entity_row"] {
        let rows = session.query_unpaged(format!("SELECT * FROM {KEYSPACE}.{table}"), ()).await.unwrap();
        let rows = rows.into_rows_result().unwrap();
        let of_entity = rows.rows::<Row>().unwrap().map(Result::unwrap).filter(|row| {
            row.columns
                .first()
                .and_then(Option::as_ref)
                .and_then(CqlValue::as_blob)
                .is_some_and(|name| name.windows(entity.id.0.len()).any(|part| part == entity.id.0))
        });
        for row in of_entity {
            let blobs = row.columns.iter().flatten().filter_map(CqlValue::as_blob);
            found += blobs.filter(|blob| blob.windows(text.len()).any(|part| part == text.as_bytes())).count();
        }
    }
    found
}

/// A store by a clock of its own that doubts nothing, with so many rows in a bucket, and a session beside it; `None`:
/// there is no server.
async fn store_by_clock(rows: i32) -> Option<(CqlStore, Arc<ManualClock>, Session)> {
    let server = bed::server()?;
    migrated(server.nodes(), KEYSPACE).await;
    let session = SessionBuilder::new().known_nodes(server.nodes()).build().await.unwrap();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let options = Options::new(contact_at(server.nodes(), KEYSPACE), Arc::clone(&clock) as Arc<dyn Clock>);
    let store = CqlStore::open(options.bucket_rows(rows).doubted_for(Duration::ZERO)).await.unwrap();
    Some((store, clock, session))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_was_left_keeps_no_rows_and_no_state() {
    let Some(server) = bed::server() else { return };
    let Some((store, clock, session)) = store_by_clock(3).await else { return };
    let entity = entity();
    let state = Some(Bytes::from_static(b"the secret state"));
    applied(&store, Commit { rows: vec![row(T, 1, Some("a secret row"))], state, ..nth(entity, 1) }).await;
    let state = Some(Bytes::from_static(b"another state"));
    applied(&store, Commit { rows: vec![row(T, 1, None), row(T, 2, Some("kept"))], state, ..nth(entity, 2) }).await;
    applied(&store, nth(entity, 3)).await;
    assert!(cells_with(&session, entity, "secret").await > 0, "the first bucket has them");
    clock.advance(30_000);
    scan(&store, clock.now()).await;
    assert!(cells_with(&session, entity, "secret").await > 0, "slow readers may still read them");
    clock.advance(200_000);
    scan(&store, clock.now()).await;
    assert_eq!(cells_with(&session, entity, "secret").await, 0);
    assert_eq!(all(&store, entity, T).await, [(2, Bytes::from("kept"))]);
    let loaded = another(server.nodes(), 3).await.load(entity, ReadLevel::Settled).await.unwrap().unwrap();
    assert_eq!(loaded.state, Some(Bytes::from_static(b"another state")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redaction_removes_list_entries_from_the_commits_row() {
    let Some(store) = store_of(1_000).await else { return };
    let Some(server) = bed::server() else { return };
    let session = SessionBuilder::new().known_nodes(server.nodes()).build().await.unwrap();
    let entity = entity();
    let entry = |value: Option<&'static str>| ViewWrite {
        view: View(97),
        key: Bytes::from_static(b"a secret name"),
        value: value.map(Bytes::from),
    };
    applied(&store, Commit { views: vec![entry(Some("x"))], ..nth(entity, 1) }).await;
    applied(&store, Commit { views: vec![entry(None)], ..nth(entity, 2) }).await;
    assert_eq!(cells_with(&session, entity, "secret").await, 2);
    // The first with another payload, the second with the same.
    let payloads = [Bytes::from_static(b"redacted"), Bytes::from_static(b"a record")];
    let redactions = (1..).zip(payloads).map(|(seq, payload)| Redaction { seq, payload }).collect();
    applied(&store, Commit { redactions, ..nth(entity, 3) }).await;
    assert_eq!(cells_with(&session, entity, "secret").await, 0);
}

/// The rows of the due index that lead to an entity.
async fn due_rows(session: &Session, entity: EntityKey) -> Vec<(i8, i64, i64, i8, Vec<u8>)> {
    let name = hex(&entity.to_bytes());
    let found = format!("SELECT shard, slot, at, kind, id FROM {KEYSPACE}.due WHERE entity = {name} ALLOW FILTERING");
    let found = session.query_unpaged(found, ()).await.unwrap().into_rows_result().unwrap();
    found.rows().unwrap().map(Result::unwrap).collect()
}

/// Removes them, as if an earlier build had written none.
async fn delete_due_rows(session: &Session, entity: EntityKey) {
    let name = hex(&entity.to_bytes());
    for (shard, slot, at, kind, id) in due_rows(session, entity).await {
        let place = format!("shard = {shard} AND slot = {slot} AND at = {at} AND entity = {name} AND kind = {kind}");
        let text = format!("DELETE FROM {KEYSPACE}.due WHERE {place} AND id = {}", hex(&id));
        session.query_unpaged(text, ()).await.unwrap();
    }
}

/// More than the time after which erased content is removed.
const LONG: u64 = 4 * 60_000;

/// Applies a commit to a new entity whose first bucket, with a secret row and another one, has been left.
async fn assert_erased(erasing: impl FnOnce(EntityKey) -> Commit, was_left: bool) {
    let Some((store, clock, session)) = store_by_clock(4).await else { return };
    let entity = entity();
    let first = vec![row(T, 1, Some("a secret row")), row(T, 2, Some("another"))];
    applied(&store, Commit { rows: first, ..nth(entity, 1) }).await;
    applied(&store, nth(entity, 2)).await;
    if was_left {
        delete_due_rows(&session, entity).await;
    }
    clock.advance(LONG);
    scan(&store, clock.now()).await;
    assert!(cells_with(&session, entity, "secret").await > 0);
    applied(&store, erasing(entity)).await;
    clock.advance(LONG);
    scan(&store, clock.now()).await;
    assert_eq!(cells_with(&session, entity, "secret").await, 0);
    assert_eq!(all(&store, entity, T).await, [(2, Bytes::from("another"))]);
    assert_eq!(due_rows(&session, entity).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redaction_empties_buckets_that_an_earlier_build_left() {
    let redactions = vec![Redaction { seq: 1, payload: Bytes::from_static(b"redacted") }];
    assert_erased(|entity| Commit { redactions, rows: vec![row(T, 1, None)], erases: true, ..nth(entity, 3) }, true)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_erased_goes_from_the_tables_of_closed_buckets() {
    assert_erased(|entity| Commit { rows: vec![row(T, 1, None)], erases: true, ..nth(entity, 3) }, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_an_entity_that_has_just_changed_stay_until_it_has_rested() {
    let Some((store, clock, session)) = store_by_clock(20).await else { return };
    let entity = entity();
    let first = (1..20).map(|n| row(T, n, Some("a secret row"))).collect();
    applied(&store, Commit { rows: first, ..nth(entity, 1) }).await;
    let at = |n: u8, clock: &ManualClock| Commit { at: clock.now(), ..nth(entity, n) };
    applied(&store, Commit { rows: vec![row(T, 1, None)], erases: true, ..at(2, &clock) }).await;
    applied(&store, Commit { rows: vec![row(T, 2, None)], erases: true, ..at(3, &clock) }).await;
    let secrets = || cells_with(&session, entity, "secret");
    for n in 4..7 {
        clock.advance(LONG);
        applied(&store, at(n, &clock)).await;
        scan(&store, clock.now()).await;
        assert_eq!(secrets().await, 19, "a reader may need them");
        assert_eq!(due_rows(&session, entity).await.len(), 1, "whatever the number of commits");
    }
    clock.advance(LONG);
    scan(&store, clock.now()).await;
    assert_eq!(secrets().await, 17);
    assert_eq!(due_rows(&session, entity).await.len(), 0);
    // A process that was late, and a row that is put again.
    store.leave_bucket_late(entity, 0, Head { seq: 1, commit: 1 }).await.unwrap();
    assert_eq!(secrets().await, 17);
    applied(&store, Commit { rows: vec![row(T, 1, Some("new"))], ..at(7, &clock) }).await;
    assert_eq!(all(&store, entity, T).await.len(), 18);
}
