//! The requests of each server for the same operations.

use std::io::Write as _;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::connection::head;

/// A server's requests for an append and its preparation.
pub(crate) trait Dialect: Send + Sync {
    /// The request that opens the conversation with this number.
    fn open(&self, nth: u32) -> Vec<u8>;

    /// The conversation that the answer to `open` names.
    fn opened(&self, nth: u32, answer: &Value) -> Option<String>;

    /// The request that appends `text` to a conversation, around its key.
    fn append(&self, conversation: &str, text: &str) -> Parts;

    /// The parts of an append's answer that a later answer repeats if the message is stored: its id, and where it is.
    fn kept(&self, answer: &Value) -> Option<Value>;

    /// The request that finds the message again, if the same append under the same key cannot.
    fn find(&self, conversation: &str, kept: &Value) -> Option<Vec<u8>> {
        let _ = (conversation, kept);
        None
    }
}

/// A request in two parts, with the idempotency key between them.
pub(crate) struct Parts {
    pub(crate) before: Vec<u8>,
    /// The text around the key, which is left out where there is no key.
    pub(crate) around: [&'static str; 2],
    pub(crate) after: Vec<u8>,
}

/// The API of the real server, which the no-op server and the peer on Postgres speak too.
pub(crate) struct Api {
    address: SocketAddr,
    key: String,
}

impl Api {
    /// The API at this address, with this key.
    pub(crate) fn new(address: SocketAddr, key: &str) -> Self {
        Self { address, key: key.to_owned() }
    }

    fn head(&self) -> Vec<u8> {
        let mut before = Vec::new();
        head(&mut before, "POST", "/messages", self.address, &self.key);
        before
    }
}

impl Dialect for Api {
    fn open(&self, _: u32) -> Vec<u8> {
        let mut request = self.head();
        let body = json!({"content": {"content": "Hello"}, "conversation_id": null}).to_string();
        request.extend(with_length(&body));
        request
    }

    fn opened(&self, _: u32, answer: &Value) -> Option<String> {
        Some(answer[0]["conversation_id"].as_str()?.to_owned())
    }

    fn append(&self, conversation: &str, text: &str) -> Parts {
        let body = format!(
            r#"{{"content":{{"content":"{text}","role":"user","sender_id":"customer-17"}},"conversation_id":"{conversation}"}}"#
        );
        Parts { before: self.head(), around: ["idempotency-key: ", "\r\n"], after: with_length(&body) }
    }

    fn kept(&self, answer: &Value) -> Option<Value> {
        answer[0]["id"].is_string().then(|| answer[0]["id"].clone())
    }
}

/// The first lines of a request to a server that does not speak the API; `more` are further header lines.
pub(crate) fn lines(method: &str, path: &str, address: SocketAddr, more: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n{more}").into_bytes()
}

/// The last header line of a request, the blank line, and its body.
pub(crate) fn with_length(body: &str) -> Vec<u8> {
    let mut rest = Vec::with_capacity(body.len() + 32);
    // Writing into a vector does not fail.
    let _ = write!(rest, "content-length: {}\r\n\r\n{body}", body.len());
    rest
}
