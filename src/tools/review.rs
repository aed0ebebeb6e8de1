//! `request_review`: an agent asks the people of a human channel.

use actors::clock::Millis;
use actors::message::{Sender, SenderKind};
use actors::tool::{Ask, Plan};

use crate::json::Object;
use crate::json::fields::{Fields, Length};
use crate::json::report::Report;
use crate::wire::channel_message::review::{Expiry, ReviewPost};
use crate::wire::channel_message::{ChannelPost, MAX_TEXT_BYTES};

/// `{channelId, text?, type, payload?, expiresInSeconds?}`: the review of a channel message, with the same rules.
pub(super) fn plan(arguments: Object<'_>, now: Millis, report: &mut Report) -> Option<Plan> {
    let mut fields = Fields::root(arguments, report);
    let channel = fields.required_string(report, "channelId", Length::chars(1, usize::MAX));
    let text = fields.string(report, "text", Length::bytes(0, MAX_TEXT_BYTES));
    let review = ReviewPost::question(&mut fields, now, report);
    // The default duration is the channel's.
    let review_millis = match review.expiry {
        Expiry::Default => None,
        Expiry::In(millis) => Some(millis),
        Expiry::At(at) => Some(at.since(now)),
    };
    let post = ChannelPost {
        channel_id: channel?.into_owned(),
        text: text.map(Into::into),
        review: Some(review),
        ..ChannelPost::default()
    };
    // It is replaced by the channel, which is the sender there.
    let sender = Sender { kind: SenderKind::Agent, id: String::new() };
    let channel = post.channel_id.clone();
    let content = post.into_content(sender, Vec::new(), None, now, 0);
    Some(Plan::Ask(Box::new(Ask { channel, content, review_millis })))
}
