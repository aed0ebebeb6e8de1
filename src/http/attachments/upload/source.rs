//! The body of an upload: a form with a file in it, or the file itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Poll, ready};

use axum::body::{Body, BodyDataStream, HttpBody as _};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, StatusCode, header};
use multer::{Constraints, Field, Multipart, SizeLimit};

use super::{MAX_BYTES, disposition, too_large};
use crate::http::context::RequestContext;
use crate::http::headers::{essence, media_type};
use crate::http::query::Query;
use crate::json::path::Path;
use crate::json::report::Report;
use crate::problem::Problem;

/// The bytes of a form besides its file: headers and boundaries of its parts, and a few small fields.
const FORM_BYTES: u64 = 64 * 1024;

/// A body.
pub(super) enum Source {
    /// A form, and the bytes that may come before its file.
    Form(Box<Multipart<'static>>, Preamble),
    /// The file.
    Raw(Option<Box<Part>>),
}

/// The file in a body.
pub(super) struct Part {
    data: Data,
    /// Its name, as given.
    pub(super) filename: Option<String>,
    /// The pointer for faults of the name.
    pub(super) name_pointer: &'static str,
    /// Its media type, as given.
    pub(super) mime_type: Option<String>,
    /// The pointer for faults of the type.
    pub(super) type_pointer: &'static str,
}

enum Data {
    Form(Box<Field<'static>>),
    Raw(BodyDataStream),
}

impl Source {
    /// The kind of body that the headers declare.
    ///
    /// # Errors
    /// 413 if it is declared too large, 415 if it is compressed, 400 if a form has no boundary.
    pub(super) fn of(context: &RequestContext, headers: &HeaderMap, body: Body) -> Result<Self, Problem> {
        let encoded = headers.get_all(header::CONTENT_ENCODING).iter();
        if encoded.into_iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            let detail = "the body has a Content-Encoding; send the file uncompressed";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
        }
        if media_type::differ(headers) {
            let detail = "the request has two different Content-Types; send one";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
        }
        let given = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let content_type = given(header::CONTENT_TYPE);
        let announced = body.size_hint().lower();
        if content_type.as_deref().and_then(essence).is_some_and(|essence| essence == "multipart/form-data") {
            if announced > MAX_BYTES + FORM_BYTES {
                return Err(too_large());
            }
            let boundary = multer::parse_boundary(content_type.unwrap_or_default()).map_err(form_problem)?;
            let limit = SizeLimit::new().whole_stream(MAX_BYTES + FORM_BYTES);
            let constraints = Constraints::new().size_limit(limit);
            let preamble = Preamble::default();
            let form = Multipart::with_constraints(preamble.bounded(body), boundary, constraints);
            return Ok(Self::Form(Box::new(form), preamble));
        }
        if announced > MAX_BYTES {
            return Err(too_large());
        }
        let query = Query::parse(context.uri.query()).unwrap_or_default();
        let in_query = query.get("filename").map(str::to_owned);
        let name_pointer = if in_query.is_some() { "/filename" } else { "/Content-Disposition" };
        let in_header = || given(header::CONTENT_DISPOSITION).and_then(|value| disposition::filename(&value));
        Ok(Self::Raw(Some(Box::new(Part {
            data: Data::Raw(body.into_data_stream()),
            filename: in_query.or_else(in_header),
            name_pointer,
            mime_type: content_type,
            type_pointer: "/Content-Type",
        }))))
    }

    /// The file: in a form, the first part that has a filename or is named `file`. Earlier parts are noted.
    ///
    /// # Errors
    /// 400 where the form is broken, 413 where it is too large.
    pub(super) async fn file(&mut self, report: &mut Report) -> Result<Option<Part>, Problem> {
        let (form, preamble) = match self {
            Self::Raw(part) => return Ok(part.take().map(|part| *part)),
            Self::Form(form, preamble) => (form, preamble),
        };
        while let Some(field) = form.next_field().await.map_err(|error| preamble.problem(error))? {
            if field.file_name().is_none() && field.name() != Some("file") {
                report.unknown(&Path::ROOT, field.name().unwrap_or_default());
                // The file may follow in what has arrived.
                preamble.goes_on();
                continue;
            }
            preamble.ends();
            // The form's own header parser knows no encoded names.
            let head = field.headers().get(header::CONTENT_DISPOSITION);
            let head = head.map(|value| String::from_utf8_lossy(value.as_bytes()));
            let content_type = field.headers().get(header::CONTENT_TYPE);
            return Ok(Some(Part {
                filename: head.and_then(|value| disposition::filename(&value)),
                name_pointer: "/file/filename",
                mime_type: content_type.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
                type_pointer: "/file/mimeType",
                data: Data::Form(Box::new(field)),
            }));
        }
        Ok(None)
    }

    /// Reads what follows the file; a second one is a fault.
    ///
    /// # Errors
    /// 400 where the form is broken, 413 where it is too large.
    pub(super) async fn rest(&mut self, report: &mut Report) -> Result<(), Problem> {
        let Self::Form(form, _) = self else { return Ok(()) };
        while let Some(field) = form.next_field().await.map_err(form_problem)? {
            if field.file_name().is_some() || field.name() == Some("file") {
                report.fault(
                    &Path::ROOT.name("file"),
                    "too_many",
                    "the form has more than one file; upload each file in its own request",
                );
            } else {
                report.unknown(&Path::ROOT, field.name().unwrap_or_default());
            }
        }
        Ok(())
    }
}

/// What comes before the file of a form. The form's parser keeps all of it in memory, and looks through all of it again
/// with each part that arrives, so it is bounded.
#[derive(Clone, Debug, Default)]
pub(super) struct Preamble(Arc<PreambleState>);

#[derive(Debug, Default)]
struct PreambleState {
    has_ended: AtomicBool,
    /// How often the body still seems to wait, so that the parser searches what it has.
    pauses: AtomicU8,
    is_too_long: AtomicBool,
}

impl Preamble {
    /// The body, which ends with an error once more than [`FORM_BYTES`] have come before the file. The form's parser
    /// takes what is ready before it looks for the file, and may take again after it has looked for the first boundary.
    /// So until the file is found, there are two pauses after each chunk.
    fn bounded(&self, body: Body) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send + use<> {
        let state = Arc::clone(&self.0);
        let mut body = body.into_data_stream();
        let mut bytes = 0;
        stream::poll_fn(move |cx| {
            if !state.has_ended.load(Ordering::Relaxed) {
                let pauses = state.pauses.load(Ordering::Relaxed);
                if pauses > 0 {
                    state.pauses.store(pauses - 1, Ordering::Relaxed);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                if bytes > FORM_BYTES {
                    state.is_too_long.store(true, Ordering::Relaxed);
                    return Poll::Ready(Some(Err(axum::Error::new("too much before the file"))));
                }
            }
            let chunk = ready!(body.poll_next_unpin(cx));
            state.pauses.store(2, Ordering::Relaxed);
            bytes += chunk.as_ref().and_then(|chunk| chunk.as_ref().ok()).map_or(0, |chunk| chunk.len() as u64);
            Poll::Ready(chunk)
        })
    }

    /// A part has been found that is not the file.
    fn goes_on(&self) {
        self.0.pauses.store(1, Ordering::Relaxed);
    }

    /// The file has been found.
    fn ends(&self) {
        self.0.has_ended.store(true, Ordering::Relaxed);
    }

    fn problem(&self, error: multer::Error) -> Problem {
        if self.0.is_too_long.load(Ordering::Relaxed) {
            let detail = format!("the form has more than {FORM_BYTES} bytes before its file");
            return Problem::new(StatusCode::BAD_REQUEST, "malformed_form", detail);
        }
        form_problem(error)
    }
}

impl Part {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// 400 where the body breaks off, 413 where it is too large.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Problem> {
        match &mut self.data {
            Data::Form(field) => field.chunk().await.map_err(form_problem),
            Data::Raw(stream) => stream.next().await.transpose().map_err(|_| incomplete()),
        }
    }
}

fn incomplete() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "incomplete_body", "the body ended early")
}

fn form_problem(error: multer::Error) -> Problem {
    match error {
        multer::Error::StreamSizeExceeded { .. } | multer::Error::FieldSizeExceeded { .. } => too_large(),
        multer::Error::StreamReadFailed(_)
        | multer::Error::IncompleteStream
        | multer::Error::IncompleteHeaders
        | multer::Error::IncompleteFieldData { .. } => incomplete(),
        error => Problem::new(StatusCode::BAD_REQUEST, "malformed_form", format!("the form cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// A form of these parts, and how many of them were read until its file was found.
    async fn found_after(parts: Vec<Bytes>) -> (Result<Option<Part>, Problem>, usize) {
        let read = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = Arc::clone(&read);
        let parts = stream::iter(parts).map(move |part| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, io::Error>(part)
        });
        let preamble = Preamble::default();
        let form = Multipart::new(preamble.bounded(Body::from_stream(parts)), "bound");
        let mut source = Source::Form(Box::new(form), preamble);
        let found = source.file(&mut Report::default()).await;
        (found, read.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_form_that_begins_with_much_else_is_refused_before_it_is_read() {
        let (found, read) = found_after(vec![Bytes::from(vec![b'x'; 8 * 1024]); 1_000]).await;
        let problem = found.err().expect("a problem");
        assert_eq!(problem.code, "malformed_form");
        assert!(read <= 11, "{read} parts of 8 KiB were read");
    }

    #[tokio::test]
    async fn only_what_comes_before_the_file_is_bounded() {
        let head = "--bound\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
        let mut parts = vec![Bytes::from(head)];
        parts.extend(vec![Bytes::from(vec![b'x'; 8 * 1024]); 100]);
        parts.push(Bytes::from("\r\n--bound--\r\n"));
        let mut file = found_after(parts).await.0.expect("a form").expect("a file");
        let mut bytes = 0;
        while let Some(chunk) = file.chunk().await.expect("bytes") {
            bytes += chunk.len();
        }
        assert_eq!(bytes, 800 * 1024);
    }

    #[tokio::test]
    async fn a_file_that_arrives_with_the_field_before_it_is_found() {
        let fields = "--bound\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nx\r\n\
                      --bound\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
        let arrived = [fields.as_bytes(), &vec![b'x'; 100 * 1024]].concat();
        let parts = vec![Bytes::from(arrived), Bytes::from("\r\n--bound--\r\n")];
        assert!(found_after(parts).await.0.expect("a form").is_some());
    }

    #[tokio::test]
    async fn a_file_is_found_though_the_first_boundary_arrives_in_two_parts() {
        let rest = b"und\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
        let arrived = [&rest[..], &vec![b'x'; 100 * 1024]].concat();
        let parts = vec![Bytes::from("--bo"), Bytes::from(arrived), Bytes::from("\r\n--bound--\r\n")];
        assert!(found_after(parts).await.0.expect("a form").is_some());
    }
}
