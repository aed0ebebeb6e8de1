//! `search_memories`: memories of the conversation's contact or owner.

use actors::tool::Plan;

use crate::json::Object;
use crate::json::fields::{Fields, Length};
use crate::json::report::Report;

/// The longest query, in characters.
const MAX_QUERY_CHARS: usize = actors::limits::QUERY_CHARS;
/// The most memories of one answer, and the default.
const LIMIT: (i64, usize) = (20, 5);

/// `{query, limit?}`.
pub(super) fn plan(arguments: Object<'_>, report: &mut Report) -> Option<Plan> {
    let mut fields = Fields::root(arguments, report);
    let query = fields.required_string(report, "query", Length::chars(1, MAX_QUERY_CHARS));
    let limit = match fields.optional("limit") {
        Some(value) => value.integer(report, 1..=LIMIT.0).and_then(|limit| usize::try_from(limit).ok()),
        None => Some(LIMIT.1),
    };
    Some(Plan::Recall { query: query?.into_owned(), limit: limit? })
}
