//! The embedded store alone.

use std::path::Path;
use std::sync::{Arc, mpsc};

use actors::clock::SystemClock;
use actors::codec;
use actors::store::{Commit, CommitId, Fingerprint, Head, KeyHash, KeyRow, NewRecord, Outcome, SeqRange, Store as _};
use schema::embedded::{EmbeddedStore, Options};
use tempfile::TempDir;

use super::{NOW, Once, entity, record};
use crate::Error;

/// An empty store on the disk of the build; in a temporary directory a sync often costs nothing.
fn open() -> Result<(EmbeddedStore, TempDir), Error> {
    let dir = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    let fatal = |reason| panic!("the embedded store failed: {reason}");
    let options = Options::new(Arc::new(SystemClock), Box::new(fatal)).cache_bytes(4 << 20);
    Ok((EmbeddedStore::open(dir.path(), options)?, dir))
}

/// One message and its idempotency key become durable, with nothing else in flight.
pub(super) fn commit() -> Result<Once, Error> {
    // Both live as long as the closure; the store is dropped first.
    let opened = open()?;
    let payload = codec::encode_record(&record());
    let mut head: Option<Head> = None;
    Ok(Box::new(move || {
        let nth = head.map_or(0, |head| head.commit) + 1;
        let mut id = [0; 16];
        id[8..].copy_from_slice(&nth.to_be_bytes());
        let commit = Commit {
            records: vec![NewRecord { event: true, payload: payload.clone() }],
            keys: vec![(KeyHash(id), KeyRow::new(Fingerprint([9; 16]), SeqRange::one(nth), NOW))],
            ..Commit::on(entity(), head, CommitId(id), NOW)
        };
        let (done, outcome) = mpsc::sync_channel(1);
        // The receiver is right below.
        opened.0.commit(commit, Box::new(move |outcome| drop(done.send(outcome))));
        let Ok(Ok(Outcome::Committed(next))) = outcome.recv() else { unreachable!("nobody else commits") };
        head = Some(next);
        let _ = &opened.1;
    }))
}
