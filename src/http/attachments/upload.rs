//! `POST /attachments`: a file, as a form or as the raw body, streamed to the file store.

use std::time::Duration;

use actors::attachment::State as File;
use actors::directory::{CommandContext, KeyUse};
use actors::id::{Address, EntityKey, hash_parts};
use actors::store::{Fingerprint, KeyHash};
use actors::workflows::claims::{self, MAX_LIVES};
use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use tokio::time::{Instant, timeout};

use super::arrival::{Arrival, ArrivalOutcome, FileInfo, arrived_before, begin};
use super::{MAX_BYTES, disposition, sniff};
use crate::app::App;
use crate::http::answer::{json, mark_replayed, with_ignored_fields, with_location};
use crate::http::call::{Allowed, Call};
use crate::http::caller::Write;
use crate::http::headers::media_type::with_parameters;
use crate::http::headers::{essence, idempotency_key};
use crate::http::idempotency::workspace_key_hash;
use crate::http::incoming::report;
use crate::http::long_requests::unless_stopping;
use crate::http::refusal::{broken, key_reused};
use crate::json::path::Path;
use crate::json::report::Report;
use crate::problem::{Fault, Problem};
use crate::wire::channel_message::view::attachment_view;
use crate::wire::filename::{MAX_FILENAME_CHARS, basename};

use self::source::{Part, Source};

mod source;

/// How long a file may take to arrive: 10 MiB in it is 70 kB/s, as for other bodies.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(150);
/// The longest silence: a stalled upload holds a permit that others need.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes that must arrive per further second of waiting, so that a trickling upload holds its permit no longer than a
/// stalled one. A slow mobile network is faster.
const MIN_BYTES_PER_SECOND: u64 = 16 * 1024;

/// The destination of a file, determined before its bytes are read.
enum UploadTarget {
    /// A new file, with this record.
    New(Box<Arrival>, EntityKey),
    /// It is stored already, with the same key; this is the hash of that request.
    Known { entity: EntityKey, first: u64, fingerprint: Fingerprint },
}

/// An idempotency key of the workspace, and its request, as far as it is known before the body.
struct Keyed<'a> {
    key: &'a str,
    call: &'a Call,
}

impl Keyed<'_> {
    fn hash(&self) -> KeyHash {
        workspace_key_hash(self.call.caller.address, self.key)
    }

    /// The hash of the request: the file, its name and its type without parameters, whatever the form of the upload.
    fn used(&self, named: &FileInfo, digest: &[u8; 32]) -> KeyUse {
        let Call { caller, context, .. } = self.call;
        let essence = essence(&named.mime_type).unwrap_or_default();
        let parts = [context.method.as_str(), context.path(), &named.filename, &essence];
        let parts = parts.iter().map(|part| part.as_bytes()).chain([&digest[..]]);
        let fingerprint = Fingerprint(hash_parts(&mut blake3::Hasher::new(), parts));
        KeyUse::across(self.hash(), fingerprint, claims::home(caller.address, self.key.as_bytes(), 0))
    }
}

/// `POST /attachments`.
pub(in crate::http) async fn create(Allowed { call, body, .. }: Allowed<Write, Body>) -> Result<Response, Problem> {
    let source = Source::of(&call.context, &call.headers, body)?;
    let mut report = report(&call.context);
    let key = idempotency_key(&call.headers, None).unwrap_or_else(|faults| {
        report.faults.extend(faults);
        None
    });
    let keyed = key.map(|key| Keyed { key, call: &call });
    let receiving = receive(&call, keyed.as_ref(), source, report);
    // Received bytes are stored however long that takes: an answer that nothing was stored would be a guess.
    let received_file = Box::pin(timeout(ARRIVAL_TIMEOUT, unless_stopping(&call.app, receiving))).await;
    let timed_out = |_| timed_out(format!("the file did not arrive within {} s", ARRIVAL_TIMEOUT.as_secs()));
    received_file.map_err(timed_out)??.store(&call, keyed.as_ref()).await
}

fn timed_out(detail: String) -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail)
}

/// The pace of an upload.
#[derive(Default)]
struct Pace {
    /// How long the server has waited for its bytes; the time of storing them does not count.
    waited: Duration,
}

impl Pace {
    /// The next bytes of a file after `received` bytes, if they arrive in time.
    async fn next(&mut self, part: &mut Part, received: u64) -> Result<Option<Bytes>, Problem> {
        let earned = SILENCE_TIMEOUT + Duration::from_millis(received * 1_000 / MIN_BYTES_PER_SECOND);
        let left = earned.saturating_sub(self.waited);
        let begun = Instant::now();
        match timeout(left.min(SILENCE_TIMEOUT), part.chunk()).await {
            Ok(next) => {
                self.waited += begun.elapsed();
                next
            }
            Err(_) if left < SILENCE_TIMEOUT => Err(timed_out(format!(
                "the file arrives too slowly; send at least {MIN_BYTES_PER_SECOND} bytes per second"
            ))),
            Err(_) => Err(stalled()),
        }
    }
}

fn stalled() -> Problem {
    timed_out(format!("no bytes of the file arrived for {} s", SILENCE_TIMEOUT.as_secs()))
}

/// A completely received file.
struct ReceivedFile {
    target: UploadTarget,
    named: FileInfo,
    digest: [u8; 32],
    ignored: Vec<String>,
}

impl ReceivedFile {
    /// Makes it an attachment, or repeats the answer if its key has made one.
    async fn store(self, call: &Call, keyed: Option<&Keyed<'_>>) -> Result<Response, Problem> {
        let Self { target, named, digest, ignored } = self;
        match target {
            UploadTarget::Known { entity, first, fingerprint } => {
                let same = keyed.is_some_and(|keyed| keyed.used(&named, &digest).fingerprint == fingerprint);
                if same { repeated(&call.app, entity, first, &ignored).await } else { Err(key_reused()) }
            }
            UploadTarget::New(arrival, entity) => {
                let with = |named: &FileInfo, digest: &[u8; 32]| {
                    let key = keyed.map(|keyed| keyed.used(named, digest));
                    CommandContext { key, ..call.without_key() }
                };
                match arrival.complete(&call.app, named, with).await? {
                    ArrivalOutcome::Done(state) => created(&state, &ignored),
                    ArrivalOutcome::Repeat(first) => repeated(&call.app, entity, first, &ignored).await,
                }
            }
        }
    }
}

/// Receives a file and streams it to its destination. A file that comes with faults has none: it is read for the faults
/// of what is still to come, and none of it is kept.
async fn receive(
    call: &Call,
    keyed: Option<&Keyed<'_>>,
    mut source: Source,
    mut report: Report,
) -> Result<ReceivedFile, Problem> {
    let Some(mut part) = timeout(SILENCE_TIMEOUT, source.file(&mut report)).await.map_err(|_| stalled())?? else {
        report.fault(&Path::ROOT.name("file"), "required", "a form must have a part with a file");
        return Err(report.check().err().unwrap_or_else(|| broken("a fault refuses an upload")));
    };
    let Declared { filename, mime_type } = Declared::of(&part, &mut report);
    let mut target = match report.faults.is_empty() {
        true => Some(find_target(call, keyed).await?),
        false => None,
    };
    let mut received = Received::default();
    let mut pace = Pace::default();
    while let Some(bytes) = pace.next(&mut part, received.size).await? {
        received.take(&bytes)?;
        if let Some(UploadTarget::New(arrival, _)) = &mut target {
            arrival.write(bytes).await?;
        }
    }
    // A form goes on only when the part before is gone.
    drop(part);
    timeout(SILENCE_TIMEOUT, source.rest(&mut report)).await.map_err(|_| stalled())??;
    if received.size == 0 {
        report.fault(&Path::ROOT.name("file"), "too_short", "the file is empty; it must have at least one byte");
    }
    let ignored = report.check()?;
    let target = target.ok_or_else(|| broken("a file without faults has a destination"))?;
    let mime_type = mime_type.unwrap_or_else(|| sniff::of_upload(&received.head).to_owned());
    let named = FileInfo { filename, mime_type };
    Ok(ReceivedFile { target, named, digest: *received.hasher.finalize().as_bytes(), ignored })
}

/// The received part of a file.
#[derive(Default)]
struct Received {
    size: u64,
    head: BytesMut,
    hasher: blake3::Hasher,
}

impl Received {
    fn take(&mut self, bytes: &Bytes) -> Result<(), Problem> {
        self.size += bytes.len() as u64;
        if self.size > MAX_BYTES {
            return Err(too_large());
        }
        self.hasher.update(bytes);
        let room = sniff::HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(())
    }
}

fn too_large() -> Problem {
    let detail = format!("the file is too large; an attachment has at most {MAX_BYTES} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "attachment_too_large", detail)
}

/// The name of a file, and its media type; `None`: its first bytes decide.
struct Declared {
    filename: String,
    mime_type: Option<String>,
}

impl Declared {
    /// What the client declares; faults of it are reported.
    fn of(part: &Part, report: &mut Report) -> Self {
        let mime_type = part.mime_type.as_deref().and_then(|given| {
            let Some(essence) = essence(given) else {
                let message = "must be a media type such as image/png";
                report.push(Fault::new(part.type_pointer, "invalid_header", message));
                return None;
            };
            Some(with_parameters(essence, given))
        });
        let filename = part.filename.as_deref().and_then(basename).unwrap_or_else(|| "attachment".to_owned());
        let chars = filename.chars().count();
        if chars > MAX_FILENAME_CHARS {
            let message = format!("must have at most {MAX_FILENAME_CHARS} characters, has {chars}");
            report.push(Fault::new(part.name_pointer, "too_long", message));
        }
        Self { filename, mime_type }
    }
}

/// A keyed file has an address that a retry finds again; a forgotten key begins another life.
async fn find_target(call: &Call, keyed: Option<&Keyed<'_>>) -> Result<UploadTarget, Problem> {
    let node = call.node();
    let Some(keyed) = keyed else {
        let entity = call.caller.attachment(Address::random(node.random()));
        begin(&call.app, entity, call.without_key()).await?;
        return Ok(UploadTarget::New(Box::new(Arrival::open(&call.app, entity)?), entity));
    };
    for life in 0..MAX_LIVES {
        let parts = [&call.caller.address.0[..], keyed.key.as_bytes(), &life.to_be_bytes()];
        let entity = call.caller.attachment(Address::derive("keyed-attachment", &parts));
        let state = begin(&call.app, entity, call.without_key()).await?;
        if state.file.is_none() && !state.erased {
            return Ok(UploadTarget::New(Box::new(Arrival::open(&call.app, entity)?), entity));
        }
        let row = node.key(entity, keyed.hash()).await?;
        if let Some(row) = row {
            return Ok(UploadTarget::Known { entity, first: row.events.first, fingerprint: row.fingerprint });
        }
    }
    Err(broken("a key uploads a file in one of its lives"))
}

/// 201 with the file as it was on arrival.
fn created(state: &File, ignored: &[String]) -> Result<Response, Problem> {
    let attachment = state.attachment(None).ok_or_else(|| broken("a file whose bytes were stored has arrived"))?;
    let response = with_ignored_fields(json(StatusCode::CREATED, &attachment_view(&attachment, None)), ignored);
    Ok(with_location(response, &format!("/attachments/{}", attachment.id)))
}

/// The answer to a retry.
async fn repeated(app: &App, entity: EntityKey, first: u64, ignored: &[String]) -> Result<Response, Problem> {
    created(&arrived_before(app, entity, first).await?, ignored).map(mark_replayed)
}
