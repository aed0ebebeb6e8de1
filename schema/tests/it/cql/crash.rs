//! A process that ends between a commit and its consequences, and two processes that read and redact at once.

use std::sync::Arc;

use ::schema::cql::{CqlStore, Options};
use actors::clock::{ManualClock, Millis, SystemClock};
use actors::id::{Address, EntityKey};
use actors::random::Random;
use actors::store::{
    AlarmChange, Commit, CommitId, Head, KeyRange, LogScan, NewRecord, Order, Outcome, ReadLevel, Redaction, Scan,
    SeqRange, Store, StoreError, View, ViewWrite,
};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::faults::FaultyWay;
use super::support::{contact_at, migrated, scan, store_at};

const KEYSPACE: &str = "cql_crash";
const LIST: View = View(200);

async fn commit(store: &CqlStore, commit: Commit) -> Result<Outcome, StoreError> {
    let (done, ended) = oneshot::channel();
    store.commit(commit, Box::new(move |outcome| drop(done.send(outcome))));
    ended.await.unwrap()
}

/// A conversation's first commit, with an entry of its workspace's list.
fn listed(salt: u64, n: u64, at: Millis) -> Commit {
    let part = salt.to_le_bytes();
    let entity = EntityKey::conversation(
        Address::derive("crash", &[&part]),
        Address::derive("crash", &[&part, &n.to_le_bytes()]),
    );
    let mut id = [0; 16];
    id[..8].copy_from_slice(&part);
    id[8..].copy_from_slice(&n.to_le_bytes());
    Commit {
        entity,
        expected: None,
        id: CommitId(id),
        at,
        records: vec![NewRecord { event: true, payload: Bytes::from_static(b"a record") }],
        keys: Vec::new(),
        rows: Vec::new(),
        views: vec![ViewWrite {
            view: LIST,
            key: n.to_be_bytes().to_vec().into(),
            value: Some(Bytes::from_static(b"there")),
        }],
        state: None,
        alarm: None,
        redactions: Vec::new(),
        erases: false,
        watch: None,
    }
}

async fn list(store: &CqlStore, commit: &Commit) -> usize {
    let all = KeyRange::default();
    store.view(commit.entity.workspace, LIST, Scan::new(all, Order::Asc, 10)).await.unwrap().len()
}

/// A commit behind the first one, which adds a list entry and redacts the first one's record.
fn next(first: &Commit, id: u8) -> Commit {
    Commit {
        expected: Some(Head { seq: 1, commit: 1 }),
        id: CommitId([id; 16]),
        redactions: vec![Redaction { seq: 1, payload: Bytes::from_static(b"-") }],
        ..first.clone()
    }
}

async fn said(store: &CqlStore, entity: EntityKey) -> Bytes {
    store.read_log(entity, LogScan { range: SeqRange::one(1), order: Order::Asc, limit: 1 }).await.unwrap()[0]
        .payload
        .clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_a_dead_process_is_finished_by_the_next_load_or_scan() {
    let Some(server) = bed::server() else { return };
    migrated(server.nodes(), KEYSPACE).await;
    let now = actors::clock::Clock::now(&SystemClock);
    for (n, by_scan) in [(1, false), (2, true)] {
        let mut way = FaultyWay::to(&server.nodes()[0]).await;
        let dying = store_at(std::slice::from_ref(&way.address), KEYSPACE).await;
        let listed = listed(Random::unforeseen(), n, now);
        let first = Commit { views: Vec::new(), ..listed.clone() };
        assert!(matches!(commit(&dying, first).await, Ok(Outcome::Committed(_))));
        // The slot and its row of the due index arrive.
        way.die_after_a_commit(2);
        assert!(matches!(commit(&dying, next(&listed, 2)).await, Ok(Outcome::Committed(Head { seq: 2, commit: 2 }))));
        // Two minutes later the alarm is long overdue.
        let later = Arc::new(ManualClock::at(now.plus(130_000)));
        let heir = CqlStore::open(Options::new(contact_at(server.nodes(), KEYSPACE), later)).await.unwrap();
        assert_eq!(
            (list(&heir, &listed).await, said(&heir, listed.entity).await),
            (0, Bytes::from_static(b"a record"))
        );
        if by_scan {
            scan(&heir, now.plus(130_000)).await;
        } else {
            heir.load(listed.entity, ReadLevel::Acknowledged).await.unwrap().unwrap();
        }
        let done = (list(&heir, &listed).await, said(&heir, listed.entity).await);
        assert_eq!(done, (1, Bytes::from_static(b"-")), "by the scan: {by_scan}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_refused_takes_nothing_out_of_the_log() {
    let Some(server) = bed::server() else { return };
    migrated(server.nodes(), KEYSPACE).await;
    let stores = [store_at(server.nodes(), KEYSPACE).await, store_at(server.nodes(), KEYSPACE).await];
    let first = listed(Random::unforeseen(), 1, actors::clock::Clock::now(&SystemClock));
    assert!(matches!(commit(&stores[0], first.clone()).await, Ok(Outcome::Committed(_))));
    // Both processes know the head, and only the server knows whose commit was first.
    stores[1].load(first.entity, ReadLevel::Settled).await.unwrap().unwrap();
    let other = Commit { redactions: Vec::new(), ..next(&first, 2) };
    assert!(matches!(commit(&stores[0], other).await, Ok(Outcome::Committed(_))));
    assert!(matches!(commit(&stores[1], next(&first, 3)).await, Ok(Outcome::Conflict)));
    stores[1].close().await;
    assert_eq!(said(&stores[0], first.entity).await, "a record");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overdue_alarm_stays_in_the_index_while_its_commit_is_on_its_way() {
    let Some(server) = bed::server() else { return };
    migrated(server.nodes(), KEYSPACE).await;
    let mut way = FaultyWay::to(&server.nodes()[0]).await;
    let slow = store_at(std::slice::from_ref(&way.address), KEYSPACE).await;
    let other = store_at(server.nodes(), KEYSPACE).await;
    let now = actors::clock::Clock::now(&SystemClock);
    let [early, late] = [120_000, 90_000].map(|overdue| Millis(now.0 - overdue));
    let mut first = listed(Random::unforeseen(), 1, now);
    first.alarm = Some(AlarmChange { previous: None, next: Some(early) });
    let entity = first.entity;
    assert!(matches!(commit(&slow, first.clone()).await, Ok(Outcome::Committed(_))));
    way.slow_commits();
    let alarm = Some(AlarmChange { previous: Some(early), next: Some(late) });
    let moved = Commit { alarm, redactions: Vec::new(), ..next(&first, 2) };
    let moving = tokio::spawn(async move { commit(&slow, moved).await });
    let due = async || {
        let all = scan(&other, now).await.alarms;
        all.into_iter().filter(|due| due.entity == entity).map(|due| due.at).collect::<Vec<_>>()
    };
    let mut looks = 0;
    while !moving.is_finished() {
        due().await;
        looks += 1;
    }
    assert!(matches!(moving.await.unwrap(), Ok(Outcome::Committed(_))) && looks > 0);
    assert!(due().await.contains(&late), "{looks} looks");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_record_can_be_read_at_any_moment_while_words_are_taken_out_of_it() {
    let Some(server) = bed::server() else { return };
    migrated(server.nodes(), KEYSPACE).await;
    let store = store_at(server.nodes(), KEYSPACE).await;
    let other = store_at(server.nodes(), KEYSPACE).await;
    let now = actors::clock::Clock::now(&SystemClock);
    let mut first = listed(Random::unforeseen(), 1, now);
    // A hundred records, together eight megabytes.
    first.records = (0..100).map(|n: u8| NewRecord { event: true, payload: vec![n; 84_000].into() }).collect();
    let entity = first.entity;
    assert!(matches!(commit(&store, first.clone()).await, Ok(Outcome::Committed(Head { seq: 100, commit: 1 }))));
    let reading = tokio::spawn(async move {
        let mut lengths = Vec::new();
        for _ in 0..12 {
            let read = other
                .read_log(entity, LogScan { range: SeqRange::upto(100), order: Order::Asc, limit: 100 })
                .await
                .unwrap();
            assert_eq!(read.iter().map(|record| record.seq).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
            lengths.push(read[49].payload.len());
        }
        lengths
    });
    for n in 1..=6_u64 {
        let next = Commit {
            expected: Some(Head { seq: 99 + n, commit: n }),
            id: CommitId([n as u8; 16]),
            records: vec![NewRecord { event: true, payload: Bytes::from_static(b"gone") }],
            views: Vec::new(),
            redactions: (0..8).map(|k| Redaction { seq: 8 * n + k, payload: Bytes::from_static(b"-") }).collect(),
            ..first.clone()
        };
        assert!(matches!(commit(&store, next).await, Ok(Outcome::Committed(_))), "{n}");
    }
    let lengths = reading.await.unwrap();
    assert!(lengths.iter().all(|length| [84_000, 1].contains(length)), "{lengths:?}");
    let last =
        store.read_log(entity, LogScan { range: SeqRange::upto(200), order: Order::Asc, limit: 200 }).await.unwrap();
    let short = last.iter().filter(|record| record.payload.len() == 1).count();
    assert_eq!((last.len(), short), (106, 48));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_very_late_redaction_does_not_overlay_a_later_one() {
    let Some(server) = bed::server() else { return };
    migrated(server.nodes(), KEYSPACE).await;
    let store = store_at(server.nodes(), KEYSPACE).await;
    let late = store_at(server.nodes(), KEYSPACE).await;
    let now = actors::clock::Clock::now(&SystemClock);
    for (n, size) in [(1, 10), (2, 200_000)] {
        let payload = |byte: u8| Bytes::from(vec![byte; size]);
        let mut first = listed(Random::unforeseen(), n, now);
        first.records = vec![NewRecord { event: true, payload: payload(b'0') }];
        let entity = first.entity;
        assert!(matches!(commit(&store, first.clone()).await, Ok(Outcome::Committed(_))));
        let taken = |byte: u8| vec![Redaction { seq: 1, payload: payload(byte) }];
        let deleted = Commit { redactions: taken(b'1'), ..next(&first, 2) };
        assert!(matches!(commit(&store, deleted.clone()).await, Ok(Outcome::Committed(_))));
        // Repeated before anything else has happened, the redaction changes nothing.
        late.redact_late(entity, deleted.id, &deleted.redactions).await.unwrap();
        assert_eq!(said(&store, entity).await, payload(b'1'));
        let expected = Some(Head { seq: 2, commit: 2 });
        let erased = Commit { redactions: taken(b'2'), expected, ..next(&first, 3) };
        assert!(matches!(commit(&store, erased).await, Ok(Outcome::Committed(_))));
        late.redact_late(entity, deleted.id, &deleted.redactions).await.unwrap();
        assert_eq!(said(&store, entity).await, payload(b'2'), "{size}");
    }
}
