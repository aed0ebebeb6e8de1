//! Deduplicates concurrent requests with one idempotency key: the first one fetches the file, the others wait for its
//! outcome, or are refused if they are not identical.

use std::sync::Arc;

use actors::directory::KeyUse;
use actors::store::{Fingerprint, KeyHash};
use dashmap::{DashMap, Entry};
use tokio::sync::watch;

use crate::http::refusal::key_reused;
use crate::problem::Problem;

/// The outcome of the first request: there is a message that the others can join, or there will be none, and why.
type Outcome = Result<(), Problem>;

/// The requests that fetch now, by their keys; bounded by the number of requests.
#[derive(Debug, Default)]
pub(super) struct SingleFlight(DashMap<KeyHash, InFlight>);

/// A request that fetches.
#[derive(Clone, Debug)]
struct InFlight {
    /// A request with another body is not identical.
    fingerprint: Fingerprint,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// The request that fetches. If it is dropped without an outcome, one of the others takes over.
#[derive(Debug)]
pub(in crate::http::messages) struct FlightLeader {
    flights: Arc<SingleFlight>,
    key: KeyHash,
    sender: watch::Sender<Option<Outcome>>,
}

impl SingleFlight {
    /// Whether a request with this key fetches.
    pub(super) fn has(&self, key: KeyHash) -> bool {
        self.0.contains_key(&key)
    }

    /// Waits until this request is the first, or until an identical one has a message (`None`).
    ///
    /// # Errors
    /// The problem of the identical request. 422 at once while a request with another body fetches: should that one
    /// fail, the key is free again.
    pub(super) async fn enter(self: &Arc<Self>, used: KeyUse) -> Result<Option<FlightLeader>, Problem> {
        loop {
            let InFlight { fingerprint, outcome: mut receiver } = match self.begin(used) {
                Ok(first) => return Ok(Some(first)),
                Err(in_flight) => in_flight,
            };
            if fingerprint != used.fingerprint {
                return Err(key_reused());
            }
            let outcome = receiver.wait_for(Option::is_some).await.map_or(None, |outcome| outcome.clone());
            // Without one, the first request has ended without an outcome.
            if let Some(outcome) = outcome {
                return outcome.map(|()| None);
            }
        }
    }

    /// Becomes the first, or returns the request that is.
    fn begin(self: &Arc<Self>, used: KeyUse) -> Result<FlightLeader, InFlight> {
        match self.0.entry(used.hash) {
            Entry::Occupied(first) => Err(first.get().clone()),
            Entry::Vacant(place) => {
                let (sender, outcome) = watch::channel(None);
                place.insert(InFlight { fingerprint: used.fingerprint, outcome });
                Ok(FlightLeader { flights: Arc::clone(self), key: used.hash, sender })
            }
        }
    }
}

impl FlightLeader {
    /// It has a message.
    pub(in crate::http::messages) fn accepted(&self) {
        self.finish(Ok(()));
    }

    /// It has none and will have none.
    pub(in crate::http::messages) fn refused(&self, problem: &Problem) {
        self.finish(Err(problem.clone()));
    }

    /// Only the first outcome counts.
    fn finish(&self, outcome: Outcome) {
        if self.is_over() {
            return;
        }
        // Later requests look for the message, or fetch again.
        self.flights.0.remove(&self.key);
        self.sender.send_replace(Some(outcome));
    }

    fn is_over(&self) -> bool {
        self.sender.borrow().is_some()
    }
}

impl Drop for FlightLeader {
    fn drop(&mut self) {
        // Before the others see that this one has ended, so that one of them can become the first.
        if !self.is_over() {
            self.flights.0.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn used(body: u8) -> KeyUse {
        KeyUse::within(KeyHash([1; 16]), Fingerprint([body; 16]))
    }

    fn first(flights: &Arc<SingleFlight>) -> FlightLeader {
        flights.enter(used(1)).now_or_never().unwrap().unwrap().unwrap()
    }

    /// Who comes later begins anew.
    #[test]
    fn identical_requests_get_the_outcome_of_the_first() {
        let flights = Arc::new(SingleFlight::default());
        let fetching = first(&flights);
        let waiting = [0, 1].map(|_| Box::pin(flights.enter(used(1))));
        let waiting = waiting.map(|mut one| ((&mut one).now_or_never().is_none(), one));
        fetching.refused(&Problem::fault("/url", "media_unreachable", "nothing came"));
        let next = first(&flights);
        // Neither a second outcome nor its end affects the next one.
        fetching.accepted();
        drop(fetching);
        for (waited, one) in waiting {
            assert!(waited);
            assert_eq!(one.now_or_never().unwrap().unwrap_err().code, "media_unreachable");
        }
        let mut waiting = Box::pin(flights.enter(used(1)));
        assert!((&mut waiting).now_or_never().is_none());
        next.accepted();
        assert!(waiting.now_or_never().unwrap().unwrap().is_none(), "there is a message to look for");
        assert!(flights.0.is_empty());
    }

    #[test]
    fn another_body_is_refused_at_once_until_the_first_request_has_ended() {
        let flights = Arc::new(SingleFlight::default());
        let fetching = first(&flights);
        let other_body = flights.enter(used(2)).now_or_never().expect("nothing to wait for");
        assert_eq!(other_body.unwrap_err().code, "idempotency_key_reused");
        fetching.refused(&Problem::fault("/url", "media_unreachable", "nothing came"));
        assert!(flights.enter(used(2)).now_or_never().unwrap().unwrap().is_some(), "the key is free");
    }

    #[test]
    fn the_next_identical_request_takes_over_from_one_that_was_dropped() {
        let flights = Arc::new(SingleFlight::default());
        let fetching = first(&flights);
        let mut waiting = [0, 1].map(|_| Box::pin(flights.enter(used(1))));
        assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()));
        drop(fetching);
        let [one, mut other] = waiting;
        let next = one.now_or_never().unwrap().unwrap().unwrap();
        assert!((&mut other).now_or_never().is_none());
        drop(other);
        drop(next);
        assert!(flights.0.is_empty(), "who stops waiting leaves nothing behind");
    }
}
