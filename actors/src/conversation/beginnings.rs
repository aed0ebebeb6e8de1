//! How conversations began, as far as somebody has asked: it never changes, and to read it from the store takes the
//! conversation's whole state.

use std::sync::Arc;

use dashmap::DashMap;

use super::Origin;
use crate::id::{ConversationId, EntityKey};
use crate::limits;

/// Under which id, and where it comes from.
pub(crate) type Beginning = (ConversationId, Arc<Origin>);

/// Those that are known.
#[derive(Debug, Default)]
pub(crate) struct Beginnings(DashMap<EntityKey, Beginning>);

impl Beginnings {
    /// How this one began, if that is known.
    pub(crate) fn get(&self, conversation: EntityKey) -> Option<Beginning> {
        self.0.get(&conversation).map(|known| known.clone())
    }

    /// Remembers it. Where too many are known all are forgotten: who is asked for again is soon known again.
    pub(crate) fn put(&self, conversation: EntityKey, id: ConversationId, origin: Origin) -> Beginning {
        if self.0.len() >= limits::KNOWN_BEGINNINGS {
            self.0.clear();
        }
        self.0.entry(conversation).or_insert_with(|| (id, Arc::new(origin))).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Millis;
    use crate::id::Address;

    #[test]
    fn so_many_are_known_and_no_more() {
        let beginnings = Beginnings::default();
        let address = |n: usize| {
            let mut id = [0; 10];
            id[..8].copy_from_slice(&n.to_be_bytes());
            Address(id)
        };
        let conversation = |n| EntityKey::conversation(Address([1; 10]), address(n));
        for n in 0..=limits::KNOWN_BEGINNINGS {
            let id = ConversationId::new(Millis(1), address(n));
            beginnings.put(conversation(n), id, Origin::Human { channel: n.to_string() });
        }
        assert_eq!(beginnings.get(conversation(0)), None);
        let (id, origin) = beginnings.get(conversation(limits::KNOWN_BEGINNINGS)).unwrap();
        assert_eq!(id.address, address(limits::KNOWN_BEGINNINGS));
        assert_eq!(origin.human_channel(), Some(limits::KNOWN_BEGINNINGS.to_string().as_str()));
    }
}
