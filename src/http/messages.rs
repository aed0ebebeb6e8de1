//! Messages: one path for two shapes, the channel routes that share it, and reading them back.

use std::sync::Arc;

use actors::channel::{Channel, ChannelKind};
use axum::extract::Path;
use axum::response::Response;
use http::HeaderMap;

use super::body::JsonBytes;
use super::call::{Allowed, Call};
use super::caller::Write;
use super::refusal::channel::{channel_not_found, has_many_logs};
use crate::problem::Problem;
use crate::wire::shape::{self, Shape};

pub(super) mod amend;
mod channel;
mod contact;
mod conversation;
pub(crate) mod list;
pub(crate) mod media;
mod request;
pub(super) mod stored;
pub(super) mod turn_wait;

pub(super) use amend::answered_overlay;
pub(super) use channel::sender;
pub(crate) use contact::WaitQueues;
pub(super) use conversation::new_id;
pub(super) use request::MessageRequest;

use request::{SubmitError, Submitted, UnparsedMessage};

/// `POST /messages`.
pub(super) async fn post_message(Allowed { call, body, .. }: Allowed<Write, JsonBytes>) -> Result<Response, Problem> {
    let unparsed = UnparsedMessage::new(&call, &body)?;
    let shape = shape::choose(&unparsed.body, schema(&call.headers));
    match shape.map_err(|problem| unparsed.refused(problem))? {
        // On the heap, so that the far more frequent other future is not moved around with room for it.
        Shape::Channel => Box::pin(channel::post(unparsed, None)).await,
        Shape::Conversation => conversation::post(unparsed, None).await,
    }
}

/// The value of `X-Message-Schema`; two different values count as an unknown one.
fn schema(headers: &HeaderMap) -> Option<&str> {
    let given = headers.get_all("x-message-schema").iter().map(|value| value.to_str().unwrap_or("?").trim());
    given.filter(|value| !value.is_empty()).reduce(|first, next| if first == next { first } else { "?" })
}

/// `POST /conversations/{id}/messages`.
pub(super) async fn post_to_conversation(
    Path(conversation): Path<String>,
    Allowed { call, body, .. }: Allowed<Write, JsonBytes>,
) -> Result<Response, Problem> {
    let unparsed = UnparsedMessage::new(&call, &body)?;
    conversation::post(unparsed, Some(&conversation)).await
}

/// The channel's kind decides the handler; if the channel is unknown, the body does.
pub(super) async fn post_to_channel(
    Path(channel): Path<String>,
    Allowed { call, body, .. }: Allowed<Write, JsonBytes>,
) -> Result<Response, Problem> {
    let unparsed = UnparsedMessage::new(&call, &body)?;
    let known = find_channel(&call, &channel).await?;
    let of_contact = ["type", "contactIdentifier", "content"].iter().any(|name| unparsed.body.has(name));
    let of_channel =
        ["channelId", "text", "status", "review", "attachmentIds"].iter().any(|name| unparsed.body.has(name));
    let as_contact = match known.as_deref().map(|channel| channel.kind) {
        Some(ChannelKind::Api) => !of_channel || of_contact,
        Some(ChannelKind::Human) | None => of_contact && !of_channel,
    };
    if as_contact { contact::post(unparsed, known).await } else { channel::post(unparsed, Some(&channel)).await }
}

/// A channel of the caller's workspace.
pub(in crate::http) async fn find_channel(call: &Call, channel: &str) -> Result<Option<Arc<Channel>>, Problem> {
    Ok(call.node().channel(call.caller.address, channel).await?)
}

/// A human channel of the caller's workspace, which has one log, and the result of `read_query` for that log. A channel
/// of the other kind has many logs, which is a fault at `pointer`, reported with all faults of `read_query`. Cursors
/// are bound to the channel's incarnation, not its id: a deleted channel's cursor never fits its successor.
pub(super) async fn human_channel<T>(
    call: &Call,
    (id, pointer): (&str, &str),
    read_query: impl FnOnce(&str) -> Result<T, Problem>,
) -> Result<(Arc<Channel>, T), Problem> {
    let channel = find_channel(call, id).await;
    let query = match &channel {
        Ok(Some(channel)) => read_query(&channel.incarnation()),
        _ => read_query(id),
    };
    let one_log = match &channel {
        Ok(Some(channel)) if channel.kind != ChannelKind::Human => Err(has_many_logs(pointer)),
        _ => Ok(()),
    };
    let (query, ()) = Problem::both(query, one_log)?;
    Ok((channel?.ok_or_else(channel_not_found)?, query))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn two_different_schema_headers_match_neither_and_an_empty_one_is_none() {
        let chosen = |values: &[&'static str]| {
            let name = HeaderName::from_static("x-message-schema");
            let headers: HeaderMap =
                values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect();
            schema(&headers).map(str::to_owned)
        };
        assert_eq!(chosen(&["channel", " channel"]).as_deref(), Some("channel"));
        assert_eq!(chosen(&["channel", "conversation"]).as_deref(), Some("?"));
        assert_eq!(chosen(&["", " ", "conversation"]).as_deref(), Some("conversation"));
        assert_eq!(chosen(&[""]), None);
    }
}
