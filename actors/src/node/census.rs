//! Counts of residents, queues and running work, for `/metrics` and `GET /admin/runtime`. Counts and ids only, never
//! words of messages.

use crate::attachment::Attachment;
use crate::clock::Millis;
use crate::contact::Contact;
use crate::conversation::Conversation;
use crate::id::{EntityKey, Kind};
use crate::machine::Machine;

use super::Node;

/// A node's current numbers; taken while it runs, so its parts may be of slightly different moments. Every output of
/// these numbers reads them here.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// When they were taken.
    pub at: Millis,
    /// Entities in memory, by kind.
    pub resident: Vec<(Kind, usize)>,
    /// The entities with an actor, by kind.
    pub actors: Vec<(Kind, usize)>,
    /// Commands admitted and not answered yet.
    pub commands: usize,
    /// Bytes of their content.
    pub command_bytes: usize,
    /// Attempts at turns that are alive.
    pub turns: usize,
    /// Pending and running deliveries of events.
    pub outbox: OutboxStatus,
}

/// Pending and running deliveries; see [`Outboxes`](crate::outbox::Outboxes) for the meaning of each.
#[derive(Clone, Copy, Debug)]
pub struct OutboxStatus {
    /// Logs that are being sent from.
    pub active: usize,
    /// Events that are being sent.
    pub in_flight: usize,
    /// Receivers that are paused, as nothing arrives there.
    pub open_circuits: usize,
    /// Longest time that a log has been sent from without a pause, in milliseconds.
    pub oldest_millis: u64,
    /// Age of the oldest event that waits for its first attempt, in milliseconds.
    pub untried_millis: u64,
}

/// Numbers that take longer to collect: a pass over all residents.
#[derive(Clone, Debug)]
pub struct Census {
    /// The deepest mailboxes, deepest first.
    pub mailboxes: Vec<Mailbox>,
    /// Alarms in memory.
    pub near_alarms: usize,
    /// When the earliest of them is due.
    pub earliest_alarm: Option<Millis>,
}

/// An entity's queue.
#[derive(Clone, Debug)]
pub struct Mailbox {
    /// Its entity.
    pub entity: EntityKey,
    /// The id that clients know it by, if it is stored already.
    pub id: Option<String>,
    /// Commands that wait or run.
    pub commands: usize,
    /// Bytes of their content.
    pub bytes: usize,
}

impl Node {
    /// The numbers that are available at once.
    pub fn status(&self) -> NodeStatus {
        let at = self.now();
        let outbox = self.outbox();
        let each = || Kind::ALL.into_iter().map(|kind| (kind, self.residents(kind)));
        NodeStatus {
            at,
            resident: each().map(|(kind, entities)| (kind, entities.resident())).collect(),
            actors: each().map(|(kind, entities)| (kind, entities.actors())).collect(),
            commands: self.admission().in_flight(),
            command_bytes: self.admission().bytes_in_flight(),
            turns: self.running_turns(),
            outbox: OutboxStatus {
                active: outbox.active(),
                in_flight: outbox.in_flight(),
                open_circuits: outbox.open_circuits(),
                oldest_millis: outbox.oldest(at),
                untried_millis: outbox.oldest_untried(at),
            },
        }
    }

    /// Collects the rest: one pass over all residents, and a read for each mailbox in the result.
    pub async fn census(&self, mailboxes: usize) -> Census {
        let each = Kind::ALL.into_iter().map(|kind| self.residents(kind));
        let mut deepest: Vec<Mailbox> = each.flat_map(|entities| entities.deepest(mailboxes)).collect();
        deepest.sort_unstable_by_key(|mailbox| std::cmp::Reverse((mailbox.commands, mailbox.bytes)));
        deepest.truncate(mailboxes);
        for mailbox in &mut deepest {
            mailbox.id = self.public_id(mailbox.entity).await;
        }
        let (near_alarms, earliest_alarm) = self.alarms.near();
        Census { mailboxes: deepest, near_alarms, earliest_alarm }
    }

    async fn public_id(&self, entity: EntityKey) -> Option<String> {
        match entity.kind {
            // If the store is unavailable, the rest of the census still helps.
            Kind::Conversation => Conversation::public_id(&self.state::<Conversation>(entity).await.ok()??),
            Kind::Contact => Contact::public_id(&self.state::<Contact>(entity).await.ok()??),
            Kind::Attachment => Attachment::public_id(&self.state::<Attachment>(entity).await.ok()??),
            Kind::Memories | Kind::Workspace | Kind::Installation => None,
        }
    }
}
