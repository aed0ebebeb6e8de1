//! Reads from the store that need no actor.
//!
//! Unless a function says otherwise, it fails with a `StoreError` if the store, or the stored data, cannot be read.

use std::sync::Arc;

use bytes::Bytes;

use super::Node;
use crate::clock::Millis;
use crate::codec;
use crate::conversation::attach::Claim;
use crate::conversation::turn::parse_requested_turn;
use crate::conversation::{Beginning, Calls, Conversation, Details, Origin, Turn, file_key, number_key, replay_key};
use crate::host;
use crate::id::{Address, ConversationId, EntityKey, MessageId};
use crate::limits;
use crate::machine::{Machine, Record};
use crate::memories::Memory;
use crate::message::Overlay;
use crate::store::{
    Fingerprint, KeyHash, KeyRange, Loaded, LogScan, Order, Pages, ReadLevel, Row, Scan, SeqRange, Store, StoreError,
    Table, View,
};
use crate::tables::{ATTACHED, CALLS, DETAILS, MEMORIES, OVERLAYS, REPLAYS, REQUESTED_TURNS, TURNS};
use crate::usage::{Day, Used};

/// Events that a walk back through a log reads at once.
const EVENTS_PER_PAGE: usize = 64;

/// The state of an entity in `store`: for tools that read a store without a running [`Node`].
pub async fn stored_state<M: Machine>(store: &dyn Store, entity: EntityKey) -> Result<Option<M::State>, StoreError> {
    state_of::<M>(store.load(entity, ReadLevel::Acknowledged).await?)
}

fn state_of<M: Machine>(loaded: Option<Loaded>) -> Result<Option<M::State>, StoreError> {
    match loaded {
        Some(loaded) => Ok(host::replay::<M>(&loaded)?.1),
        None => Ok(None),
    }
}

/// A range of a log.
#[derive(Debug)]
pub struct Stretch<E> {
    /// Its events.
    pub events: Vec<Record<E>>,
    /// How many bytes they have in the store.
    pub bytes: usize,
    /// The average length of all events that were read; `None`: there were none.
    pub length: Option<usize>,
    /// Nothing follows.
    pub is_last: bool,
}

/// A part of a log as far as it can be read.
#[derive(Debug)]
pub struct Readable<E> {
    /// Its events.
    pub events: Vec<Record<E>>,
    /// The unreadable ones, by sequence, and why.
    pub damaged: Vec<(u64, StoreError)>,
}

/// The effect that an idempotency key has had in an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyedEffect {
    /// The request that the key came with.
    pub fingerprint: Fingerprint,
    /// The events that the request added; the range is empty if it added none.
    pub events: SeqRange,
}

/// The changes of one message, by its sequence, or why they cannot be read.
pub(crate) type StoredOverlay = (u64, Result<Overlay, StoreError>);

impl Node {
    /// The stored state of an entity.
    pub async fn state<M: Machine>(&self, entity: EntityKey) -> Result<Option<M::State>, StoreError> {
        stored_state::<M>(self.store.as_ref(), entity).await
    }

    /// The state of an entity, settled: every later read shows all writes that led to it.
    pub async fn settled_state<M: Machine>(&self, entity: EntityKey) -> Result<Option<M::State>, StoreError> {
        state_of::<M>(self.store.load(entity, ReadLevel::Settled).await?)
    }

    /// The origin of a conversation; `None`: there is no such conversation.
    pub async fn origin(&self, conversation: EntityKey) -> Result<Option<Arc<Origin>>, StoreError> {
        Ok(self.beginning(conversation).await?.map(|begun| begun.origin))
    }

    /// The id of a conversation from its beginning; `None`: there is no such conversation.
    pub async fn conversation_id(&self, conversation: EntityKey) -> Result<Option<ConversationId>, StoreError> {
        Ok(self.beginning(conversation).await?.map(|begun| begun.id))
    }

    /// When a conversation began; `None`: there is no such conversation.
    pub async fn created_at(&self, conversation: EntityKey) -> Result<Option<Millis>, StoreError> {
        Ok(self.beginning(conversation).await?.map(|begun| begun.created_at))
    }

    async fn beginning(&self, conversation: EntityKey) -> Result<Option<Beginning>, StoreError> {
        if let Some(known) = self.beginnings.get(conversation) {
            return Ok(Some(known));
        }
        let state = self.state::<Conversation>(conversation).await?;
        Ok(state.map(|state| self.beginnings.put(conversation, state)))
    }

    /// Up to `limit` events of a range of an entity's log.
    pub async fn events<M: Machine>(
        &self,
        entity: EntityKey,
        range: SeqRange,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Record<M::Event>>, StoreError> {
        Ok(self.stretch::<M>(entity, range, order, limit, usize::MAX).await?.events)
    }

    /// What `pick` finds in the newest of an entity's events up to `upto` in which it finds anything; `None`: in none.
    pub async fn find_back<M: Machine, T>(
        &self,
        entity: EntityKey,
        mut upto: u64,
        mut pick: impl FnMut(Record<M::Event>) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        while upto > 0 {
            let events = self.events::<M>(entity, SeqRange::upto(upto), Order::Desc, EVENTS_PER_PAGE).await?;
            // Without an event there is none before it either.
            let Some(last) = events.last() else { break };
            upto = last.seq.saturating_sub(1);
            if let Some(found) = events.into_iter().find_map(&mut pick) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The first events of such a range of an entity's log: up to `limit`, of up to `bytes` in the store, and at least
    /// one if there are any.
    pub async fn stretch<M: Machine>(
        &self,
        entity: EntityKey,
        range: SeqRange,
        order: Order,
        limit: usize,
        bytes: usize,
    ) -> Result<Stretch<M::Event>, StoreError> {
        let stored = self.store.read_log(entity, LogScan { range, order, limit }).await?;
        let read: usize = stored.iter().map(|record| record.payload.len()).sum();
        let mut kept = 0;
        let within = stored.iter().enumerate().take_while(|(n, record)| {
            let fits = *n == 0 || kept + record.payload.len() <= bytes;
            kept += if fits { record.payload.len() } else { 0 };
            fits
        });
        let events: Result<Vec<_>, _> =
            within.map(|(_, record)| codec::decode_record(record.seq, &record.payload)).collect();
        let events = events?;
        Ok(Stretch {
            is_last: stored.len() < limit && events.len() == stored.len(),
            length: read.checked_div(stored.len()),
            bytes: kept,
            events,
        })
    }

    /// The events of a range of an entity's log, even if some of them are unreadable.
    ///
    /// # Errors
    ///
    /// `StoreError` if the store cannot be read now.
    pub async fn readable<M: Machine>(
        &self,
        entity: EntityKey,
        range: SeqRange,
    ) -> Result<Readable<M::Event>, StoreError> {
        match self.events::<M>(entity, range, Order::Asc, range.len()).await {
            Err(error) if !error.is_transient() => {}
            read => return Ok(Readable { events: read?, damaged: Vec::new() }),
        }
        let mut readable = Readable { events: Vec::new(), damaged: Vec::new() };
        for seq in range.seqs() {
            match self.events::<M>(entity, SeqRange::one(seq), Order::Asc, 1).await {
                Err(error) if !error.is_transient() => readable.damaged.push((seq, error)),
                read => readable.events.extend(read?),
            }
        }
        Ok(readable)
    }

    /// The changes of one message since it was accepted; `None`: there are none.
    pub async fn overlay(&self, entity: EntityKey, seq: u64) -> Result<Option<Overlay>, StoreError> {
        self.stored(entity, OVERLAYS, number_key(seq)).await
    }

    /// The changes of the messages in a range.
    pub async fn overlays(&self, entity: EntityKey, range: SeqRange) -> Result<Vec<(u64, Overlay)>, StoreError> {
        let overlays = self.stored_overlays(entity, range).await?;
        overlays.into_iter().map(|(seq, overlay)| Ok((seq, overlay?))).collect()
    }

    /// The changes of the messages in a range, each with an error if it is unreadable.
    ///
    /// # Errors
    ///
    /// `StoreError` if the store cannot be read.
    pub(crate) async fn stored_overlays(
        &self,
        entity: EntityKey,
        range: SeqRange,
    ) -> Result<Vec<StoredOverlay>, StoreError> {
        let keys = KeyRange {
            after: Some(number_key(range.first.saturating_sub(1))),
            before: Some(number_key(range.last.saturating_add(1))),
        };
        let rows = self.store.rows(entity, OVERLAYS, Scan::new(keys, Order::Asc, range.len())).await?;
        let overlay = |row: &Row| {
            let key = row.key.as_ref().try_into().map_err(|_| StoreError::Corrupt("a row's key is damaged".into()))?;
            Ok((u64::from_be_bytes(key), codec::decode(&row.value)))
        };
        rows.iter().map(overlay).collect()
    }

    /// The changes of one message as the first answer to this idempotency key showed them, if they were stored.
    pub async fn shown(&self, entity: EntityKey, seq: u64, key: KeyHash) -> Result<Option<Overlay>, StoreError> {
        let row = self.newest_under(entity, REPLAYS, replay_key(seq, key)).await?;
        row.map(|bytes| codec::decode(&bytes)).transpose()
    }

    /// The details of a conversation; none if there is no such conversation.
    pub async fn details(&self, entity: EntityKey) -> Result<Details, StoreError> {
        Ok(self.stored(entity, DETAILS, Bytes::new()).await?.unwrap_or_default())
    }

    /// The message of this conversation that has the file with this address.
    pub async fn attached_by(&self, entity: EntityKey, file: Address) -> Result<Option<MessageId>, StoreError> {
        let claim: Option<Claim> = self.stored(entity, ATTACHED, file_key(file)).await?;
        Ok(claim.and_then(|claim| claim.message))
    }

    /// A memory, by its number.
    pub async fn memory(&self, entity: EntityKey, number: u64) -> Result<Option<Memory>, StoreError> {
        self.stored(entity, MEMORIES, number_key(number)).await
    }

    /// A turn of a conversation.
    pub async fn turn(&self, entity: EntityKey, number: u64) -> Result<Option<Turn>, StoreError> {
        self.stored(entity, TURNS, number_key(number)).await
    }

    /// The number of the turn that an idempotency key requested while another turn ran, and the newest message at that
    /// time, if it was recorded.
    pub async fn asked_turn(&self, entity: EntityKey, key: KeyHash) -> Result<Option<(u64, Option<u64>)>, StoreError> {
        let row = self.newest_under(entity, REQUESTED_TURNS, Bytes::copy_from_slice(&key.0)).await?;
        Ok(row.as_deref().and_then(parse_requested_turn))
    }

    /// The newest row kept for a retry under `key`, which the row's time follows.
    async fn newest_under(&self, entity: EntityKey, table: Table, key: Bytes) -> Result<Option<Bytes>, StoreError> {
        let newest = Scan::new(KeyRange::under(&key), Order::Desc, 1);
        match self.store.rows(entity, table, newest).await?.pop() {
            Some(row) => Ok(Some(row.value)),
            None => self.store.row(entity, table, key).await,
        }
    }

    /// The calls of a turn, while some have no result.
    pub async fn calls(&self, entity: EntityKey, number: u64) -> Result<Calls, StoreError> {
        Ok(self.stored(entity, CALLS, number_key(number)).await?.unwrap_or_default())
    }

    /// The decoded value of an entity's keyed row.
    pub(crate) async fn stored<T>(&self, entity: EntityKey, table: Table, key: Bytes) -> Result<Option<T>, StoreError>
    where
        T: for<'b> minicbor::Decode<'b, ()>,
    {
        let row = self.store.row(entity, table, key).await?;
        row.map(|bytes| codec::decode(&bytes)).transpose()
    }

    /// A keyed row of an entity.
    pub async fn row(&self, entity: EntityKey, table: Table, key: Bytes) -> Result<Option<Bytes>, StoreError> {
        self.store.row(entity, table, key).await
    }

    /// Keyed rows of an entity.
    pub async fn rows(&self, entity: EntityKey, table: Table, scan: Scan) -> Result<Vec<Row>, StoreError> {
        self.store.rows(entity, table, scan).await
    }

    /// All keyed rows of an entity in a range, `limit` of them at once.
    pub fn pages(&self, entity: EntityKey, table: Table, range: KeyRange, limit: usize) -> Pages<'_> {
        Pages::of_rows(self.store.as_ref(), entity, table, range, limit)
    }

    /// Entries of a workspace's list.
    pub async fn view(&self, workspace: Address, view: View, scan: Scan) -> Result<Vec<Row>, StoreError> {
        self.store.view(workspace, view, scan).await
    }

    /// The effect of an idempotency key in an entity, if it had one and is still stored.
    pub async fn key(&self, entity: EntityKey, key: KeyHash) -> Result<Option<KeyedEffect>, StoreError> {
        let row = self.store.find_key(entity, key).await?;
        let row = row.filter(|row| self.now().since(row.at) < limits::KEY_KEPT_MILLIS);
        Ok(row.and_then(|row| Some(KeyedEffect { fingerprint: row.fingerprint, events: row.events()? })))
    }

    /// The usage of models in a workspace on a day, by agent.
    pub async fn used(&self, workspace: Address, day: Day) -> Result<Arc<Used>, StoreError> {
        self.used_days.get(self.store.as_ref(), workspace, day, self.now()).await
    }
}
