//! One step of a lane: finding what comes next, or one attempt to send it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::attempt_telemetry::{self, AttemptTelemetry};
use super::circuit_breaker::SendRequest;
use super::lane::{Attempt, Lane, Receiver};
use super::port::{Answer, DeliveryRequest, LogScope, Sends, Undelivered};
use super::read_log::{self, LogPart};
use super::receivers::{Hooks, UNSUBSCRIBED, Unsendable, is_unsubscribed, off, receivers, url_of};
use super::retry_signal::{RetryOf, RetrySignal};
use super::settings::{self, Settings};
use crate::clock::Millis;
use crate::id::EntityKey;
use crate::metrics::AttemptEnd;
use crate::node::Node;
use crate::store::{Order, SeqRange, StoreError};
use crate::trace::current;

mod admission;
mod answer;
mod pack;

use admission::{Admission, Permits, admit};
use answer::{Judged, health, judge, report_outcome, wants_no_more};
use pack::{Packed, Parcel, pack, to_hand_over};

/// The timeout of an attempt, from the first look-up of the receiver's name to its answer.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
/// How much longer the port may take to report why there is no answer.
const REPORT_TIMEOUT: Duration = Duration::from_millis(200);
/// Events of an unread range read at once.
const EVENTS_PER_PAGE: usize = 16;

/// The log of a lane's step, with the handles that the step needs.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) node: Arc<Node>,
    pub(super) entity: EntityKey,
    pub(super) scope: Arc<LogScope>,
    pub(super) workspace: Arc<str>,
    /// Notifies of a retry requested while the step waits for a permit.
    pub(super) retry_signal: Arc<RetrySignal>,
}

/// The start of a lane's step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextEvent {
    /// This event is to be sent; the breaker's remaining questions except the URL.
    Known { event: KnownEvent, send_request: SendRequest },
    /// The next event is in this range of the log. `tried`: its first event, if that was tried already.
    Search { range: SeqRange, tried: Option<TriedEvent> },
}

/// An event that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KnownEvent {
    pub(super) seq: u64,
    /// Which attempt this is, from 1.
    pub(super) attempt: u32,
    /// It was handed to the other receivers that it was on the lane for.
    pub(super) is_handed_over: bool,
    /// Its own retry was requested.
    pub(super) is_requested: bool,
}

/// Why an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// The schedule makes it.
    Scheduled,
    /// A retry was requested.
    Requested,
}

impl Intent {
    fn of(is_requested: bool) -> Self {
        if is_requested { Self::Requested } else { Self::Scheduled }
    }
}

/// An event that was tried, and may be for the receiver no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TriedEvent {
    pub(super) seq: u64,
    /// Its own retry was requested.
    pub(super) is_requested: bool,
}

/// An event for the receiver, as the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FoundEvent {
    pub(super) seq: u64,
    /// When it happened.
    pub(super) at: Millis,
}

/// An event that was not sent.
#[derive(Debug)]
pub(super) struct Unsent {
    pub(super) happened: Millis,
    /// Its type.
    pub(super) event: &'static str,
    /// The URL of its receiver, if that still has one.
    pub(super) url: Option<String>,
}

/// An event that the lane also carried for this receiver, and does not send there.
#[derive(Debug)]
pub(super) struct HandedOver {
    pub(super) receiver: Receiver,
    pub(super) url: String,
    pub(super) event: FoundEvent,
}

/// An ended step. It counts once the events that it hands over are on their receivers' lanes.
#[derive(Debug)]
pub(super) struct StepOutcome {
    pub(super) step: Step,
    pub(super) handed_over: Vec<HandedOver>,
}

/// The end of a step of this lane.
#[derive(Debug)]
pub(super) struct EndedStep {
    pub(super) lane: Lane,
    pub(super) outcome: Result<StepOutcome, StoreError>,
}

impl From<Step> for StepOutcome {
    fn from(step: Step) -> Self {
        Self { step, handed_over: Vec::new() }
    }
}

/// The result of a step.
#[derive(Debug)]
pub(super) enum Step {
    /// These events are for the receiver; the log was read up to `upto`. `lost`: the event that was tried before is not
    /// any more.
    Found { events: Vec<FoundEvent>, upto: u64, lost: Option<Lost> },
    /// Not now.
    Later(Millis),
    /// The event must first be handed to its other receivers.
    HandsOver,
    /// The event has no receiver any more. The event, if it is known.
    NotSent(Unsendable, Option<Unsent>),
    /// It was tried.
    Tried(Tried),
}

/// An event that the receiver does not want any more.
#[derive(Debug)]
pub(super) struct Lost {
    /// The reason in one word.
    pub(super) why: &'static str,
    pub(super) unsent: Unsent,
}

/// An attempt that was made.
#[derive(Debug)]
pub(super) struct Tried {
    /// When the event happened.
    pub(super) happened: Millis,
    /// Its type.
    pub(super) event: &'static str,
    /// The URL.
    pub(super) url: String,
    pub(super) attempt: Attempt,
    pub(super) verdict: Verdict,
    /// `Requested` if a retry of any event on the lane was requested: then the attempt is not one of the schedule.
    pub(super) lane_intent: Intent,
}

/// The verdict of an attempt on the delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is done.
    Arrived,
    /// It is to be tried again.
    Refused { retry_after: Option<u64> },
    /// The receiver wants nothing any more.
    Gone,
    /// It did not arrive, and the receiver no longer uses that URL.
    Moved,
}

/// One step of `lane`.
///
/// # Errors
///
/// `StoreError` if the store, or the stored data, cannot be read.
pub(super) async fn step<M: Sends>(route: Route, lane: Lane, head: NextEvent) -> Result<StepOutcome, StoreError> {
    let settings = settings::read(&route.node, route.entity, &route.scope).await?;
    match head {
        NextEvent::Search { range, tried } => search::<M>(&route, lane, &settings, range, tried).await,
        NextEvent::Known { event, send_request } => send::<M>(&route, lane, &settings, event, send_request).await,
    }
}

/// The hooks of the message with this sequence.
///
/// # Errors
///
/// `StoreError` if the store, or the stored data, cannot be read.
pub(super) async fn hooks_of<M: Sends>(
    node: &Node,
    entity: EntityKey,
    message: u64,
) -> Result<Option<Arc<Hooks>>, StoreError> {
    let records = node.events::<M>(entity, SeqRange::one(message), Order::Asc, 1).await?;
    Ok(records.first().and_then(M::hooks).map(Arc::new))
}

/// Finds the lane's events in a range of the log. An event that was `tried` was for the receiver and does not get lost:
/// it is sent, even if another receiver has got the same URL meanwhile, or it has failed.
async fn search<M: Sends>(
    route: &Route,
    lane: Lane,
    settings: &Settings,
    range: SeqRange,
    tried: Option<TriedEvent>,
) -> Result<StepOutcome, StoreError> {
    let configured = settings.configured();
    let off = off(lane.receiver, &configured);
    let read = read_log::next_part::<M>(&route.node, route.entity, range, Order::Asc, EVENTS_PER_PAGE).await;
    let LogPart { records, upto } = match read {
        // All events waiting for a deleted endpoint are dropped, this one too.
        Err(error) if !error.is_transient() && off == Some(Unsendable::Deleted) => {
            let entity = route.entity;
            let receiver = lane.receiver;
            let line = "a damaged event is not sent to a deleted endpoint";
            tracing::error!(?entity, ?receiver, seq = range.first, %error, "{line}");
            return Ok(Step::Found { events: Vec::new(), upto: range.first, lost: None }.into());
        }
        read => read?,
    };
    let mut events = Vec::new();
    let mut lost = None;
    let mut handed_over = Vec::new();
    for record in &records {
        let Some(subject) = M::subject(record) else { continue };
        let of_message = match (lane.receiver, subject.message) {
            // A message's webhooks get only its own events.
            (Receiver::Message(own) | Receiver::Callback(own), message) if message != Some(own) => continue,
            (_, Some(message)) => hooks_of::<M>(&route.node, route.entity, message).await?,
            (_, None) => None,
        };
        let all = receivers(&subject, &configured, of_message.as_deref(), Some(lane.receiver));
        let is_for_it = all.iter().any(|(receiver, _)| *receiver == lane.receiver);
        let tried = tried.filter(|tried| tried.seq == record.seq);
        let event = FoundEvent { seq: record.seq, at: record.at };
        let mut is_sent = false;
        match tried {
            _ if off == Some(Unsendable::Deleted) => {}
            Some(TriedEvent { is_requested: false, .. }) if is_unsubscribed(lane.receiver, &subject, &configured) => {
                let url = url_of(lane.receiver, &configured, None).map(str::to_owned);
                let unsent = Unsent { happened: subject.at, event: subject.event, url };
                lost = Some(Lost { why: UNSUBSCRIBED, unsent });
            }
            _ if is_for_it || tried.is_some() => {
                is_sent = true;
                events.push(event);
            }
            _ => {}
        }
        let to = url_of(lane.receiver, &configured, None).filter(|_| is_sent && off.is_none());
        handed_over.extend(to_hand_over(lane, to, event, &subject, &configured, of_message.as_deref()));
    }
    Ok(StepOutcome { step: Step::Found { events, upto, lost }, handed_over })
}

/// Sends one event to one receiver, unless the receiver is paused or the event has no destination.
async fn send<M: Sends>(
    route: &Route,
    lane: Lane,
    settings: &Settings,
    known: KnownEvent,
    send_request: SendRequest,
) -> Result<StepOutcome, StoreError> {
    let node = &route.node;
    let receiver = lane.receiver;
    let hooks = match receiver {
        Receiver::Message(message) | Receiver::Callback(message) => hooks_of::<M>(node, route.entity, message).await?,
        Receiver::Endpoint(_) | Receiver::Channel => None,
    };
    let Admission { permits, requested } = match admit(route, receiver, settings, hooks.as_deref(), send_request).await
    {
        Ok(admission) => admission,
        Err(at) => return Ok(Step::Later(at).into()),
    };
    let is_requested = known.is_requested || requested == Some(RetryOf::Head) || lane.again.is_some();
    let intent = Intent::of(is_requested);
    let Parcel { request, subject } = match pack::<M>(route, lane, hooks, known, intent).await? {
        Packed::Ready(parcel) => *parcel,
        Packed::NotSent(outcome) => return Ok(outcome),
    };
    let url = request.url.clone();
    let telemetry = AttemptTelemetry::begin(node, &request, &subject, receiver, known.attempt);
    let trace = Some(telemetry.context);
    let (attempt, outcome) = attempt(node, request, telemetry).await;
    let verdict = judge(outcome);
    // A requested retry goes to an endpoint whatever it subscribes to, and is retried on schedule. An event that was
    // on the way to it is not, but its result still counts for the endpoint.
    let wants_no_more = match verdict {
        Verdict::Arrived | Verdict::Moved => false,
        Verdict::Refused { .. } => {
            wants_no_more(route, receiver, &subject, &url, Intent::of(lane.again.is_some())).await
        }
        Verdict::Gone => wants_no_more(route, receiver, &subject, &url, intent).await,
    };
    let verdict = if wants_no_more { Verdict::Moved } else { verdict };
    let health = health(receiver, verdict, outcome);
    let reporting = async {
        let judged = Judged { verdict, health, url: &url, at: attempt.at };
        let change = report_outcome(route, receiver, judged, permits).await;
        attempt_telemetry::log_health_change(route.entity, receiver, &url, change);
    };
    current::within(trace, reporting).await;
    let lane_intent = Intent::of(send_request.retry_requested || requested.is_some());
    let happened = subject.at;
    let event = subject.event;
    Ok(Step::Tried(Tried { happened, event, url, attempt, verdict, lane_intent }).into())
}

/// Makes one attempt; returns it with its outcome.
async fn attempt(
    node: &Node,
    mut request: DeliveryRequest,
    telemetry: AttemptTelemetry,
) -> (Attempt, Result<Answer, Undelivered>) {
    let at = node.clock.now();
    request.trace = Some(telemetry.context);
    let began = Instant::now();
    let delivering = current::within(request.trace, node.ports.deliverer.deliver(request));
    let outcome = timeout(ATTEMPT_TIMEOUT + REPORT_TIMEOUT, delivering).await.unwrap_or(Err(Undelivered::Timeout));
    let duration = began.elapsed();
    let end = match judge(outcome) {
        Verdict::Arrived => AttemptEnd::Delivered,
        Verdict::Refused { .. } => AttemptEnd::Refused,
        Verdict::Gone => AttemptEnd::Gone,
        Verdict::Moved => AttemptEnd::Refused,
    };
    node.metrics.webhook_attempts.of(end).observe(duration, telemetry.recorded(), || node.now());
    telemetry.end(outcome);
    let (status, error) = match outcome {
        Ok(answer) => (Some(answer.status), answer.error),
        Err(why) => (None, Some(why.word())),
    };
    let attempt = Attempt { at, status, error: None, duration_millis: duration.as_millis() as u64 };
    (attempt.with_error(error), outcome)
}
