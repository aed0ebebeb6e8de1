//! Reads: one message by its id, or the newest page of a conversation.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use super::append::WORDS;
use super::{Scenario, for_each};
use crate::Error;
use crate::connection::{Connection, head};

/// Requests that change nothing, each in turn.
pub(crate) struct Reads {
    requests: Vec<Vec<u8>>,
    sent: AtomicU64,
}

impl Reads {
    /// Reads of these paths.
    pub(crate) fn new(address: SocketAddr, key: &str, paths: &[String]) -> Self {
        let request = |path: &String| {
            let mut request = Vec::new();
            head(&mut request, "GET", path, address, key);
            request.extend_from_slice(b"\r\n");
            request
        };
        Self { requests: paths.iter().map(request).collect(), sent: AtomicU64::new(0) }
    }

    /// The path of one message in each conversation.
    pub(crate) async fn messages(
        address: SocketAddr,
        key: &str,
        conversations: &[String],
    ) -> Result<Vec<String>, Error> {
        let ids = conversations.to_vec();
        let of_admin = key.to_owned();
        let appended = for_each(address, ids.len() as u32, async move |connection: &mut Connection, nth| {
            let body = json!({"content": {"content": WORDS}, "conversation_id": ids[nth as usize]});
            let answer = connection.ask(&of_admin, "POST", "/messages", &body).await?;
            Ok(answer[0]["id"].as_str().ok_or("the answer names no message")?.to_owned())
        });
        Ok(appended.await?.into_iter().map(|id| format!("/messages/{id}")).collect())
    }

    /// The path of a page of 50 messages in each conversation, after appending that many.
    pub(crate) async fn pages(address: SocketAddr, key: &str, conversations: &[String]) -> Result<Vec<String>, Error> {
        let ids = conversations.to_vec();
        let of_admin = key.to_owned();
        for_each(address, ids.len() as u32, async move |connection: &mut Connection, nth| {
            let messages = vec![json!({"content": WORDS}); 50];
            let body = json!({"content": messages, "conversation_id": ids[nth as usize]});
            connection.ask(&of_admin, "POST", "/messages", &body).await
        })
        .await?;
        let path = |id: &String| format!("/conversations/{id}/messages?limit=50&order=desc");
        Ok(conversations.iter().map(path).collect())
    }
}

impl Scenario for Reads {
    async fn once(&self, connection: &mut Connection) -> std::io::Result<u16> {
        let nth = self.sent.fetch_add(1, Ordering::Relaxed);
        let at = nth.wrapping_mul(7_919) % self.requests.len() as u64;
        connection.request.clone_from(&self.requests[at as usize]);
        connection.exchange().await
    }
}
