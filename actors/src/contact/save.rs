//! Creating a contact by request, and changing its name.

use bytes::Bytes;

use super::{Contact, Event, Reply, State, living, name_key};
use crate::clock::Millis;
use crate::id::ContactId;
use crate::id_clock;
use crate::machine::{Change, Decision, DecisionContext};
use crate::patch::Patch;
use crate::store::ViewWrite;
use crate::tables::{CONTACTS, CONTACTS_BY_NAME};

/// Creates a contact that may exist already.
#[derive(Clone, Debug)]
pub struct Save {
    /// The identifier, trimmed.
    pub identifier: String,
    /// The change of the name.
    pub name: Patch<String>,
}

/// A name is to be changed.
#[derive(Clone, Debug)]
pub struct Update {
    /// The contact.
    pub id: ContactId,
    /// The change of the name.
    pub name: Patch<String>,
}

/// A contact's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The contact's state after the command.
    pub state: Box<State>,
    /// Whether this command has created it.
    pub created: bool,
}

/// The id of the existing contact, or of the one that begins now. No two lives at one address share an id, not even
/// within a millisecond.
pub(super) fn id_of(state: Option<&State>, context: &DecisionContext) -> ContactId {
    match (living(state), state) {
        (Some(state), _) => state.id,
        (None, Some(former)) => {
            ContactId::new(Millis(context.place.0.max(former.id.at.0.saturating_add(1))), context.entity.id)
        }
        (None, None) => ContactId::new(context.place, context.entity.id),
    }
}

/// The entry of a contact among the names, to be added if `is_listed`, else removed.
fn by_name(id: ContactId, name: &str, is_listed: bool) -> ViewWrite {
    let key = [&name_key(name)[..], &[0], &id.to_bytes()].concat();
    ViewWrite { view: CONTACTS_BY_NAME, key: key.into(), value: is_listed.then(Bytes::new) }
}

/// Removes the contact from the lists.
pub(super) fn unlist(state: &State) -> Vec<ViewWrite> {
    let key = Bytes::copy_from_slice(&state.id.to_bytes());
    let listed = ViewWrite::remove(CONTACTS, key);
    state.name.iter().map(|name| by_name(state.id, name, false)).chain([listed]).collect()
}

/// Adds the event and the list entries of a contact's beginning to a change.
pub(super) fn create(
    state: Option<&State>,
    identifier: &str,
    name: Option<&str>,
    context: &DecisionContext,
    change: &mut Change<Contact>,
) {
    let id = id_of(state, context);
    let identifier = identifier.to_owned();
    let named = name.map(str::to_owned);
    change.events.push(Event::ContactCreated { id, identifier, name: named });
    let key = Bytes::copy_from_slice(&id.to_bytes());
    change.views.push(ViewWrite::add(CONTACTS, key));
    change.views.extend(name.map(|name| by_name(id, name, true)));
}

/// Ensures that the contact exists, with this name if one is given.
pub(super) fn save(
    state: Option<&State>,
    identifier: &str,
    name: &Patch<String>,
    context: &DecisionContext,
) -> Decision<Contact> {
    match living(state) {
        Some(state) => update(state, name, context),
        None => {
            let name = name.as_ref().new_value().map(String::as_str);
            let id = id_of(state, context);
            let mut after = State {
                id,
                identifier: identifier.to_owned(),
                name: name.map(str::to_owned),
                updated_at: context.now,
                open: Vec::new(),
                erased_at: None,
                erasing: None,
                first_seq: Some(context.next_seq).filter(|seq| *seq > 1),
                outbox: None,
                last_seq: Some(context.next_seq),
                began_at: id_clock::earlier(context.now, id.at),
            };
            if let Some(former) = state {
                after.open.clone_from(&former.open);
                after.erasing = former.erasing;
            }
            let mut change = Change::new(Vec::new(), Reply::Contact(Saved { state: Box::new(after), created: true }));
            create(state, identifier, name, context, &mut change);
            Decision::Change(change)
        }
    }
}

/// The answer to a command that changes nothing.
fn unchanged(state: &State) -> Decision<Contact> {
    Decision::Answer(Reply::Contact(Saved { state: Box::new(state.clone()), created: false }))
}

/// Changes the name, if a different one is given.
pub(super) fn update(state: &State, name: &Patch<String>, context: &DecisionContext) -> Decision<Contact> {
    let name = name.applied_to(state.name.as_ref());
    if name == state.name {
        return unchanged(state);
    }
    let after = State { name: name.clone(), updated_at: context.now, ..state.clone() };
    let reply = Reply::Contact(Saved { state: Box::new(after), created: false });
    let mut change = Change::new(vec![Event::ContactUpdated { name: name.clone() }], reply);
    change.views.extend(state.name.iter().map(|name| by_name(state.id, name, false)));
    change.views.extend(name.iter().map(|name| by_name(state.id, name, true)));
    Decision::Change(change)
}
