//! The hop to an actor as a message makes it: the directory, its permits, the envelope, the mailbox, a decision that
//! refuses, and the answer; without a commit, on a store in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actors::clock::{Clock as _, Entropy, Millis, SystemClock};
use actors::conversation::{Command, Details, Opening, Origin, Post};
use actors::directory::{CommandContext, Refusal};
use actors::id::{Address, ConversationId, EntityKey};
use actors::message::{Content, NewMessage, Sender, SenderKind};
use actors::node::Node;
use actors::ports::Ports;
use actors::store::memory::MemoryStore;
use tokio::time::Instant;

use super::{ACTORS, HOP, Limit, repeat};
use crate::Error;
use crate::scenario::append::WORDS;

const WORKSPACE: Address = Address([1; 10]);
/// How long the node may take to end.
const END: Duration = Duration::from_secs(10);

/// Messages to so many conversations; each conversation has another id than the message expects.
pub(super) async fn refused(clients: u32, time: Duration) -> Result<Limit, Error> {
    let store = Arc::new(MemoryStore::default());
    let node = Node::start(store, Arc::new(SystemClock), Entropy::seeded([7; 32]), Ports::default());
    let now = SystemClock.now();
    for nth in 0..ACTORS {
        let id = ConversationId::new(now, address(nth));
        let opening = Opening { id, origin: Origin::Direct, owner: None, details: Details::default() };
        node.conversation(entity(nth), Command::Open(opening), CommandContext::default()).await?;
    }
    let sender = Sender { kind: SenderKind::User, id: "customer-17".to_owned() };
    let content = Arc::new(Content::text("user", sender, WORDS));
    let asked = Arc::clone(&node);
    let next = Arc::new(AtomicU64::new(0));
    let limit = repeat(HOP, clients, time, move |_| {
        let nth = next.fetch_add(1, Ordering::Relaxed).wrapping_mul(7_919) % u64::from(ACTORS);
        let node = Arc::clone(&asked);
        let post = post(now, Arc::clone(&content));
        async move {
            match node.conversation(entity(nth as u32), post, CommandContext::default()).await {
                Err(Refusal::Rejected(_)) => Ok(()),
                answer => Err(format!("it should have been refused: {answer:?}").into()),
            }
        }
    })
    .await;
    node.drain(Instant::now() + END).await;
    limit
}

fn post(now: Millis, content: Arc<Content>) -> Command {
    let message = NewMessage { content, parent: None, review_millis: None };
    let expected = Some(ConversationId::new(now, address(ACTORS)));
    Command::Post(Post { opening: None, expected, messages: vec![message], turn: None })
}

fn entity(nth: u32) -> EntityKey {
    EntityKey::conversation(WORKSPACE, address(nth))
}

/// Random in its first bytes, as addresses are.
fn address(nth: u32) -> Address {
    let mut address = [0; 10];
    address[..8].copy_from_slice(&(u64::from(nth) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    Address(address)
}
