//! A review from its question to its decision: two requests, two commits.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::{Scenario, for_each};
use crate::Error;
use crate::connection::{Connection, head};

const ANSWER: &str = r#"{"response":{"selectedOption":"approve"}}"#;

/// Reviews, each on a human channel of its own.
pub(crate) struct Reviews {
    address: SocketAddr,
    key: String,
    /// The whole request for each channel.
    questions: Vec<Vec<u8>>,
    sent: AtomicU64,
}

impl Reviews {
    /// Creates so many channels.
    pub(crate) async fn open(address: SocketAddr, key: &str, channels: u32) -> Result<Self, Error> {
        let of_admin = key.to_owned();
        for_each(address, channels, async move |connection: &mut Connection, nth| {
            let channel = json!({"id": name(nth), "name": "load", "kind": "human"});
            connection.ask(&of_admin, "POST", "/channels", &channel).await
        })
        .await?;
        let question = |nth| {
            let body = json!({"channelId": name(nth), "text": "May I?", "review": {"type": "approval", "payload": {}}});
            let body = body.to_string();
            let mut request = Vec::new();
            head(&mut request, "POST", "/messages", address, key);
            let _ = write!(request, "content-length: {}\r\n\r\n{body}", body.len());
            request
        };
        let questions = (0..channels).map(question).collect();
        Ok(Self { address, key: key.to_owned(), questions, sent: AtomicU64::new(0) })
    }
}

fn name(nth: u32) -> String {
    format!("load-{nth}")
}

impl Scenario for Reviews {
    async fn once(&self, connection: &mut Connection) -> std::io::Result<u16> {
        let nth = self.sent.fetch_add(1, Ordering::Relaxed);
        connection.request.clone_from(&self.questions[(nth % self.questions.len() as u64) as usize]);
        let status = connection.exchange().await?;
        if !matches!(status, 200..=299) {
            return Ok(status);
        }
        let asked: Value = serde_json::from_slice(connection.body())?;
        let id = asked["id"].as_str().unwrap_or_default();
        connection.request.clear();
        head(&mut connection.request, "POST", &format!("/reviews/{id}/respond"), self.address, &self.key);
        write!(connection.request, "content-length: {}\r\n\r\n{ANSWER}", ANSWER.len())?;
        connection.exchange().await
    }
}
