//! Content that is redacted in the log.

use actors::store::conformance::on;
use actors::store::{LogScan, Order, Redaction, SeqRange};
use bytes::Bytes;

use super::*;

const WORDS: &[u8] = b"their-words-that-must-go";

async fn redact(store: &EmbeddedStore, entity: EntityKey, head: Head, seqs: &[u64]) -> Head {
    let mut next = on(entity, Some(head), "redact");
    next.redactions = seqs.iter().map(|seq| Redaction { seq: *seq, payload: Bytes::from_static(b"gone") }).collect();
    match commit(store, next).await {
        Ok(Outcome::Committed(head)) => head,
        other => panic!("{other:?}"),
    }
}

/// The files under `dir` that contain the words.
fn found_in(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if std::fs::read(&path).unwrap().windows(WORDS.len()).any(|part| part == WORDS) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[tokio::test]
async fn the_chain_of_a_log_holds_when_something_was_taken_out_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut heads = Vec::new();
    for n in 0..40 {
        let mut head = append(&store, entity(n), None, "first").await;
        for payload in ["second", "third", "fourth"] {
            head = append(&store, entity(n), Some(head), payload).await;
        }
        heads.push(head);
    }
    // All at once, so that the writer would tend to batch them.
    let redactions = heads.iter().zip(0..).map(|(head, n)| redact(&store, entity(n), *head, &[1, 3]));
    futures_util::future::join_all(redactions).await;
    store.flush().unwrap();
    drop(store);
    let report = schema::embedded::verify(dir.path()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    let store = open(dir.path());
    for n in 0..40 {
        assert_eq!(payloads(&store, entity(n)).await, ["gone", "second", "gone", "fourth"]);
        assert_eq!(
            store
                .read_log(entity(n), LogScan { range: SeqRange::upto(9), order: Order::Desc, limit: 9 })
                .await
                .unwrap()
                .len(),
            4
        );
    }
}

#[tokio::test]
async fn once_the_engine_has_moved_on_the_words_are_in_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let words = String::from_utf8_lossy(WORDS);
    let head = append(&store, entity(1), None, &words).await;
    let head = append(&store, entity(1), Some(head), "other").await;
    store.compact().unwrap();
    assert_ne!(found_in(dir.path()), [""; 0], "the search finds what is there");
    redact(&store, entity(1), head, &[1]).await;
    // Writes to other entities move the journals on, and a compaction after that keeps no older form.
    let mut head = None;
    for _ in 0..70 {
        head = Some(append(&store, entity(2), head, &"x".repeat(1 << 20)).await);
    }
    for _ in 0..2 {
        store.compact().unwrap();
        head = Some(append(&store, entity(2), head, "x").await);
    }
    assert_eq!(found_in(dir.path()), [""; 0]);
    drop(store);
    assert!(schema::embedded::verify(dir.path()).unwrap().is_clean());
}
