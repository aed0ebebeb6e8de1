//! A node with its actors, over a store that costs nothing.

use std::sync::Arc;

use actors::clock::{Entropy, ManualClock};
use actors::conversation::Command;
use actors::directory::{Answer, CommandContext, KeyUse, Refusal};
use actors::id::{Address, ConversationId};
use actors::node::Node;
use actors::ports::Ports;
use actors::store::{Fingerprint, KeyHash};
use actors::trace::{Finished, SAMPLED, TraceContext, Tracer, Traces};
use tokio::runtime::{Builder, Runtime};

use super::forgetful::Forgetful;
use super::{NOW, Once, conversation, entity, opening, post};
use crate::Error;

/// One thread, so that switches between threads do not count.
pub(super) fn runtime() -> Result<Runtime, Error> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// A node with one conversation.
fn node(runtime: &Runtime, ports: Ports) -> Result<Arc<Node>, Error> {
    runtime.block_on(async {
        let clock = Arc::new(ManualClock::at(NOW));
        let node = Node::start(Arc::new(Forgetful::default()), clock, Entropy::seeded([7; 32]), ports);
        node.conversation(entity(), Command::Open(opening()), CommandContext::default()).await?;
        Ok(node)
    })
}

/// The directory finds an actor, which refuses: there and back, without a commit.
pub(super) fn lookup() -> Result<Once, Error> {
    let runtime = runtime()?;
    let node = node(&runtime, Ports::default())?;
    let elsewhere = ConversationId::new(NOW, Address([3; 10]));
    Ok(Box::new(move || {
        let answer = runtime.block_on(node.conversation(entity(), post(elsewhere), CommandContext::default()));
        assert!(matches!(answer, Err(Refusal::Rejected(_))), "it has another id");
    }))
}

/// A message through the actor, under an idempotency key of its own: lookup, mailbox, decision, encoding, answer.
pub(super) fn append() -> Result<Once, Error> {
    appending(Ports::default(), None)
}

/// The same with a tracer that discards the spans of its wait, its decision and its commit.
pub(super) fn traced() -> Result<Once, Error> {
    let trace = TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: SAMPLED };
    appending(Ports { traces: Traces::to(Arc::new(Nobody)), ..Ports::default() }, Some(trace))
}

/// A tracer that discards everything.
struct Nobody;

impl Tracer for Nobody {
    fn record(&self, _: Finished) {}

    fn samples(&self, _: [u8; 16]) -> bool {
        false
    }
}

fn appending(ports: Ports, trace: Option<TraceContext>) -> Result<Once, Error> {
    let runtime = runtime()?;
    let node = node(&runtime, ports)?;
    let mut nth = 0_u128;
    Ok(Box::new(move || {
        nth += 1;
        let key = KeyUse::within(KeyHash(nth.to_be_bytes()), Fingerprint([9; 16]));
        let context = CommandContext { key: Some(key), trace };
        let answer = runtime.block_on(node.conversation(entity(), post(conversation()), context));
        assert!(matches!(answer, Ok(Answer::Done(_))), "an open conversation takes a message");
    }))
}
