//! Memories.

use utoipa::openapi::HttpMethod::{Delete, Get, Post};

use super::super::examples;
use super::super::operation::OperationDoc;
use super::super::shape::{named, text};
use super::{READ, WRITE, id};

const TAG: &str = "Memories";

pub(super) fn operations() -> Vec<OperationDoc> {
    vec![list_of_contact(), add(), forget_all_of_contact(), get(), forget(), list(), forget_all(), search()]
}

fn list_of_contact() -> OperationDoc {
    let named_so = ("listContactMemories", "List a contact's memories");
    OperationDoc::new(Get, "/api/v1/contacts/{id}/memories", named_so, TAG, READ, "In the order of creation.")
        .path("id", "The contact.", id())
        .paged()
        .answers(200, "A page of memories.", named("MemoryPage"), &[])
        .with_headers(&["Link"])
        .refused(404, &["contact_not_found"])
}

fn add() -> OperationDoc {
    let about = "Stores a memory. The same text again is the same memory.";
    OperationDoc::new(
        Post,
        "/api/v1/contacts/{id}/memories",
        ("addMemory", "Add a memory of a contact"),
        TAG,
        WRITE,
        about,
    )
    .path("id", "The contact.", id())
    .keyed()
    .body(named("MemoryNew"), "The memory.", &[examples::MEMORY])
    .answers(201, "The memory was stored.", named("Memory"), &[])
    .with_headers(&["Location", "Idempotent-Replayed"])
    .answers(200, "The memory existed.", named("Memory"), &[])
    .with_headers(&["Location", "Idempotent-Replayed"])
    .refused(400, &["too_long"])
    .refused(404, &["contact_not_found", "memory_not_found"])
    .refused(429, &["conversation_backlog"])
    .refused(503, &["contended"])
}

fn forget_all_of_contact() -> OperationDoc {
    let named_so = ("forgetContactMemories", "Delete a contact's memories");
    OperationDoc::new(Delete, "/api/v1/contacts/{id}/memories", named_so, TAG, WRITE, "The contact itself stays.")
        .path("id", "The contact.", id())
        .answers_nothing(204, "All memories are deleted.")
        .refused(404, &["contact_not_found"])
        .refused(429, &["conversation_backlog"])
        .refused(503, &["outcome_unknown", "contended"])
}

fn get() -> OperationDoc {
    let path = "/api/v1/contacts/{id}/memories/{memory}";
    OperationDoc::new(Get, path, ("getMemory", "Read a memory"), TAG, READ, "The current state.")
        .path("id", "The contact.", id())
        .path("memory", "The memory.", id())
        .answers(200, "The memory.", named("Memory"), &[])
        .refused(404, &["contact_not_found", "memory_not_found"])
}

fn forget() -> OperationDoc {
    let path = "/api/v1/contacts/{id}/memories/{memory}";
    OperationDoc::new(Delete, path, ("forgetMemory", "Delete a memory"), TAG, WRITE, "Deletes the memory and its text.")
        .path("id", "The contact.", id())
        .path("memory", "The memory.", id())
        .answers_nothing(204, "The memory is deleted.")
        .refused(404, &["contact_not_found", "memory_not_found"])
        .refused(429, &["conversation_backlog"])
        .refused(503, &["outcome_unknown"])
}

fn whose(op: OperationDoc) -> OperationDoc {
    op.query("contactId", "The contact. Required without `ownerId`.", text(""))
        .query("ownerId", "The owner of conversations. Required without `contactId`.", text(""))
        .refused(400, &["invalid_request", "invalid_query", "required"])
        .refused(404, &["contact_not_found"])
}

fn list() -> OperationDoc {
    let about = "The memories of a contact or an owner, in the order of creation.";
    whose(OperationDoc::new(Get, "/api/v1/memories", ("listMemories", "List memories"), TAG, READ, about))
        .paged()
        .answers(200, "A page of memories.", named("MemoryPage"), &[])
        .with_headers(&["Link"])
}

fn forget_all() -> OperationDoc {
    let about = "Deletes all memories of a contact or an owner.";
    whose(OperationDoc::new(Delete, "/api/v1/memories", ("forgetMemories", "Delete memories"), TAG, WRITE, about))
        .answers_nothing(204, "All memories are deleted.")
        .refused(429, &["conversation_backlog"])
        .refused(503, &["outcome_unknown", "contended"])
}

fn search() -> OperationDoc {
    let about = "The memories that best match a question, the best first: by words, and by meaning where the server \
                 has an embeddings endpoint.";
    OperationDoc::new(Post, "/api/v1/memories/search", ("searchMemories", "Search memories"), TAG, READ, about)
        .body(named("MemoryQuestion"), "The question.", &[examples::MEMORY_QUESTION])
        .answers(200, "Memories, in one page.", named("MemoryPage"), &[])
        .refused(400, &["too_short", "too_long", "out_of_range"])
        // It takes no key, since it changes nothing; a wrong one is a fault here as everywhere.
        .refused(400, &["invalid_idempotency_key", "idempotency_key_conflict"])
        .refused(404, &["contact_not_found"])
}
