//! Files that contacts send as URLs, fetched before their message is accepted.

use std::sync::Arc;
use std::time::Duration;

use actors::attachment::State as File;
use actors::directory::{CommandContext, KeyUse};
use actors::id::{Address, EntityKey};
use actors::store::KeyHash;
use actors::tasks::shares::{NoPermit, SharedPermit, SharedPermits};
use actors::trace::{Span, SpanKind, current, names};
use bytes::{Bytes, BytesMut};
use http::header;

use super::MessageRequest;
use crate::app::App;
use crate::egress::{Download, Fault, Limits};
use crate::http::attachments::arrival::{Arrival, ArrivalOutcome, FileInfo, begin};
use crate::http::attachments::{MAX_BYTES, sniff};
use crate::http::headers::essence;
use crate::http::headers::media_type::with_parameters;
use crate::http::refusal::broken;
use crate::problem::Problem;
use crate::wire::contact_message::content::Media;
use crate::wire::filename;

mod single_flight;

pub(super) use single_flight::FlightLeader;

use single_flight::SingleFlight;

/// The contract's bounds of a download.
pub(crate) const LIMITS: Limits = Limits { within: Duration::from_secs(30), bytes: MAX_BYTES, redirects: 3 };
/// The most files that are fetched at once. Fetching one may idle for 30 seconds, so there are many.
const MAX_FETCHES: usize = 1_024;
/// One file for this many connections, where that is less: each takes a file descriptor.
const CONNECTIONS_PER_FETCH: usize = 4;

/// Files being fetched by this process.
#[derive(Clone, Debug)]
pub(crate) struct Fetches {
    /// One workspace may hold half of them, so that its slow servers leave room for others.
    permits: SharedPermits,
    keyed: Arc<SingleFlight>,
}

impl Fetches {
    /// For a server with at most this many connections.
    pub(crate) fn of(connections: usize) -> Self {
        let most = (connections / CONNECTIONS_PER_FETCH).clamp(1, MAX_FETCHES);
        Self { permits: SharedPermits::halved(most), keyed: Arc::default() }
    }

    /// Whether a request with this key fetches a file.
    pub(super) fn has(&self, key: KeyHash) -> bool {
        self.keyed.has(key)
    }

    /// Waits for an earlier identical request: its file need not be fetched twice. See [`SingleFlight::enter`].
    ///
    /// # Errors
    /// The problem of that request; 422 if a request with the same key and another body fetches.
    pub(super) async fn enter(&self, used: KeyUse) -> Result<Option<FlightLeader>, Problem> {
        self.keyed.enter(used).await
    }

    /// A permit for a file of this workspace.
    ///
    /// # Errors
    /// 429 if the workspace already holds its share, 503 if there is no permit.
    fn permit(&self, workspace: Address) -> Result<SharedPermit, Problem> {
        self.permits.try_enter(workspace).map_err(|why| match why {
            NoPermit::OfShare => {
                let detail = "too many files of this workspace are being downloaded; retry later";
                Problem::too_many("rate_limited", detail, 1)
            }
            NoPermit::OfAll => {
                Problem::unavailable("overloaded", "too many files are being downloaded; retry later", 1)
            }
        })
    }
}

/// Fetches the file and stores it as an attachment without a message. A span records the duration, the answer's status,
/// and of the URL only the server.
///
/// # Errors
/// 400 with the reason why it cannot be fetched, 429 and 503 if nothing more can be fetched or stored now.
pub(super) async fn fetch(request: &MessageRequest<'_>, media: &Media) -> Result<File, Problem> {
    let cause = request.call.without_key().trace;
    let mut span = request.call.node().span(names::FETCH, SpanKind::Client, cause);
    span.set(names::HTTP_METHOD, "GET");
    span.asks(&media.url);
    let command_context = CommandContext { key: None, trace: span.context_or(cause) };
    let fetched = current::within(command_context.trace, attachment(request, media, command_context, &mut span)).await;
    if let Err(problem) = &fetched {
        span.fail(problem.faults.first().map_or(problem.code, |fault| fault.code));
    }
    fetched
}

/// Creates an attachment from the file, in the request's trace.
async fn attachment(
    request: &MessageRequest<'_>,
    media: &Media,
    command_context: CommandContext,
    span: &mut Span,
) -> Result<File, Problem> {
    let app = &request.call.app;
    let workspace = request.call.caller.address;
    let _permit = app.fetches().permit(workspace)?;
    let problem = |fault: Fault| problem(media, &fault);
    let answered = app.egress().get(workspace, &media.url, LIMITS).await;
    let status = match &answered {
        Ok(download) => Some(download.status()),
        Err(Fault::Status(status)) => Some(*status),
        Err(_) => None,
    };
    if let Some(status) = status {
        span.set(names::HTTP_STATUS, u32::from(status.as_u16()));
    }
    let mut download = answered.map_err(problem)?;
    let (first, head) = beginning(&mut download).await.map_err(problem)?;
    let content_type = download.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_owned();
    let declared = essence(&content_type);
    let Some(found) = sniff::of_media(media.kind, &head, declared.as_deref()) else {
        // The size limit is checked whatever the type is.
        while download.chunk().await.map_err(problem)?.is_some() {}
        let message = "the file at this URL is not of the declared type";
        return Err(Problem::fault(media.url_pointer(), "media_type_mismatch", message));
    };
    // Parameters describe the declared type only.
    let mime_type = if declared.as_ref() == Some(&found) { with_parameters(found, &content_type) } else { found };
    let entity = EntityKey::attachment(workspace, Address::random(app.node().random()));
    let begun = begin(app, entity, command_context).await?;
    let from_url = || filename::from_url(download.url().as_str());
    let name = media.filename.clone().or_else(from_url).unwrap_or_else(|| "attachment".to_owned());
    let named = FileInfo { filename: name, mime_type };
    let kept = keep(app, media, (entity, command_context), named, first, download).await;
    if kept.is_err() {
        // The unfinished attachment is removed now, not in a day.
        app.node().settle(entity.workspace, &[begun.id]);
    }
    kept
}

/// The first pieces, and enough of their bytes to recognise the file's type.
async fn beginning(download: &mut Download) -> Result<(Vec<Bytes>, BytesMut), Fault> {
    let mut first = Vec::new();
    let mut head = BytesMut::new();
    while head.len() < sniff::HEAD_BYTES {
        let Some(piece) = download.chunk().await? else { break };
        let room = sniff::HEAD_BYTES - head.len();
        head.extend_from_slice(&piece[..piece.len().min(room)]);
        first.push(piece);
    }
    Ok((first, head))
}

/// Writes the file as it arrives.
async fn keep(
    app: &App,
    media: &Media,
    (entity, command_context): (EntityKey, CommandContext),
    named: FileInfo,
    first: Vec<Bytes>,
    mut download: Download,
) -> Result<File, Problem> {
    let mut arrival = Arrival::open(app, entity)?;
    for piece in first {
        arrival.write(piece).await?;
    }
    while let Some(piece) = download.chunk().await.map_err(|fault| problem(media, &fault))? {
        arrival.write(piece).await?;
    }
    match arrival.complete(app, named, |_, _| command_context).await? {
        ArrivalOutcome::Done(state) => Ok(*state),
        ArrivalOutcome::Repeat(_) => Err(broken("a file is fetched without a key of its own")),
    }
}

/// The problem of a failed fetch, without anything that this server can see and its user cannot.
fn problem(media: &Media, fault: &Fault) -> Problem {
    let pointer = media.url_pointer();
    tracing::debug!(%fault, "a file could not be downloaded");
    match fault {
        Fault::Blocked(_) => {
            let message = "the URL, or one it redirects to, is not allowed: it needs http or https, a public host and \
                           a web server's port";
            Problem::fault(pointer, "blocked_url", message)
        }
        Fault::InvalidUrl(why) => Problem::fault(pointer, "invalid_url", why),
        Fault::TooLarge(bytes) => {
            Problem::fault(pointer, "media_too_large", format!("the file has more than {bytes} bytes"))
        }
        Fault::Timeout => {
            let message = format!("the download did not finish within {} s", LIMITS.within.as_secs());
            Problem::fault(pointer, "media_timeout", message)
        }
        Fault::Status(status) => {
            let message = format!("could not download the file: the server answered {}", status.as_u16());
            Problem::fault(pointer, "media_unreachable", message)
        }
        Fault::Empty => Problem::fault(pointer, "media_unreachable", "the file is empty"),
        Fault::Redirect(_) => {
            let message =
                format!("too many redirects (maximum {}), or a redirect without a valid Location", LIMITS.redirects);
            Problem::fault(pointer, "media_unreachable", message)
        }
        Fault::Resolve(_) | Fault::Connect(_) | Fault::Tls(_) | Fault::Broken(_) => Problem::fault(
            pointer,
            "media_unreachable",
            "could not download the file (connection failed or was interrupted)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_whose_files_do_not_come_leaves_room_for_those_of_others() {
        let fetches = Fetches::of(10_000);
        let mut held = Vec::new();
        let mut take = |n| {
            let taken = std::iter::repeat_with(|| fetches.permit(Address([n; 10])));
            let mut count = 0;
            let mut status = None;
            for place in taken.take(MAX_FETCHES + 1) {
                match place {
                    Ok(place) => held.push(place),
                    Err(problem) => {
                        status = Some(problem.status.as_u16());
                        break;
                    }
                }
                count += 1;
            }
            (count, status)
        };
        assert_eq!(take(1), (MAX_FETCHES / 2, Some(429)), "half of the permits were free for whoever came");
        assert_eq!(take(2), (MAX_FETCHES / 4, Some(429)));
        assert_eq!(take(3), (MAX_FETCHES / 4, Some(429)));
        assert_eq!(take(4), (0, Some(503)), "now all are taken");
    }
}
