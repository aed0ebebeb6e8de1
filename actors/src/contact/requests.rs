//! The requests to a contact, with the replies that answer them.

use super::{
    AdvanceErasure, Command, Contact, OpenConversation, Reply, Resolve, ReturnToEarlier, Save, Saved, State, Update,
};
use crate::id::ContactId;
use crate::outbox::{LaneRow, Sending};
use crate::requests::requests;

requests! { Contact:
    // The contact and its conversation; `None`: it was erased, and no other one has begun.
    Resolve as Resolve, Option<(ContactId, OpenConversation)> {
        Reply::Resolved { contact, conversation } => Some((contact, conversation)),
        Reply::Erased => None
    }
    ReturnToEarlier as ReturnToEarlier, () { Reply::Nothing => () }
    Save as Save, Saved { Reply::Contact(saved) => saved }
    // The contact's state now.
    Update as Update, Box<State> { Reply::Contact(saved) => saved.state }
    AdvanceErasure as AdvanceErasure, Box<State> { Reply::Contact(saved) => saved.state }
    // The state of the delivery's lane now; `None`: nothing had to be done.
    Sending as Outbox, Option<Box<LaneRow>> { Reply::Again(lane) => Some(lane), Reply::Nothing => None }
}
