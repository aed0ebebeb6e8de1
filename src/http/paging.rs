//! Lists in pages: `?limit=`, `?cursor=`, `?order=`, and their answers.
//!
//! A cursor is opaque to clients. It contains a position in its list, a version, and a checksum over both, the list's
//! name and its order. So a cursor of another list, of the other order, of another release or of a client's own making
//! is refused instead of being read as some position. It is no secret and grants nothing: the list's own checks apply.

use std::borrow::Cow;

use actors::store::Order;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, StatusCode, Uri, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;

use super::answer::json_text;
use super::context::render::internal_error;
use super::query::{Query, decode as decoded};
use crate::json::write::Members;
use crate::problem::{Fault, Problem};
use crate::wire::digits::digits;

mod page_items;
mod scan_budget;

pub(super) use page_items::PageItems;
pub(super) use scan_budget::ScanBudget;

/// Items in a page unless the client sets a limit.
pub const DEFAULT_LIMIT: usize = 50;
/// Most items in a page.
pub const MAX_LIMIT: usize = 200;
/// About how many bytes of messages or events a page has, or one item. A page of long ones is shorter than requested,
/// and its cursor continues: slow readers of large pages hold no more memory than this.
pub(super) const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// The encoding of cursors; a new one makes old cursors invalid.
const VERSION: u8 = 1;
/// Bytes of the checksum.
const CHECKSUM_BYTES: usize = 8;
/// The characters escaped in a link: targets may contain raw UTF-8; a header may not. `<` and `>` would end the
/// reference early.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'<').add(b'>').add(b'"');
/// About how many bytes a page has besides its items.
const ENVELOPE_BYTES: usize = 128;

/// The requested page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Items at most; 1 to [`MAX_LIMIT`].
    pub limit: usize,
    /// The position after which the page begins, from [`Page::next`]; `None` for the first page.
    pub cursor: Option<Vec<u8>>,
    /// The order; ascending is oldest first.
    pub order: Order,
}

impl PageRequest {
    /// Reads the page of `list` that `query` requests. The list's name contains everything that its positions depend
    /// on, for example `conversations/conv_…/messages`; a cursor made under another name is refused.
    ///
    /// # Errors
    /// 400 with every fault: `unknown_field` for names that the route does not read, if the query is strict;
    /// `invalid_type` or `out_of_range` at `/limit`, `invalid_cursor` at `/cursor`, `invalid_enum` at `/order`.
    pub fn from_query(query: &Query, list: &str) -> Result<Self, Problem> {
        let mut faults = query.unknown_faults();
        let limit = query.get("limit").map_or(Ok(DEFAULT_LIMIT), limit).map_err(|fault| faults.push(fault));
        let cursor = match query.get("cursor") {
            None => Ok(None),
            Some(text) => {
                decode(text, &cursor_scope(list, query)).map(Some).ok_or_else(|| faults.push(invalid_cursor()))
            }
        };
        let order = match query.get("order") {
            None | Some("asc") => Ok(Order::Asc),
            Some("desc") => Ok(Order::Desc),
            Some(_) => {
                faults.push(Fault::new("/order", "invalid_enum", "order must be one of asc, desc"));
                Err(())
            }
        };
        match (limit, cursor, order) {
            (Ok(limit), Ok(cursor), Ok(order)) if faults.is_empty() => Ok(Self { limit, cursor, order }),
            _ => Err(Problem::invalid(faults)),
        }
    }

    /// The position of a list whose positions are sequences.
    #[must_use]
    pub fn seq(&self) -> Option<u64> {
        self.cursor.as_deref().and_then(|cursor| cursor.try_into().ok()).map(u64::from_be_bytes)
    }
}

/// The position of an item in a list whose positions are sequences; see [`PageRequest::seq`].
#[must_use]
pub fn position_of(seq: u64) -> Vec<u8> {
    seq.to_be_bytes().to_vec()
}

fn limit(text: &str) -> Result<usize, Fault> {
    let number = digits(text.strip_prefix('-').unwrap_or(text));
    let number = number.ok_or_else(|| Fault::new("/limit", "invalid_type", "limit must be a whole number"))?;
    match usize::try_from(number) {
        Ok(limit @ 1..=MAX_LIMIT) if !text.starts_with('-') => Ok(limit),
        _ => Err(Fault::new("/limit", "out_of_range", format!("limit must be from 1 to {MAX_LIMIT}"))),
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in the list's order.
    pub data: Vec<T>,
    /// The position after the last item; `None` at the end of the list.
    pub next: Option<Vec<u8>>,
}

impl<T: Serialize> Page<T> {
    /// The one page of an empty list.
    #[must_use]
    pub fn empty() -> Self {
        Self { data: Vec::new(), next: None }
    }

    /// The answer: `{data, nextCursor, hasMore}`, and a `Link` to the next page with an otherwise equal query. `uri` is
    /// the request's own target and `list` the name given to [`PageRequest::from_query`].
    #[must_use]
    pub fn into_response(self, list: &str, uri: &Uri) -> Response {
        let mut failed = None;
        let response = self.render_with(list, uri, 0, |out, item| {
            failed = failed.take().or(serde_json::to_writer(out, item).err());
        });
        match failed {
            None => response,
            Some(error) => {
                tracing::error!(%error, list, "a page could not be written as JSON");
                internal_error().into_response()
            }
        }
    }
}

impl<T> Page<T> {
    /// A page of at most `limit` of the items that were read, which are one more than that unless the list ends with
    /// them; `position` is that of an item.
    pub fn cut(mut items: Vec<T>, limit: usize, position: impl FnOnce(&T) -> Vec<u8>) -> Self {
        let continues = items.len() > limit;
        items.truncate(limit);
        Self::of(items, continues, position)
    }

    /// A page with these items; `continues`: the list has more of them.
    pub fn of(data: Vec<T>, continues: bool, position: impl FnOnce(&T) -> Vec<u8>) -> Self {
        let next = data.last().filter(|_| continues).map(position);
        Self { data, next }
    }

    /// The answer as of [`Page::into_response`], where `write` writes an item as JSON; `bytes`: about the size of all
    /// items.
    #[must_use]
    pub fn render_with(&self, list: &str, uri: &Uri, bytes: usize, write: impl FnMut(&mut Vec<u8>, &T)) -> Response {
        let cursor = self.next.as_deref().map(|position| {
            let query = Query::parse(uri.query()).unwrap_or_default();
            encode(position, &cursor_scope(list, &query))
        });
        let mut body = Vec::with_capacity(ENVELOPE_BYTES + bytes);
        let mut members = Members::begin(&mut body);
        members.array("data", &self.data, write);
        match &cursor {
            Some(cursor) => members.plain("nextCursor", cursor),
            None => members.json("nextCursor", "null"),
        }
        members.json("hasMore", if cursor.is_some() { "true" } else { "false" });
        members.end();
        let mut response = json_text(StatusCode::OK, body);
        if let Some(link) = cursor.and_then(|cursor| link(uri, &cursor)) {
            response.headers_mut().insert(header::LINK, link);
        }
        response
    }
}

/// `<path?query>; rel="next"`, relative to the server, because only the client knows the name by which it reached it.
fn link(uri: &Uri, cursor: &str) -> Option<HeaderValue> {
    let mut link = String::from("<");
    link.extend(utf8_percent_encode(uri.path(), ESCAPED));
    let mut before = '?';
    for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        if pair.split('=').next().and_then(decoded).as_deref() == Some("cursor") {
            continue;
        }
        link.push(before);
        link.extend(utf8_percent_encode(pair, ESCAPED));
        before = '&';
    }
    link.push(before);
    link.push_str("cursor=");
    link.push_str(cursor);
    link.push_str(">; rel=\"next\"");
    HeaderValue::try_from(link).ok()
}

/// The fault of a cursor that is not of this list.
pub(super) fn invalid_cursor() -> Fault {
    let message = "cursor must be the nextCursor of a page of this list in this order";
    Fault::new("/cursor", "invalid_cursor", message)
}

/// The list, and its order: a position means another page in the other order.
fn cursor_scope<'l>(list: &'l str, query: &Query) -> Cow<'l, str> {
    if query.get("order") == Some("desc") { Cow::Owned(format!("{list}/desc")) } else { Cow::Borrowed(list) }
}

fn encode(position: &[u8], list: &str) -> String {
    let mut bytes = Vec::with_capacity(1 + CHECKSUM_BYTES + position.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&sum(position, list));
    bytes.extend_from_slice(position);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(text: &str, list: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (version, rest) = bytes.split_first()?;
    let (given, position) = rest.split_at_checked(CHECKSUM_BYTES)?;
    (*version == VERSION && given == sum(position, list)).then(|| position.to_vec())
}

fn sum(position: &[u8], list: &str) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[VERSION]).update(&(list.len() as u64).to_le_bytes()).update(list.as_bytes()).update(position);
    let mut out = [0; CHECKSUM_BYTES];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_BYTES]);
    out
}

#[cfg(test)]
mod tests;
