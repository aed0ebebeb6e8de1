//! Cases about the chain of commits: conditional, repeatable, all or nothing.

use super::*;
use crate::store::{AlarmChange, Heartbeat, NodeId};

/// Reads of an unwritten entity find nothing.
pub async fn an_entity_that_was_never_written_does_not_exist<S: Store>(place: &Place<S>) {
    let entity = place.entity(1);
    for read_level in [ReadLevel::Acknowledged, ReadLevel::Settled] {
        assert_eq!(place.store.load(entity, read_level).await.expect("a read"), None);
    }
    assert_eq!(place.log(entity, Order::Asc).await, []);
    assert_eq!(place.store.find_key(entity, key(1)).await.expect("a read"), None);
    assert_eq!(place.store.row(entity, Table(1), bytes("a")).await.expect("a read"), None);
}

/// No update is lost.
pub async fn exactly_one_of_two_writers_on_one_head_wins<S: Store>(place: &Place<S>) {
    let entity = place.entity(1);
    let head = place.put(events(entity, None, &["base"])).await;
    let (left, right) = futures_util::future::join(
        place.commit(events(entity, Some(head), &["left"])),
        place.commit(events(entity, Some(head), &["right"])),
    )
    .await;
    let outcomes = [left.expect("a commit"), right.expect("a commit")];
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Conflict).count(), 1, "{outcomes:?}");
    let winner = if outcomes[0] == Outcome::Conflict { "right" } else { "left" };
    assert_eq!(place.load(entity).await.tail[1].payload, winner);
    assert_eq!(place.load(entity).await.head, Head { seq: 2, commit: 2 });
}

/// `expected: None` is a condition too.
pub async fn exactly_one_of_two_creations_wins<S: Store>(place: &Place<S>) {
    let entity = place.entity(1);
    let (left, right) = futures_util::future::join(
        place.commit(events(entity, None, &["left"])),
        place.commit(events(entity, None, &["right"])),
    )
    .await;
    let outcomes = [left.expect("a commit"), right.expect("a commit")];
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Conflict).count(), 1, "{outcomes:?}");
    assert_eq!(place.commit(events(entity, None, &["late"])).await.expect("a commit"), Outcome::Conflict);
    assert_eq!(place.load(entity).await.tail.len(), 1);
}

/// A retry after a lost answer learns the outcome.
pub async fn a_resent_commit_that_was_applied_is_committed<S: Store>(place: &Place<S>) {
    let entity = place.entity(1);
    let mut first = events(entity, None, &["a", "b"]);
    first.keys = vec![(key(1), key_row(1, 2))];
    let head = place.put(first.clone()).await;
    for _ in 0..3 {
        assert_eq!(place.commit(first.clone()).await.expect("a commit"), Outcome::Committed(head));
    }
    let second = events(entity, Some(head), &["c"]);
    let head = place.put(second.clone()).await;
    assert_eq!(place.commit(second).await.expect("a commit"), Outcome::Committed(head));
    assert_eq!(place.load(entity).await.tail.len(), 3);
}

/// A store recognizes only the newest commit as applied; it answers an older one with a conflict.
pub async fn a_resent_commit_behind_a_competitor_is_a_conflict<S: Store>(place: &Place<S>) {
    let entity = place.entity(1);
    let base = place.put(events(entity, None, &["base"])).await;
    let mine = events(entity, Some(base), &["mine"]);
    let head = place.put(mine.clone()).await;
    let head = place.put(events(entity, Some(head), &["theirs"])).await;
    assert_eq!(place.commit(mine).await.expect("a commit"), Outcome::Conflict);
    assert_eq!(place.load(entity).await.head, head);
}

/// The condition is the whole head, not only its sequence.
pub async fn a_commit_on_a_head_that_never_was_is_a_conflict<S: Store>(place: &Place<S>) {
    let entity = place.entity(1);
    let absent = Head { seq: 1, commit: 1 };
    assert_eq!(place.commit(events(entity, Some(absent), &["x"])).await.expect("a commit"), Outcome::Conflict);
    let head = place.put(events(entity, None, &["a"])).await;
    for wrong in [Head { seq: 2, ..head }, Head { commit: 2, ..head }, Head { seq: 0, commit: 0 }] {
        assert_eq!(place.commit(events(entity, Some(wrong), &["x"])).await.expect("a commit"), Outcome::Conflict);
    }
    assert_eq!(place.load(entity).await.head, head);
}

/// A commit applies as a whole or not at all.
pub async fn a_conflict_leaves_nothing_behind<S: Store>(place: &Place<S>) {
    let entity = place.entity(1);
    let head = place.put(events(entity, None, &["base"])).await;
    let before = place.load(entity).await;
    let mut loser = events(entity, Some(Head { commit: head.commit + 1, ..head }), &["lost"]);
    loser.keys = vec![(key(9), key_row(2, 2))];
    loser.rows = vec![row(Table(1), "row", Some("lost"))];
    loser.views = vec![entry(View(1), "entry", Some("lost"))];
    loser.state = Some(bytes("lost"));
    loser.alarm = Some(AlarmChange { previous: None, next: Some(Millis(77)) });
    loser.redactions = vec![Redaction { seq: 1, payload: bytes("lost") }];
    assert_eq!(place.commit(loser).await.expect("a commit"), Outcome::Conflict);
    assert_eq!(place.load(entity).await, before);
    assert_eq!(place.store.find_key(entity, key(9)).await.expect("a read"), None);
    assert_eq!(place.store.row(entity, Table(1), bytes("row")).await.expect("a read"), None);
    assert_eq!(place.view(place.workspace, View(1), KeyRange::default(), Order::Asc, 10).await, Vec::<Bytes>::new());
    assert_eq!(all_due(place, Millis(1_000)).await, []);
}

/// A commit may change only rows, or nothing at all.
pub async fn a_commit_without_records_moves_the_head<S: Store>(place: &Place<S>) {
    let entity = place.entity(1);
    let head = place.put(on(entity, None, "first")).await;
    assert_eq!(head, Head { seq: 0, commit: 1 });
    let head = place.put(on(entity, Some(head), "second")).await;
    assert_eq!(head, Head { seq: 0, commit: 2 });
    let head = place.put(events(entity, Some(head), &["event"])).await;
    assert_eq!(head, Head { seq: 1, commit: 3 });
    let head = place.put(on(entity, Some(head), "fourth")).await;
    let loaded = place.load(entity).await;
    assert_eq!((loaded.head, loaded.tail.len()), (head, 1));
}

/// Eight writers that decide again after each conflict.
pub async fn many_writers_that_retry_lose_no_record<S: Store>(place: &Place<S>) {
    let entity = place.entity(1);
    let names: Vec<String> = (0..8).map(|n| format!("writer {n}")).collect();
    let writers = names.iter().map(|name| async {
        loop {
            let head =
                place.store.load(entity, ReadLevel::Acknowledged).await.expect("a read").map(|loaded| loaded.head);
            if place.commit(events(entity, head, &[name])).await.expect("a commit") != Outcome::Conflict {
                return;
            }
        }
    });
    futures_util::future::join_all(writers).await;
    let loaded = place.load(entity).await;
    assert_eq!(loaded.head, Head { seq: 8, commit: 8 });
    let mut found: Vec<_> = loaded.tail.iter().map(|record| record.payload.clone()).collect();
    found.sort();
    assert_eq!(found, names);
}

/// Each process is seen with its last heartbeat. A store of a single process has no others to report.
pub async fn every_process_of_a_shared_store_is_seen_until_it_leaves<S: Store>(place: &Place<S>) {
    let heartbeat = |n: u64, count| {
        let mut id = [0; 16];
        id[..10].copy_from_slice(&place.entity(n).id.0);
        // One of the two can be asked, the other one cannot.
        let address = (n == 2).then(|| format!("http://[2001:db8::{n}]:8080").into());
        Heartbeat { node: NodeId(id), count, address }
    };
    let store = &place.store;
    assert!(store.heartbeat(heartbeat(1, 1)).await.expect("a heartbeat").contains(&heartbeat(1, 1)));
    let seen = store.heartbeat(heartbeat(2, 7)).await.expect("a heartbeat");
    assert!(seen.contains(&heartbeat(2, 7)));
    assert!(!store.is_shared() || seen.contains(&heartbeat(1, 1)));
    let seen = store.heartbeat(heartbeat(1, 2)).await.expect("a heartbeat");
    assert_eq!((seen.contains(&heartbeat(1, 2)), seen.contains(&heartbeat(1, 1))), (true, false));
    store.leave(heartbeat(1, 2).node).await.expect("a farewell");
    let seen = store.heartbeat(heartbeat(2, 8)).await.expect("a heartbeat");
    assert!(seen.contains(&heartbeat(2, 8)) && seen.iter().all(|seen| seen.node != heartbeat(1, 0).node));
    store.leave(heartbeat(2, 8).node).await.expect("a farewell");
}
