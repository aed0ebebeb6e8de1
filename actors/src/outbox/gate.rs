//! Gates: how much is sent to one receiver at a time, and whether anything is while it is down.
//!
//! Each receiver that is being sent to has a gate in this process. It lets few through at first and more with every
//! success, so that a receiver that hangs holds few sockets from the start. When nothing has arrived for a while in a
//! row it closes, and lets one attempt through now and then to see whether the receiver is back. Who comes meanwhile is
//! told when to come again, each at another time: a hundred thousand conversations that wait for one dead receiver come
//! back a few at a time, and hold nothing here.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use tokio::sync::oneshot;

use super::away;
use crate::clock::Millis;
use crate::id::{Address, EndpointId};
use crate::limits;

/// What tells receivers apart.
pub(crate) type GateKey = [u8; 16];

/// The key of what `name` says in its own `kind` of names.
pub(crate) fn gate_key(workspace: Address, kind: &str, name: &[u8]) -> GateKey {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&workspace.0).update(kind.as_bytes()).update(name);
    let mut key = GateKey::default();
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    key
}

/// The key of an endpoint.
pub(crate) fn endpoint_key(workspace: Address, endpoint: EndpointId) -> GateKey {
    gate_key(workspace, "endpoint", &endpoint.to_bytes())
}

/// Failures in a row after which a gate closes.
const FAILURES: u32 = 10;
/// For how long it is closed the first time; doubled each time the receiver is found still down.
const CLOSED_MILLIS: u64 = 5_000;
/// For how long at most.
const CLOSED_MAX_MILLIS: u64 = 60_000;

/// The gates of a node.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    gates: DashMap<GateKey, Arc<Gate>>,
    closed: AtomicUsize,
}

impl Gates {
    /// The gate of a receiver.
    pub(crate) fn of(&self, key: GateKey) -> Arc<Gate> {
        if let Some(gate) = self.gates.get(&key) {
            return Arc::clone(&gate);
        }
        if self.gates.len() >= limits::GATES {
            // What a forgotten gate knew is found out again.
            self.gates.retain(|_, gate| !gate.is_idle());
        }
        match self.gates.entry(key) {
            Slot::Occupied(gate) => Arc::clone(gate.get()),
            Slot::Vacant(place) => Arc::clone(&place.insert(Arc::default())),
        }
    }

    /// A receiver is another one now: what was known of its health counts no more.
    pub(crate) fn renew(&self, key: GateKey) {
        if let Some(gate) = self.gates.get(&key) {
            gate.renew();
        }
    }

    /// How many are closed.
    pub(crate) fn closed(&self) -> usize {
        self.closed.load(Ordering::Relaxed)
    }

    /// Forgets gates of receivers that are well and that nobody sends to.
    pub(crate) fn sweep(&self) {
        self.gates.retain(|_, gate| !gate.is_idle() || !gate.is_well());
        self.closed.store(self.gates.iter().filter(|gate| gate.lock().closed.is_some()).count(), Ordering::Relaxed);
    }
}

/// One receiver's gate.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How many may be let through at once.
    limit: usize,
    through: usize,
    waiting: VecDeque<oneshot::Sender<Pass>>,
    /// In a row.
    failures: u32,
    /// Something has arrived since it was last closed.
    proven: bool,
    closed: Option<Closed>,
    /// When the one comes back who was sent away last.
    last_away: Millis,
}

impl Default for State {
    fn default() -> Self {
        Self {
            limit: limits::GATE_FIRST,
            through: 0,
            waiting: VecDeque::new(),
            failures: 0,
            proven: false,
            closed: None,
            last_away: Millis(0),
        }
    }
}

#[derive(Debug)]
struct Closed {
    /// Then one may try.
    until: Millis,
    /// How long it was closed this time.
    millis: u64,
    /// One is trying.
    probing: bool,
}

impl Closed {
    /// Whether one may try. So it is where `until` is further ahead than it ever was, because the clock was set back;
    /// twice as far, since who comes may have looked at the clock a moment before it was closed.
    fn is_over(&self, now: Millis) -> bool {
        now >= self.until || self.until > now.plus(2 * self.millis)
    }
}

/// What somebody is told who wants to send.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// To go ahead.
    Now(Pass),
    /// To come again then.
    Later(Millis),
}

/// How an attempt went, as far as the receiver's health is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It takes events.
    Well,
    /// It does not.
    Down,
    /// It answers, and nobody knows what it takes.
    Answers,
    /// Nobody knows: nothing was sent.
    Unknown,
}

/// What an attempt has changed for others who want to send there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    Nothing,
    /// They are sent away from now on.
    Closed,
    /// They may come again, and whether it takes what they have is not known.
    Opened,
    /// The receiver was down and is back.
    Back,
}

/// The permission to send one thing.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Arc<Gate>,
    /// It is to find out whether the receiver is back.
    probes: bool,
    done: bool,
}

impl Pass {
    /// Whether others wait for what it finds out about the receiver.
    pub(crate) fn is_probe(&self) -> bool {
        self.probes
    }

    /// Says how it went.
    pub(crate) fn end(mut self, health: Health, now: Millis) -> Turned {
        self.done = true;
        self.gate.leave(health, now)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        // One that was cut off has found out nothing.
        if !self.done {
            self.gate.leave(Health::Unknown, Millis(0));
        }
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_idle(&self) -> bool {
        let state = self.lock();
        state.through == 0 && state.waiting.is_empty()
    }

    fn is_well(&self) -> bool {
        let state = self.lock();
        state.failures == 0 && state.closed.is_none()
    }

    /// Waits for a place. `asked_for`: somebody wants this one sent now, whatever is known of the receiver.
    pub(crate) async fn enter(self: &Arc<Self>, now: Millis, asked_for: bool) -> Admitted {
        let waiting = {
            let mut state = self.lock();
            let may_enter = match &mut state.closed {
                Some(closed) if !asked_for => {
                    let may_try = closed.is_over(now) && !closed.probing;
                    closed.probing |= may_try;
                    if !may_try {
                        return Admitted::Later(state.away(now));
                    }
                    true
                }
                _ => state.through < state.limit,
            };
            if may_enter {
                state.through += 1;
                return Admitted::Now(self.pass(state.closed.is_some()));
            }
            if state.waiting.len() >= limits::GATE_WAITING {
                return Admitted::Later(state.away(now));
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting.push_back(sender);
            receiver
        };
        match waiting.await {
            Ok(pass) => Admitted::Now(pass),
            // It was closed meanwhile.
            Err(_) => Admitted::Later(self.lock().away(now)),
        }
    }

    fn pass(self: &Arc<Self>, probes: bool) -> Pass {
        Pass { gate: Arc::clone(self), probes, done: false }
    }

    /// Lets as many through as when nothing was known, beside those who are on their way.
    fn renew(self: &Arc<Self>) {
        let mut state = self.lock();
        (state.failures, state.proven, state.closed) = (0, false, None);
        state.limit = (state.through + limits::GATE_FIRST).min(limits::GATE_MOST);
        self.let_through(&mut state);
    }

    fn let_through(self: &Arc<Self>, state: &mut State) {
        // While it is closed only those wait that somebody has asked for.
        while state.through < state.limit {
            let Some(next) = state.waiting.pop_front() else { break };
            match next.send(self.pass(false)) {
                Ok(()) => state.through += 1,
                // It waited and has left. Its pass was never counted.
                Err(mut pass) => pass.done = true,
            }
        }
    }

    fn leave(self: &Arc<Self>, health: Health, now: Millis) -> Turned {
        let mut state = self.lock();
        state.through -= 1;
        let turned = match health {
            Health::Well => {
                state.failures = 0;
                state.proven = true;
                state.limit = (state.limit + 1).min(limits::GATE_MOST);
                if state.open(now) { Turned::Back } else { Turned::Nothing }
            }
            Health::Down => {
                let was_open = state.closed.is_none();
                state.failed(now);
                if was_open && state.closed.is_some() { Turned::Closed } else { Turned::Nothing }
            }
            Health::Answers => {
                state.failures = 0;
                if state.open(now) { Turned::Opened } else { Turned::Nothing }
            }
            Health::Unknown => {
                if let Some(closed) = &mut state.closed {
                    closed.probing = false;
                }
                Turned::Nothing
            }
        };
        self.let_through(&mut state);
        turned
    }
}

impl State {
    /// Answers whether it was closed.
    fn open(&mut self, now: Millis) -> bool {
        let was_closed = self.closed.take().is_some();
        if was_closed {
            self.last_away = now;
        }
        was_closed
    }

    fn failed(&mut self, now: Millis) {
        self.failures = self.failures.saturating_add(1);
        self.limit = (self.limit / 2).max(limits::GATE_FIRST);
        let millis = match &self.closed {
            // Others that were on their way say nothing new.
            Some(closed) if !closed.probing => return,
            Some(closed) => (closed.millis * 2).min(CLOSED_MAX_MILLIS),
            None if self.failures < FAILURES => return,
            None => CLOSED_MILLIS,
        };
        self.closed = Some(Closed { until: now.plus(millis), millis, probing: false });
        (self.limit, self.proven) = (limits::GATE_FIRST, false);
        // Dropping them tells them.
        self.waiting.clear();
    }

    /// When one that comes at `now` shall come again.
    fn away(&mut self, now: Millis) -> Millis {
        let soonest = match &self.closed {
            // While one tries, nobody comes back before that is likely to have ended.
            Some(closed) if closed.probing => now.plus(closed.millis),
            Some(closed) => closed.until.max(now),
            None => now.plus(away::CROWDED_MILLIS),
        };
        self.last_away = away::after(self.last_away, soonest, self.proven, now);
        self.last_away
    }
}

#[cfg(test)]
mod tests;
