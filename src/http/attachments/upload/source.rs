//! The body of an upload: a form with a file in it, or the file itself.

use axum::body::{Body, BodyDataStream, HttpBody as _};
use bytes::Bytes;
use futures_util::StreamExt as _;
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
    /// A form.
    Form(Box<Multipart<'static>>),
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
            let form = Multipart::with_constraints(body.into_data_stream(), boundary, constraints);
            return Ok(Self::Form(Box::new(form)));
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
        let form = match self {
            Self::Raw(part) => return Ok(part.take().map(|part| *part)),
            Self::Form(form) => form,
        };
        while let Some(field) = form.next_field().await.map_err(form_problem)? {
            if field.file_name().is_none() && field.name() != Some("file") {
                report.unknown(&Path::ROOT, field.name().unwrap_or_default());
                continue;
            }
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
        let Self::Form(form) = self else { return Ok(()) };
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
