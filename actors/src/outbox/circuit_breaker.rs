//! Circuit breakers: how many attempts one receiver gets at a time, and whether it gets any while it is down.
//!
//! Each receiver with attempts has a breaker in this process. It gives few permits at first and more with every
//! success, so that a hanging receiver holds few sockets. After a series of failures it trips: it admits only a probe
//! now and then, to see whether the receiver is back. Lanes that arrive meanwhile get a time to come back, each a
//! different one: a hundred thousand conversations waiting for one dead receiver come back a few at a time, and hold
//! nothing here.
//!
//! The URLs of messages share the breaker of their host, and hanging ones must not starve those that answer. So a URL
//! without unanswered attempts has a separate permit ([`state`]), and among the others the one with the fewest
//! unanswered attempts goes first.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;
use tokio::sync::oneshot;

use crate::clock::Millis;
use crate::id::{Address, EndpointId};
use crate::limits;
use crate::sync::LockUnpoisoned;

mod state;

use state::{AdmitDecision, PermitKind, State, Waiter};

/// The identity of a receiver.
pub(crate) type BreakerKey = [u8; 16];

/// The key of the receiver `name` among those of its `kind`.
pub(crate) fn breaker_key(workspace: Address, kind: &str, name: &[u8]) -> BreakerKey {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&workspace.0).update(kind.as_bytes()).update(name);
    let mut key = BreakerKey::default();
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    key
}

/// The key of an endpoint.
pub(crate) fn endpoint_key(workspace: Address, endpoint: EndpointId) -> BreakerKey {
    breaker_key(workspace, "endpoint", &endpoint.to_bytes())
}

/// The key of a channel's `webhookUrl`.
pub(crate) fn channel_key(workspace: Address, channel: &str) -> BreakerKey {
    breaker_key(workspace, "channel", channel.as_bytes())
}

/// The breakers of a node.
#[derive(Debug, Default)]
pub(crate) struct CircuitBreakers {
    breakers: DashMap<BreakerKey, Arc<CircuitBreaker>>,
    open_circuits: AtomicUsize,
}

impl CircuitBreakers {
    /// The breaker of a receiver.
    pub(crate) fn of(&self, key: BreakerKey) -> Arc<CircuitBreaker> {
        if let Some(breaker) = self.breakers.get(&key) {
            return Arc::clone(&breaker);
        }
        if self.breakers.len() >= limits::BREAKERS {
            // The health of a receiver without a breaker is learned again.
            self.breakers.retain(|_, breaker| !breaker.is_idle());
        }
        match self.breakers.entry(key) {
            MapEntry::Occupied(breaker) => Arc::clone(breaker.get()),
            MapEntry::Vacant(place) => Arc::clone(&place.insert(Arc::default())),
        }
    }

    /// A receiver was changed: its known health no longer counts.
    pub(crate) fn renew(&self, key: BreakerKey) {
        if let Some(breaker) = self.breakers.get(&key) {
            breaker.renew();
        }
    }

    /// How many are tripped, as of the last sweep.
    pub(crate) fn open_circuits(&self) -> usize {
        self.open_circuits.load(Ordering::Relaxed)
    }

    /// Drops the breakers of healthy receivers without attempts.
    pub(crate) fn sweep(&self) {
        self.breakers.retain(|_, breaker| !breaker.is_idle() || !breaker.is_well());
        self.open_circuits
            .store(self.breakers.iter().filter(|breaker| breaker.lock().tripped.is_some()).count(), Ordering::Relaxed);
    }
}

/// One receiver's breaker.
#[derive(Debug, Default)]
pub(crate) struct CircuitBreaker {
    state: Mutex<State>,
}

/// A lane's request for a permit to send an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SendRequest {
    /// The retry of this event was requested: it is sent now, whatever is known of the receiver.
    pub(crate) retry_requested: bool,
    /// The URL, by its [`mark`](super::lane::mark), if the receiver may have many.
    pub(crate) url: Option<u64>,
    /// How many attempts in a row were not answered.
    pub(crate) unanswered: u32,
    /// The lane was here before, and may have been sent away.
    pub(crate) returns: bool,
}

/// The breaker's answer to a lane that requests a permit.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// It may send now.
    Now(Pass),
    /// It comes back at this time.
    Later(Millis),
}

/// What an attempt says about the receiver's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It accepts events.
    Well,
    /// It does not.
    Down,
    /// This URL does not answer; others of the host might.
    Silent,
    /// It answers, but did not accept this event; whether the host's other URLs accept theirs is unknown.
    Answers,
    /// Unknown: nothing was sent, or the receiver no longer uses that URL.
    Unknown,
}

/// What an attempt has changed for other lanes of the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HealthChange {
    Nothing,
    /// They are rejected from now on.
    Paused,
    /// They may try again; whether the receiver accepts their events is unknown.
    AnswersAgain,
    /// The receiver was down and is back.
    Recovered,
}

/// The permission to send one event. It is returned when this is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    breaker: Arc<CircuitBreaker>,
    kind: PermitKind,
    /// The URL, as in [`SendRequest::url`].
    url: Option<u64>,
    done: bool,
}

impl Pass {
    /// Whether others wait for its result.
    pub(crate) fn is_probe(&self) -> bool {
        self.kind == PermitKind::Probe
    }

    /// Reports the attempt's result.
    pub(crate) fn end(mut self, health: Health, now: Millis) -> HealthChange {
        self.done = true;
        self.breaker.release(&self, health, now)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        // An attempt that was cut off has learned nothing.
        if !self.done {
            self.breaker.release(self, Health::Unknown, Millis(0));
        }
    }
}

impl CircuitBreaker {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock_unpoisoned()
    }

    fn is_idle(&self) -> bool {
        self.lock().is_idle()
    }

    fn is_well(&self) -> bool {
        self.lock().is_well()
    }

    /// Waits for a permit.
    pub(crate) async fn enter(self: &Arc<Self>, now: Millis, request: SendRequest) -> Admitted {
        let waiting = {
            let mut state = self.lock();
            match state.admit(now, request) {
                AdmitDecision::Admitted(kind) => return Admitted::Now(self.pass(kind, request.url)),
                AdmitDecision::Later(at) => return Admitted::Later(at),
                AdmitDecision::Queued(queue) => {
                    let (sender, receiver) = oneshot::channel();
                    state.wait(queue, Waiter { request, sender });
                    receiver
                }
            }
        };
        match waiting.await {
            Ok(pass) => Admitted::Now(pass),
            // It was tripped meanwhile.
            Err(_) => Admitted::Later(self.lock().return_time(now, request)),
        }
    }

    fn pass(self: &Arc<Self>, kind: PermitKind, url: Option<u64>) -> Pass {
        Pass { breaker: Arc::clone(self), kind, url, done: false }
    }

    /// Admits as many attempts as a new breaker does, in addition to those in flight.
    fn renew(self: &Arc<Self>) {
        let mut state = self.lock();
        state.renew();
        self.admit_waiting(&mut state);
    }

    fn admit_waiting(self: &Arc<Self>, state: &mut State) {
        while let Some((kind, Waiter { request, sender })) = state.next() {
            if let Err(mut pass) = sender.send(self.pass(kind, request.url)) {
                // The waiter has given up.
                pass.done = true;
                state.free(kind, request.url);
            }
        }
    }

    fn release(self: &Arc<Self>, pass: &Pass, health: Health, now: Millis) -> HealthChange {
        let mut state = self.lock();
        state.free(pass.kind, pass.url);
        let change = state.record_result(pass.kind, pass.url, health, now);
        self.admit_waiting(&mut state);
        change
    }
}

#[cfg(test)]
mod tests;
