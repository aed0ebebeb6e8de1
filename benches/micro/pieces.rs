//! The pieces: each is prepared once and then repeated.

use std::sync::Arc;

use actors::clock::Millis;
use actors::conversation::{Accepted, Command, Details, Event, Opening, Origin, Post};
use actors::id::{Address, ConversationId, EntityKey};
use actors::machine::Record;
use actors::message::{Content, NewMessage, Sender, SenderKind};

use crate::Error;

mod forgetful;
mod pure;
mod request;
mod running;
mod stored;
mod text;

/// One step in the handling of a message.
pub(crate) struct Piece {
    /// Its name on the command line and in the file of counts.
    pub(crate) name: &'static str,
    /// Prepares everything that is not part of the cost.
    pub(crate) prepare: fn() -> Result<Once, Error>,
}

/// Runs the piece once.
pub(crate) type Once = Box<dyn FnMut()>;

/// All pieces, from the socket inwards and back.
pub(crate) static PIECES: [Piece; 11] = [
    Piece { name: "read", prepare: text::read },
    Piece { name: "fingerprint", prepare: text::fingerprint },
    Piece { name: "lookup", prepare: running::lookup },
    Piece { name: "decide", prepare: pure::decide },
    Piece { name: "encode", prepare: pure::encode },
    Piece { name: "decode", prepare: pure::decode },
    Piece { name: "append", prepare: running::append },
    Piece { name: "append traced", prepare: running::traced },
    Piece { name: "commit", prepare: stored::commit },
    Piece { name: "render", prepare: text::render },
    Piece { name: "request", prepare: request::request },
];

/// The text of a message; with the JSON around it, about 300 bytes.
const WORDS: &str = "Thank you, the parcel came this morning, but the left shoe is a size too small. \
                     Could you send me the right one, and shall I return the pair or only the one that pinches?";
/// The time of everything: 2025-01-01T00:00:00.000Z.
const NOW: Millis = Millis(1_735_689_600_000);
/// The workspace and the conversation of everything.
const WORKSPACE: Address = Address([1; 10]);
const CONVERSATION: Address = Address([2; 10]);

fn entity() -> EntityKey {
    EntityKey::conversation(WORKSPACE, CONVERSATION)
}

fn conversation() -> ConversationId {
    ConversationId::new(NOW, CONVERSATION)
}

fn opening() -> Opening {
    Opening { id: conversation(), origin: Origin::Direct, owner: None, details: Details::default() }
}

fn content() -> Arc<Content> {
    let sender = Sender { kind: SenderKind::User, id: "customer-17".to_owned() };
    Arc::new(Content::text("user", sender, WORDS))
}

/// An append to the conversation that `expected` names.
fn post(expected: ConversationId) -> Command {
    let message = NewMessage { content: content(), parent: None, review_millis: None };
    Command::Post(Post { opening: None, expected: Some(expected), messages: vec![message], turn: None })
}

/// The record of an append.
fn record() -> Record<Event> {
    let accepted = Accepted { conversation: conversation(), content: content(), parent: None, owner: None, turn: None };
    Record { seq: 2, at: NOW, trace: None, event: Event::MessageCreated(accepted) }
}
