//! Lists of a workspace: projections of commits, written after them.
//!
//! A commit's list entries are in its own row too. The committing process writes them before the entity's next commit,
//! and a process that loads an entity whose newest commit may lack them writes them again; so at most the newest
//! commit's are missing. If no process loads the entity, the scan finds it by a row of the due index that was written
//! before the commit. Writing them again changes nothing: each has the commit's write time, which ascends within an
//! entity.
//!
//! A commit's redactions of the log follow the same way (see `redact`): the content must not be removed before the
//! commit is known to be applied, and must not remain after it.

use std::collections::BTreeMap;

use actors::clock::Millis;
use actors::id::{Address, EntityKey};
use actors::store::{CommitId, Order, Redaction, Row, Scan, StoreError, View, ViewWrite};
use bytes::Bytes;
use dashmap::DashSet;

use super::CqlStore;
use super::heads::Reading;
use super::known_heads::KnownHead;
use super::layout::{
    DueKind, DueRow, FollowUps, commit_row, decode_follow_ups, entity_bytes, list_part, part_begin, slot, unsigned,
};
use super::plan::LISTS_AFTER_MILLIS;
use super::read::Stretch;

/// Parts known to exist; all are forgotten at once if there are more.
const MAX_KNOWN_PARTS: usize = 100_000;
/// Parts read at once.
const PARTS_PER_READ: i32 = 8;

/// A part of a list of a workspace.
type Part = (Address, u8, i32);

/// Parts of lists known to exist, so that they need not be written again.
#[derive(Debug, Default)]
pub(super) struct Parts(DashSet<Part>);

/// The writes that follow from a commit, by its row.
struct RowWithFollowUps {
    stamp: i64,
    at: Millis,
    follows: FollowUps,
}

impl CqlStore {
    /// Does the writes that follow from the commit `by`.
    pub(super) async fn follow(
        &self,
        entity: EntityKey,
        (by, stamp): (CommitId, i64),
        views: &[ViewWrite],
        redactions: &[Redaction],
    ) -> Result<(), StoreError> {
        let (listed, redacted) = tokio::join!(self.project(entity, stamp, views), self.redact(entity, by, redactions));
        listed.and(redacted)
    }

    /// Writes the list entries of a commit.
    async fn project(&self, entity: EntityKey, stamp: i64, writes: &[ViewWrite]) -> Result<(), StoreError> {
        // Of several writes of one entry the last one counts; with equal write times the store would choose.
        let mut parts: BTreeMap<(u8, i32), BTreeMap<&Bytes, &Option<Bytes>>> = BTreeMap::new();
        for write in writes {
            let part = (write.view.0, list_part(&write.key));
            parts.entry(part).or_default().insert(&write.key, &write.value);
        }
        let writing = parts.into_iter().map(|((list, part), entries)| async move {
            self.part(entity.workspace, list, part).await?;
            let statements = &self.db().statements;
            let workspace = &entity.workspace.0[..];
            for (key, value) in entries {
                let list = i16::from(list);
                let key = &key[..];
                match value {
                    Some(value) => {
                        let values = (workspace, list, part, key, &value[..], stamp);
                        self.db().write(&statements.put_entry, values).await?;
                    }
                    None => {
                        let values = (stamp, workspace, list, part, key);
                        self.db().write(&statements.delete_entry, values).await?;
                    }
                }
            }
            Ok(())
        });
        futures_util::future::try_join_all(writing).await.map(drop)
    }

    /// Ensures that a part of a list is recorded.
    async fn part(&self, workspace: Address, list: u8, part: i32) -> Result<(), StoreError> {
        let known = &self.parts().0;
        if known.contains(&(workspace, list, part)) {
            return Ok(());
        }
        self.db().write(&self.db().statements.put_part, (&workspace.0[..], i16::from(list), part)).await?;
        if known.len() >= MAX_KNOWN_PARTS {
            known.clear();
        }
        known.insert((workspace, list, part));
        Ok(())
    }

    /// Does the writes that follow from the newest commit, which may be missing, and ends their supervision.
    pub(super) async fn project_again(&self, entity: EntityKey, known: &KnownHead) -> Result<(), StoreError> {
        let mut listed = self.listed(entity, known).await?;
        // While the commit is not settled its head may be visible before its row, or be missed by the next read; and
        // its redactions would be missed.
        if !known.settled && listed.as_ref().is_none_or(|listed| !listed.follows.redactions.is_empty()) {
            self.settle_bucket(entity, known.bucket).await?;
            listed = self.listed(entity, known).await?;
        }
        let Some(RowWithFollowUps { stamp, at, follows }) = listed else {
            // A later commit, which completed this one first, may have redacted them.
            let newest = self.newest_head(entity, Reading::Settled).await?;
            if newest.is_some_and(|newest| newest.known.head.commit > known.head.commit) {
                return Ok(());
            }
            return Err(StoreError::Corrupt("a commit that changes lists has no entries".into()));
        };
        self.follow(entity, (known.id, stamp), &follows.views, &follows.redactions).await?;
        if known.bucket > 0 && known.head.commit == known.base.commit + 1 {
            // It opened its bucket: the row stays until the bucket before is emptied.
            return Ok(());
        }
        let at = at.plus(LISTS_AFTER_MILLIS);
        // The slot is that of its time unless it was written very late; the scan finds such a row.
        self.forget_due(entity, DueKind::Lists, DueRow { at, slot: slot(at), id: known.id }).await
    }

    /// The writes that follow from the newest commit, by its row.
    async fn listed(&self, entity: EntityKey, known: &KnownHead) -> Result<Option<RowWithFollowUps>, StoreError> {
        let (n, k) = commit_row(known.head);
        let values = (&entity_bytes(entity)[..], known.bucket, n, &k[..]);
        let row: Option<(i64, i64, Option<Bytes>)> = self.db().select_one(&self.db().statements.lists, values).await?;
        let Some((stamp, at, Some(lists))) = row else { return Ok(None) };
        Ok(Some(RowWithFollowUps { stamp, at: Millis(unsigned(at)), follows: decode_follow_ups(&lists)? }))
    }

    /// See `Store::view`.
    pub(super) async fn list(&self, workspace: Address, view: View, scan: &Scan) -> Result<Vec<Row>, StoreError> {
        let order = scan.order;
        let limit = scan.limit;
        let Some(mut stretch) = Stretch::new(&scan.range).filter(|_| scan.limit > 0) else { return Ok(Vec::new()) };
        let mut rows = Vec::new();
        loop {
            let parts = self.parts_of(workspace, view, &stretch, order).await?;
            let Some(last) = parts.last().copied() else { return Ok(rows) };
            for part in &parts {
                let left = limit - rows.len();
                rows.extend(self.entries(workspace, view, *part, &stretch, order, left).await?);
                if rows.len() == limit {
                    return Ok(rows);
                }
            }
            if parts.len() < PARTS_PER_READ as usize {
                return Ok(rows);
            }
            // Continues with the parts after the last one.
            let Some(rest) = behind_part(&stretch, last, order) else { return Ok(rows) };
            stretch = rest;
        }
    }

    async fn parts_of(
        &self,
        workspace: Address,
        view: View,
        stretch: &Stretch,
        order: Order,
    ) -> Result<Vec<i32>, StoreError> {
        let statement = match order {
            Order::Asc => &self.db().statements.parts_asc,
            Order::Desc => &self.db().statements.parts_desc,
        };
        let from = list_part(&stretch.from);
        let until = list_part(&stretch.until);
        let values = (&workspace.0[..], i16::from(view.0), from, until, PARTS_PER_READ);
        let parts: Vec<(i32,)> = self.db().select(statement, values).await?;
        Ok(parts.into_iter().map(|(part,)| part).collect())
    }

    async fn entries(
        &self,
        workspace: Address,
        view: View,
        part: i32,
        stretch: &Stretch,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let statement = match order {
            Order::Asc => &self.db().statements.entries_asc,
            Order::Desc => &self.db().statements.entries_desc,
        };
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let values = (&workspace.0[..], i16::from(view.0), part, &stretch.from, &stretch.until, limit);
        let rows: Vec<(Bytes, Bytes)> = self.db().select(statement, values).await?;
        Ok(rows.into_iter().map(|(key, value)| Row { key, value }).collect())
    }
}

/// The rest of a range of keys after a part.
fn behind_part(stretch: &Stretch, part: i32, order: Order) -> Option<Stretch> {
    let mut rest = stretch.clone();
    match order {
        Order::Asc => rest.from = part_begin(part + 1)?,
        Order::Desc => rest.until = part_begin(part)?,
    }
    (rest.from < rest.until).then_some(rest)
}
