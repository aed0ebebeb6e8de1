//! Errors of channels.

use actors::channel::ChannelKind;

use crate::problem::Problem;

/// 404: no such channel in the workspace.
pub(in crate::http) fn channel_not_found() -> Problem {
    Problem::not_found("channel_not_found", "this workspace has no such channel")
}

/// 409: the channel accepts no messages now.
pub(in crate::http) fn channel_disabled() -> Problem {
    Problem::conflict("channel_disabled", "this channel is disabled and accepts no messages")
}

/// 400 for a channel of the other kind.
pub(in crate::http) fn kind_mismatch(pointer: &str, kind: ChannelKind) -> Problem {
    let message = match kind {
        ChannelKind::Human => "this is a human channel: it accepts channel messages with text, review or status",
        ChannelKind::Api => {
            "this is an api channel: it accepts contacts' messages with type, contactIdentifier and content"
        }
    };
    Problem::fault(pointer, "channel_kind_mismatch", message)
}

/// 400 for reading an api channel like one conversation.
pub(in crate::http) fn has_many_logs(pointer: &str) -> Problem {
    let message = "this is an api channel: read the messages and events of each of its conversations instead";
    Problem::fault(pointer, "channel_kind_mismatch", message)
}
