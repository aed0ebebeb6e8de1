//! Probes and this documentation.

use super::super::operation::OperationDoc;
use super::super::shape::{free, named, text};
use super::id;

pub(super) fn operations() -> Vec<OperationDoc> {
    vec![
        OperationDoc::public("/healthz", ("getHealth", "Check liveness"), "Responds as long as the process runs.")
            .answers(200, "The process runs.", named("Status"), &[]),
        OperationDoc::public(
            "/readyz",
            ("getReadiness", "Check readiness"),
            "Fails from the moment the process begins to stop, and while its store is unreachable.",
        )
        .answers(200, "The process accepts requests.", named("Status"), &[])
        .refused(503, &["stopping", "store_unavailable"]),
        OperationDoc::public("/openapi.json", ("getOpenApi", "This document"), "OpenAPI 3.1, generated from the code.")
            .answers(200, "The document.", free("An OpenAPI document.").into(), &[])
            .with_headers(&["ETag"])
            .unless_known(),
        OperationDoc::public(
            "/docs",
            ("getDocs", "This document as a page"),
            "A page that loads no external resources.",
        )
        .answers_with(200, "The page.", "text/html", Some(text("").into()), &[])
        .with_headers(&["ETag"])
        .unless_known(),
        OperationDoc::public(
            "/docs/errors/{code}",
            ("getErrorDocs", "Explain an error"),
            "The page that a problem's `type` links to.",
        )
        .path("code", "The error's `code`.", id())
        .answers_with(200, "The page.", "text/html", Some(text("").into()), &[])
        .with_headers(&["ETag"])
        .unless_known()
        .refused(404, &["not_found"]),
    ]
}
