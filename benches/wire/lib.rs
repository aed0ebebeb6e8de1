//! Shared by the no-op server and the peers: the form of a request and of its answer, and the key. The real server
//! shares nothing with them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use tokio::net::{TcpListener, TcpSocket};

/// The environment variable with the key; the real server uses the same one.
pub const KEY: &str = "TERTULIA_BOOTSTRAP_API_KEY";

/// Whether an `Authorization` header carries the key, in constant time.
#[must_use]
pub fn is_allowed(given: &[u8], bearer: &str) -> bool {
    given.ct_eq(bearer.as_bytes()).into()
}

/// A listener of the loopback address with as many places for waiting connections as the real server's.
///
/// # Errors
/// If the system has no port.
pub fn listen() -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    socket.listen(4_096)
}

/// A request to append a message.
#[derive(Debug, Deserialize)]
pub struct Append {
    /// The message.
    pub content: Message,
    /// The conversation; `None`: a new one.
    pub conversation_id: Option<String>,
}

/// The content of a message.
#[derive(Debug, Deserialize)]
pub struct Message {
    /// The text.
    pub content: String,
    /// The sender's role.
    pub role: Option<String>,
    /// The sender's id.
    pub sender_id: Option<String>,
}

/// The answer's form. `S` is the type of the values that the server makes.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the contract's own")]
pub struct Appended<S> {
    pub conversation_id: String,
    pub sender_id: Option<String>,
    pub content: String,
    pub workspace_id: &'static str,
    pub created_at: S,
    pub updated_at: Option<S>,
    pub id: S,
    pub role: Option<String>,
    pub tool_calls: Option<Vec<()>>,
    pub message_type: &'static str,
    pub tags: Option<Vec<()>>,
    pub checksum: S,
    pub attachments: Option<Vec<()>>,
    pub parent_message_id: Option<S>,
    pub meta_data: BTreeMap<(), ()>,
    pub sent_at: Option<S>,
    pub owner_id: Option<S>,
}

impl<S> Appended<S> {
    /// The answer to an append to `conversation`.
    pub fn new(conversation: String, message: Message, id: S, created_at: S, checksum: S) -> Self {
        Self {
            conversation_id: conversation,
            sender_id: message.sender_id,
            content: message.content,
            workspace_id: "default",
            created_at,
            updated_at: None,
            id,
            role: message.role,
            tool_calls: None,
            message_type: "text",
            tags: None,
            checksum,
            attachments: None,
            parent_message_id: None,
            meta_data: BTreeMap::new(),
            sent_at: None,
            owner_id: None,
        }
    }
}
