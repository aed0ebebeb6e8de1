//! One step of a lane: finding what comes next, or one attempt to send it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::gate::{Admitted, GateKey, Pass, Want, channel_key, endpoint_key, gate_key};
use super::lane::{Attempt, Lane, Receiver, mark};
use super::port::{Answer, LogChannel, LogScope, Parcel, Sends, Undelivered};
use super::receivers::{
    Configured, DISABLED, Hooks, Subject, UNSUBSCRIBED, Unsendable, beside, destination, is_still_due, is_unsubscribed,
    off, receivers, url_of,
};
use super::settings::{self, Settings};
use super::share::SendPermit;
use super::stretch::{self, Part};
use super::telling::{self, Telling};
use crate::clock::Millis;
use crate::id::{EntityKey, EventId};
use crate::machine::Record;
use crate::metrics::AttemptEnd;
use crate::node::Node;
use crate::store::{Order, StoreError};
use crate::trace::current;
use crate::url::origin;

mod answer;

use answer::{has_left, health, judge, tell};

/// How long a receiver may take, from the first look-up of its name to its answer.
pub const ATTEMPT: Duration = Duration::from_secs(15);
/// How much longer the port has to report why there is no answer.
const LAST_WORD: Duration = Duration::from_millis(200);
/// Events of an unread stretch looked at together.
const PAGE: usize = 16;

/// The log from which a lane's step is made, and what that needs beside it.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) node: Arc<Node>,
    pub(super) entity: EntityKey,
    pub(super) scope: Arc<LogScope>,
    pub(super) workspace: Arc<str>,
    /// A retry is requested while it waits for a permit.
    pub(super) hurry: Arc<Notify>,
}

/// What a lane's step begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// This event is to be sent, which attempt that is, whether it was handed to those for whom it was on the lane
    /// too, whether a retry of just this one was requested, and what else a gate asks, but for the URL.
    Known { seq: u64, attempt: u32, is_left: bool, is_asked: bool, want: Want },
    /// The next one is in this stretch of the log, from and to; whether the first of it was tried already, and whether
    /// a retry of just that one was requested.
    Search { from: u64, to: u64, tried: bool, is_asked: bool },
}

/// An event that was not sent.
#[derive(Debug)]
pub(super) struct Unsent {
    pub(super) happened: Millis,
    /// Its type.
    pub(super) event: &'static str,
    /// Its URL; empty if it is not known any more.
    pub(super) url: String,
}

impl Unsent {
    /// Its last URL, if its current one is not known any more.
    pub(super) fn or_at(self, last: Option<String>) -> Self {
        if self.url.is_empty() { Self { url: last.unwrap_or_default(), ..self } } else { self }
    }
}

/// An event that the lane has had for this receiver too, and does not send there.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) receiver: Receiver,
    pub(super) url: String,
    pub(super) seq: u64,
    pub(super) at: Millis,
}

/// A step that was made. It counts once what it leaves to others is on their lanes.
#[derive(Debug)]
pub(super) struct Stepped {
    pub(super) step: Step,
    pub(super) left: Vec<Left>,
}

impl From<Step> for Stepped {
    fn from(step: Step) -> Self {
        Self { step, left: Vec::new() }
    }
}

/// The result of a step.
#[derive(Debug)]
pub(super) enum Step {
    /// These events are for the receiver, and happened then; the log was read up to there. The one that was tried
    /// before is not for it any more, for this reason in one word.
    Found { events: Vec<(u64, Millis)>, upto: u64, lost: Option<(&'static str, Unsent)> },
    /// Not now.
    Later(Millis),
    /// Not before it is on the lanes of others too.
    Leaves,
    /// There is nowhere to send it. The event, if it is known.
    NotSent(Unsendable, Option<Unsent>),
    /// It was tried.
    Tried(Tried),
}

/// An attempt that was made.
#[derive(Debug)]
pub(super) struct Tried {
    /// When the event happened.
    pub(super) happened: Millis,
    /// Its type.
    pub(super) event: &'static str,
    /// Where it was sent.
    pub(super) url: String,
    pub(super) attempt: Attempt,
    pub(super) verdict: Verdict,
}

/// What an attempt means for the delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is done.
    Arrived,
    /// It is to be tried again.
    Refused { retry_after: Option<u64> },
    /// The receiver wants nothing any more.
    Gone,
    /// It did not arrive, and the receiver does not want it there any more.
    Moved,
}

/// One step of `lane`.
///
/// # Errors
///
/// `StoreError` where the store cannot be read, or holds what cannot be.
pub(super) async fn step<M: Sends>(route: Route, lane: Lane, head: Head) -> Result<Stepped, StoreError> {
    let settings = settings::read(&route.node, route.entity, &route.scope).await?;
    match head {
        Head::Search { from: first, to, tried, is_asked } => {
            let tried = tried.then_some((first, is_asked));
            search::<M>(&route, lane, &settings, (first, to), tried).await
        }
        Head::Known { seq, attempt, is_left, is_asked, want } => {
            send::<M>(&route, lane, &settings, Known { seq, attempt, is_left, is_asked }, want).await
        }
    }
}

/// The hooks of the message with this sequence.
///
/// # Errors
///
/// `StoreError` where the store cannot be read, or holds what cannot be.
pub(super) async fn hooks_of<M: Sends>(
    node: &Node,
    entity: EntityKey,
    message: u64,
) -> Result<Option<Arc<Hooks>>, StoreError> {
    let records = node.events::<M>(entity, (message, message), Order::Asc, 1).await?;
    Ok(records.first().and_then(M::hooks).map(Arc::new))
}

/// Which events of a stretch of the log are for the lane's receiver. One that was `tried` is known to have been, and
/// does not get lost: it is sent, also where another receiver has come by the same URL meanwhile, or it has failed.
async fn search<M: Sends>(
    route: &Route,
    lane: Lane,
    settings: &Settings,
    (first, last): (u64, u64),
    tried: Option<(u64, bool)>,
) -> Result<Stepped, StoreError> {
    let configured = settings.configured();
    let off = off(lane.receiver, &configured);
    let read = stretch::next::<M>(&route.node, route.entity, (first, last), Order::Asc, PAGE).await;
    let Part { records, upto } = match read {
        // Nothing is kept of what waits for an endpoint that is no more, whatever it was.
        Err(error) if !error.passes() && off == Some(Unsendable::Deleted) => {
            let (entity, receiver) = (route.entity, lane.receiver);
            let told = "a damaged event is not sent to a deleted endpoint";
            tracing::error!(?entity, ?receiver, seq = first, %error, "{told}");
            return Ok(Step::Found { events: Vec::new(), upto: first, lost: None }.into());
        }
        read => read?,
    };
    let (mut events, mut lost, mut left) = (Vec::new(), None, Vec::new());
    for record in &records {
        let Some(subject) = M::subject(record) else { continue };
        let of_message = match (lane.receiver, subject.message) {
            // Events of other messages are not for this one's hooks.
            (Receiver::Message(own) | Receiver::Callback(own), message) if message != Some(own) => continue,
            (_, Some(message)) => hooks_of::<M>(&route.node, route.entity, message).await?,
            (_, None) => None,
        };
        let all = receivers(&subject, &configured, of_message.as_deref(), Some(lane.receiver));
        let is_for_it = all.iter().any(|(receiver, _)| *receiver == lane.receiver);
        let tried = tried.filter(|(seq, _)| *seq == record.seq);
        let mut goes = false;
        match tried {
            _ if off == Some(Unsendable::Deleted) => {}
            Some((_, false)) if is_unsubscribed(lane.receiver, &subject, &configured) => {
                let url = url_of(lane.receiver, &configured, None).unwrap_or_default().to_owned();
                lost = Some((UNSUBSCRIBED, Unsent { happened: subject.at, event: subject.event, url }));
            }
            _ if is_for_it || tried.is_some() => {
                goes = true;
                events.push((record.seq, record.at));
            }
            _ => {}
        }
        let to = url_of(lane.receiver, &configured, None).filter(|_| goes && off.is_none());
        left.extend(leave(lane, to, (record.seq, record.at), &subject, &configured, of_message.as_deref()));
    }
    Ok(Stepped { step: Step::Found { events, upto, lost }, left })
}

/// Whether an event goes to `to` now, if anywhere, as it did when it happened.
fn is_as_before(receiver: Receiver, to: Option<&str>, subject: &Subject, configured: &Configured<'_>) -> bool {
    to.is_some() && !configured.may_have_changed(receiver, subject.at)
}

/// Who is left with an event that a lane sends to `to` now, if anywhere. As long as nothing has changed since the
/// event, that is nobody. What is sent again was sent before, and what is at the URL of a message stays there.
fn leave(
    lane: Lane,
    to: Option<&str>,
    (seq, at): (u64, Millis),
    subject: &Subject,
    configured: &Configured<'_>,
    hooks: Option<&Hooks>,
) -> Vec<Left> {
    let is_as_before = is_as_before(lane.receiver, to, subject, configured);
    if lane.again.is_some() || is_as_before || matches!(lane.receiver, Receiver::Message(_) | Receiver::Callback(_)) {
        return Vec::new();
    }
    let left = beside(lane.receiver, to, subject, configured, hooks);
    left.into_iter().map(|(receiver, url)| Left { receiver, url: url.to_owned(), seq, at }).collect()
}

/// An event that is to be sent, as in [`Head::Known`].
#[derive(Clone, Copy)]
struct Known {
    seq: u64,
    attempt: u32,
    is_left: bool,
    is_asked: bool,
}

/// Sends one event to one receiver, unless the receiver is spared just now or there is nowhere to send it.
async fn send<M: Sends>(
    route: &Route,
    lane: Lane,
    settings: &Settings,
    known: Known,
    want: Want,
) -> Result<Stepped, StoreError> {
    let node = &route.node;
    let receiver = lane.receiver;
    let hooks = match receiver {
        Receiver::Message(message) | Receiver::Callback(message) => hooks_of::<M>(node, route.entity, message).await?,
        Receiver::Endpoint(_) | Receiver::Channel => None,
    };
    let Entry { pass, is_hurried } = match admit(route, receiver, settings, hooks.as_deref(), want).await {
        Ok(entry) => entry,
        Err(at) => return Ok(Step::Later(at).into()),
    };
    let wanted = known.is_asked || is_hurried || lane.again.is_some();
    let (parcel, subject) = match pack::<M>(route, lane, hooks, known, wanted).await? {
        Ok(packed) => packed,
        Err(not_sent) => return Ok(not_sent),
    };
    let url = parcel.url.clone();
    let telling = Telling::begin(node, &parcel, &subject, receiver, known.attempt);
    let trace = Some(telling.context);
    let (attempt, outcome) = attempt(node, parcel, telling).await;
    let verdict = judge(outcome);
    // A requested retry goes to an endpoint whatever that subscribes to, and waits for its time. One that was only
    // wanted sooner does not wait, and tells as much of the endpoint.
    let has_left = match verdict {
        Verdict::Arrived | Verdict::Moved => false,
        Verdict::Refused { .. } => has_left(route, receiver, &subject, &url, lane.again.is_some()).await,
        Verdict::Gone => has_left(route, receiver, &subject, &url, wanted).await,
    };
    let verdict = if has_left { Verdict::Moved } else { verdict };
    let health = health(receiver, verdict, outcome);
    let told = async {
        let turned = tell(route, receiver, (verdict, health), pass, (&url, attempt.at)).await;
        telling::turned(route.entity, receiver, &url, turned);
    };
    current::within(trace, told).await;
    Ok(Step::Tried(Tried { happened: subject.at, event: subject.event, url, attempt, verdict }).into())
}

/// How something may be sent.
struct Entry {
    /// What lets it pass at the receiver and on this node. `None`: there is nowhere to send it, which is found out
    /// without.
    pass: Option<(Pass, SendPermit)>,
    /// A retry was requested since its step began.
    is_hurried: bool,
}

/// Whether a retry was requested and not heard of yet. It counts as heard then.
pub(super) fn is_hurried(hurry: &Notify) -> bool {
    hurry.notified().now_or_never().is_some()
}

/// Waits for the permits to send: at the receiver, of the workspace and on this node. `Err`: not before this time.
async fn admit(
    route: &Route,
    receiver: Receiver,
    settings: &Settings,
    hooks: Option<&Hooks>,
    mut want: Want,
) -> Result<Entry, Millis> {
    let node = &route.node;
    let (mut pass, mut is_hurried) = (None, false);
    if off(receiver, &settings.configured()).is_none() {
        let gate = node.outbox.gates.of(key_of(route, receiver, hooks));
        want.url = hooks.and_then(|hooks| hooks.url_of(receiver)).map(mark);
        let entered = tokio::select! {
            biased;
            () = route.hurry.notified() => None,
            entered = gate.enter(node.clock.now(), want) => Some(entered),
        };
        let entered = match entered {
            Some(entered) => entered,
            None => {
                (want.asked_for, is_hurried) = (true, true);
                gate.enter(node.clock.now(), want).await
            }
        };
        pass = match entered {
            Admitted::Later(at) => return Err(at),
            Admitted::Now(pass) => {
                let urgent = want.asked_for || pass.is_probe();
                let permit = node.outbox.shares.enter(route.entity.workspace, urgent, node.clock.now()).await?;
                Some((pass, permit))
            }
        };
    }
    // While it waited the node may have begun to stop; then nothing is begun any more.
    if node.outbox.is_stopping() {
        return Err(node.clock.now());
    }
    Ok(Entry { pass, is_hurried: is_hurried || self::is_hurried(&route.hurry) })
}

/// Reads the event and its destination now: settings may have changed while it waited for a permit. Only an event that
/// is about to be sent is held in memory. `Err`: it goes nowhere. One that is `wanted`, by a request for just this one,
/// goes to its endpoint whatever that subscribes to.
async fn pack<M: Sends>(
    route: &Route,
    lane: Lane,
    mut hooks: Option<Arc<Hooks>>,
    Known { seq, is_left, .. }: Known,
    wanted: bool,
) -> Result<Result<(Parcel, Subject), Stepped>, StoreError> {
    let (node, receiver) = (&route.node, lane.receiver);
    let Some((record, subject)) = event::<M>(route, seq).await? else {
        return Err(StoreError::Corrupt("an event is missing from the log".into()));
    };
    if let (None, true, Some(message)) = (&hooks, subject.is_outcome, subject.message) {
        hooks = hooks_of::<M>(node, route.entity, message).await?;
    }
    let settings = settings::read(node, route.entity, &route.scope).await?;
    let configured = settings.configured();
    let to = match destination(receiver, &subject, &configured, hooks.as_deref(), node.clock.now()) {
        // Nothing is kept of it, unless it was tried: that is found out where events are searched for.
        Ok(_) if !wanted && is_unsubscribed(receiver, &subject, &configured) => Err(Unsendable::Deleted),
        Ok(_) if !wanted && !is_still_due(receiver, &subject, &configured) => Err(DISABLED),
        destination => destination,
    };
    let url = to.as_ref().ok().map(|to| to.url.as_str());
    let is_as_before = is_as_before(receiver, url, &subject, &configured);
    if let (None, false, Some(message)) = (&hooks, is_as_before || is_left, subject.message) {
        hooks = hooks_of::<M>(node, route.entity, message).await?;
    }
    let left = match is_left {
        false => leave(lane, url, (seq, record.at), &subject, &configured, hooks.as_deref()),
        true => Vec::new(),
    };
    let to = match to {
        Ok(_) if !left.is_empty() => return Ok(Err(Stepped { step: Step::Leaves, left })),
        Ok(destination) => destination,
        Err(why) => {
            let url = url_of(receiver, &configured, hooks.as_deref()).unwrap_or_default().to_owned();
            let unsent = Unsent { happened: subject.at, event: subject.event, url };
            return Ok(Err(Stepped { step: Step::NotSent(why, Some(unsent)), left }));
        }
    };
    let parcel = Parcel {
        workspace: Arc::clone(&route.workspace),
        entity: route.entity,
        scope: Arc::clone(&route.scope),
        id: EventId::new(record.at, route.entity.id, record.seq),
        trace: record.trace,
        event: M::happened(node, route.entity, record).await?,
        url: to.url,
        method: to.method,
        headers: to.headers,
        secrets: to.secrets,
        format: to.format,
    };
    Ok(Ok((parcel, subject)))
}

/// One attempt, and what came of it.
async fn attempt(node: &Node, mut parcel: Parcel, telling: Telling) -> (Attempt, Result<Answer, Undelivered>) {
    let at = node.clock.now();
    parcel.trace = Some(telling.context);
    let began = Instant::now();
    let delivering = current::within(parcel.trace, node.ports.deliverer.deliver(parcel));
    let outcome = timeout(ATTEMPT + LAST_WORD, delivering).await.unwrap_or(Err(Undelivered::Timeout));
    let duration = began.elapsed();
    let end = match judge(outcome) {
        Verdict::Arrived => AttemptEnd::Delivered,
        Verdict::Refused { .. } => AttemptEnd::Refused,
        Verdict::Gone => AttemptEnd::Gone,
        Verdict::Moved => AttemptEnd::Refused,
    };
    node.metrics.webhook_attempts.of(end).observe(duration, telling.recorded(), || node.now());
    telling.end(outcome);
    let (status, error) = match outcome {
        Ok(answer) => (Some(answer.status), answer.error),
        Err(why) => (None, Some(why.word())),
    };
    let attempt = Attempt { at, status, error: None, duration_millis: duration.as_millis() as u64 };
    (attempt.with_error(error), outcome)
}

async fn event<M: Sends>(route: &Route, seq: u64) -> Result<Option<(Arc<Record<M::Event>>, Subject)>, StoreError> {
    let records = route.node.events::<M>(route.entity, (seq, seq), Order::Asc, 1).await?;
    let record = records.into_iter().next();
    Ok(record.and_then(|record| M::subject(&record).map(|subject| (Arc::new(record), subject))))
}

/// What tells receivers apart as far as their health goes: an endpoint or channel by itself, the URLs of messages by
/// where they lead, since each message may have its own.
fn key_of(route: &Route, receiver: Receiver, hooks: Option<&Hooks>) -> GateKey {
    let workspace = route.entity.workspace;
    match receiver {
        Receiver::Endpoint(id) => endpoint_key(workspace, id),
        Receiver::Channel => {
            let channel = route.scope.channel.as_ref().map_or("", LogChannel::id);
            channel_key(workspace, channel)
        }
        Receiver::Message(_) | Receiver::Callback(_) => {
            let url = hooks.and_then(|hooks| hooks.url_of(receiver)).unwrap_or_default();
            gate_key(workspace, "origin", origin(url).as_bytes())
        }
    }
}
