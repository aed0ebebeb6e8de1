//! A contact's events as they are sent to receivers. Only the workspace's endpoints can subscribe to them: a contact
//! belongs to no channel.

use std::sync::Arc;

use super::{Command, Contact, Event, Reply, State};
use crate::directory::Directory;
use crate::id::{ContactId, EntityKey};
use crate::machine::{Change, DecisionContext, ReadSet, Record};
use crate::node::Node;
use crate::outbox::receivers::{Hooks, Subject};
use crate::outbox::state::{self, Log, Outbox, Settlement};
use crate::outbox::{Happened, LaneRow, LogOf, LogScope, Sending, Sends};
use crate::store::StoreError;

/// Adds to a change the mark that has its events sent, if any endpoint subscribes to them; as a conversation does.
pub(super) fn marked(
    state: Option<&State>,
    mut change: Change<Contact>,
    context: &DecisionContext,
    reads: &ReadSet,
) -> Change<Contact> {
    let outbox = state.and_then(|state| state.outbox.as_ref());
    let is_wanted = |event: &Event| event.name().is_some_and(|name| reads.listeners().want(name, None));
    if change.events.iter().any(is_wanted)
        && let Some((outbox, entry)) = state::opened(context.entity, outbox, context.next_seq, context.now)
    {
        change.events.push(Event::OutboxMoved { outbox: Some(outbox) });
        change.views.push(entry);
    }
    change
}

/// The contact that an event is about: several may have lived at one address, one after the other.
async fn contact_of(node: &Node, entity: EntityKey, record: &Record<Event>) -> Result<ContactId, StoreError> {
    let created = |record: &Record<Event>| match record.event {
        Event::ContactCreated { id, .. } => Some(id),
        _ => None,
    };
    if let Some(id) = created(record) {
        return Ok(id);
    }
    let before = record.seq.saturating_sub(1);
    let id = node.find_back::<Contact, _>(entity, before, |record| created(&record)).await?;
    id.ok_or_else(|| StoreError::Corrupt("a contact's log has no creation event".into()))
}

impl Sends for Contact {
    fn directory(node: &Node) -> &Directory<Self> {
        &node.contacts
    }

    fn outbox(state: &State) -> Option<&Outbox> {
        state.outbox.as_ref()
    }

    fn log(entity: EntityKey, state: &State) -> Log {
        Log { entity, began: state.id.at, last_seq: state.last_seq.unwrap_or_default() }
    }

    fn scope(state: &State) -> LogScope {
        LogScope { log: LogOf::Contact(state.id), channel: None }
    }

    fn subject(record: &Record<Event>) -> Option<Subject> {
        Some(Subject { event: record.event.name()?, at: record.at, message: None, is_outcome: false })
    }

    fn hooks(_: &Record<Event>) -> Option<Hooks> {
        None
    }

    async fn happened(node: &Node, entity: EntityKey, record: Arc<Record<Event>>) -> Result<Happened, StoreError> {
        let contact = contact_of(node, entity, &record).await?;
        Ok(Happened::Contact { record, contact })
    }

    fn settle(settlement: Settlement) -> Command {
        Command::Outbox(Sending::Settle(settlement))
    }

    fn moved(outbox: Option<Outbox>) -> Event {
        Event::OutboxMoved { outbox }
    }

    fn noted(again: Option<LaneRow>) -> Reply {
        again.map_or(Reply::Nothing, |lane| Reply::Again(Box::new(lane)))
    }
}
