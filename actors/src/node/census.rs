//! Who is there and what waits, for somebody who looks into a running node. Counts and ids, never what is said.

use crate::attachment::Attachment;
use crate::clock::Millis;
use crate::contact::Contact;
use crate::conversation::Conversation;
use crate::id::{EntityKey, Kind};
use crate::machine::Machine;

use super::Node;

/// A node as it stood; taken while everything goes on, so its parts may be of slightly different moments.
#[derive(Clone, Debug)]
pub struct Census {
    /// Entities in memory, by kind.
    pub resident: Vec<(Kind, usize)>,
    /// Those of them that have an actor, by kind.
    pub actors: Vec<(Kind, usize)>,
    /// The deepest mailboxes, deepest first.
    pub mailboxes: Vec<Mailbox>,
    /// Alarms in memory.
    pub near_alarms: usize,
    /// When the earliest of them is due.
    pub earliest_alarm: Option<Millis>,
    /// Attempts at turns that are alive.
    pub turns: usize,
}

/// An entity's queue.
#[derive(Clone, Debug)]
pub struct Mailbox {
    /// Whose it is.
    pub entity: EntityKey,
    /// The id that clients know it by, where it is stored already.
    pub id: Option<String>,
    /// Commands that wait or run.
    pub commands: usize,
    /// Bytes of their content.
    pub bytes: usize,
}

impl Node {
    /// Looks at everything once: one pass over what is resident, and a read for each mailbox that is shown.
    pub async fn census(&self, mailboxes: usize) -> Census {
        let each = || Kind::ALL.into_iter().map(|kind| (kind, self.residents(kind)));
        let mut deepest: Vec<Mailbox> = each().flat_map(|(_, entities)| entities.deepest(mailboxes)).collect();
        deepest.sort_unstable_by_key(|mailbox| std::cmp::Reverse((mailbox.commands, mailbox.bytes)));
        deepest.truncate(mailboxes);
        for mailbox in &mut deepest {
            mailbox.id = self.public_id(mailbox.entity).await;
        }
        let (near_alarms, earliest_alarm) = self.alarms.near();
        Census {
            resident: each().map(|(kind, entities)| (kind, entities.resident())).collect(),
            actors: each().map(|(kind, entities)| (kind, entities.actors())).collect(),
            mailboxes: deepest,
            near_alarms,
            earliest_alarm,
            turns: self.turns.running(),
        }
    }

    async fn public_id(&self, entity: EntityKey) -> Option<String> {
        match entity.kind {
            // Where the store cannot say it now, the rest of the census still helps.
            Kind::Conversation => Conversation::public_id(&self.state::<Conversation>(entity).await.ok()??),
            Kind::Contact => Contact::public_id(&self.state::<Contact>(entity).await.ok()??),
            Kind::Attachment => Attachment::public_id(&self.state::<Attachment>(entity).await.ok()??),
            Kind::Memories | Kind::Workspace | Kind::Installation => None,
        }
    }
}
