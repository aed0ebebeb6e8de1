//! Single flight: one task at a time for each key (usually an entity), repeated once if it is requested while it runs.

use std::hash::Hash;
use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::id::EntityKey;

/// The keys with a running task of one kind. `P` is the value that each task leaves for requests that find it running.
#[derive(Debug)]
pub(crate) struct SingleFlight<K: Eq + Hash = EntityKey, P = ()> {
    flying: DashMap<K, Flying<P>>,
}

#[derive(Debug)]
struct Flying<P> {
    /// It was requested again since the newest run began.
    again: bool,
    value: P,
}

impl<K: Eq + Hash, P> Default for SingleFlight<K, P> {
    fn default() -> Self {
        Self { flying: DashMap::new() }
    }
}

impl<K: Copy + Eq + Hash> SingleFlight<K> {
    /// The right to run the task of `key`. `None`: another task runs, and will run once more.
    pub(crate) fn begin(self: &Arc<Self>, key: K) -> Option<Flight<K>> {
        self.join(key, ()).ok()
    }
}

impl<K: Copy + Eq + Hash, P: Clone> SingleFlight<K, P> {
    /// The right to run the task of `key`, with a value for requests that find it running.
    ///
    /// # Errors
    ///
    /// The value of the running task, which will run once more.
    pub(crate) fn join(self: &Arc<Self>, key: K, value: P) -> Result<Flight<K, P>, P> {
        match self.flying.entry(key) {
            Entry::Occupied(mut flying) => {
                flying.get_mut().again = true;
                Err(flying.get().value.clone())
            }
            Entry::Vacant(place) => {
                place.insert(Flying { again: false, value });
                Ok(Flight { flights: Arc::clone(self), key, has_landed: false })
            }
        }
    }

    /// Whether a task runs for this key, or is about to.
    pub(crate) fn is_flying(&self, key: K) -> bool {
        self.flying.contains_key(&key)
    }
}

impl<K: Eq + Hash, P> SingleFlight<K, P> {
    /// All requests until now are served by the run that begins.
    fn cover_requests(&self, key: &K) {
        if let Some(mut flying) = self.flying.get_mut(key) {
            flying.again = false;
        }
    }
}

/// The right to run the task of one key. It ends with [`Flight::again`], or when it is dropped; then requests made
/// meanwhile are left to the next caller.
#[derive(Debug)]
pub(crate) struct Flight<K: Eq + Hash = EntityKey, P = ()> {
    flights: Arc<SingleFlight<K, P>>,
    key: K,
    has_landed: bool,
}

impl<K: Copy + Eq + Hash, P> Flight<K, P> {
    /// The key of the task.
    pub(crate) fn key(&self) -> K {
        self.key
    }

    /// Called when the task begins a run some time after the flight began: this run serves all requests until now.
    pub(crate) fn start_run(&self) {
        if !self.has_landed {
            self.flights.cover_requests(&self.key);
        }
    }

    /// Whether it was requested again since the newest run began. If not, the flight ends with this answer: a later
    /// request begins another one, so that no request is lost between the two.
    pub(crate) fn again(&mut self) -> bool {
        if self.has_landed {
            return false;
        }
        self.has_landed = self.flights.flying.remove_if(&self.key, |_, flying| !flying.again).is_some();
        if !self.has_landed {
            self.flights.cover_requests(&self.key);
        }
        !self.has_landed
    }
}

impl<K: Eq + Hash, P> Drop for Flight<K, P> {
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
    fn a_request_during_a_task_makes_it_run_once_more() {
        let flights = Arc::new(SingleFlight::default());
        let mut flight = flights.begin(entity()).unwrap();
        assert!(flights.begin(entity()).is_none());
        assert!(flights.begin(entity()).is_none());
        assert!(flight.again(), "somebody has asked");
        assert!(!flight.again(), "nobody has asked since");
    }

    #[test]
    fn a_request_before_the_task_reads_is_covered_by_that_read() {
        let flights = Arc::new(SingleFlight::default());
        let mut flight = flights.begin(entity()).unwrap();
        assert!(flights.begin(entity()).is_none());
        flight.start_run();
        assert!(!flight.again(), "nobody has asked since");
        let next = flights.begin(entity()).unwrap();
        flight.start_run();
        assert!(flights.begin(entity()).is_none(), "a flight that is over looked for the second");
        drop(next);
    }

    #[test]
    fn a_request_after_the_last_read_starts_another_task() {
        let flights = Arc::new(SingleFlight::default());
        let mut flight = flights.begin(entity()).unwrap();
        assert!(!flight.again());
        let mut next = flights.begin(entity()).expect("the first is over, though it has not gone yet");
        drop(flight);
        assert!(flights.begin(entity()).is_none(), "going, the first took the second off");
        assert!(next.again());
    }

    #[test]
    fn a_task_that_panics_does_not_block_the_next() {
        let flights = Arc::new(SingleFlight::default());
        drop(flights.begin(entity()));
        assert!(flights.begin(entity()).is_some());
    }
}
