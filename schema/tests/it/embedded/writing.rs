//! Group commit, bounds and failed writes.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use actors::store::conformance::on;
use actors::store::{LogScan, NewRecord, RowWrite, Scan, SeqRange, StoreError, Table};
use bytes::Bytes;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_of_many_entities_share_batches_and_all_survive() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let writers: Vec<_> = (0..64)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut head = None;
                for event in 0..20 {
                    head = Some(append(&store, entity(n), head, &format!("{n}/{event}")).await);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let counts = store.counts();
    assert_eq!(counts.commits, 64 * 20);
    assert!(counts.batches < counts.commits / 4, "{counts:?}");
    drop(store);
    let store = open(dir.path());
    for n in 0..64 {
        let expected: Vec<_> = (0..20).map(|event| format!("{n}/{event}")).collect();
        assert_eq!(payloads(&store, entity(n)).await, expected);
    }
}

#[tokio::test]
async fn commits_of_one_entity_in_one_batch_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut head = None;
    let mut chain = Vec::new();
    for n in 0..100 {
        let mut next = events(entity(1), head, &[&format!("{n}")]);
        // Each batch writes these keys again and again: the last write must win.
        let value = (n % 3 != 0).then(|| Bytes::from(format!("{n}")));
        next.rows = vec![RowWrite { table: Table(1), key: Bytes::from_static(b"k"), value }];
        next.alarm = Some(actors::store::AlarmChange { previous: None, next: Some(actors::clock::Millis(n % 2)) });
        head = Some(next.next_head());
        chain.push(next);
    }
    let outcomes = futures_util::future::join_all(chain.into_iter().map(|next| commit(&store, next))).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Outcome::Committed(_)))));
    assert!(store.counts().batches < 50, "some shared a batch");
    assert_eq!(payloads(&store, entity(1)).await.len(), 100);
    assert_eq!(store.row(entity(1), Table(1), Bytes::from_static(b"k")).await.unwrap(), None);
    let due = store.due(None, actors::clock::Millis(10), 10).await.unwrap().alarms;
    assert_eq!(due.iter().map(|due| due.at.0).collect::<Vec<_>>(), [1]);
    drop(store);
    assert!(schema::embedded::verify(dir.path()).unwrap().is_clean());
}

#[tokio::test]
async fn after_a_failed_write_nothing_is_acknowledged_and_the_process_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (on_fatal, reasons) = fatal();
    let fail_third = |batch| if batch == 3 { Err(io::Error::other("the disk is gone")) } else { Ok(()) };
    let options = Options::new(Arc::new(SystemClock), on_fatal).before_write(fail_third);
    let store = EmbeddedStore::open(dir.path(), options).unwrap();
    let head = append(&store, entity(1), None, "first").await;
    let head = append(&store, entity(1), Some(head), "second").await;
    let lost = commit(&store, events(entity(1), Some(head), &["third"])).await;
    assert!(matches!(lost, Err(StoreError::Indeterminate(_))), "{lost:?}");
    for n in 0..5 {
        let refused = commit(&store, events(entity(n), None, &["later"])).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    }
    let read = store.load(entity(1), ReadLevel::Settled).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    assert_eq!(reasons.lock().unwrap().len(), 1);
    assert!(reasons.lock().unwrap()[0].contains("the disk is gone"));
    drop(store);
    assert_eq!(payloads(&open(dir.path()), entity(1)).await, ["first", "second"]);
}

#[tokio::test]
async fn a_failed_batch_leaves_its_commits_unknown_and_refuses_later_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (on_fatal, reasons) = fatal();
    let failing = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&failing);
    let hook = move |_| if fails.load(Ordering::SeqCst) { Err(io::Error::other("full")) } else { Ok(()) };
    let store =
        EmbeddedStore::open(dir.path(), Options::new(Arc::new(SystemClock), on_fatal).before_write(hook)).unwrap();
    append(&store, entity(0), None, "before").await;
    failing.store(true, Ordering::SeqCst);
    let commits = (1..200).map(|n| commit(&store, events(entity(n), None, &["x"])));
    let outcomes = futures_util::future::join_all(commits).await;
    assert!(outcomes.iter().all(Result::is_err), "none was acknowledged");
    assert!(outcomes.iter().any(|outcome| matches!(outcome, Err(StoreError::Indeterminate(_)))));
    assert_eq!(reasons.lock().unwrap().len(), 1, "told once");
}

#[tokio::test]
async fn a_writer_that_panics_ends_the_store_and_notifies_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let (on_fatal, reasons) = fatal();
    let store = EmbeddedStore::open(dir.path(), Options::new(Arc::new(SystemClock), on_fatal)).unwrap();
    store.commit(events(entity(1), None, &["x"]), Box::new(|_| panic!("a caller's mistake")));
    let head = Some(Head { seq: 1, commit: 1 });
    while commit(&store, events(entity(1), head, &["y"])).await.is_ok() {}
    drop(store);
    assert_eq!(*reasons.lock().unwrap(), ["the writer panicked"]);
    assert_eq!(payloads(&open(dir.path()), entity(1)).await[0], "x");
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_loses_nothing_that_it_took() {
    let dir = tempfile::tempdir().unwrap();
    // The first batch waits until the test has seen the queue full.
    let (open_gate, gate) = std::sync::mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let hook = move |batch| {
        if batch == 1 {
            gate.lock().unwrap().recv().unwrap();
        }
        Ok(())
    };
    let store = EmbeddedStore::open(dir.path(), options().before_write(hook)).unwrap();
    let (answers, outcomes) = std::sync::mpsc::channel();
    let mut sent = 0;
    let refused = loop {
        let answer = answers.clone();
        let next = events(entity(sent), None, &["x"]);
        store.commit(next, Box::new(move |outcome| answer.send((sent, outcome)).unwrap()));
        sent += 1;
        if let Ok((n, outcome)) = outcomes.try_recv() {
            assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
            break n;
        }
    };
    assert_eq!(refused, sent - 1);
    open_gate.send(()).unwrap();
    for _ in 0..sent - 1 {
        let (_, outcome) = outcomes.recv().unwrap();
        assert!(matches!(outcome, Ok(Outcome::Committed(_))), "{outcome:?}");
    }
    assert_eq!(store.counts().commits, sent - 1);
}

#[tokio::test]
async fn a_commit_over_the_limit_is_refused_before_anything_happens() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut large = on(entity(1), None, "large");
    large.records = vec![NewRecord { event: true, payload: vec![0; schema::embedded::COMMIT_BYTES].into() }];
    assert!(matches!(commit(&store, large).await, Err(StoreError::TooLarge { .. })));
    let mut long = on(entity(1), None, "long");
    long.rows = vec![RowWrite { table: Table(1), key: vec![1; 129].into(), value: None }];
    assert!(matches!(commit(&store, long).await, Err(StoreError::TooLarge { bytes: 129, max: 128 })));
    assert_eq!(store.load(entity(1), ReadLevel::Settled).await.unwrap(), None);
}

#[tokio::test]
async fn a_closed_store_has_written_everything_and_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let head = append(&store, entity(1), None, "kept").await;
    store.close().await;
    store.close().await;
    let late = commit(&store, events(entity(1), Some(head), &["late"])).await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
    assert!(store.load(entity(1), ReadLevel::Acknowledged).await.is_err());
    drop(store);
    assert_eq!(payloads(&open(dir.path()), entity(1)).await, ["kept"]);
}

#[tokio::test]
async fn small_reads_are_ready_at_once_and_long_ones_are_complete() {
    use futures_util::FutureExt;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut head = None;
    for n in 0..300 {
        head = Some(append(&store, entity(1), head, &format!("{n}")).await);
    }
    let page = store
        .read_log(entity(1), LogScan { range: SeqRange::ALL, order: actors::store::Order::Desc, limit: 50 })
        .now_or_never();
    assert_eq!(page.expect("ready").unwrap().len(), 50);
    assert!(store.load(entity(2), ReadLevel::Acknowledged).now_or_never().is_some());
    for order in [actors::store::Order::Asc, actors::store::Order::Desc] {
        assert_eq!(
            store.read_log(entity(1), LogScan { range: SeqRange::ALL, order, limit: 1_000 }).await.unwrap().len(),
            300
        );
    }
    assert_eq!(payloads(&store, entity(1)).await.len(), 300);
}

#[tokio::test]
async fn keys_past_their_time_are_forgotten_by_compaction_and_no_others() {
    use actors::clock::{ManualClock, Millis};
    use actors::store::{Fingerprint, KeyHash, KeyRow};
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(Millis(1_000)));
    let open = || {
        let options = Options::new(clock.clone(), Box::new(|reason| panic!("fatal: {reason}")));
        EmbeddedStore::open(dir.path(), options).unwrap()
    };
    let store = open();
    let row = |at| KeyRow::new(Fingerprint([1; 16]), SeqRange::one(1), Millis(at));
    let mut next = events(entity(1), None, &["x"]);
    next.keys = vec![(KeyHash([1; 16]), row(1_000)), (KeyHash([2; 16]), row(5_000))];
    assert!(commit(&store, next).await.is_ok());
    store.compact().unwrap();
    assert!(store.find_key(entity(1), KeyHash([1; 16])).await.unwrap().is_some());
    clock.set(Millis(4_000 + actors::limits::KEY_KEPT_MILLIS));
    let head = store.load(entity(1), ReadLevel::Acknowledged).await.unwrap().map(|loaded| loaded.head);
    let mut more = events(entity(1), head, &["y"]);
    more.keys = vec![(KeyHash([3; 16]), row(5_000))];
    assert!(commit(&store, more).await.is_ok());
    store.compact().unwrap();
    assert_eq!(store.find_key(entity(1), KeyHash([1; 16])).await.unwrap(), None);
    for kept in [2, 3] {
        assert_eq!(store.find_key(entity(1), KeyHash([kept; 16])).await.unwrap(), Some(row(5_000)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_sees_one_row_of_a_commit_sees_all_of_it() {
    use actors::clock::Millis;
    use actors::store::{Fingerprint, KeyHash, KeyRow, View, ViewWrite};
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let key = KeyHash([1; 16]);
    for n in 0..10 {
        let row_key = || Bytes::from_static(b"k");
        let mut next = events(entity(n), None, &["x"]);
        next.keys = vec![(key, KeyRow::new(Fingerprint([1; 16]), SeqRange::one(1), Millis(1_000)))];
        next.rows = vec![RowWrite { table: Table(1), key: row_key(), value: Some(Bytes::from_static(b"v")) }];
        // Many entries take a while to become visible, one after the other.
        let entry = |i: u32| ViewWrite {
            view: View(1),
            key: Bytes::copy_from_slice(&i.to_be_bytes()),
            value: Some(Bytes::new()),
        };
        next.views = (0..20_000).map(entry).collect();
        let looking = store.clone();
        let looker = tokio::spawn(async move {
            while looking.row(entity(n), Table(1), row_key()).await.unwrap().is_none() {}
            assert!(looking.load(entity(n), ReadLevel::Acknowledged).await.unwrap().is_some(), "a row without its log");
            assert!(looking.find_key(entity(n), key).await.unwrap().is_some(), "a row without its key");
        });
        let listing = store.clone();
        let lister = tokio::spawn(async move {
            let rows = async || {
                let range = actors::store::KeyRange::default();
                listing.rows(entity(n), Table(1), Scan::new(range, actors::store::Order::Asc, 1)).await.unwrap()
            };
            while rows().await.is_empty() {}
            let log = listing
                .read_log(entity(n), LogScan { range: SeqRange::one(1), order: actors::store::Order::Asc, limit: 1 })
                .await
                .unwrap();
            assert_eq!(log.len(), 1, "a listed row without its log");
            assert!(listing.row(entity(n), Table(1), row_key()).await.unwrap().is_some());
        });
        assert!(matches!(commit(&store, next).await, Ok(Outcome::Committed(_))));
        looker.await.unwrap();
        lister.await.unwrap();
    }
}

/// It is read meanwhile.
#[tokio::test]
async fn an_almost_full_disk_refuses_commits_until_it_has_space() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let head = append(&store, entity(1), None, "one").await;
    store.close().await;
    drop(store);
    let store = EmbeddedStore::open(dir.path(), options().spare_bytes(u64::MAX)).unwrap();
    let refused = commit(&store, events(entity(1), Some(head), &["two"])).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert_eq!(payloads(&store, entity(1)).await, ["one"]);
    store.close().await;
    drop(store);
    let store = open(dir.path());
    append(&store, entity(1), Some(head), "three").await;
    assert_eq!(payloads(&store, entity(1)).await, ["one", "three"]);
}

/// It leaves the queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_waiting_behind_the_end_of_the_store_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let may_go_on = std::sync::Mutex::new(may_go_on);
    let held = move |_| {
        begun.send(()).map_err(io::Error::other)?;
        may_go_on.lock().unwrap().recv().map_err(io::Error::other)
    };
    let store = EmbeddedStore::open(dir.path(), options().before_write(held)).unwrap();
    let first = tokio::spawn({
        let store = store.clone();
        async move { commit(&store, events(entity(1), None, &["first"])).await }
    });
    has_begun.recv().unwrap();
    let mut close = store.close();
    assert!(futures_util::poll!(&mut close).is_pending());
    let (answer, answered) = std::sync::mpsc::channel();
    store.commit(events(entity(2), None, &["late"]), Box::new(move |outcome| answer.send(outcome).unwrap()));
    go_on.send(()).unwrap();
    close.await;
    assert!(matches!(first.await.unwrap(), Ok(Outcome::Committed(_))));
    let late = answered.recv().expect("an answer");
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
    let metrics = store.metrics().unwrap();
    assert_eq!((metrics.queued_commits.get(), metrics.queued_bytes.get()), (0, 0));
}
