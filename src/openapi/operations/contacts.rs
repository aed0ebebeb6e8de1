//! Contacts.

use utoipa::openapi::HttpMethod::{Delete, Get, Patch, Post};

use super::super::examples;
use super::super::operation::Op;
use super::super::shape::{named, text};
use super::{READ, WRITE, id};

pub(super) fn operations() -> Vec<Op> {
    vec![
        save_contact(),
        save_contacts(),
        list_contacts(),
        get_contact(),
        change_contact(),
        erase_contact(),
        conversations_of_contact(),
        events_of_contact(),
    ]
}

fn save_contact() -> Op {
    let about = "Makes the contact, or finds the one with this identifier and gives it the name, where one is given. \
                 E-mail addresses compare without case; two identifiers never become one contact.";
    Op::new(Post, "/api/v1/contacts", ("saveContact", "Write a contact down"), "Contacts", WRITE, about)
        .keyed()
        .body(named("ContactNew"), "Who it is.", &[examples::CONTACT_NEW])
        .answers(201, "The contact was made.", named("Contact"), &[])
        .with_headers(&["Location", "Idempotent-Replayed"])
        .answers(200, "The contact was there.", named("Contact"), &[])
        .with_headers(&["Location", "Idempotent-Replayed"])
        .refused(400, &["too_long"])
        .refused(429, &["conversation_backlog"])
}

fn save_contacts() -> Op {
    let about = "The same for up to 1000 contacts. What is wrong with any of them refuses all; each is then written down \
                 by itself, so that a request that fails half way is simply sent again.";
    Op::new(Post, "/api/v1/contacts/bulk", ("saveContacts", "Write contacts down"), "Contacts", WRITE, about)
        .keyed()
        .body(named("ContactsNew"), "Who they are.", &[examples::CONTACTS_NEW])
        .answers(200, "The contacts, in the same order.", named("ContactsSaved"), &[])
        .with_headers(&["Idempotent-Replayed"])
        .refused(400, &["too_long", "empty_batch", "batch_too_large", "duplicate_value"])
        .refused(429, &["conversation_backlog"])
}

fn erase_contact() -> Op {
    let about = "Forgets who it was: name and identifier, and the words of its conversations, the agent's too. The places \
                 of messages and their sequences stay, marked `erased`. Whoever writes with the same identifier later is \
                 a new contact.";
    Op::new(Delete, "/api/v1/contacts/{id}", ("eraseContact", "Erase a contact"), "Contacts", WRITE, about)
        .path("id", "The contact.", id())
        .shared("Prefer")
        .answers_nothing(204, "Everything is gone.")
        .answers_nothing(202, "The contact is gone; a long history is still being erased, and will be.")
        .with_headers(&["Location"])
        .refused(404, &["contact_not_found"])
        .refused(429, &["conversation_backlog"])
        .refused(503, &["outcome_unknown"])
}

fn events_of_contact() -> Op {
    let about =
        "What happened to the contact itself, by sequence. What is said stands in the logs of its conversations.";
    let named_so = ("listContactEvents", "List a contact's events");
    Op::new(Get, "/api/v1/contacts/{id}/events", named_so, "Events", READ, about)
        .path("id", "The contact.", id())
        .paged()
        .answers(200, "A page of events.", named("EventPage"), &[])
        .with_headers(&["Link"])
        .refused(404, &["contact_not_found"])
}

fn list_contacts() -> Op {
    let named_so = ("listContacts", "List contacts");
    Op::new(
        Get,
        "/api/v1/contacts",
        named_so,
        "Contacts",
        READ,
        "Those of the workspace, in the order in which they were made.",
    )
    .query("identifier", "Only the one with this identifier.", text(""))
    .query("name", "Only those whose name begins so, in any case; in the order of their names.", text(""))
    .paged()
    .answers(200, "A page of contacts.", named("ContactPage"), &[])
    .with_headers(&["Link"])
}

fn get_contact() -> Op {
    Op::new(Get, "/api/v1/contacts/{id}", ("getContact", "Read a contact"), "Contacts", READ, "Who it is.")
        .path("id", "The contact.", id())
        .answers(200, "The contact.", named("Contact"), &[])
        .refused(404, &["contact_not_found"])
}

fn change_contact() -> Op {
    Op::new(
        Patch,
        "/api/v1/contacts/{id}",
        ("changeContact", "Change a contact"),
        "Contacts",
        WRITE,
        "What is given changes.",
    )
    .path("id", "The contact.", id())
    .body(named("ContactChange"), "What is to change.", &[examples::CONTACT_NAME])
    .answers(200, "The contact as it is now.", named("Contact"), &[])
    .refused(400, &["too_long", "immutable_field"])
    .refused(404, &["contact_not_found"])
    .refused(429, &["conversation_backlog"])
    .refused(503, &["outcome_unknown"])
}

fn conversations_of_contact() -> Op {
    let named_so = ("listContactConversations", "List a contact's conversations");
    Op::new(Get, "/api/v1/contacts/{id}/conversations", named_so, "Contacts", READ, "In the order they began.")
        .path("id", "The contact.", id())
        .paged()
        .answers(200, "A page of conversations.", named("ConversationPage"), &[])
        .with_headers(&["Link"])
        .refused(404, &["contact_not_found"])
}
