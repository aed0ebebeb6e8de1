//! Loading an entity from the store, and the load's span in the trace of each command that waits for it.

use std::sync::Arc;
use std::time::Instant;

use super::{Mail, Phase, Resident, reader, telemetry};
use crate::directory::Envelope;
use crate::machine::{Effects, Machine};
use crate::node::Node;
use crate::store::{Loaded, ReadLevel, StoreError};
use crate::trace::{SpanKind, names};

/// A successful or failed load of an entity.
#[derive(Debug)]
pub(crate) struct Load {
    began: Instant,
    ended: Instant,
    /// How many records after the newest snapshot were read.
    records: u64,
    /// Why it failed.
    error: Option<&'static str>,
}

impl Load {
    /// A load that began then and ends now.
    pub(crate) fn since(began: Instant, records: u64, error: Option<&StoreError>) -> Self {
        let error = error.map(|error| if error.is_transient() { "unavailable" } else { "corrupt" });
        Self { began, ended: Instant::now(), records, error }
    }

    /// Whether this command has waited for the load.
    pub(crate) fn delayed<M: Machine>(&self, envelope: &Envelope<M>) -> bool {
        envelope.admitted.is_none_or(|admitted| admitted < self.ended)
    }

    /// Adds a span to the command's trace: below its wait, or if the wait is over since the command is decided again,
    /// below its parent.
    pub(crate) fn record_span<M: Machine>(&self, node: &Node, envelope: &mut Envelope<M>) {
        if !node.traces().records(envelope.trace) {
            return;
        }
        let mut began = self.began;
        let mut parent = envelope.trace;
        if let Some(admitted) = envelope.admitted {
            let wait = envelope.wait.get_or_insert_with(|| node.span(names::WAIT, SpanKind::Internal, parent));
            wait.began(admitted);
            parent = wait.context();
            // Other commands have waited longer.
            began = began.max(admitted);
        }
        let mut span = node.span(names::LOAD, SpanKind::Client, parent);
        telemetry::of_store(&mut span, node, names::LOAD);
        match self.error {
            Some(error) => span.fail(error),
            None => span.set(names::LOAD_RECORDS, self.records),
        }
        span.lasted(began, self.ended);
    }
}

impl<M: Effects> Resident<M> {
    /// Loads the state of a new actor.
    pub(super) async fn load_first(&mut self) {
        let began = Instant::now();
        let loaded = self.load_whole().await;
        self.node.metrics.activations.of(self.entity.kind).inc();
        let adopted = loaded.and_then(|loaded| self.adopt(loaded));
        self.load = self.load_since(began, adopted.as_ref().err()).map(Box::new);
        match (adopted, &self.known.state) {
            (Err(error), _) => self.fail(error),
            (Ok(()), Some(state)) => M::activated(&self.node, self.entity, state),
            (Ok(()), None) => {}
        }
    }

    /// The entity as a basis for commits. If other processes write too, its newest commit may be one whose writer died
    /// during it and which not every read shows completely until it is settled; an entity that the store knows to be
    /// settled needs no such read. Nor does one that seems missing: its first commit requires that it is.
    async fn load_whole(&self) -> Result<Option<Loaded>, StoreError> {
        let store = &self.node.store;
        match store.load(self.entity, ReadLevel::Acknowledged).await? {
            Some(loaded) if !loaded.settled => store.load(self.entity, ReadLevel::Settled).await,
            loaded => Ok(loaded),
        }
    }

    /// A load that began then and ends now, if stages are recorded or listed.
    fn load_since(&self, began: Instant, error: Option<&StoreError>) -> Option<Load> {
        self.node.traces().is_active().then(|| Load::since(began, self.known.commits_since_snapshot, error))
    }

    /// Adds the load to the trace of a command that waited for it in the mailbox. After the first command that did not
    /// wait, none did.
    pub(super) fn came_after_load(&mut self, envelope: &mut Envelope<M>) {
        let Some(load) = &self.load else { return };
        if load.delayed(envelope) {
            load.record_span(&self.node, envelope);
        } else {
            self.load = None;
        }
    }

    /// Drops the in-memory state and loads the entity settled. The caller continues with [`Resident::step`].
    pub(super) fn reload(&mut self) {
        self.phase = Phase::Reloading(Instant::now());
        self.known.is_stale = false;
        let store = Arc::clone(&self.node.store);
        let entity = self.entity;
        let loading = Box::pin(async move { store.load(entity, ReadLevel::Settled).await });
        if let Some(loaded) = reader::now_or_later(loading, &self.myself, Mail::Reloaded) {
            self.reloaded(loaded);
        }
    }

    pub(super) fn reloaded(&mut self, loaded: Result<Option<Loaded>, StoreError>) {
        let Phase::Reloading(began) = self.phase else { return };
        self.phase = Phase::Idle;
        let before = self.known.head;
        let adopted = loaded.and_then(|loaded| self.adopt(loaded));
        if let Some(load) = self.load_since(began, adopted.as_ref().err()) {
            // All of them waited for it, as mail is accepted meanwhile.
            self.queue.iter_mut().for_each(|envelope| load.record_span(&self.node, envelope));
        }
        if adopted.is_err() || self.known.head != before {
            M::adopted(&self.node, self.entity, self.known.state.as_ref().filter(|_| adopted.is_ok()));
        }
        let rang = std::mem::take(&mut self.rang);
        match adopted {
            Err(error) => self.fail(error),
            // It is noted to ring again only after a while, and due work must not wait for that.
            Ok(()) if rang && self.known.alarm.is_some_and(|at| at <= self.node.clock.now()) => self.wake(),
            Ok(()) => {}
        }
    }
}
