//! Memories.

use utoipa::openapi::{RefOr, Schema};

use super::super::shape::{Bounded as _, Members, integer, made_id, named, number, text, time};
use super::{Component, page};
use crate::http::memories::{MAX_QUERY_CHARS, MAX_TEXT_CHARS};
use crate::http::paging::{DEFAULT_LIMIT, MAX_LIMIT};
use crate::wire::bounds::MAX_NAME_CHARS;

pub(super) fn schemas() -> Vec<Component> {
    vec![
        (
            "MemoryNew",
            Members::new("The memory to store.").must("text", text("What.").least(1).longest(MAX_TEXT_CHARS)).done(),
        ),
        ("Memory", memory()),
        ("MemoryPage", page("A page of memories.", named("Memory"))),
        ("MemoryQuestion", question()),
    ]
}

fn memory() -> RefOr<Schema> {
    Members::new("A memory of a contact or an owner.")
        .must("id", made_id("The memory.", "mem_", 34))
        .may("contactId", made_id("The contact, if it is a contact's memory.", "cont_", 26))
        .may("ownerId", text("The owner, if it is an owner's memory."))
        .must("text", text("What."))
        .must("sourceMessageId", made_id("The message that it was last extracted from.", "msg_", 34).nullable())
        .must("createdAt", time("When it was created."))
        .must("updatedAt", time("When its text was last changed."))
        .may("score", number("How well it matches the question; only the order is meaningful.", 0, None))
        .done()
}

fn question() -> RefOr<Schema> {
    let most = i64::try_from(MAX_LIMIT).ok();
    Members::new("A search in the memories of a contact or of an owner.")
        .must("query", text("The question, or keywords.").least(1).longest(MAX_QUERY_CHARS))
        .may("contactId", text("The contact.").least(1).longest(MAX_NAME_CHARS).nullable())
        .may("ownerId", text("The owner.").least(1).longest(MAX_NAME_CHARS).nullable())
        .may("limit", integer(&format!("The maximum number of memories; default {DEFAULT_LIMIT}."), 1, most).nullable())
        .done()
}
