//! Files.

use utoipa::openapi::HttpMethod::{Get, Post};

use super::super::operation::Op;
use super::super::shape::{bytes, named};
use super::{READ, WRITE, id};
use crate::wire::filename::MAX_FILENAME_CHARS;

/// The media type that stands for every other one: generators that read no `*/*` read this.
const OCTETS: &str = "application/octet-stream";
/// What comes with the bytes, whole or a stretch.
const WITH_BYTES: &[&str] = &[
    "Content-Disposition",
    "ETag",
    "Last-Modified",
    "Accept-Ranges",
    "X-Content-Type-Options",
    "Cross-Origin-Resource-Policy",
];

pub(super) fn operations() -> Vec<Op> {
    vec![upload(), get(), content()]
}

fn upload() -> Op {
    let about = format!(
        "A file of at most 10 MiB, as a form or as it is. Its name is the form's, or that of `Content-Disposition` or \
         `?filename`: at most {MAX_FILENAME_CHARS} characters, without directories. Its media type is that of its \
         part or of the request; where that is missing or `application/octet-stream`, its first bytes say. A file that \
         no message has within 24 hours is deleted."
    );
    Op::new(Post, "/api/v1/attachments", ("upload", "Upload a file"), "Attachments", WRITE, &about)
        .keyed()
        .file("The file, or a form with one part that has a filename.")
        .query("filename", "The file's name, where the body is the file itself.", super::text(""))
        .answers(201, "It is kept.", named("Attachment"), &[])
        .with_headers(&["Location", "Idempotent-Replayed"])
        .refused(400, &["too_short", "too_long", "too_many", "invalid_header"])
}

fn get() -> Op {
    let about = "What is known of a file, and which message has it.";
    Op::new(Get, "/api/v1/attachments/{id}", ("getAttachment", "Read of a file"), "Attachments", READ, about)
        .path("id", "The file.", id())
        .answers(200, "The file.", named("Attachment"), &[])
        .refused(404, &["attachment_not_found"])
}

fn content() -> Op {
    let about = "The bytes, as something to save: `Content-Disposition` is `attachment`, and nothing in them is run. With \
                 `Range` one stretch of them; several stretches are answered with all. They come under the media type of \
                 the file, whatever it is.";
    Op::new(
        Get,
        "/api/v1/attachments/{id}/content",
        ("getAttachmentContent", "Read a file"),
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
    .answers_with(206, "The stretch that was asked for.", OCTETS, Some(bytes("").into()), &[])
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
