//! The shapes of requests and answers, as components of the document.
//!
//! They describe the input of the readers under `wire` and `http` and the output of their views; where a reader has a
//! constant for a bound, the same constant is used here.

use utoipa::openapi::{RefOr, Schema};

mod agents;
mod channel_message;
mod configuration;
mod contact_message;
mod conversation_message;
mod conversations;
mod events;
mod memories;
mod problem;
mod reviews;
mod webhooks;

pub(super) use self::events::told;

/// A component: its name and its shape.
pub(super) type Component = (&'static str, RefOr<Schema>);

/// Every component.
pub(super) fn all() -> Vec<Component> {
    [
        channel_message::schemas(),
        conversation_message::schemas(),
        contact_message::schemas(),
        conversations::schemas(),
        memories::schemas(),
        reviews::schemas(),
        events::schemas(),
        configuration::schemas(),
        agents::schemas(),
        webhooks::schemas(),
        problem::schemas(),
    ]
    .concat()
}

/// A page of a list: its data, and where the next page begins.
fn page(about: &str, item: RefOr<Schema>) -> RefOr<Schema> {
    use super::shape::{Bounded as _, Members, boolean, list, text};
    Members::new(about)
        .must("data", list("The items, in the requested order.", item).longest(crate::http::paging::MAX_LIMIT))
        .must("nextCursor", text("The `cursor` of the next page; `null` at the end.").nullable())
        .must("hasMore", boolean("Whether there is another page."))
        .done()
}
