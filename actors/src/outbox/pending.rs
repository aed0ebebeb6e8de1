//! Deliveries as clients see them: ended ones, which are stored, and pending ones, which follow from the log and the
//! lanes.
//!
//! Unless a function says otherwise, it fails with a `StoreError` if the store, or the stored data, cannot be read.

use std::sync::Arc;

use tokio::time::Instant;

use super::keys::{DeliveryKey, PendingKey, ended_key, parse_ended_key};
use super::lane::{Attempt, Delivery, End, Lane, LaneRow, Receiver};
use super::port::Sends;
use super::read_log::{self, LogPart};
use super::receivers::{Hooks, Subject, Unsendable, off, receivers, url_of};
use super::settings::{self, Settings};
use super::state::Retried;
use super::step::hooks_of;
use crate::clock::Millis;
use crate::contact::Contact;
use crate::conversation::Conversation;
use crate::id::{Address, DeliveryId, EntityKey, EventId, Kind};
use crate::machine::Record;
use crate::node::Node;
use crate::store::{KeyHash, Order, SeqRange, StoreError};
use crate::tables::{DELIVERIES, LANES, RETRIED};
use crate::tasks::log_limiter::Line;

/// Events read at once.
const EVENTS_PER_PAGE: usize = 64;
/// Events read for one answer; the next answer continues from there.
const MAX_SCANNED: usize = 1_024;

/// The status of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is still to be sent.
    Pending,
    /// The receiver has it.
    Delivered,
    /// It was given up.
    Failed,
}

/// The state of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryState {
    /// Its id.
    pub id: DeliveryId,
    /// The receiver.
    pub receiver: Receiver,
    /// The event.
    pub event: EventId,
    /// The event's type.
    pub event_type: String,
    /// The URL, as far as it is known.
    pub url: String,
    /// Its status.
    pub status: Status,
    /// Its attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// When it is retried at the latest.
    pub next_at: Option<Millis>,
}

impl DeliveryState {
    fn ended(entity: EntityKey, key: DeliveryKey, delivery: Delivery) -> Self {
        let status = match delivery.end {
            End::Delivered => Status::Delivered,
            End::Failed => Status::Failed,
        };
        Self {
            id: DeliveryId(ended_key(delivery.at, entity, key)),
            receiver: delivery.receiver,
            event: EventId::new(delivery.at, entity.id, key.seq),
            event_type: delivery.event,
            url: delivery.url,
            status,
            attempts: delivery.attempts,
            next_at: None,
        }
    }

    /// A delivery of an event that waits on a lane, or was not read yet.
    fn pending(
        entity: EntityKey,
        seq: u64,
        subject: &Subject,
        receiver: Receiver,
        url: &str,
        row: Option<&LaneRow>,
    ) -> Self {
        let head_row = row.filter(|row| row.next == seq);
        let attempts = head_row.map(|row| row.attempts.clone());
        let last = head_row.and_then(|row| row.url.as_ref().or(row.was.as_ref().and_then(|was| was.url.as_ref())));
        Self {
            id: DeliveryId(ended_key(subject.at, entity, DeliveryKey::new(seq, receiver))),
            receiver,
            event: EventId::new(subject.at, entity.id, seq),
            event_type: subject.event.to_owned(),
            url: if url.is_empty() { last.cloned().unwrap_or_default() } else { url.to_owned() },
            status: Status::Pending,
            attempts: attempts.unwrap_or_default(),
            next_at: Some(row.map_or(subject.at, |row| row.next_at)),
        }
    }
}

/// Some pending deliveries.
#[derive(Debug, Default)]
pub struct Pending {
    /// The deliveries, by event and, within one, by receiver.
    pub deliveries: Vec<(u64, DeliveryState)>,
    /// Events after this one were not read; `None`: all were.
    pub upto: Option<u64>,
}

/// A delivery that has ended.
pub async fn ended(node: &Node, entity: EntityKey, key: DeliveryKey) -> Result<Option<DeliveryState>, StoreError> {
    let delivery: Option<Delivery> = node.stored(entity, DELIVERIES, key.row()).await?;
    Ok(delivery.map(|delivery| DeliveryState::ended(entity, key, delivery)))
}

/// The pending deliveries of one entry of the workspace's list, by event in this order, after the event `after`; at
/// least `limit` of them if there are so many. Damaged events are skipped.
///
/// # Errors
///
/// `StoreError` where the store cannot be read, or the entry itself is damaged.
pub async fn pending(
    node: &Node,
    of: PendingKey,
    order: Order,
    after: Option<u64>,
    limit: usize,
) -> Result<Pending, StoreError> {
    match of.entity.kind {
        Kind::Conversation => pending_of::<Conversation>(node, of, order, after, limit).await,
        Kind::Contact => pending_of::<Contact>(node, of, order, after, limit).await,
        Kind::Attachment | Kind::Memories | Kind::Workspace | Kind::Installation => Ok(Pending::default()),
    }
}

/// The pending deliveries of one event, by receiver. The event's id contains its log, so nothing else is read.
pub async fn pending_of_event(
    node: &Node,
    workspace: Address,
    event: EventId,
) -> Result<Vec<DeliveryState>, StoreError> {
    let entity = |kind| EntityKey { workspace, kind, id: event.entity };
    let mut found = pending_to_all::<Conversation>(node, entity(Kind::Conversation), event).await?;
    found.extend(pending_to_all::<Contact>(node, entity(Kind::Contact), event).await?);
    found.sort_by_key(|delivery| delivery.id.0);
    found.dedup_by_key(|delivery| delivery.id);
    Ok(found)
}

/// The delivery with this id.
pub async fn find(node: &Node, workspace: Address, id: DeliveryId) -> Result<Option<DeliveryState>, StoreError> {
    let Some((at, entity, key)) = parse_ended_key(workspace, &id.0) else { return Ok(None) };
    let mut delivery = ended(node, entity, key).await?;
    if delivery.is_none() {
        delivery = match entity.kind {
            Kind::Conversation => find_pending::<Conversation>(node, entity, at, key).await?,
            Kind::Contact => find_pending::<Contact>(node, entity, at, key).await?,
            Kind::Attachment | Kind::Memories | Kind::Workspace | Kind::Installation => None,
        };
    }
    if delivery.is_none() {
        // It may have ended since the first read.
        delivery = ended(node, entity, key).await?;
    }
    // A forged id with another time names nothing.
    Ok(delivery.filter(|delivery| delivery.id == id))
}

/// The state of a delivery when this idempotency key requested its retry; forgotten once eight other keys have
/// requested one.
pub async fn retried(
    node: &Node,
    entity: EntityKey,
    key: DeliveryKey,
    asked_with: KeyHash,
) -> Result<Option<LaneRow>, StoreError> {
    let retried: Option<Retried> = node.stored(entity, RETRIED, key.row()).await?;
    Ok(retried.and_then(|retried| retried.answered(asked_with)))
}

impl DeliveryState {
    /// The delivery as it was when its retry was requested.
    #[must_use]
    pub fn retry_requested(self, waiting: LaneRow) -> Self {
        Self { status: Status::Pending, attempts: waiting.attempts, next_at: Some(waiting.next_at), ..self }
    }
}

/// The sending side of an entity: its state's cursor, and the configuration.
struct Source {
    entity: EntityKey,
    settings: Settings,
    from: Option<u64>,
    last_seq: u64,
}

async fn source<M: Sends>(node: &Node, entity: EntityKey) -> Result<Option<Source>, StoreError> {
    let Some(state) = node.state::<M>(entity).await? else { return Ok(None) };
    let settings = settings::read(node, entity, &M::scope(&state)).await?;
    let from = M::outbox(&state).and_then(|outbox| outbox.from);
    Ok(Some(Source { entity, settings, from, last_seq: M::log(entity, &state).last_seq }))
}

async fn pending_of<M: Sends>(
    node: &Node,
    of: PendingKey,
    order: Order,
    after: Option<u64>,
    limit: usize,
) -> Result<Pending, StoreError> {
    let Some(source) = source::<M>(node, of.entity).await? else { return Ok(Pending::default()) };
    let row = match of.lane {
        Some(lane) => node.stored::<LaneRow>(of.entity, LANES, lane.key()).await?,
        None => None,
    };
    let waiting = match (of.lane, &row) {
        (Some(_), Some(row)) => Some(SeqRange::new(row.next, row.until)),
        (Some(_), None) => None,
        (None, _) => source.from.map(|from| SeqRange::new(from, source.last_seq)),
    };
    let Some(waiting) = waiting else { return Ok(Pending::default()) };
    let mut found = Pending::default();
    let mut scanned = 0;
    let mut unread = waiting.after(after, order);
    while !unread.is_empty() {
        let LogPart { records, upto } = page::<M>(node, of.entity, unread, order).await?;
        for record in &records {
            match of_event::<M>(node, &source, record, of.lane, row.as_ref()).await {
                Err(error) if !error.is_transient() => log_skipped(node, of.entity, record.seq, &error),
                deliveries => found.deliveries.extend(deliveries?.into_iter().map(|delivery| (record.seq, delivery))),
            }
        }
        unread = unread.after(Some(upto), order);
        scanned += records.len().max(1);
        if !unread.is_empty() && (found.deliveries.len() >= limit || scanned >= MAX_SCANNED) {
            found.upto = Some(upto);
            break;
        }
    }
    Ok(found)
}

/// The next part of a range of the log in this order. Damaged events are skipped.
async fn page<M: Sends>(
    node: &Node,
    entity: EntityKey,
    range: SeqRange,
    order: Order,
) -> Result<LogPart<M::Event>, StoreError> {
    match read_log::next_part::<M>(node, entity, range, order, EVENTS_PER_PAGE).await {
        Err(error) if !error.is_transient() => {
            let upto = if order == Order::Asc { range.first } else { range.last };
            log_skipped(node, entity, upto, &error);
            Ok(LogPart { records: Vec::new(), upto })
        }
        read => read,
    }
}

/// Logs that the deliveries of a damaged event are not shown.
fn log_skipped(node: &Node, entity: EntityKey, seq: u64, error: &StoreError) {
    if let Some(Line { left_out }) = node.outbox.damaged.line(Instant::now()) {
        tracing::error!(?entity, seq, %error, left_out, "the pending deliveries of a damaged event are not shown");
    }
}

/// The pending deliveries of one event, on one lane or to all.
async fn of_event<M: Sends>(
    node: &Node,
    source: &Source,
    record: &Record<M::Event>,
    lane: Option<Lane>,
    row: Option<&LaneRow>,
) -> Result<Vec<DeliveryState>, StoreError> {
    let Some(subject) = M::subject(record) else { return Ok(Vec::new()) };
    let hooks: Option<Arc<Hooks>> = match (subject.message, M::hooks(record)) {
        (_, Some(hooks)) => Some(Arc::new(hooks)),
        (Some(message), None) => hooks_of::<M>(node, source.entity, message).await?,
        (None, None) => None,
    };
    let configured = source.settings.configured();
    let mut to = receivers(&subject, &configured, hooks.as_deref(), lane.map(|lane| lane.receiver));
    to.retain(|(receiver, _)| lane.is_none_or(|lane| lane.receiver == *receiver));
    if let Some(lane) = lane.filter(|_| to.is_empty()) {
        let receiver = lane.receiver;
        // A retry goes to a receiver that once got the event, subscribed or not; a tried delivery is shown until it has
        // ended.
        let was_tried = row.is_some_and(|row| row.tries > 0 && row.next == record.seq);
        let is_again = row.is_some_and(|row| row.is_again(lane));
        if is_again || was_tried && off(receiver, &configured) != Some(Unsendable::Deleted) {
            to.push((receiver, url_of(receiver, &configured, hooks.as_deref()).unwrap_or_default()));
        }
    }
    let delivery = |(receiver, url)| DeliveryState::pending(source.entity, record.seq, &subject, receiver, url, row);
    Ok(to.into_iter().map(delivery).collect())
}

async fn find_pending<M: Sends>(
    node: &Node,
    entity: EntityKey,
    at: Millis,
    key: DeliveryKey,
) -> Result<Option<DeliveryState>, StoreError> {
    let records = node.events::<M>(entity, SeqRange::one(key.seq), Order::Asc, 1).await?;
    let (Some(record), Some(source)) = (records.first(), source::<M>(node, entity).await?) else { return Ok(None) };
    let Some(subject) = M::subject(record).filter(|subject| subject.at == at) else { return Ok(None) };
    let Some(receiver) = possible(&source, &subject).into_iter().find(|receiver| receiver.tag() == key.tag) else {
        return Ok(None);
    };
    if let Some(waiting) = on_its_lane::<M>(node, &source, record, receiver).await? {
        return Ok(waiting.into_iter().next());
    }
    if source.from.is_none_or(|from| key.seq < from) {
        return Ok(None);
    }
    let all = of_event::<M>(node, &source, record, None, None).await?;
    Ok(all.into_iter().find(|delivery| delivery.receiver == receiver))
}

/// The receivers that an event of this subject may have.
fn possible(source: &Source, subject: &Subject) -> Vec<Receiver> {
    let endpoints = source.settings.configured().endpoints;
    let all = endpoints.iter().map(|endpoint| Receiver::Endpoint(endpoint.id)).chain([Receiver::Channel]);
    let of_message = subject.message.map(|message| [Receiver::Message(message), Receiver::Callback(message)]);
    all.chain(of_message.into_iter().flatten()).collect()
}

/// The pending deliveries of an event on a lane of this receiver; `None`: it is on none.
async fn on_its_lane<M: Sends>(
    node: &Node,
    source: &Source,
    record: &Record<M::Event>,
    receiver: Receiver,
) -> Result<Option<Vec<DeliveryState>>, StoreError> {
    // It may move from its usual lane to the separate one between two reads.
    for again in [Some(record.seq), None, Some(record.seq)] {
        let lane = Lane { receiver, again };
        let Some(row) = node.stored::<LaneRow>(source.entity, LANES, lane.key()).await? else { continue };
        if (row.next..=row.until).contains(&record.seq) {
            return Ok(Some(of_event::<M>(node, source, record, Some(lane), Some(&row)).await?));
        }
    }
    Ok(None)
}

async fn pending_to_all<M: Sends>(
    node: &Node,
    entity: EntityKey,
    event: EventId,
) -> Result<Vec<DeliveryState>, StoreError> {
    let records = node.events::<M>(entity, SeqRange::one(event.number), Order::Asc, 1).await?;
    let (Some(record), Some(source)) = (records.first(), source::<M>(node, entity).await?) else {
        return Ok(Vec::new());
    };
    let subject = M::subject(record).filter(|subject| EventId::new(subject.at, entity.id, record.seq) == event);
    let Some(subject) = subject else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for receiver in possible(&source, &subject) {
        found.extend(on_its_lane::<M>(node, &source, record, receiver).await?.into_iter().flatten());
    }
    if source.from.is_some_and(|from| from <= record.seq) {
        found.extend(of_event::<M>(node, &source, record, None, None).await?);
    }
    Ok(found)
}
