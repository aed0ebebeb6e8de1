//! The keyed append on Restate: a conversation is a virtual object, so its appends run one after the other, and an
//! idempotency key has one effect. Restate's server, which calls this program, guarantees both.
//!
//! The object's state is the log: the last sequence, and a key for each message. The message's id is that of the
//! invocation, which exists already and is unique. The written values are in the answer's journal, so no step needs to
//! be durable on its own.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use restate_sdk::endpoint::ServiceOptions;
use restate_sdk::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::net::TcpSocket;

/// The last sequence. It sorts before the messages, so it is included where only the first part of a state is sent.
const LAST: &str = "last";
/// How long a key is known; at least as long as the other servers keep theirs.
const KNOWN: Duration = Duration::from_secs(24 * 60 * 60);

/// A request to append a message; the object's key says where to.
#[derive(Deserialize)]
struct Append {
    content: Message,
}

/// The content of a message.
#[derive(Serialize, Deserialize)]
struct Message {
    content: String,
    role: Option<String>,
    sender_id: Option<String>,
}

/// A message as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    id: String,
    message: Message,
}

/// The answer to an append.
#[derive(Serialize)]
struct Appended {
    id: String,
    seq: u64,
}

struct Conversation;

#[object]
impl Conversation {
    /// Takes the next sequence and stores the message under it.
    #[handler]
    async fn append(&self, ctx: ObjectContext<'_>, request: Json<Append>) -> Result<Json<Appended>, HandlerError> {
        let seq = ctx.get::<u64>(LAST).await?.unwrap_or_default() + 1;
        let id = ctx.invocation_id().to_owned();
        let Json(Append { content: message }) = request;
        ctx.set(LAST, seq);
        ctx.set(&place(seq), Json(Stored { id: id.clone(), message }));
        Ok(Json(Appended { id, seq }))
    }

    /// The message stored under a sequence.
    #[handler]
    async fn find(&self, ctx: SharedObjectContext<'_>, seq: u64) -> Result<Json<Option<Appended>>, HandlerError> {
        let stored = ctx.get::<Json<Stored>>(&place(seq)).await?;
        Ok(Json(stored.map(|Json(stored)| Appended { id: stored.id, seq })))
    }
}

/// The key of a message in the object's state; keys sort in order.
fn place(seq: u64) -> String {
    format!("message-{seq:016}")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given = std::env::args().nth(1).ok_or("say where to listen, such as 127.0.0.1:0")?;
    let socket = TcpSocket::new_v4()?;
    // Accepted sockets inherit this from the listener.
    socket.set_nodelay(true)?;
    socket.set_reuseaddr(true)?;
    socket.bind(given.parse::<SocketAddr>()?)?;
    let listener = socket.listen(1_024)?;
    writeln!(std::io::stdout(), "listening on http://{}", listener.local_addr()?)?;
    // The journal of a completed call is never read; its answer is kept for a repeated call.
    let options = ServiceOptions::new().journal_retention(Duration::ZERO).idempotency_retention(KNOWN);
    let endpoint = Endpoint::builder().bind(Conversation.into_service_definition().options(options)).build();
    HttpServer::new(endpoint).serve(listener).await;
    Ok(())
}
