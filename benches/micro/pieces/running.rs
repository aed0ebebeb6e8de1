//! A node with its actors, over a store that costs nothing.

use std::sync::Arc;

use actors::clock::{Entropy, ManualClock};
use actors::conversation::Command;
use actors::directory::{Answer, Circumstances, KeyUse, Refusal};
use actors::id::{Address, ConversationId};
use actors::node::Node;
use actors::ports::Ports;
use actors::store::KeyHash;
use tokio::runtime::{Builder, Runtime};

use super::forgetful::Forgetful;
use super::{NOW, Once, conversation, entity, opening, post};
use crate::Error;

/// One thread: a switch between threads has no place in a count.
pub(super) fn runtime() -> Result<Runtime, Error> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// A node with one conversation.
fn node(runtime: &Runtime) -> Result<Arc<Node>, Error> {
    runtime.block_on(async {
        let clock = Arc::new(ManualClock::at(NOW));
        let node = Node::start(Arc::new(Forgetful::default()), clock, Entropy::seeded([7; 32]), Ports::default());
        node.conversation(entity(), Command::Open(opening()), Circumstances::default()).await?;
        Ok(node)
    })
}

/// The directory finds an actor, which refuses: there and back, without a commit.
pub(super) fn lookup() -> Result<Once, Error> {
    let runtime = runtime()?;
    let node = node(&runtime)?;
    let elsewhere = ConversationId::new(NOW, Address([3; 10]));
    Ok(Box::new(move || {
        let answer = runtime.block_on(node.conversation(entity(), post(elsewhere), Circumstances::default()));
        assert!(matches!(answer, Err(Refusal::Rejected(_))), "it has another id");
    }))
}

/// A message through the actor, under an idempotency key of its own: lookup, mailbox, decision, encoding, answer.
pub(super) fn append() -> Result<Once, Error> {
    let runtime = runtime()?;
    let node = node(&runtime)?;
    let mut nth = 0_u128;
    Ok(Box::new(move || {
        nth += 1;
        let key = KeyUse::within(KeyHash(nth.to_be_bytes()), [9; 16]);
        let with = Circumstances { key: Some(key), trace: None };
        let answer = runtime.block_on(node.conversation(entity(), post(conversation()), with));
        assert!(matches!(answer, Ok(Answer::Done(_))), "an open conversation takes a message");
    }))
}
