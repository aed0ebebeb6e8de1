//! What an entity's actor does when its alarm rings.

use std::sync::Arc;

use super::{Phase, Resident, telemetry};
use crate::clock::Millis;
use crate::directory::Envelope;
use crate::machine::{DueWork, Effects};

/// An entity whose due work a task of this process is doing is woken again after this time: the task may be lost.
const DUE_WORK_CHECK_DELAY_MILLIS: u64 = 5_000;
/// The longest such time, if other processes write too.
const MAX_DUE_WORK_CHECK_DELAY_MILLIS: u64 = 60_000;

/// The time until such an entity, due since `due_since` milliseconds, is woken again. If other processes write too,
/// each check reads the store, so checks become rarer the longer the task takes; the task's commit also detects the
/// changes of others.
fn due_work_check_delay_millis(is_shared: bool, due_since: u64) -> u64 {
    if is_shared {
        due_since.clamp(DUE_WORK_CHECK_DELAY_MILLIS, MAX_DUE_WORK_CHECK_DELAY_MILLIS)
    } else {
        DUE_WORK_CHECK_DELAY_MILLIS
    }
}

impl<M: Effects> Resident<M> {
    /// The alarm rings: sees to it that somebody does the due work.
    pub(super) fn wake(&mut self) {
        if matches!(self.phase, Phase::Leaving) {
            return;
        }
        let now = self.node.clock.now().max(self.known.last_at);
        match self.due_work(now) {
            None => self.reload_and_check(),
            Some(DueWork::Elsewhere) => self.leave_to_others(now),
            Some(DueWork::Here) => {
                self.put_off(now);
                // If other processes write too, this check also finds their changes.
                if self.node.store.is_shared() {
                    self.begin_work(now);
                }
                self.step();
            }
            Some(DueWork::Open) => {
                self.begin_work(now);
                self.step();
            }
        }
    }

    /// Who is doing the due work. `None`: as far as this process knows, nothing is due, so the alarm is late, or
    /// another process has changed the entity; or what this process knows is stale.
    fn due_work(&self, now: Millis) -> Option<DueWork> {
        if self.known.is_stale && matches!(self.phase, Phase::Idle) {
            return None;
        }
        let (state, alarm) = self.known.state.as_ref().zip(self.known.alarm)?;
        let due = M::due_work(&self.node, self.entity, state, now);
        // Who does it elsewhere also moves the alarm, which this process need not know.
        (due == DueWork::Elsewhere || alarm <= now).then_some(due)
    }

    /// Loads the entity to find what is due. If anything is in flight, that finds out, and the alarm service rings
    /// again.
    fn reload_and_check(&mut self) {
        if matches!(self.phase, Phase::Idle) {
            self.rang = true;
            self.reload();
            self.step();
        }
    }

    /// The index rings again later; by then the in-memory state may be stale.
    fn leave_to_others(&mut self, now: Millis) {
        self.known.is_stale = true;
        self.node.alarms.set(self.entity, self.meanwhile(now).filter(|next| *next > now), now);
    }

    /// Rings again when the task that does the work may be lost, or earlier for what cannot wait for it.
    fn put_off(&mut self, now: Millis) {
        let due_since = self.known.alarm.map_or(0, |at| now.since(at));
        let again = now.plus(due_work_check_delay_millis(self.node.store.is_shared(), due_since));
        self.ring_meanwhile(self.meanwhile(now).map_or(again, |next| next.min(again)));
    }

    /// Rings then instead of at the durable alarm.
    pub(super) fn ring_meanwhile(&mut self, at: Millis) {
        self.node.alarms.put_off(self.entity, self.known.alarm, at);
        self.known.put_off = Some(at);
    }

    fn meanwhile(&self, now: Millis) -> Option<Millis> {
        self.known.state.as_ref().and_then(|state| M::alarm_meanwhile(state, now))
    }

    /// Sends the machine's command for the due work. One waiting command suffices, and none must accumulate while a
    /// slow commit is in flight.
    fn begin_work(&mut self, now: Millis) {
        let Some(state) = self.known.state.as_ref().filter(|_| !self.queue.iter().any(Envelope::is_internal)) else {
            return;
        };
        let command = Arc::new(M::on_alarm(&self.node, self.entity, state));
        let span = telemetry::rung(&self.node, self.entity, self.known.alarm, now);
        self.queue.push_back(Envelope::internal(command, span));
    }
}
