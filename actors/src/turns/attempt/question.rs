//! A tool call that asks the people of a human channel: it becomes a review there.

use std::sync::Arc;

use super::tool_calls::CallOutcome;
use super::{Attempt, COMMAND_RETRY_TIMEOUT, Lost};
use crate::channel::{Channel, ChannelKind};
use crate::conversation::{Conversation, Post, Wait, message_of};
use crate::directory::{Answer, CommandContext};
use crate::message::{Message, NewMessage, Sender, SenderKind};
use crate::store::Order;
use crate::tasks::backoff::{Backoff, retry_transient};
use crate::tasks::retry_command::retry_command_for;
use crate::tool::{Ask, Asker};
use crate::trace::TraceContext;
use crate::workflows::errands::review_key;

impl Attempt<'_> {
    /// Asks the people of a channel a question, once, however often this runs for the same call.
    pub(super) async fn ask(&self, call: &str, ask: Ask, trace: Option<TraceContext>) -> Result<CallOutcome, Lost> {
        let node = self.node;
        let workspace = self.entity.workspace;
        let failed = |code: &str, detail: &str| Ok(CallOutcome::Result(node.ports.tools.failed(code, detail)));
        let channel = retry_transient(COMMAND_RETRY_TIMEOUT, || node.channel(workspace, &ask.channel)).await?;
        let Some(channel) = channel else { return failed("channel_not_found", "no such channel") };
        if channel.kind != ChannelKind::Human {
            return failed("channel_kind_mismatch", "the channel is not a human channel");
        }
        if !channel.enabled {
            return failed("channel_disabled", "the channel is disabled");
        }
        let entity = channel.conversation(workspace);
        let question = self.question(&channel, call, ask);
        let key = Some(review_key(workspace, self.turn.id, call));
        let context = CommandContext { key, trace };
        let offered = Backoff::within(COMMAND_RETRY_TIMEOUT);
        let message = match retry_command_for(node, &node.conversations, entity, question, context, offered).await? {
            Ok(Answer::Done(posted)) => posted.messages.into_iter().next(),
            Ok(Answer::Repeat(posted)) => {
                let events = || node.events::<Conversation>(entity, posted, Order::Asc, 4);
                let events = retry_transient(COMMAND_RETRY_TIMEOUT, events).await?;
                events.iter().find_map(message_of)
            }
            Err(_) => None,
        };
        let wait = |message: Message| {
            let expires_at = message.content.review.as_ref()?.expires_at;
            Some(Wait { review: message.id, expires_at })
        };
        match message.and_then(wait) {
            Some(wait) => Ok(CallOutcome::AsksPeople(wait)),
            None => failed("review_not_raised", "the channel refused the question"),
        }
    }

    /// The message that asks the question.
    fn question(&self, channel: &Channel, call: &str, ask: Ask) -> Post {
        let mut content = ask.content;
        let asker = Asker { conversation: self.entity.id, turn: self.turn.id.number, call: call.to_owned() };
        // On a human channel an agent has its channel's id.
        content.sender = Sender { kind: SenderKind::Agent, id: channel.id.clone() };
        if let Some(review) = &mut content.review {
            review.asker = Some(asker);
        }
        let review_millis = ask.review_millis.or(Some(channel.review_millis()));
        Post {
            opening: Some(channel.opening(self.entity.workspace, self.node.now())),
            expected: None,
            messages: vec![NewMessage { content: Arc::new(content), parent: None, review_millis }],
            turn: None,
        }
    }
}
