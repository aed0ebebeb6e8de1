//! Storing an incoming file: first its record, then its bytes, then its size, type and hash. So a process that dies in
//! between leaves a record that says what to delete, and never bytes without a record.

use actors::attachment::{Attachment, Begin, Event, File, Rejection, State, folder};
use actors::directory::{Answer, CommandContext, Refusal};
use actors::id::{AttachmentId, EntityKey};
use actors::store::{Order, SeqRange};
use actors::tasks::log_limiter::{Line, LogLimiter};
use actors::trace::{Span, SpanKind, current, names};
use bytes::Bytes;
use tokio::time::Instant;

use crate::app::App;
use crate::files::{FilesError, Writer};
use crate::http::context::render::internal_error;
use crate::http::refusal::{broken, contended, problem_of};
use crate::problem::Problem;
use crate::trace_context::Hex;

/// A file that is being received.
pub(in crate::http) struct Arrival {
    /// The span of its writing to the bucket, if there is one.
    span: Span,
    entity: EntityKey,
    storage_key: String,
    writer: Writer,
}

/// The name and type of a file.
#[derive(Clone, Debug)]
pub(in crate::http) struct FileInfo {
    pub(in crate::http) filename: String,
    pub(in crate::http) mime_type: String,
}

/// What became of an arriving file.
pub(in crate::http) enum ArrivalOutcome {
    /// It is stored now.
    Done(Box<State>),
    /// It was stored before, with the same idempotency key: the sequence of its event.
    Repeat(u64),
}

/// Creates the record of a file, or finds the existing one.
///
/// # Errors
/// 429 and 503 if nothing was stored.
pub(in crate::http) async fn begin(
    app: &App,
    entity: EntityKey,
    command_context: CommandContext,
) -> Result<State, Problem> {
    let id = AttachmentId::new(app.now(), entity.id);
    let begun = app.node().attachment(entity, Begin(id), command_context).await.and_then(Answer::unkeyed);
    begun.map(|state| *state).map_err(|refusal| problem_of(refusal, |_| broken("a record can always begin")))
}

/// A file as it was when its bytes had arrived, by the event of this sequence.
pub(in crate::http) async fn arrived_before(app: &App, entity: EntityKey, seq: u64) -> Result<State, Problem> {
    let events = app.node().events::<Attachment>(entity, SeqRange::one(seq), Order::Asc, 1).await?;
    let state = app.node().state::<Attachment>(entity).await?;
    match (events.into_iter().next().map(|record| record.event), state) {
        (Some(Event::Completed(file)), Some(state)) => {
            Ok(State { file: Some(file), message: None, erased: false, ..state })
        }
        _ => Err(broken("the effect of an upload is its completion")),
    }
}

impl Arrival {
    /// Begins to write the bytes of the file with this record.
    ///
    /// # Errors
    /// 503 where too many files are being written.
    pub(in crate::http) fn open(app: &App, entity: EntityKey) -> Result<Self, Problem> {
        let storage_key = format!("{}/{}", folder(entity), Hex(&app.node().random()[..8]));
        let writer = app.files().writer(entity.workspace, &storage_key).map_err(files_problem)?;
        Ok(Self { span: transfer_span(app, names::WRITE), entity, storage_key, writer })
    }

    /// The next bytes.
    ///
    /// # Errors
    /// 503 if they cannot be stored.
    pub(in crate::http) async fn write(&mut self, bytes: Bytes) -> Result<(), Problem> {
        transfer_result(&mut self.span, self.writer.write(bytes).await)
    }

    /// All bytes have arrived: makes them durable and records the file. `with` may depend on their hash.
    ///
    /// # Errors
    /// 422 where the idempotency key came with another file, 429 and 503 where nothing was stored.
    pub(in crate::http) async fn complete(
        mut self,
        app: &App,
        named: FileInfo,
        with: impl FnOnce(&FileInfo, &[u8; 32]) -> CommandContext,
    ) -> Result<ArrivalOutcome, Problem> {
        let written = transfer_result(&mut self.span, self.writer.finish().await)?;
        drop(self.span);
        let with = with(&named, &written.digest);
        let file = File {
            filename: named.filename,
            mime_type: named.mime_type,
            size: written.size,
            digest: written.digest,
            storage_key: self.storage_key.clone(),
        };
        let answer = app.node().attachment(self.entity, file, with).await;
        let not_needed = match answer {
            Ok(Answer::Done(state)) => return Ok(ArrivalOutcome::Done(state)),
            // These bytes may belong to the file now.
            Err(refusal @ (Refusal::Unknown(_) | Refusal::Misanswered(_))) => {
                return Err(not_recorded(refusal));
            }
            Ok(Answer::Repeat(effect)) => Ok(ArrivalOutcome::Repeat(effect.first)),
            Err(refusal) => Err(not_recorded(refusal)),
        };
        if let Err(error) = app.files().delete(&self.storage_key).await {
            tracing::warn!(%error, "could not delete unneeded attachment bytes; they stay until the next check");
        }
        not_needed
    }
}

fn not_recorded(refusal: Refusal<Rejection>) -> Problem {
    problem_of(refusal, |rejection| match rejection {
        Rejection::Exists | Rejection::NotFound => contended(),
        _ => broken("a file that arrives is refused only if it exists or was deleted"),
    })
}

/// The span of a file's writing to the bucket or reading from it, as a child of the current trace; none if files are in
/// a directory of this machine.
pub(super) fn transfer_span(app: &App, name: &'static str) -> Span {
    let Some(server) = app.files().server() else { return Span::default() };
    let mut span = app.node().span(name, SpanKind::Client, current::get());
    span.asks(server);
    span
}

/// The outcome of that transfer; the span of a failed one records the failure.
pub(super) fn transfer_result<T>(span: &mut Span, outcome: Result<T, FilesError>) -> Result<T, Problem> {
    outcome.map_err(files_problem).inspect_err(|problem| span.fail(problem.code))
}

/// Why bytes cannot be stored or read.
pub(in crate::http) fn files_problem(error: FilesError) -> Problem {
    match error {
        FilesError::Busy => Problem::unavailable("overloaded", "too many file transfers in progress; retry later", 1),
        FilesError::NotFound | FilesError::Damaged | FilesError::Unreadable(_) | FilesError::Place { .. } => {
            tracing::error!(%error, "the bytes of an attachment are unavailable");
            internal_error()
        }
        FilesError::Store(_) => {
            static LINES: LogLimiter = LogLimiter::new();
            if let Some(Line { left_out }) = LINES.line(Instant::now()) {
                tracing::warn!(%error, left_out, "the attachment store is unavailable");
            }
            Problem::unavailable("store_unavailable", "the attachment store is unavailable; retry later", 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use actors::id::Address;
    use axum::Router;
    use http::StatusCode;
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::LogFormat;
    use crate::files::FileStore;
    use crate::files::tests::bucket_at;
    use crate::telemetry::tests::Lines;

    /// A bucket that gives this answer to everything.
    async fn bucket(status: StatusCode, body: &'static str) -> FileStore {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let files = bucket_at(listener.local_addr().unwrap());
        let router = Router::new().fallback(async move || (status, body));
        tokio::spawn(async move { axum::serve(listener, router).await });
        files
    }

    /// In one line a second.
    #[tokio::test]
    async fn a_refusal_of_the_bucket_shows_only_its_kind_and_status() {
        let files = bucket(StatusCode::FORBIDDEN, "<Secret>hunter2</Secret>").await;
        let lines = Lines::default();
        let _guard = tracing::subscriber::set_default(lines.subscriber("warn", LogFormat::Json));
        let mut refusals = Vec::new();
        for _ in 0..3 {
            refusals.push(files.writer(Address::default(), "a/b").unwrap().finish().await.unwrap_err());
        }
        for refused in refusals {
            assert_eq!(files_problem(refused).code, "store_unavailable");
        }
        let text = lines.text();
        assert!(text.contains("permission denied, status 403") && !text.contains("hunter2"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        // The chain of errors contains no more.
        let cleared = actors::ports::Files::clear(&files, "a".to_owned(), None).await.unwrap_err();
        assert!(!format!("{cleared} {cleared:?}").contains("hunter2"), "{cleared:?}");
    }
}
