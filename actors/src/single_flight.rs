//! One task for each entity, or whatever the tasks are for, at a time, and once more where somebody asks while it runs.

use std::hash::Hash;
use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::id::EntityKey;

/// What a task of one kind is running for.
#[derive(Debug)]
pub(crate) struct SingleFlight<K: Eq + Hash = EntityKey> {
    /// Each with whether somebody has asked since its task looked last.
    flying: DashMap<K, bool>,
}

impl<K: Eq + Hash> Default for SingleFlight<K> {
    fn default() -> Self {
        Self { flying: DashMap::new() }
    }
}

impl<K: Copy + Eq + Hash> SingleFlight<K> {
    /// The right to be the task of `key`. `None`: another one is, and will look once more.
    pub(crate) fn begin(self: &Arc<Self>, key: K) -> Option<Flight<K>> {
        match self.flying.entry(key) {
            Entry::Occupied(mut again) => {
                *again.get_mut() = true;
                None
            }
            Entry::Vacant(place) => {
                place.insert(false);
                Some(Flight { flights: Arc::clone(self), key, has_landed: false })
            }
        }
    }

    /// Whether a task is at this one, or about to be.
    pub(crate) fn is_flying(&self, key: K) -> bool {
        self.flying.contains_key(&key)
    }
}

/// Being the task of something. It ends with [`Flight::again`], or when it is dropped; then what was asked for
/// meanwhile is left to whoever asks next.
#[derive(Debug)]
pub(crate) struct Flight<K: Eq + Hash = EntityKey> {
    flights: Arc<SingleFlight<K>>,
    key: K,
    has_landed: bool,
}

impl<K: Copy + Eq + Hash> Flight<K> {
    /// Whose task it is.
    pub(crate) fn key(&self) -> K {
        self.key
    }

    /// Said where the task begins to look some time after the flight: whoever has asked until now is looked after by
    /// this look.
    pub(crate) fn looks(&self) {
        if !self.has_landed {
            self.flights.flying.insert(self.key, false);
        }
    }

    /// Whether somebody has asked since the task looked last. If nobody has, the flight is over with this very answer:
    /// whoever asks from now on begins another, so that nobody's question falls between the two.
    pub(crate) fn again(&mut self) -> bool {
        if self.has_landed {
            return false;
        }
        self.has_landed = self.flights.flying.remove_if(&self.key, |_, again| !*again).is_some();
        if !self.has_landed {
            self.flights.flying.insert(self.key, false);
        }
        !self.has_landed
    }
}

impl<K: Eq + Hash> Drop for Flight<K> {
    fn drop(&mut self) {
        if !self.has_landed {
            self.flights.flying.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Address;

    fn entity() -> EntityKey {
        EntityKey::workspace(Address([1; 10]))
    }

    #[test]
    fn whoever_asks_while_a_task_runs_is_looked_after_by_it() {
        let flights = Arc::new(SingleFlight::default());
        let mut flight = flights.begin(entity()).unwrap();
        assert!(flights.begin(entity()).is_none());
        assert!(flights.begin(entity()).is_none());
        assert!(flight.again(), "somebody has asked");
        assert!(!flight.again(), "nobody has asked since");
    }

    #[test]
    fn whoever_asks_before_the_task_looks_is_looked_after_by_that_look() {
        let flights = Arc::new(SingleFlight::default());
        let mut flight = flights.begin(entity()).unwrap();
        assert!(flights.begin(entity()).is_none());
        flight.looks();
        assert!(!flight.again(), "nobody has asked since");
        let next = flights.begin(entity()).unwrap();
        flight.looks();
        assert!(flights.begin(entity()).is_none(), "a flight that is over looked for the second");
        drop(next);
    }

    #[test]
    fn whoever_asks_after_the_last_look_has_a_task_of_their_own() {
        let flights = Arc::new(SingleFlight::default());
        let mut flight = flights.begin(entity()).unwrap();
        assert!(!flight.again());
        let mut next = flights.begin(entity()).expect("the first is over, though it has not gone yet");
        drop(flight);
        assert!(flights.begin(entity()).is_none(), "going, the first took the second off");
        assert!(next.again());
    }

    #[test]
    fn a_task_that_breaks_down_keeps_nobody_from_the_next() {
        let flights = Arc::new(SingleFlight::default());
        drop(flights.begin(entity()));
        assert!(flights.begin(entity()).is_some());
    }
}
