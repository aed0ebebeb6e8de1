//! Appends of a message to existing conversations.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Scenario;
use super::zipf::Zipf;
use crate::connection::Connection;
use crate::dialect::{Api, Dialect, Parts};

/// A text that brings a body to about 300 bytes.
pub(crate) const WORDS: &str = "Thank you, the parcel came this morning, but the left shoe is a size too small. \
                     Could you send me the right one, and shall I return the pair or only the one that pinches?";

/// Which conversation the next message is for.
pub(crate) enum Spread {
    /// Each in turn.
    Even,
    /// The first ones far more often than the last, as among people.
    Zipf(Zipf),
}

/// Appends, each under an idempotency key of its own, or without any.
pub(crate) struct Appends {
    /// The request for each conversation.
    requests: Vec<Parts>,
    spread: Spread,
    keyed: bool,
    sent: AtomicU64,
}

impl Appends {
    /// Keyed appends to `conversations` of a server that speaks the API, evenly.
    pub(crate) fn new(address: SocketAddr, key: &str, conversations: &[String]) -> Self {
        Self::said(&Api::new(address, key), conversations)
    }

    /// The same in a server's own dialect.
    pub(crate) fn said(dialect: &dyn Dialect, conversations: &[String]) -> Self {
        let requests = conversations.iter().map(|id| dialect.append(id, WORDS)).collect();
        Self { requests, spread: Spread::Even, keyed: true, sent: AtomicU64::new(0) }
    }

    /// The same without idempotency keys.
    pub(crate) fn without_keys(self) -> Self {
        Self { keyed: false, ..self }
    }

    /// The same to conversations that `spread` chooses.
    pub(crate) fn spread(self, spread: Spread) -> Self {
        Self { spread, ..self }
    }

    /// The number of the next request.
    pub(crate) fn number(&self) -> u64 {
        self.sent.fetch_add(1, Ordering::Relaxed)
    }

    /// Writes the next request into `out`, replacing its content.
    fn next_into(&self, out: &mut Vec<u8>) {
        self.write_into(self.number(), out);
    }

    /// Which of the conversations the request with this number is for.
    pub(crate) fn place(&self, nth: u64) -> usize {
        // A stride coprime to the usual counts, so that consecutive requests do not go to neighbours in storage.
        let stride = nth.wrapping_mul(7_919);
        let count = self.requests.len() as u64;
        let at = match &self.spread {
            Spread::Even => stride % count,
            Spread::Zipf(zipf) => zipf.rank(nth) as u64 % count,
        };
        at as usize
    }

    /// Writes the request with this number; the same bytes each time.
    pub(crate) fn write_into(&self, nth: u64, out: &mut Vec<u8>) {
        let Parts { before, around: [name, end], after } = &self.requests[self.place(nth)];
        out.clear();
        out.extend_from_slice(before);
        if self.keyed {
            // Writing into a vector does not fail.
            let _ = write!(out, "{name}load-{nth:016}{end}");
        }
        out.extend_from_slice(after);
    }
}

impl Scenario for Appends {
    async fn once(&self, connection: &mut Connection) -> std::io::Result<u16> {
        self.next_into(&mut connection.request);
        connection.exchange().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_go_to_every_conversation_with_a_key_of_their_own() {
        let ids: Vec<String> = (0..10).map(|n| format!("conv_{n:026}")).collect();
        let appends = Appends::new(([127, 0, 0, 1], 80).into(), "k", &ids);
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
