//! The requests, as bytes.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Words that bring a body to about 300 bytes.
const WORDS: &str = "Thank you, the parcel came this morning, but the left shoe is a size too small. \
                     Could you send me the right one, and shall I return the pair or only the one that pinches?";

/// Appends to conversations that exist, each under an idempotency key of its own, spread evenly.
pub(crate) struct Appends {
    /// Everything before the key, the same in every request.
    head: String,
    /// The body for each conversation, with the blank line and length before it.
    bodies: Vec<String>,
    sent: AtomicU64,
}

impl Appends {
    /// Appends to `conversations`.
    pub(crate) fn new(address: SocketAddr, key: &str, conversations: Vec<String>) -> Self {
        let bodies = conversations.iter().map(|id| {
            let body = format!(
                r#"{{"content":{{"content":"{WORDS}","role":"user","sender_id":"customer-17"}},"conversation_id":"{id}"}}"#
            );
            format!("content-length: {}\r\n\r\n{body}", body.len())
        });
        let head = format!("{}idempotency-key: load-", head(address, key));
        Self { head, bodies: bodies.collect(), sent: AtomicU64::new(0) }
    }

    /// Writes the next request into `out`, replacing what was there.
    pub(crate) fn next_into(&self, out: &mut Vec<u8>) {
        let nth = self.sent.fetch_add(1, Ordering::Relaxed);
        // A stride that is coprime to the usual counts keeps neighbours in time from being neighbours in storage.
        let body = &self.bodies[(nth.wrapping_mul(7_919) % self.bodies.len() as u64) as usize];
        out.clear();
        out.extend_from_slice(self.head.as_bytes());
        // Writing into a vector does not fail.
        let _ = write!(out, "{nth:016}\r\n");
        out.extend_from_slice(body.as_bytes());
    }
}

/// A request that opens a conversation with its first message.
pub(crate) fn opening(address: SocketAddr, key: &str, nth: u32) -> Vec<u8> {
    let body = r#"{"content":{"content":"Hello"},"conversation_id":null}"#;
    let head = head(address, key);
    format!("{head}idempotency-key: open-{nth:010}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn head(address: SocketAddr, key: &str) -> String {
    format!(
        "POST /api/v1/messages HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_conversation_gets_its_turn_under_a_key_of_its_own_with_a_body_of_about_300_bytes() {
        let ids: Vec<String> = (0..10).map(|n| format!("conv_{n:026}")).collect();
        let appends = Appends::new(([127, 0, 0, 1], 80).into(), "k", ids.clone());
        let mut request = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        let mut keys = std::collections::BTreeSet::new();
        for _ in 0..10 {
            appends.next_into(&mut request);
            let text = std::str::from_utf8(&request).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!((270..330).contains(&body.len()), "{} bytes", body.len());
            assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            seen.insert(body["conversation_id"].as_str().unwrap().to_owned());
            keys.insert(head.lines().find(|line| line.starts_with("idempotency-key")).unwrap().to_owned());
        }
        assert!(seen.iter().eq(&ids));
        assert_eq!(keys.len(), 10);
    }
}
