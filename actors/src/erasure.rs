//! Erasing a contact: everything that stands outside of the contact's own entity.
//!
//! The order is: the contact itself (after that nobody finds it), the end of all its conversations (after that nobody
//! says anything there), their words, its memories, the contact's own log, and then the note that it is done. Each step
//! may be repeated, so whoever comes after a process that ended begins at the start, and two who do it at once do no
//! harm.

use std::sync::Arc;

use minicbor::Decode;

use crate::attachment::settle;
use crate::backoff::patiently;
use crate::codec;
use crate::contact::{self, Aside, Contact, Copied};
use crate::conversation::{self, Details, Opening, Origin};
use crate::id::{ContactId, EntityKey};
use crate::insist::{self, INSISTED, Stopped, insist};
use crate::memories::{self, Subject};
use crate::node::Node;
use crate::store::{KeyRange, StoreError, Table};
use crate::tables::{CHANNELS_ASIDE, FORKS};

/// Rows that are read at once.
const ROWS_AT_ONCE: usize = 256;

/// Goes through all of it once more, in a task of its own.
pub(crate) fn resume(node: &Arc<Node>, entity: EntityKey) {
    insist::resume(node, entity, "an erasure", run);
}

/// Erases what is left of whoever was erased at this contact's address.
///
/// # Errors
///
/// What stopped it. The contact's alarm has it resumed.
pub async fn run(node: Arc<Node>, entity: EntityKey) -> Result<(), Stopped> {
    let node = &node;
    let Some(state) = patiently(INSISTED, || node.state::<Contact>(entity)).await? else { return Ok(()) };
    let Some(erasing) = state.erasing else { return Ok(()) };
    let mut conversations: Vec<_> = state.erased_conversations(entity).collect();
    for aside in rows::<Aside>(node, entity, CHANNELS_ASIDE).await? {
        conversations.extend(state.erased_on(entity, &aside.seen_by(&state)));
    }
    conversations.extend(copies(node, entity).await?.iter().map(|copy| {
        let conversation = EntityKey::conversation(entity.workspace, copy.copy.address);
        // One that was not begun yet finds its place taken.
        let origin = Origin::Api { channel: String::new(), contact: copy.contact, agent: String::new() };
        (conversation, Some(Opening { id: copy.copy, origin, owner: None, details: Details::default() }))
    }));
    for (conversation, unused) in &conversations {
        erase_step(node, *conversation, unused.clone()).await?;
    }
    for (conversation, unused) in conversations {
        while erase_step(node, conversation, unused.clone()).await? {}
        settle::release(node, conversation).await?;
    }
    forget(node, Subject::Contact(erasing.id), entity).await?;
    while go_on(node, entity, erasing.id, contact::Step::OwnLog).await?.is_some_and(|left| left.next.is_some()) {}
    go_on(node, entity, erasing.id, contact::Step::Done).await?;
    Ok(())
}

/// The copies of conversations of everybody who was erased at this address.
async fn copies(node: &Arc<Node>, entity: EntityKey) -> Result<Vec<Copied>, StoreError> {
    let mut copies: Vec<Copied> = rows(node, entity, FORKS).await?;
    // Who has begun since has copies too, and is in a state that is looked at after them.
    let state = patiently(INSISTED, || node.state::<Contact>(entity)).await?;
    copies.retain(|copy| state.as_ref().is_none_or(|state| state.erased_at.is_some() || copy.contact != state.id));
    Ok(copies)
}

/// A whole table of the contact's.
async fn rows<T: for<'b> Decode<'b, ()>>(node: &Node, entity: EntityKey, table: Table) -> Result<Vec<T>, StoreError> {
    let mut all = Vec::new();
    let mut pages = node.pages(entity, table, KeyRange::default(), ROWS_AT_ONCE).patient(INSISTED);
    while let Some(rows) = pages.next().await? {
        for row in &rows {
            all.push(codec::decode(&row.value)?);
        }
    }
    Ok(all)
}

/// One step of the contact's own; what is left of it.
async fn go_on(
    node: &Arc<Node>,
    entity: EntityKey,
    id: ContactId,
    step: contact::Step,
) -> Result<Option<contact::Erasing>, Stopped> {
    let command = contact::Command::GoOn(id, step);
    match insist(node, &node.contacts, entity, command).await? {
        Ok(contact::Reply::Contact { state, .. }) => Ok(state.erasing),
        Ok(other) => Err(Stopped::by_answer(other)),
        // Somebody else has finished it.
        Err(_) => Ok(None),
    }
}

/// Takes some of a conversation's words away; the first step ends it. Whether there are more.
async fn erase_step(node: &Arc<Node>, entity: EntityKey, unused: Option<Opening>) -> Result<bool, Stopped> {
    match insist(node, &node.conversations, entity, conversation::Command::Erase { unused }).await? {
        Ok(conversation::Reply::Erasing(erasure)) => Ok(erasure.next.is_some()),
        Err(conversation::Rejection::NotFound) => Ok(false),
        other => Err(Stopped::by_answer(other)),
    }
}

/// Forgets what is remembered, some at a time, and remembers nothing any more.
async fn forget(node: &Arc<Node>, subject: Subject, contact: EntityKey) -> Result<(), Stopped> {
    let entity = subject.entity(contact.workspace);
    loop {
        let command = memories::Command::ForgetAll { subject: subject.clone(), for_good: true };
        match insist(node, &node.memories, entity, command).await? {
            Ok(memories::Reply::Left(0)) => return Ok(()),
            Ok(memories::Reply::Left(_)) => {}
            other => return Err(Stopped::by_answer(other)),
        }
    }
}
