//! The answer to a message does not depend on the store.

use std::collections::BTreeMap;

use crate::support::script::{Script, everything};
use crate::support::{Kind, TestApp, TestStore};

/// The text with each id, secret and checksum of ids replaced by its ordinal, because they are random.
fn without_ids(text: &str) -> String {
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let mut out = String::new();
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_:+/=".contains(c);
    for part in text.split_inclusive(|c| !is_word(c)) {
        let word = part.trim_end_matches(|c| !is_word(c));
        let of = |prefix: &str, least: usize| word.strip_prefix(prefix).is_some_and(|rest| rest.len() >= least);
        let prefixes = ["msg_", "conv_", "cont_", "chan_", "agt_", "key_", "turn_", "evt_", "mem_", "whsec_", "tert_"];
        if prefixes.iter().any(|prefix| of(prefix, 26)) || of("sha256:", 64) {
            let next = known.len();
            let which = known.entry(word.to_owned()).or_insert(next);
            let prefix = word.split(['_', ':']).next().unwrap();
            out += &format!("{prefix}#{which}{}", &part[word.len()..]);
        } else {
            out += part;
        }
    }
    out
}

/// All answers of a server on a store of this kind, without ids.
async fn said(kind: Kind) -> Vec<String> {
    let app = TestApp::start(TestStore::of(kind).await, &[]).await;
    let mut said = Vec::new();
    for sent in Script::play(&app).await {
        said.push(format!("{} {}", sent.answer.status, String::from_utf8_lossy(&sent.answer.bytes)));
        if sent.is_kept() {
            let again = sent.again(&app).await;
            assert_eq!(again.header("idempotent-replayed"), "true");
            assert_eq!(String::from_utf8_lossy(&again.bytes), String::from_utf8_lossy(&sent.answer.bytes));
        }
    }
    for (path, answer) in everything(&app).await {
        // Separated, so that ids in the path are words too.
        let path = path.replace('/', " / ");
        said.push(format!("GET {path} {}", String::from_utf8_lossy(&answer.bytes)));
    }
    // One text, so that an id gets the same ordinal everywhere.
    without_ids(&said.join("\n")).lines().map(str::to_owned).collect()
}

fn compare(one: &[String], other: &[String]) {
    for (one, other) in one.iter().zip(other) {
        assert_eq!(one, other);
    }
    assert_eq!(one.len(), other.len());
}

/// Ids apart.
#[tokio::test]
async fn the_embedded_store_answers_the_same_bytes_as_the_one_in_memory() {
    let memory = said(Kind::Memory).await;
    let embedded = said(Kind::Embedded).await;
    assert!(memory.len() > 60 && memory.iter().any(|line| line.contains("conv#")), "{memory:#?}");
    compare(&memory, &embedded);
}

/// Ids apart.
#[tokio::test]
async fn the_cql_store_answers_the_same_bytes_as_the_embedded_one() {
    if bed::server().is_none() {
        return;
    }
    compare(&said(Kind::Embedded).await, &said(Kind::Cql).await);
}
