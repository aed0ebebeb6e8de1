//! Pages of a workspace's lists: contacts, conversations, reviews.

use std::time::Duration;

use actors::clock::Millis;
use actors::id::Address;
use actors::store::{KeyRange, Order, Scan, View};
use bytes::Bytes;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::paging::{Page, PageItems, PageRequest, ScanBudget};
use crate::app::App;
use crate::problem::Problem;

/// Entries loaded for one page. A filter with few matches gives a short page with a cursor after it instead of an
/// unbounded request.
const MAX_LOADED: usize = 2_000;
/// Entries for one page whose key alone says that they are not in it.
const SKIPPED: ScanBudget = ScanBudget { at_first: 50_000, in_any_case: MAX_LOADED };
/// Entries read at once where many are skipped.
const ENTRIES_PER_READ: usize = 1_000;
/// Milliseconds after which an entry with an early position is in its list, even under load. If that takes longer, the
/// store is in trouble.
const LISTED_MILLIS: u64 = 100;

/// A list, or the part of it with a prefix.
pub(super) struct Listing<'a> {
    pub(super) workspace: Address,
    pub(super) view: View,
    /// Empty for the whole list.
    pub(super) prefix: &'a [u8],
    /// Its entries get their position, a time after the prefix, some steps before they are stored, rather than with the
    /// stored decision.
    pub(super) placed_early: bool,
}

impl Listing<'_> {
    /// One page. In ascending order, a page that is not the last is read once more if its end is so new that an earlier
    /// entry may not be stored yet: a client never returns to positions before its cursor.
    ///
    /// `load` gets an entry's key without the prefix and returns its item, and about how many bytes the item has in the
    /// answer; `None`: filtered out, or deleted.
    ///
    /// # Errors
    /// 503 if the store cannot be read, 500 if the stored data cannot; the errors of `load`.
    pub(super) async fn page<T, F>(
        &self,
        app: &App,
        request: &PageRequest,
        load: impl Fn(Bytes) -> F,
    ) -> Result<Page<T>, Problem>
    where
        F: Future<Output = Result<Option<(T, usize)>, Problem>>,
    {
        self.page_where(app, request, |_| true, load).await
    }

    /// One page of those entries whose key, without the prefix, is `wanted`. The others are not loaded, so a page may
    /// skip many more of them than entries that `load` filters out.
    ///
    /// # Errors
    /// As [`Listing::page`].
    pub(super) async fn page_where<T, F>(
        &self,
        app: &App,
        request: &PageRequest,
        wanted: impl Fn(&[u8]) -> bool,
        load: impl Fn(Bytes) -> F,
    ) -> Result<Page<T>, Problem>
    where
        F: Future<Output = Result<Option<(T, usize)>, Problem>>,
    {
        let page = self.read(app, request, &wanted, &load).await?;
        let at = page.next.as_deref().filter(|_| self.placed_early && request.order == Order::Asc);
        let at = at.and_then(|at| at.get(self.prefix.len()..)?.first_chunk().copied()).map(Millis::from_bytes);
        // The time of a position may be slightly ahead of the clock.
        match at.map_or(0, |at| at.plus(LISTED_MILLIS).since(app.node().now()).min(2 * LISTED_MILLIS)) {
            0 => Ok(page),
            left => {
                sleep(Duration::from_millis(left)).await;
                self.read(app, request, &wanted, &load).await
            }
        }
    }

    async fn read<T, F>(
        &self,
        app: &App,
        request: &PageRequest,
        wanted: impl Fn(&[u8]) -> bool,
        load: impl Fn(Bytes) -> F,
    ) -> Result<Page<T>, Problem>
    where
        F: Future<Output = Result<Option<(T, usize)>, Problem>>,
    {
        let began = Instant::now();
        let mut chunk = request.limit + 1;
        let mut at = request.cursor.clone();
        let mut items = PageItems::of(request.limit);
        let (mut loaded, mut skipped) = (0, 0);
        loop {
            let range = range_after(self.prefix, at.as_deref(), request.order);
            let rows = app.node().view(self.workspace, self.view, Scan::new(range, request.order, chunk)).await?;
            for row in &rows {
                let key = row.key.slice(self.prefix.len().min(row.key.len())..);
                let is_wanted = wanted(&key);
                let item = if is_wanted { load(key).await? } else { None };
                if let Some((found, weight)) = item
                    && !items.push(found, weight)
                {
                    return Ok(items.into_page(at));
                }
                loaded += usize::from(is_wanted);
                skipped += usize::from(!is_wanted);
                at = Some(row.key.to_vec());
            }
            if rows.len() < chunk {
                return Ok(items.into_page(None));
            }
            if loaded >= MAX_LOADED || SKIPPED.is_spent(skipped, began.elapsed()) {
                return Ok(items.into_page(at));
            }
            if skipped > 0 {
                chunk = chunk.max(ENTRIES_PER_READ);
                yield_now().await;
            }
        }
    }
}

/// The keys that begin with `prefix` and come after the cursor.
pub(super) fn range_after(prefix: &[u8], cursor: Option<&[u8]>, order: Order) -> KeyRange {
    let KeyRange { after, before } = KeyRange::under(prefix);
    let cursor = cursor.map(Bytes::copy_from_slice);
    match order {
        Order::Asc => KeyRange { after: cursor.or(after), before },
        Order::Desc => KeyRange { after, before: cursor.or(before) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(bytes: &[u8]) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn a_range_holds_what_begins_with_the_prefix_and_nothing_else() {
        let range = range_after(b"a\xff", None, Order::Asc);
        assert_eq!((range.after, range.before), (bytes(b"a\xff"), bytes(b"b")));
        assert_eq!(range_after(b"", None, Order::Desc), KeyRange::default());
        assert_eq!(range_after(b"\xff\xff", None, Order::Asc).before, None);
    }

    #[test]
    fn a_cursor_cuts_off_what_was_shown() {
        let ascending = range_after(b"a", Some(b"a3"), Order::Asc);
        assert_eq!((ascending.after, ascending.before), (bytes(b"a3"), bytes(b"b")));
        let descending = range_after(b"a", Some(b"a3"), Order::Desc);
        assert_eq!((descending.after, descending.before), (bytes(b"a"), bytes(b"a3")));
    }
}
