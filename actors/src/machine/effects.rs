//! What an entity starts and announces in its process: the half of a machine that is given the node.

use std::sync::Arc;

use super::{Machine, Record};
use crate::clock::Millis;
use crate::id::EntityKey;
use crate::node::Node;
use crate::outbox::Listeners;

/// Who is doing the work that is due in an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DueWork {
    /// Nobody, as far as this process knows: a [command](Effects::on_alarm) begins it.
    Open,
    /// A task of this process, all of it, and it reports back by itself. Then the entity is checked less often.
    Here,
    /// A live process other than this one, all of it. Then this process does none of it.
    Elsewhere,
}

/// The effects of a machine. The host calls them; none may block.
pub trait Effects: Machine {
    /// The receivers of an entity's events, as far as is known without waiting.
    fn listeners(_: &Node, _: EntityKey, _: Option<&Self::State>, _: &Self::Command) -> Listeners {
        Listeners::none()
    }

    /// Who is doing the work that is due by `now`. It starts nothing. Where it is not [`DueWork::Open`],
    /// [`Machine::alarm_meanwhile`] says what cannot wait.
    fn due_work(_node: &Node, _entity: EntityKey, _state: &Self::State, _now: Millis) -> DueWork {
        DueWork::Open
    }

    /// The command to send when the [alarm](Machine::alarm) is due. Lookups elsewhere that it needs are started here.
    fn on_alarm(node: &Arc<Node>, entity: EntityKey, state: &Self::State) -> Self::Command;

    /// Called in order, after the records are durable and before their commands are answered: besides the answers, the
    /// only place from which anything leaves an actor (invariant I1).
    fn committed(node: &Arc<Node>, entity: EntityKey, state: &Self::State, records: &[Arc<Record<Self::Event>>]);

    /// Called when the entity was loaded from the store and may hold records that [`Effects::committed`] was not called
    /// with: those of a commit whose outcome was unknown, or of another process. The state is the loaded one, if it
    /// could be read.
    fn adopted(_: &Arc<Node>, _: EntityKey, _: Option<&Self::State>) {}

    /// Called when a new actor has loaded the entity. The one before may have ended without its state after a commit
    /// whose outcome was unknown: then tasks of this process may still do what is over. Subscribers were notified of
    /// it.
    fn activated(_: &Arc<Node>, _: EntityKey, _: &Self::State) {}
}
