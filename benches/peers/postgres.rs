//! The keyed append on axum and Postgres, as a team that knows both would build it.
//!
//! One statement does everything in one round trip and one transaction: it takes the conversation's next sequence
//! (whose row lock puts appends to one conversation in order), and inserts the message and the idempotency key. A used
//! key fails the whole statement; the earlier message is then read and answered again. Statements are prepared once per
//! connection. Each of a few connections takes many requests at once (pipelining), so that no request waits for a free
//! connection and connections share the log's flush. There is no tracing, no validation beyond types and no
//! configuration to look up: these would only add cost.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use benches::{Append, Appended, KEY, Message, is_allowed, listen};
use clap::Args;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, Statement};

use crate::Error;

/// How to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Where Postgres is, as a connection string of libpq
    #[arg(long)]
    database: String,
    /// Connections to it
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=500))]
    pool: u32,
}

/// How soon a starting database is asked again.
const AGAIN: Duration = Duration::from_millis(100);
const TABLES: &str = "
    -- Room in each page, so that the next sequence is updated in place and no index is touched.
    CREATE TABLE IF NOT EXISTS conversations (
        id text PRIMARY KEY, last_seq bigint NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now()
    ) WITH (fillfactor = 50);
    CREATE TABLE IF NOT EXISTS messages (
        conversation_id text NOT NULL, seq bigint NOT NULL, id text NOT NULL, role text, sender_id text,
        content text NOT NULL, message_type text NOT NULL, checksum text NOT NULL, created_at timestamptz NOT NULL,
        PRIMARY KEY (conversation_id, seq)
    );
    CREATE TABLE IF NOT EXISTS idempotency_keys (
        conversation_id text NOT NULL, key text NOT NULL, fingerprint bytea NOT NULL, seq bigint NOT NULL,
        created_at timestamptz NOT NULL, PRIMARY KEY (conversation_id, key)
    );";
const OPEN: &str = "INSERT INTO conversations (id) VALUES ($1) ON CONFLICT DO NOTHING";
/// `$7` and `$8` are the key and the request's fingerprint; without a key no row of the key is inserted.
const APPEND: &str = "
    WITH place AS (
        UPDATE conversations SET last_seq = last_seq + 1, updated_at = now() WHERE id = $1 RETURNING last_seq
    ), message AS (
        INSERT INTO messages (conversation_id, seq, id, role, sender_id, content, message_type, checksum, created_at)
        SELECT $1, last_seq, $2, $3, $4, $5, 'text', $6, now() FROM place RETURNING seq, created_at
    ), used AS (
        INSERT INTO idempotency_keys (conversation_id, key, fingerprint, seq, created_at)
        SELECT $1, $7, $8::bytea, seq, created_at FROM message WHERE $7::text IS NOT NULL
    )
    SELECT (extract(epoch FROM created_at) * 1000)::bigint FROM message";
const FIND: &str = "
    SELECT m.id, m.checksum, (extract(epoch FROM m.created_at) * 1000)::bigint, k.fingerprint
    FROM idempotency_keys k JOIN messages m USING (conversation_id, seq) WHERE k.conversation_id = $1 AND k.key = $2";

/// A connection with its statements.
struct Line {
    client: Client,
    open: Statement,
    append: Statement,
    find: Statement,
}

struct Peer {
    bearer: String,
    lines: Vec<Line>,
    next: AtomicUsize,
    /// Ids are made in this process, as by a library for them; no other process makes the same.
    made: AtomicU64,
}

/// Serves until the process is ended.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let bearer = format!("Bearer {}", std::env::var(KEY)?);
    // As many threads as the real server has.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut lines = Vec::new();
        for nth in 0..options.pool {
            lines.push(line(&options.database, nth == 0).await?);
        }
        let made = AtomicU64::new(u64::from(std::process::id()) << 40);
        let peer = Peer { bearer, lines, next: AtomicUsize::new(0), made };
        let listener = listen()?;
        writeln!(std::io::stdout(), "listening on http://{}", listener.local_addr()?)?;
        let listener = listener.tap_io(|stream| {
            // A socket that refuses this is slower, which the run will show.
            let _ = stream.set_nodelay(true);
        });
        let router = Router::new().route("/api/v1/messages", post(append)).with_state(Arc::new(peer));
        axum::serve(listener, router).await?;
        Ok(())
    })
}

async fn line(database: &str, first: bool) -> Result<Line, Error> {
    let (client, connection) = loop {
        match tokio_postgres::connect(database, NoTls).await {
            // A killed database recovers first.
            Err(error) if error.code() == Some(&SqlState::CANNOT_CONNECT_NOW) => sleep(AGAIN).await,
            connected => break connected?,
        }
    };
    // The next query notices the connection's end.
    tokio::spawn(connection);
    if first {
        client.batch_execute(TABLES).await?;
    }
    let open = client.prepare(OPEN).await?;
    let append = client.prepare(APPEND).await?;
    let find = client.prepare(FIND).await?;
    Ok(Line { client, open, append, find })
}

async fn append(State(peer): State<Arc<Peer>>, headers: HeaderMap, body: axum::body::Bytes) -> Response {
    let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
    if !is_allowed(given, &peer.bearer) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let Ok(request) = serde_json::from_slice::<Append>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok());
    match peer.append(request, key, &Sha256::digest(&body)).await {
        Ok(response) => response,
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

impl Peer {
    async fn append(&self, request: Append, key: Option<&str>, fingerprint: &[u8]) -> Result<Response, Error> {
        let line = &self.lines[self.next.fetch_add(1, Ordering::Relaxed) % self.lines.len()];
        let made = self.made.fetch_add(1, Ordering::Relaxed);
        let conversation = match request.conversation_id {
            Some(conversation) => conversation,
            None => {
                let conversation = format!("conv_{made:026}");
                line.client.execute(&line.open, &[&conversation]).await?;
                conversation
            }
        };
        let message = request.content;
        let id = format!("msg_{made:034}");
        let checksum = checksum(&message);
        let Message { content, role, sender_id } = &message;
        let row = line
            .client
            .query_opt(&line.append, &[&conversation, &id, role, sender_id, content, &checksum, &key, &fingerprint])
            .await;
        let appended = match row {
            Ok(Some(row)) => Appended::new(conversation, message, id, time(row.get(0))?, checksum),
            Ok(None) => return Ok(StatusCode::NOT_FOUND.into_response()),
            Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) && key.is_some() => {
                let row = line.client.query_one(&line.find, &[&conversation, &key]).await?;
                if row.get::<_, &[u8]>(3) != fingerprint {
                    return Ok(StatusCode::UNPROCESSABLE_ENTITY.into_response());
                }
                Appended::new(conversation, message, row.get(0), time(row.get(2))?, row.get(1))
            }
            Err(error) => return Err(error.into()),
        };
        Ok((StatusCode::CREATED, Json([appended])).into_response())
    }
}

/// The checksum that the real server computes of the same members.
fn checksum(message: &Message) -> String {
    let mut hasher = Sha256::new();
    for part in [message.role.as_deref(), message.sender_id.as_deref(), Some(&message.content)] {
        hasher.update(part.unwrap_or_default());
    }
    let hash = hasher.finalize();
    let mut text = String::with_capacity(71);
    text.push_str("sha256:");
    for byte in hash {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    text
}

/// A time in the form of the API.
fn time(millis: i64) -> Result<String, jiff::Error> {
    Ok(format!("{:.3}", Timestamp::from_millisecond(millis)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_form_of_the_api() {
        assert_eq!(time(1_700_000_000_007).unwrap(), "2023-11-14T22:13:20.007Z");
    }
}
