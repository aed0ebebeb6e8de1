//! Files.

use utoipa::openapi::HttpMethod::{Get, Post};

use super::super::operation::OperationDoc;
use super::super::shape::{bytes, named};
use super::{READ, WRITE, id};
use crate::wire::filename::MAX_FILENAME_CHARS;

/// The media type listed for all others: generators that do not understand `*/*` understand this.
const OCTETS: &str = "application/octet-stream";
/// The headers of the bytes, whole or a range.
const WITH_BYTES: &[&str] = &[
    "Content-Disposition",
    "ETag",
    "Last-Modified",
    "Accept-Ranges",
    "X-Content-Type-Options",
    "Cross-Origin-Resource-Policy",
];

pub(super) fn operations() -> Vec<OperationDoc> {
    vec![upload(), get(), content()]
}

fn upload() -> OperationDoc {
    let about = format!(
        "A file of at most 10 MiB, as a form or as the raw body. Its name is taken from the form, from \
         `Content-Disposition` or from `?filename`: at most {MAX_FILENAME_CHARS} characters, without directories. Its \
         media type, with its parameters, is that of its part or of the request; where that is missing, its first \
         bytes decide. A file that is not linked to a message within 24 hours is deleted."
    );
    OperationDoc::new(Post, "/api/v1/attachments", ("upload", "Upload a file"), "Attachments", WRITE, &about)
        .keyed()
        .file("The file, or a form with one part that has a filename.")
        .query("filename", "The file's name, where the body is the file itself.", super::text(""))
        .answers(201, "The stored attachment.", named("Attachment"), &[])
        .with_headers(&["Location", "Idempotent-Replayed"])
        .refused(400, &["too_short", "too_long", "too_many", "invalid_header"])
        .refused(429, &["conversation_backlog"])
}

fn get() -> OperationDoc {
    let about = "The file's metadata, and the message that it is linked to.";
    OperationDoc::new(
        Get,
        "/api/v1/attachments/{id}",
        ("getAttachment", "Read a file's metadata"),
        "Attachments",
        READ,
        about,
    )
    .path("id", "The file.", id())
    .answers(200, "The file.", named("Attachment"), &[])
    .refused(404, &["attachment_not_found"])
}

fn content() -> OperationDoc {
    let about = "The bytes as a download: `Content-Disposition` is `attachment`, so browsers save them and run \
                 nothing. With `Range` one range of them; a request for several ranges is answered with the whole \
                 file. They are sent with the media type of the file, whatever it is.";
    OperationDoc::new(
        Get,
        "/api/v1/attachments/{id}/content",
        ("getAttachmentContent", "Download a file"),
        "Attachments",
        READ,
        about,
    )
    .path("id", "The file.", id())
    .shared("Range")
    .shared("IfRange")
    .shared("IfMatch")
    .shared("IfUnmodifiedSince")
    .shared("IfModifiedSince")
    .answers_with(200, "The file.", OCTETS, Some(bytes("").into()), &[])
    .also("*/*", bytes("").into())
    .with_headers(WITH_BYTES)
    .answers_with(206, "The requested range.", OCTETS, Some(bytes("").into()), &[])
    .also("*/*", bytes("").into())
    .with_headers(WITH_BYTES)
    .with_headers(&["Content-Range"])
    .unless_known()
    .with_headers(WITH_BYTES)
    .refused(400, &["invalid_header"])
    .refused(404, &["attachment_not_found"])
    .refused(412, &["precondition_failed"])
    .refused(416, &["range_not_satisfiable"])
}
