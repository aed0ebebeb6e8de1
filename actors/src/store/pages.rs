//! Whole lists, read page by page.

use std::time::Duration;

use super::{KeyRange, Order, Row, Scan, Store, StoreError, Table, View};
use crate::id::{Address, EntityKey};
use crate::tasks::backoff::retry_transient;

/// The unread rest of a list, in ascending order.
pub struct Pages<'s> {
    store: &'s dyn Store,
    list: List,
    range: KeyRange,
    limit: usize,
    /// How long each page is retried.
    within: Duration,
    is_over: bool,
}

#[derive(Clone, Copy)]
enum List {
    Rows(EntityKey, Table),
    View(Address, View),
}

impl<'s> Pages<'s> {
    /// Keyed rows, `limit` of them at once.
    pub fn of_rows(store: &'s dyn Store, entity: EntityKey, table: Table, range: KeyRange, limit: usize) -> Self {
        Self { store, list: List::Rows(entity, table), range, limit, within: Duration::ZERO, is_over: false }
    }

    /// Entries of a workspace's list, `limit` of them at once.
    pub fn of_view(store: &'s dyn Store, workspace: Address, view: View, range: KeyRange, limit: usize) -> Self {
        Self { store, list: List::View(workspace, view), range, limit, within: Duration::ZERO, is_over: false }
    }

    /// Retries a failed page for up to `within`.
    #[must_use]
    pub fn patient(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    /// The next page; `None`: there is no more.
    ///
    /// # Errors
    ///
    /// `StoreError` if the store cannot be read; the next call reads the same page.
    pub async fn next(&mut self) -> Result<Option<Vec<Row>>, StoreError> {
        if self.is_over {
            return Ok(None);
        }
        let scan = Scan::new(self.range.clone(), Order::Asc, self.limit);
        let page = retry_transient(self.within, || match self.list {
            List::Rows(entity, table) => self.store.rows(entity, table, scan.clone()),
            List::View(workspace, view) => self.store.view(workspace, view, scan.clone()),
        });
        let page = page.await?;
        self.is_over = page.len() < self.limit;
        self.range.after = page.last().map(|row| row.key.clone());
        Ok((!page.is_empty()).then_some(page))
    }
}
