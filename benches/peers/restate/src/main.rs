//! The keyed append on Restate: a conversation is a virtual object, so its appends happen one after the other, and an
//! idempotency key has one effect; both are kept by Restate's server, which calls this program.
//!
//! The object's state is the log: the last sequence, and a key for each message. The message's id is that of the
//! invocation, which is there already and as unique as any. What is written stands in the answer's journal, so that
//! nothing needs a durable step of its own.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use restate_sdk::endpoint::ServiceOptions;
use restate_sdk::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::net::TcpSocket;

/// The last sequence. It sorts before the messages, so it comes along where only the first of a state does.
const LAST: &str = "last";
/// How long a key is known; as long as the others' are, at least.
const KNOWN: Duration = Duration::from_secs(24 * 60 * 60);

/// A request to append a message; the object's key says where to.
#[derive(Deserialize)]
struct Append {
    content: Message,
}

/// What a message says.
#[derive(Serialize, Deserialize)]
struct Message {
    content: String,
    role: Option<String>,
    sender_id: Option<String>,
}

/// A message as it is kept.
#[derive(Serialize, Deserialize)]
struct Stored {
    id: String,
    message: Message,
}

/// What became of a message.
#[derive(Serialize)]
struct Appended {
    id: String,
    seq: u64,
}

struct Conversation;

#[object]
impl Conversation {
    /// Takes the next sequence and keeps the message under it.
    #[handler]
    async fn append(&self, ctx: ObjectContext<'_>, request: Json<Append>) -> Result<Json<Appended>, HandlerError> {
        let seq = ctx.get::<u64>(LAST).await?.unwrap_or_default() + 1;
        let id = ctx.invocation_id().to_owned();
        let Json(Append { content: message }) = request;
        ctx.set(LAST, seq);
        ctx.set(&place(seq), Json(Stored { id: id.clone(), message }));
        Ok(Json(Appended { id, seq }))
    }

    /// What is kept under a sequence.
    #[handler]
    async fn find(&self, ctx: SharedObjectContext<'_>, seq: u64) -> Result<Json<Option<Appended>>, HandlerError> {
        let stored = ctx.get::<Json<Stored>>(&place(seq)).await?;
        Ok(Json(stored.map(|Json(stored)| Appended { id: stored.id, seq })))
    }
}

/// Where a message is in the object's state; in order.
fn place(seq: u64) -> String {
    format!("message-{seq:016}")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given = std::env::args().nth(1).ok_or("say where to listen, such as 127.0.0.1:0")?;
    let socket = TcpSocket::new_v4()?;
    // Those that are accepted have it from this one.
    socket.set_nodelay(true)?;
    socket.set_reuseaddr(true)?;
    socket.bind(given.parse::<SocketAddr>()?)?;
    let listener = socket.listen(1_024)?;
    writeln!(std::io::stdout(), "listening on http://{}", listener.local_addr()?)?;
    // Nobody reads the journal of a call that is over; its answer stays for whoever repeats the call.
    let options = ServiceOptions::new().journal_retention(Duration::ZERO).idempotency_retention(KNOWN);
    let endpoint = Endpoint::builder().bind(Conversation.into_service_definition().options(options)).build();
    HttpServer::new(endpoint).serve(listener).await;
    Ok(())
}
