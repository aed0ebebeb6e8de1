//! Contacts.

use utoipa::openapi::HttpMethod::{Delete, Get, Patch, Post};

use super::super::examples;
use super::super::operation::OperationDoc;
use super::super::shape::{named, text};
use super::{READ, WRITE, id};

pub(super) fn operations() -> Vec<OperationDoc> {
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

fn save_contact() -> OperationDoc {
    let about = "Creates the contact, or finds the one with this identifier and sets its name, if one is given. \
                 E-mail addresses are compared without case; two identifiers never become one contact.";
    OperationDoc::new(Post, "/api/v1/contacts", ("saveContact", "Create or find a contact"), "Contacts", WRITE, about)
        .keyed()
        .body(named("ContactNew"), "The contact.", &[examples::CONTACT_NEW])
        .answers(201, "The contact was created.", named("Contact"), &[])
        .with_headers(&["Location", "Idempotent-Replayed"])
        .answers(200, "The contact existed.", named("Contact"), &[])
        .with_headers(&["Location", "Idempotent-Replayed"])
        .refused(400, &["too_long"])
        .refused(429, &["conversation_backlog"])
}

fn save_contacts() -> OperationDoc {
    let about = "The same for up to 1000 contacts. A fault in any of them refuses the whole request; otherwise each \
                 contact is saved by itself, so a request that fails halfway can simply be sent again.";
    OperationDoc::new(
        Post,
        "/api/v1/contacts/bulk",
        ("saveContacts", "Create or find contacts in bulk"),
        "Contacts",
        WRITE,
        about,
    )
    .keyed()
    .body(named("ContactsNew"), "The contacts.", &[examples::CONTACTS_NEW])
    .answers(200, "The contacts, in the same order.", named("ContactsSaved"), &[])
    .with_headers(&["Idempotent-Replayed"])
    .refused(400, &["too_long", "empty_batch", "batch_too_large", "duplicate_value"])
    .refused(429, &["conversation_backlog"])
}

fn erase_contact() -> OperationDoc {
    let about = "Erases the contact's name and identifier, and the content of its conversations, including the \
                 agent's messages. Messages keep their positions and sequences, marked `erased`. A later message with \
                 the same identifier creates a new contact.";
    OperationDoc::new(Delete, "/api/v1/contacts/{id}", ("eraseContact", "Erase a contact"), "Contacts", WRITE, about)
        .path("id", "The contact.", id())
        .shared("Prefer")
        .answers_nothing(204, "Everything is erased.")
        .answers_nothing(202, "The contact is erased; the erasure of a long history continues in the background.")
        .with_headers(&["Location"])
        .refused(404, &["contact_not_found"])
        .refused(429, &["conversation_backlog"])
        .refused(503, &["outcome_unknown"])
}

fn events_of_contact() -> OperationDoc {
    let about = "Events of the contact itself, by sequence. Its messages are in the logs of its conversations.";
    let named_so = ("listContactEvents", "List a contact's events");
    OperationDoc::new(Get, "/api/v1/contacts/{id}/events", named_so, "Events", READ, about)
        .path("id", "The contact.", id())
        .paged()
        .answers(200, "A page of events.", named("EventPage"), &[])
        .with_headers(&["Link"])
        .refused(404, &["contact_not_found"])
}

fn list_contacts() -> OperationDoc {
    let named_so = ("listContacts", "List contacts");
    OperationDoc::new(
        Get,
        "/api/v1/contacts",
        named_so,
        "Contacts",
        READ,
        "The contacts of the workspace, in the order of creation.",
    )
    .query("identifier", "Only the contact with this identifier.", text(""))
    .query("name", "Only contacts whose name begins with this text, in any case; ordered by name.", text(""))
    .paged()
    .answers(200, "A page of contacts.", named("ContactPage"), &[])
    .with_headers(&["Link"])
}

fn get_contact() -> OperationDoc {
    OperationDoc::new(
        Get,
        "/api/v1/contacts/{id}",
        ("getContact", "Read a contact"),
        "Contacts",
        READ,
        "The current state.",
    )
    .path("id", "The contact.", id())
    .answers(200, "The contact.", named("Contact"), &[])
    .refused(404, &["contact_not_found"])
}

fn change_contact() -> OperationDoc {
    OperationDoc::new(
        Patch,
        "/api/v1/contacts/{id}",
        ("changeContact", "Change a contact"),
        "Contacts",
        WRITE,
        "Changes the given members.",
    )
    .path("id", "The contact.", id())
    .body(named("ContactChange"), "The members to change.", &[examples::CONTACT_NAME])
    .answers(200, "The changed contact.", named("Contact"), &[])
    .refused(400, &["too_long", "immutable_field"])
    .refused(404, &["contact_not_found"])
    .refused(429, &["conversation_backlog"])
    .refused(503, &["outcome_unknown"])
}

fn conversations_of_contact() -> OperationDoc {
    let named_so = ("listContactConversations", "List a contact's conversations");
    OperationDoc::new(
        Get,
        "/api/v1/contacts/{id}/conversations",
        named_so,
        "Contacts",
        READ,
        "In the order in which they began.",
    )
    .path("id", "The contact.", id())
    .paged()
    .answers(200, "A page of conversations.", named("ConversationPage"), &[])
    .with_headers(&["Link"])
    .refused(404, &["contact_not_found"])
}
