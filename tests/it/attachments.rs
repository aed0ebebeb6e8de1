//! Files: uploaded, read back, linked to one message, and deleted when they are no longer needed.

use std::path::Path;

use actors::attachment::{self, Attachment};
use actors::clock::Millis;
use actors::id::{AttachmentId, EntityKey};
use actors::workspace::address_of;
use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use crate::support::until::seen;
use crate::support::{Answer, Request, TestApp};

mod download;
mod linking;
mod settling;
mod upload;

/// The largest file.
const MAX_BYTES: usize = 10 * 1024 * 1024;
const DAY: u64 = 24 * 60 * 60 * 1000;

/// Uploads a small text and returns its id.
pub(crate) async fn uploaded(app: &TestApp, text: &str) -> String {
    let made = app.post("/api/v1/attachments?filename=a.txt").body("text/plain", text.to_owned()).await.expect(201);
    made["id"].as_str().unwrap().to_owned()
}

/// A body of `size` bytes that is streamed without a declared length.
fn streamed(size: usize) -> Body {
    let pieces = (0..size).step_by(65_536).map(move |at| Bytes::from(vec![b'x'; (size - at).min(65_536)]));
    Body::from_stream(stream::iter(pieces.map(Ok::<_, std::io::Error>)))
}

/// Every file below a directory.
pub(crate) fn files_below(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(folder) = waiting.pop() {
        // The directory may disappear meanwhile.
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => waiting.push(path),
                false => found.push(path.strip_prefix(directory).unwrap().display().to_string()),
            }
        }
    }
    found
}

/// A message to the channel `demo` with these files.
fn with_files(app: &TestApp, channel: &str, ids: &[&str]) -> Request {
    app.post("/api/v1/messages").json(json!({"channelId": channel, "text": "see", "attachmentIds": ids}))
}

/// The stored record of a file.
async fn recorded(app: &TestApp, id: &str) -> attachment::State {
    let id = AttachmentId::parse(id).unwrap();
    let entity = EntityKey::attachment(address_of("default"), id.address);
    app.app.node().state::<Attachment>(entity).await.unwrap().unwrap()
}

/// Waits until background work has had its effect. A store outside this process takes real time, however often this
/// checks.
pub(crate) async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut moved = std::time::Instant::now();
    seen(async || {
        let found = look().await;
        // Where time is paused, background work runs only when the clock is moved; but not so fast that the time of
        // such a store looks like seconds.
        let stands = tokio::time::Instant::now().elapsed().is_zero();
        if found.is_none() && stands && moved.elapsed() >= std::time::Duration::from_millis(1) {
            tokio::time::advance(std::time::Duration::from_millis(10)).await;
            moved = std::time::Instant::now();
        }
        found
    })
    .await
}
