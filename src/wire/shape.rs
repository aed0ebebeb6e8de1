//! Two shapes share `POST /api/v1/messages`; a body's top-level keys select one.

use crate::json::Object;
use crate::problem::Problem;

/// The kind of a message on `/messages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A message to a human channel.
    Channel,
    /// One or more messages of a conversation.
    Conversation,
}

/// Chooses the shape by the keys that are present, or by the header `X-Message-Schema`, which overrides them.
///
/// # Errors
/// 400 `invalid_enum` for another header value, `ambiguous_message_shape` if the keys of both shapes are present,
/// `unknown_message_shape` if those of neither are.
pub fn choose(body: &Object<'_>, schema_header: Option<&str>) -> Result<Shape, Problem> {
    match schema_header.map(str::trim) {
        None => by_keys(body),
        Some("channel") => Ok(Shape::Channel),
        Some("conversation") => Ok(Shape::Conversation),
        Some(_) => {
            let message = "must be one of channel, conversation";
            Err(Problem::fault("/X-Message-Schema", "invalid_enum", message))
        }
    }
}

fn by_keys(body: &Object<'_>) -> Result<Shape, Problem> {
    // `null` is present too: the choice is by the keys alone.
    let channel = body.get("channelId");
    let content = body.get("content");
    match (channel, content) {
        (Some(_), Some(_)) => Err(Problem::fault(
            "",
            "ambiguous_message_shape",
            "channelId makes this a channel message and content makes it a conversation message; send one of them, or \
             choose with X-Message-Schema: channel | conversation",
        )),
        (Some(_), None) => Ok(Shape::Channel),
        (None, Some(raw)) if raw.get().starts_with(['{', '[']) => Ok(Shape::Conversation),
        (None, _) => Err(Problem::fault(
            "",
            "unknown_message_shape",
            "a channel message has channelId, and a conversation message has content, an object or an array of \
             objects; this body has neither",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(body: &str, header: Option<&str>) -> Result<Shape, (&'static str, String)> {
        choose(&Object::parse(body.as_bytes()).unwrap(), header)
            .map_err(|problem| (problem.code, problem.faults[0].pointer.clone()))
    }

    #[test]
    fn the_keys_that_are_present_choose_the_shape() {
        for (body, shape) in [
            (r#"{"channelId":"demo","text":"x"}"#, Ok(Shape::Channel)),
            (r#"{"channelId":""}"#, Ok(Shape::Channel)),
            (r#"{"channelId":5}"#, Ok(Shape::Channel)),
            (r#"{"channelId":null,"text":"x"}"#, Ok(Shape::Channel)),
            (r#"{"channelId":"demo","content":null}"#, Err("ambiguous_message_shape")),
            (r#"{"content":{}}"#, Ok(Shape::Conversation)),
            (r#"{"content":[]}"#, Ok(Shape::Conversation)),
            (r#"{"channelId":null,"content":{"content":"x"}}"#, Err("ambiguous_message_shape")),
            (r#"{"channelId":"demo","content":{}}"#, Err("ambiguous_message_shape")),
            (r#"{"channelId":"demo","content":"x"}"#, Err("ambiguous_message_shape")),
            (r#"{}"#, Err("unknown_message_shape")),
            (r#"{"text":"x"}"#, Err("unknown_message_shape")),
            (r#"{"content":"x"}"#, Err("unknown_message_shape")),
            (r#"{"content":5}"#, Err("unknown_message_shape")),
            (r#"{"content":null}"#, Err("unknown_message_shape")),
            (r#"{"channelId":null,"content":null}"#, Err("ambiguous_message_shape")),
            (r#"{"conversation_id":"conv_1"}"#, Err("unknown_message_shape")),
        ] {
            assert_eq!(chosen(body, None), shape.map_err(|code| (code, String::new())), "{body}");
        }
    }

    #[test]
    fn the_header_overrides_the_keys() {
        let both = r#"{"channelId":"demo","content":{}}"#;
        assert_eq!(chosen(both, Some("channel")), Ok(Shape::Channel));
        assert_eq!(chosen(both, Some("conversation")), Ok(Shape::Conversation));
        assert_eq!(chosen("{}", Some(" channel ")), Ok(Shape::Channel));
        for other in ["", "Channel", "contact", "channel,conversation"] {
            let refused = Err(("invalid_enum", "/X-Message-Schema".to_owned()));
            assert_eq!(chosen(both, Some(other)), refused, "{other}");
        }
    }
}
