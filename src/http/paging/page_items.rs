//! The items of a page that is being composed.

use super::{PAGE_BYTES, Page};

/// Items as long as they fit on one page.
#[derive(Debug)]
pub(in crate::http) struct PageItems<T> {
    items: Vec<T>,
    limit: usize,
    bytes: usize,
}

impl<T> PageItems<T> {
    /// A page with room for `limit` items, at least one, and about [`PAGE_BYTES`].
    pub(in crate::http) fn of(limit: usize) -> Self {
        Self { items: Vec::new(), limit, bytes: 0 }
    }

    /// Adds an item of about `weight` bytes; `false`: there was no room for it, and it is dropped. The first one has
    /// room whatever it weighs: otherwise no page could continue after it.
    #[must_use]
    pub(in crate::http) fn push(&mut self, item: T, weight: usize) -> bool {
        let bytes = self.bytes.saturating_add(weight);
        if self.items.len() >= self.limit || (!self.items.is_empty() && bytes > PAGE_BYTES) {
            return false;
        }
        self.bytes = bytes;
        self.items.push(item);
        true
    }

    /// The page, with the position after its last item; `None`: the list ends there.
    pub(in crate::http) fn into_page(self, next: Option<Vec<u8>>) -> Page<T> {
        Page { data: self.items, next }
    }
}
