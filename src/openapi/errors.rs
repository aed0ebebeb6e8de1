//! Every error that a client can see, and the page that explains it.

/// The page of one error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    /// The `code` of the problem or of one of its faults.
    pub code: &'static str,
    /// The page from `docs/errors`: Markdown.
    pub text: &'static str,
}

impl ErrorPage {
    /// The heading, without the code.
    #[must_use]
    pub fn title(&self) -> &'static str {
        let heading = self.text.lines().next().unwrap_or_default();
        heading.split_once(": ").map_or(heading, |(_, title)| title)
    }

    /// Its status, in words.
    #[must_use]
    pub fn status(&self) -> &'static str {
        self.text.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or_default()
    }
}

/// A page for each name; a missing file fails the build.
macro_rules! pages {
    ($($code:literal)*) => {
        &[$(ErrorPage { code: $code, text: include_str!(concat!("../../docs/errors/", $code, ".md")) }),*]
    };
}

/// By code. A test compares it with the directory.
pub const ERRORS: &[ErrorPage] = pages! {
    "agent_backlog"
    "agent_exists"
    "agent_failed"
    "agent_in_use"
    "agent_not_found"
    "already_voted"
    "ambiguous_message_shape"
    "attachment_already_linked"
    "attachment_not_found"
    "attachment_too_large"
    "batch_too_large"
    "blocked_url"
    "body_too_large"
    "channel_disabled"
    "channel_exists"
    "channel_has_no_agent"
    "channel_id_mismatch"
    "channel_kind_mismatch"
    "channel_not_found"
    "conflict"
    "contact_not_found"
    "contended"
    "content_type_mismatch"
    "conversation_backlog"
    "conversation_closed"
    "conversation_erased"
    "conversation_id_mismatch"
    "conversation_not_closable"
    "conversation_not_found"
    "delivery_not_found"
    "duplicate_field"
    "duplicate_value"
    "empty_batch"
    "empty_message"
    "endpoint_deleted"
    "endpoint_not_found"
    "expiry_in_past"
    "expiry_too_far"
    "forbidden"
    "forbidden_header"
    "idempotency_in_progress"
    "idempotency_key_conflict"
    "idempotency_key_reused"
    "immutable_field"
    "incomplete_body"
    "insufficient_scope"
    "internal_error"
    "invalid_characters"
    "invalid_cursor"
    "invalid_datetime"
    "invalid_enum"
    "invalid_header"
    "invalid_id"
    "invalid_idempotency_key"
    "invalid_query"
    "invalid_request"
    "invalid_response"
    "invalid_role"
    "invalid_schema"
    "invalid_type"
    "invalid_url"
    "key_not_found"
    "malformed_form"
    "malformed_json"
    "media_timeout"
    "media_too_large"
    "media_type_mismatch"
    "media_unreachable"
    "memory_not_found"
    "message_deleted"
    "message_not_found"
    "method_not_allowed"
    "not_acceptable"
    "not_found"
    "not_implemented"
    "not_the_sender"
    "out_of_range"
    "outcome_unknown"
    "overloaded"
    "parent_not_found"
    "precondition_failed"
    "range_not_satisfiable"
    "rate_limited"
    "request_failed"
    "request_timeout"
    "required"
    "responder_not_allowed"
    "review_already_completed"
    "review_expired"
    "review_not_found"
    "stopping"
    "store_unavailable"
    "too_deep"
    "too_few"
    "too_large"
    "too_long"
    "too_many"
    "too_many_endpoints"
    "too_many_votes"
    "too_short"
    "turn_in_progress"
    "turn_not_found"
    "turn_over"
    "unauthenticated"
    "unavailable"
    "unknown_field"
    "unknown_message_shape"
    "unsupported_media_type"
    "uri_too_long"
    "workspace_exists"
    "workspace_forbidden"
    "workspace_not_found"
};
