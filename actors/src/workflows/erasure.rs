//! Erasing a contact: the steps outside of the contact's own entity.
//!
//! The order is: the contact itself (after that it cannot be found), the end of all its conversations (after that they
//! accept no message), their content, its memories, the contact's own log, and then the note that it is done. Each step
//! may be repeated, so a process that takes over from one that ended begins at the start, and two processes that do it
//! at once do no harm. An entity that cannot be read or does not answer only prevents the final note.

use std::sync::Arc;

use minicbor::Decode;

use crate::attachment::settle;
use crate::codec;
use crate::contact::{self, AdvanceErasure, Contact, Copied, OverflowRow};
use crate::conversation::{self, Erase, EraseCopy, Opening};
use crate::id::{ContactId, EntityKey};
use crate::memories::{ForgetAll, Subject};
use crate::node::Node;
use crate::store::{KeyRange, Table};
use crate::tables::{CHANNELS_ASIDE, FORKS};
use crate::tasks::backoff::retry_transient;
use crate::tasks::retry_command::{RETRY_TIMEOUT, Stopped, retry_command};
use crate::tasks::shared_job::{self, JobHandle};

pub(crate) mod progress;

/// Rows that are read at once.
const ROWS_AT_ONCE: usize = 256;

/// Erases all remaining data, in a task of its own; a running task repeats all steps once more.
pub fn begin(node: &Arc<Node>, entity: EntityKey) -> JobHandle {
    shared_job::begin(node, entity, "an erasure", run)
}

/// Erases all remaining data, unless a task does so already.
pub(crate) fn resume(node: &Arc<Node>, entity: EntityKey) {
    shared_job::resume(node, entity, "an erasure", run);
}

/// Erases the remaining data of the contacts that were erased at this address. A step that fails does not stop the
/// others.
///
/// # Errors
///
/// The error of the first failed step. The contact's alarm has all steps repeated.
pub async fn run(node: Arc<Node>, entity: EntityKey) -> Result<(), Stopped> {
    let node = &node;
    let Some(state) = retry_transient(RETRY_TIMEOUT, || node.state::<Contact>(entity)).await? else { return Ok(()) };
    let Some(erasing) = state.erasing else { return Ok(()) };
    let mut failures = Failures::default();
    let mut ended = Vec::new();
    for (conversation, ownership) in conversations(node, &state, entity, &mut failures).await {
        let step = erase_step(node, conversation, &ownership).await;
        if failures.take(conversation, step).flatten().is_some() {
            ended.push((conversation, ownership));
        }
    }
    for (conversation, ownership) in ended {
        failures.take(conversation, redact_conversation(node, conversation, &ownership).await);
        failures.take(conversation, settle::release(node, conversation).await);
    }
    let subject = Subject::Contact(erasing.id);
    failures.take(subject.entity(entity.workspace), forget(node, subject, entity).await);
    failures.take(entity, redact_contact_log(node, entity, erasing.id).await);
    failures.into_result(entity)?;
    match contact_step(node, entity, erasing.id, contact::ErasureStep::Done).await? {
        None => Ok(()),
        Some(erasing) => Err(Stopped::by_answer(erasing)),
    }
}

/// Log lines about failed steps of one run; one more line has their number.
const MAX_LOG_LINES: u64 = 8;

/// The failures of a run.
#[derive(Default)]
struct Failures {
    first: Option<Stopped>,
    count: u64,
}

impl Failures {
    /// The result of a step on an entity; `None`: it failed, which is recorded and logged.
    fn take<T>(&mut self, of: EntityKey, done: Result<T, impl Into<Stopped>>) -> Option<T> {
        let error = match done {
            Ok(done) => return Some(done),
            Err(error) => error.into(),
        };
        self.count += 1;
        if self.count <= MAX_LOG_LINES {
            tracing::warn!(entity = ?of, %error, "part of a contact could not be erased; retrying");
        }
        self.first.get_or_insert(error);
        None
    }

    /// `Ok` without failures; else the first of them.
    fn into_result(self, contact: EntityKey) -> Result<(), Stopped> {
        if self.count > MAX_LOG_LINES {
            tracing::warn!(?contact, parts = self.count, "many parts of a contact could not be erased; retrying");
        }
        self.first.map_or(Ok(()), Err)
    }
}

/// How a conversation belongs to a contact.
enum Ownership {
    /// It was assigned; with its opening, if it may be unused.
    Assigned(Option<Opening>),
    /// This contact noted it as a copy.
    Copy(ContactId),
}

/// Every conversation of the contacts that were erased at this address, as far as they can be read.
async fn conversations(
    node: &Arc<Node>,
    state: &contact::State,
    entity: EntityKey,
    failures: &mut Failures,
) -> Vec<(EntityKey, Ownership)> {
    let mut assigned: Vec<_> = state.erased_conversations(entity).collect();
    for row in rows::<OverflowRow>(node, entity, CHANNELS_ASIDE, failures).await {
        assigned.extend(state.erased_on(entity, &row.seen_by(state)));
    }
    let assigned = assigned.into_iter().map(|(conversation, unused)| (conversation, Ownership::Assigned(unused)));
    let mut conversations: Vec<_> = assigned.collect();
    conversations.extend(
        copies(node, entity, failures)
            .await
            .iter()
            .map(|copy| (EntityKey::conversation(entity.workspace, copy.copy.address), Ownership::Copy(copy.contact))),
    );
    conversations
}

/// The copies of conversations of the contacts that were erased at this address.
async fn copies(node: &Arc<Node>, entity: EntityKey, failures: &mut Failures) -> Vec<Copied> {
    let mut copies: Vec<Copied> = rows(node, entity, FORKS, failures).await;
    // A contact that began since has copies too; it is in the state, which is read after them.
    let state = retry_transient(RETRY_TIMEOUT, || node.state::<Contact>(entity)).await;
    let Some(state) = failures.take(entity, state) else { return Vec::new() };
    copies.retain(|copy| state.as_ref().is_none_or(|state| state.erased_at.is_some() || copy.contact != state.id));
    copies
}

/// The rows of one of the contact's tables, as far as they can be read.
async fn rows<T: for<'b> Decode<'b, ()>>(
    node: &Node,
    entity: EntityKey,
    table: Table,
    failures: &mut Failures,
) -> Vec<T> {
    let mut all = Vec::new();
    let mut pages = node.pages(entity, table, KeyRange::default(), ROWS_AT_ONCE).patient(RETRY_TIMEOUT);
    while let Some(rows) = failures.take(entity, pages.next().await).flatten() {
        all.extend(rows.iter().filter_map(|row| failures.take(entity, codec::decode(&row.value))));
    }
    all
}

/// Erases the content of a closed conversation.
async fn redact_conversation(node: &Arc<Node>, entity: EntityKey, ownership: &Ownership) -> Result<(), Stopped> {
    loop {
        match erase_step(node, entity, ownership).await? {
            Some(conversation::Erasure { next: Some(_), .. }) => {}
            left => return none_unread(left.and_then(|erasure| erasure.first_unread)),
        }
    }
}

/// Fails with the first event that was not redacted, if there is one.
fn none_unread(seq: Option<u64>) -> Result<(), Stopped> {
    seq.map_or(Ok(()), |seq| Err(Stopped::Refused(format!("event {seq} cannot be read and is kept").into())))
}

/// Removes the contact's identity from its log.
async fn redact_contact_log(node: &Arc<Node>, entity: EntityKey, id: ContactId) -> Result<(), Stopped> {
    loop {
        match contact_step(node, entity, id, contact::ErasureStep::Log).await? {
            Some(contact::Erasing { next: Some(_), .. }) => {}
            left => return none_unread(left.and_then(|erasing| erasing.first_unread)),
        }
    }
}

/// Does one step in the contact's own entity; returns the remaining work. If another erasure has taken over, this one
/// stops: the other one includes the remaining work, and reports when it is done.
async fn contact_step(
    node: &Arc<Node>,
    entity: EntityKey,
    id: ContactId,
    step: contact::ErasureStep,
) -> Result<Option<contact::Erasing>, Stopped> {
    match retry_command(node, &node.contacts, entity, AdvanceErasure(id, step)).await? {
        Ok(state) => match state.erasing {
            Some(other) if other.id != id => Err(Stopped::Refused("another erasure is in progress".into())),
            erasing => Ok(erasing),
        },
        // Another process has finished it.
        Err(_) => Ok(None),
    }
}

/// Erases some of a conversation's content; the first step closes it. Returns the progress; `None`: it does not exist,
/// or belongs to another contact.
async fn erase_step(
    node: &Arc<Node>,
    entity: EntityKey,
    ownership: &Ownership,
) -> Result<Option<conversation::Erasure>, Stopped> {
    let conversations = &node.conversations;
    let reply = match ownership {
        Ownership::Assigned(unused) => {
            retry_command(node, conversations, entity, Erase { unused: unused.clone() }).await?.map(Some)
        }
        Ownership::Copy(contact) => retry_command(node, conversations, entity, EraseCopy(*contact)).await?,
    };
    match reply {
        Ok(erasure) => Ok(erasure),
        Err(conversation::Rejection::NotFound) => Ok(None),
        Err(other) => Err(Stopped::by_answer(other)),
    }
}

/// Deletes the subject's memories, some at a time, and bars new ones.
async fn forget(node: &Arc<Node>, subject: Subject, contact: EntityKey) -> Result<(), Stopped> {
    let entity = subject.entity(contact.workspace);
    loop {
        let forget = ForgetAll { subject: subject.clone(), for_good: true };
        match retry_command(node, &node.memories, entity, forget).await? {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(rejection) => return Err(Stopped::by_answer(rejection)),
        }
    }
}
