//! Cases about records and states.

use super::*;
use crate::store::{LogRecord, LogScan};

async fn read<S: Store>(place: &Place<S>, from: u64, to: u64, order: Order, limit: usize) -> Vec<u64> {
    let records = place
        .store
        .read_log(place.entity(1), LogScan { range: SeqRange::new(from, to), order, limit })
        .await
        .expect("a read");
    for record in &records {
        assert!(record.event, "marks are left out");
        assert_eq!(record.payload, format!("event {}", record.seq), "the payload belongs to the sequence");
    }
    records.iter().map(|record| record.seq).collect()
}

/// Nine events in commits of three, two, none, one and three; the fourth commit also contains marks.
async fn nine_events<S: Store>(place: &Place<S>) -> Head {
    let entity = place.entity(1);
    let head = place.put(events(entity, None, &["event 1", "event 2", "event 3"])).await;
    let head = place.put(events(entity, Some(head), &["event 4", "event 5"])).await;
    let head = place.put(on(entity, Some(head), "nothing")).await;
    let mut marked = on(entity, Some(head), "marked");
    marked.records = vec![record(false, "mark"), record(true, "event 6"), record(false, "mark")];
    let head = place.put(marked).await;
    place.put(events(entity, Some(head), &["event 7", "event 8", "event 9"])).await
}

/// All commits share one numbering.
pub async fn sequences_have_no_gaps<S: Store>(place: &Place<S>) {
    let head = nine_events(place).await;
    assert_eq!(head, Head { seq: 9, commit: 5 });
    assert_eq!(read(place, 0, u64::MAX, Order::Asc, 100).await, (1..=9).collect::<Vec<_>>());
}

/// A mark changes the state but takes no sequence.
pub async fn marks_are_loaded_but_are_no_events<S: Store>(place: &Place<S>) {
    nine_events(place).await;
    let tail = place.load(place.entity(1)).await.tail;
    assert_eq!(tail.len(), 11);
    let mark = |seq| LogRecord { seq, event: false, payload: bytes("mark") };
    assert_eq!((&tail[5], &tail[7]), (&mark(5), &mark(6)));
    assert_eq!(read(place, 5, 6, Order::Asc, 100).await, [5, 6]);
}

/// A host that replays after a restart gets the whole, whichever commit stored the state.
pub async fn a_state_and_the_records_since_it_make_the_whole<S: Store>(place: &Place<S>) {
    for taken in 1..=6_u64 {
        let entity = place.entity(taken);
        let mut head = None;
        let mut whole = String::new();
        for commit in 1..=6_u64 {
            let names = [format!("{commit}a."), format!("{commit}b.")];
            let mut next = events(entity, head, &[&names[0], &names[1]]);
            next.records[1].event = commit % 2 == 0;
            whole += &names.concat();
            next.state = (commit == taken).then(|| bytes(&whole));
            head = Some(place.put(next).await);
        }
        let loaded = place.load(entity).await;
        let mut replayed = loaded.state.map_or_else(Vec::new, |state| state.to_vec());
        loaded.tail.iter().for_each(|record| replayed.extend_from_slice(&record.payload));
        assert_eq!(replayed, whole.as_bytes(), "state taken with commit {taken}");
        assert_eq!(Some(loaded.head), head);
        assert_eq!(loaded.tail.len() as u64, 2 * (6 - taken), "the records before the state are not loaded");
    }
}

/// Only the newest state counts.
pub async fn a_state_is_replaced_by_a_newer_one<S: Store>(place: &Place<S>) {
    let entity = place.entity(1);
    let mut head = None;
    for state in ["one", "two", "three"] {
        let mut next = events(entity, head, &[state]);
        next.state = Some(bytes(state));
        head = Some(place.put(next).await);
    }
    let head = place.put(events(entity, head, &["since"])).await;
    let loaded = place.load(entity).await;
    assert_eq!((loaded.head, loaded.state), (head, Some(bytes("three"))));
    assert_eq!(loaded.tail, [LogRecord { seq: 4, event: true, payload: bytes("since") }]);
}

/// A range may begin and end in the middle of a commit, and outside the log.
pub async fn the_log_is_read_from_and_to_any_sequence<S: Store>(place: &Place<S>) {
    nine_events(place).await;
    for from in 0..=11 {
        for to in 0..=11 {
            let mut expected: Vec<u64> = (from.max(1)..=to.min(9)).collect();
            assert_eq!(read(place, from, to, Order::Asc, 100).await, expected, "{from}..={to}");
            expected.reverse();
            assert_eq!(read(place, from, to, Order::Desc, 100).await, expected, "{from}..={to} descending");
        }
    }
    assert_eq!(read(place, u64::MAX, u64::MAX, Order::Asc, 100).await, Vec::<u64>::new());
}

/// A limit keeps the first records in the requested order.
pub async fn the_log_is_read_in_both_orders_up_to_a_limit<S: Store>(place: &Place<S>) {
    nine_events(place).await;
    for limit in 0..=10 {
        let ascending: Vec<u64> = (2..=8).take(limit).collect();
        let descending: Vec<u64> = (2..=8).rev().take(limit).collect();
        assert_eq!(read(place, 2, 8, Order::Asc, limit).await, ascending);
        assert_eq!(read(place, 2, 8, Order::Desc, limit).await, descending);
    }
}

fn redact(entity: EntityKey, head: Option<Head>, seqs: &[u64]) -> Commit {
    let mut commit = on(entity, head, "redact");
    let redaction = |seq: &u64| Redaction { seq: *seq, payload: bytes(&format!("gone {seq}")) };
    commit.redactions = seqs.iter().map(redaction).collect();
    commit
}

/// Neighbours in the same commit and marks keep their content; missing sequences are skipped.
pub async fn a_redacted_record_is_gone_and_its_place_stays<S: Store>(place: &Place<S>) {
    let entity = place.entity(1);
    let head = nine_events(place).await;
    let head = place.put(redact(entity, Some(head), &[2, 6, 8, 9, 77])).await;
    let head = place.put(redact(entity, Some(head), &[9, 7, 2])).await;
    assert_eq!(head, Head { seq: 9, commit: 7 });
    let head = place.put(events(entity, Some(head), &["event 10"])).await;
    let gone = |seq| [2, 6, 7, 8, 9].contains(&seq);
    let expected = |seq| LogRecord {
        seq,
        event: true,
        payload: bytes(&format!("{} {seq}", if gone(seq) { "gone" } else { "event" })),
    };
    let mut all: Vec<_> = (1..=10).map(expected).collect();
    assert_eq!(place.log(entity, Order::Asc).await, all);
    all.reverse();
    assert_eq!(place.log(entity, Order::Desc).await, all);
    let loaded = place.load(entity).await;
    assert_eq!((loaded.head, loaded.tail.len()), (head, 12));
    let marks = loaded.tail.iter().filter(|record| !record.event);
    assert!(marks.map(|record| &record.payload).all(|payload| *payload == "mark"));
}

/// This also holds where a state was stored before the removal, between the events, or with the removal.
pub async fn a_redacted_record_is_gone_for_loads_too<S: Store>(place: &Place<S>) {
    for state_with in 0..4_u64 {
        let entity = place.entity(state_with);
        let mut commits = vec![events(entity, None, &["one", "two"]), events(entity, None, &["three"])];
        commits.push(redact(entity, None, &[1, 3]));
        let mut head = None;
        for (n, commit) in commits.into_iter().enumerate() {
            let state = (n as u64 == state_with).then(|| bytes("state"));
            head = Some(place.put(Commit { expected: head, state, id: CommitId([n as u8 + 1; 16]), ..commit }).await);
        }
        let loaded = place.load(entity).await;
        let tail: Vec<_> = loaded.tail.iter().map(|record| record.payload.clone()).collect();
        let expected: &[&str] = match state_with {
            0 => &["gone 3"],
            1 | 2 => &[],
            _ => &["gone 1", "two", "gone 3"],
        };
        assert_eq!(tail, expected, "state with commit {state_with}");
        assert_eq!(loaded.head, Head { seq: 3, commit: 3 });
    }
}
