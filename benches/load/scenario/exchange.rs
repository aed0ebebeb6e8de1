//! An exchange with an agent: a contact writes, the agent answers in the same call. Two commits of its conversation.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::append::WORDS;
use super::{Scenario, for_each};
use crate::Error;
use crate::connection::{Connection, head};

/// Exchanges of `contacts` on the channel `demo-api`, whose agent echoes each message without delay.
pub(crate) struct Exchanges {
    head: Vec<u8>,
    contacts: u32,
    sent: AtomicU64,
}

impl Exchanges {
    /// Exchanges of contacts that have written once before.
    pub(crate) fn new(address: SocketAddr, key: &str, contacts: u32) -> Self {
        let mut lines = Vec::new();
        head(&mut lines, "POST", "/channels/demo-api/messages", address, key);
        Self { head: lines, contacts, sent: AtomicU64::new(u64::from(contacts)) }
    }

    /// The same, and sends that first message.
    pub(crate) async fn open(address: SocketAddr, key: &str, contacts: u32) -> Result<Self, Error> {
        let exchanges = Self::new(address, key, contacts);
        let head = exchanges.head.clone();
        for_each(address, contacts, async move |connection: &mut Connection, nth| {
            write_request(&mut connection.request, &head, nth, u64::from(nth));
            match connection.exchange().await? {
                200..=299 => Ok(()),
                status => Err(format!("a contact was not made: status {status}").into()),
            }
        })
        .await?;
        Ok(exchanges)
    }
}

fn write_request(out: &mut Vec<u8>, head: &[u8], contact: u32, nth: u64) {
    let body = format!(
        r#"{{"type":"TEXT","contactIdentifier":"contact-{contact}","content":{{"text":{{"body":"{WORDS}"}}}}}}"#
    );
    out.clear();
    out.extend_from_slice(head);
    // Writing into a vector does not fail.
    let _ = write!(out, "idempotency-key: exchange-{nth:016}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
}

impl Scenario for Exchanges {
    async fn once(&self, connection: &mut Connection) -> std::io::Result<u16> {
        let nth = self.sent.fetch_add(1, Ordering::Relaxed);
        let contact = (nth.wrapping_mul(7_919) % u64::from(self.contacts)) as u32;
        write_request(&mut connection.request, &self.head, contact, nth);
        connection.exchange().await
    }
}
