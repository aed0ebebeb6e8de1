//! Where conversations come from, as far as somebody has asked: it never changes, and to read it from the store takes
//! the conversation's whole state.

use std::sync::Arc;

use dashmap::DashMap;

use super::Origin;
use crate::id::EntityKey;
use crate::limits;

/// Those that are known.
#[derive(Debug, Default)]
pub(crate) struct Origins(DashMap<EntityKey, Arc<Origin>>);

impl Origins {
    /// Where this one comes from, if that is known.
    pub(crate) fn get(&self, conversation: EntityKey) -> Option<Arc<Origin>> {
        self.0.get(&conversation).map(|known| Arc::clone(&known))
    }

    /// Remembers it. Where too many are known all are forgotten: who is asked for again is soon known again.
    pub(crate) fn put(&self, conversation: EntityKey, origin: Origin) -> Arc<Origin> {
        if self.0.len() >= limits::KNOWN_ORIGINS {
            self.0.clear();
        }
        Arc::clone(&self.0.entry(conversation).or_insert_with(|| Arc::new(origin)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Address;

    #[test]
    fn so_many_are_known_and_no_more() {
        let origins = Origins::default();
        let conversation = |n: usize| {
            let mut id = [0; 10];
            id[..8].copy_from_slice(&n.to_be_bytes());
            EntityKey::conversation(Address([1; 10]), Address(id))
        };
        for n in 0..=limits::KNOWN_ORIGINS {
            origins.put(conversation(n), Origin::Human { channel: n.to_string() });
        }
        assert_eq!(origins.get(conversation(0)), None);
        let newest = origins.get(conversation(limits::KNOWN_ORIGINS)).unwrap();
        assert_eq!(newest.human_channel(), Some(limits::KNOWN_ORIGINS.to_string().as_str()));
    }
}
