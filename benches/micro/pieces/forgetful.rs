//! A store that keeps configuration and forgets conversations, to measure everything around a store in a run of any
//! length.

use actors::clock::Millis;
use actors::id::{Address, EntityKey, Kind};
use actors::store::memory::MemoryStore;
use actors::store::{
    Commit, Done, Due, DuePage, KeyHash, KeyRow, Loaded, LogRecord, LogScan, Outcome, ReadLevel, Row, Scan, Store,
    StoreError, Table, View,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;

/// See the module's text. It keeps only the first commit of a conversation, so that the conversation can be found.
#[derive(Clone, Default)]
pub(super) struct Forgetful(MemoryStore);

impl Store for Forgetful {
    fn commit(&self, commit: Commit, done: Done) {
        if commit.entity.kind == Kind::Conversation && commit.expected.is_some() {
            done(Ok(Outcome::Committed(commit.next_head())));
        } else {
            self.0.commit(commit, done);
        }
    }

    fn load(&self, entity: EntityKey, read_level: ReadLevel) -> BoxFuture<'_, Result<Option<Loaded>, StoreError>> {
        self.0.load(entity, read_level)
    }

    fn find_key(&self, entity: EntityKey, key: KeyHash) -> BoxFuture<'_, Result<Option<KeyRow>, StoreError>> {
        self.0.find_key(entity, key)
    }

    fn read_log(&self, entity: EntityKey, scan: LogScan) -> BoxFuture<'_, Result<Vec<LogRecord>, StoreError>> {
        self.0.read_log(entity, scan)
    }

    fn row(&self, entity: EntityKey, table: Table, key: Bytes) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        self.0.row(entity, table, key)
    }

    fn rows(&self, entity: EntityKey, table: Table, scan: Scan) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        self.0.rows(entity, table, scan)
    }

    fn view(&self, workspace: Address, view: View, scan: Scan) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        self.0.view(workspace, view, scan)
    }

    fn due(&self, after: Option<Due>, upto: Millis, limit: usize) -> BoxFuture<'_, Result<DuePage, StoreError>> {
        self.0.due(after, upto, limit)
    }

    fn snapshot_every(&self) -> u64 {
        // As in the embedded store.
        32
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.0.close()
    }
}
