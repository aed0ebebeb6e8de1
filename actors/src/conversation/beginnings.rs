//! A cache of how conversations began. The beginning never changes, and reading it from the store loads the full state.

use std::sync::Arc;

use dashmap::DashMap;

use super::{Origin, State};
use crate::clock::Millis;
use crate::id::{ConversationId, EntityKey};
use crate::limits;

/// How a conversation began.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Beginning {
    pub(crate) id: ConversationId,
    pub(crate) origin: Arc<Origin>,
    pub(crate) created_at: Millis,
}

/// The cached beginnings.
#[derive(Debug, Default)]
pub(crate) struct Beginnings(DashMap<EntityKey, Beginning>);

impl Beginnings {
    /// The beginning of a conversation, if it is cached.
    pub(crate) fn get(&self, conversation: EntityKey) -> Option<Beginning> {
        self.0.get(&conversation).map(|known| known.clone())
    }

    /// Adds one. A full cache is cleared: conversations in use are soon in it again.
    pub(crate) fn put(&self, conversation: EntityKey, state: State) -> Beginning {
        if self.0.len() >= limits::KNOWN_BEGINNINGS {
            self.0.clear();
        }
        let created_at = state.created_at();
        let begun = || Beginning { id: state.id, origin: Arc::new(state.origin), created_at };
        self.0.entry(conversation).or_insert_with(begun).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::Event;
    use crate::id::Address;
    use crate::machine::Record;

    #[test]
    fn remembered_beginnings_are_bounded() {
        let beginnings = Beginnings::default();
        let address = |n: usize| {
            let mut id = [0; 10];
            id[..8].copy_from_slice(&n.to_be_bytes());
            Address(id)
        };
        let conversation = |n| EntityKey::conversation(Address([1; 10]), address(n));
        for n in 0..=limits::KNOWN_BEGINNINGS {
            let id = ConversationId::new(Millis(2), address(n));
            let origin = Origin::Human { channel: n.to_string() };
            let details = crate::conversation::Details::default();
            let event = Event::ConversationCreated { id, origin, owner: None, details, forked: None };
            beginnings
                .put(conversation(n), State::begun(&Record { seq: 1, at: Millis(1), trace: None, event }).unwrap());
        }
        assert_eq!(beginnings.get(conversation(0)), None);
        let Beginning { id, origin, created_at } = beginnings.get(conversation(limits::KNOWN_BEGINNINGS)).unwrap();
        assert_eq!((id.address, created_at), (address(limits::KNOWN_BEGINNINGS), Millis(1)));
        assert_eq!(origin.human_channel(), Some(limits::KNOWN_BEGINNINGS.to_string().as_str()));
    }
}
