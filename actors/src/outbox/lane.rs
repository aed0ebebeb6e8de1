//! Lanes: the queue from one log to one receiver, on which events are sent one after the other.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::id::EndpointId;
use crate::url::is_same;

mod retry_requests;

pub use retry_requests::RetryRequest;
pub(super) use retry_requests::RetryRequests;

/// The most attempts kept of one delivery. The schedule makes at most 16, or six more for a receiver whose
/// `Retry-After` is short; if that or requested retries make more, the oldest are dropped.
pub const ATTEMPTS_KEPT: usize = 20;
/// Characters of an attempt's error.
const ERROR_CHARS: usize = 200;

/// Why an attempt was not made, in one word: the receiver is gone or disabled, or does not subscribe to the event any
/// more.
pub(super) const NO_RECEIVER: [&str; 5] =
    ["endpoint_disabled", "endpoint_gone", "channel_deleted", "receiver_deleted", "unsubscribed"];

/// About how many bytes an attempt adds to a commit.
pub(super) const ATTEMPT_BYTES: usize = 200;

/// A receiver of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Receiver {
    /// An endpoint that subscribed.
    Endpoint(EndpointId),
    /// The channel's `webhookUrl`.
    Channel,
    /// The `webhookUrl` of the message with this sequence.
    Message(u64),
    /// The callback of the review that the message with this sequence asks for.
    Callback(u64),
}

/// Bytes of a [`Receiver::tag`].
pub const TAG_BYTES: usize = 4;

impl Receiver {
    fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Endpoint(id) => {
                out.push(1);
                out.extend_from_slice(&id.to_bytes());
            }
            Self::Channel => out.push(2),
            Self::Message(seq) => {
                out.push(3);
                out.extend_from_slice(&seq.to_be_bytes());
            }
            Self::Callback(seq) => {
                out.push(4);
                out.extend_from_slice(&seq.to_be_bytes());
            }
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let number = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.try_into().ok()?));
        match bytes.split_first()? {
            (1, id) => Some(Self::Endpoint(EndpointId::from_bytes(id.try_into().ok()?))),
            (2, []) => Some(Self::Channel),
            (3, seq) => Some(Self::Message(number(seq)?)),
            (4, seq) => Some(Self::Callback(number(seq)?)),
            _ => None,
        }
    }

    /// Distinguishes the receivers of one event in the ids of their deliveries.
    #[must_use]
    pub fn tag(self) -> [u8; TAG_BYTES] {
        let mut bytes = Vec::with_capacity(17);
        self.put(&mut bytes);
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..TAG_BYTES]);
        tag
    }

    /// Its kind, in one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Endpoint(_) => "endpoint",
            Self::Channel => "channel",
            Self::Message(_) => "message",
            Self::Callback(_) => "callback",
        }
    }

    /// The endpoint, if it is one.
    #[must_use]
    pub fn endpoint(self) -> Option<EndpointId> {
        match self {
            Self::Endpoint(id) => Some(id),
            Self::Channel | Self::Message(_) | Self::Callback(_) => None,
        }
    }
}

impl<C> Encode<C> for Receiver {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let mut bytes = Vec::with_capacity(17);
        self.put(&mut bytes);
        e.bytes(&bytes)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Receiver {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::parse(d.bytes()?).ok_or_else(|| minicbor::decode::Error::message("no such receiver"))
    }
}

/// The path of a log's events to one receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The receiver.
    pub receiver: Receiver,
    /// One event sent separately from the others, because its retry was requested or another receiver's lane has handed
    /// it to this one ([`LaneRow::handed`]); `None`: all events in order.
    pub again: Option<u64>,
}

impl Lane {
    /// The lane on which a receiver gets its events in order.
    #[must_use]
    pub fn to(receiver: Receiver) -> Self {
        Self { receiver, again: None }
    }

    /// Its key among the rows of an entity.
    #[must_use]
    pub fn key(self) -> Bytes {
        let mut out = Vec::with_capacity(26);
        if let Some(seq) = self.again {
            out.extend_from_slice(&Self::separate_prefix(seq));
        }
        self.receiver.put(&mut out);
        out.into()
    }

    /// The key prefix of all separate lanes of this event.
    pub(crate) fn separate_prefix(seq: u64) -> [u8; 9] {
        let mut out = [5; 9];
        out[1..].copy_from_slice(&seq.to_be_bytes());
        out
    }

    /// The inverse of [`Lane::key`].
    #[must_use]
    pub fn parse(key: &[u8]) -> Option<Self> {
        match key.split_first()? {
            (5, rest) => {
                let (seq, receiver) = rest.split_at_checked(8)?;
                let again = Some(u64::from_be_bytes(seq.try_into().ok()?));
                Some(Self { receiver: Receiver::parse(receiver)?, again })
            }
            _ => Receiver::parse(key).map(Self::to),
        }
    }

    /// The key of its time among the times of all lanes of an entity.
    #[must_use]
    pub(crate) fn time_key(self, at: Millis) -> Bytes {
        [&at.0.to_be_bytes()[..], &self.key()].concat().into()
    }

    /// The inverse of [`Lane::time_key`].
    #[must_use]
    pub(crate) fn parse_time_key(key: &[u8]) -> Option<(Millis, Self)> {
        let (at, lane) = key.split_at_checked(8)?;
        Some((Millis(u64::from_be_bytes(at.try_into().ok()?)), Self::parse(lane)?))
    }
}

/// One try to send something.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Attempt {
    /// When it began.
    #[n(0)]
    pub at: Millis,
    /// The status of the receiver's answer.
    #[n(1)]
    pub status: Option<u16>,
    /// The error.
    #[n(2)]
    pub error: Option<String>,
    /// How long it took.
    #[n(3)]
    pub duration_millis: u64,
}

impl Attempt {
    /// An attempt that was not made, because the event has no receiver any more.
    #[must_use]
    pub(crate) fn not_made(at: Millis, why: &str) -> Self {
        Self { at, status: None, error: Some(why.to_owned()), duration_millis: 0 }
    }

    /// With this error, cut to the length that is kept.
    #[must_use]
    pub(crate) fn with_error(self, error: Option<&str>) -> Self {
        Self { error: error.map(|error| error.chars().take(ERROR_CHARS).collect()), ..self }
    }
}

/// Adds an attempt to the kept ones.
pub fn keep(attempts: &mut Vec<Attempt>, attempt: Attempt) {
    if attempts.len() >= ATTEMPTS_KEPT {
        attempts.remove(0);
    }
    attempts.push(attempt);
}

/// A lane with events to send later: its cursor as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct LaneRow {
    /// The event that comes next.
    #[n(0)]
    pub next: u64,
    /// The newest event that is known to be for this receiver.
    #[n(1)]
    pub until: u64,
    /// The attempts at `next` so far.
    #[n(2)]
    pub attempts: Vec<Attempt>,
    /// When to resume.
    #[n(3)]
    pub next_at: Millis,
    /// Since when nothing has arrived; `None`: the last attempt on this lane succeeded, or there was none.
    #[n(4)]
    pub failing_since: Option<Millis>,
    /// The receiver's `Retry-After`: no attempt before this time.
    #[n(5)]
    pub deferred_until: Option<Millis>,
    /// A request asked for the next attempt, or for a later event: the attempt is made even if the circuit breaker is
    /// tripped. See `RetryRequests`, as which this and [`retry_requests`](LaneRow::retry_requests) are read and
    /// written.
    #[n(6)]
    pub retry_requested: bool,
    /// How often `next` was tried by the schedule. A requested attempt counts if it was the first one.
    #[n(7)]
    pub tries: u32,
    /// The URL that sent `deferred_until`, by its [`mark`]; it does not hold for another one.
    #[n(8)]
    pub deferred_by: Option<u64>,
    /// The URL of the last attempt, by its [`mark`]; `None`: there was none, or an earlier build made it.
    #[n(9)]
    pub tried_at: Option<u64>,
    /// How `next` had ended before a retry of it was requested; `None`: it had not, or was tried since.
    #[n(10)]
    pub was: Option<EarlierEnd>,
    /// Another receiver's lane handed this one event over, and its retry was not requested: it is sent only if it is
    /// still for the receiver.
    #[n(11)]
    pub handed: Option<bool>,
    /// The URL at which `next` was tried last; `None`: none yet, or an endpoint's, whose URL is known as long as it has
    /// lanes.
    #[n(12)]
    pub url: Option<String>,
    /// The requested retries not tried since, in the order of the requests; `None`: none, or an earlier build has noted
    /// [`retry_requested`](LaneRow::retry_requested).
    #[n(13)]
    pub retry_requests: Option<Vec<RetryRequest>>,
    /// A server is sending from it; until `next_at` no other one does.
    #[n(14)]
    pub in_flight: Option<bool>,
    /// When the schedule tries `next` again, whatever is requested meanwhile; `None`: no attempt at it has failed, or
    /// an earlier build has noted that.
    #[n(15)]
    pub scheduled_at: Option<Millis>,
}

/// How a delivery that is sent again had ended before.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EarlierEnd {
    /// How it ended.
    #[n(0)]
    pub end: End,
    /// The URL, if it was ever known.
    #[cbor(n(1), with = "known_url")]
    pub url: KnownUrl,
}

/// A URL, if it is known. The derived encoding would leave out an unknown one if it knew that this is an `Option`.
pub type KnownUrl = Option<String>;

impl EarlierEnd {
    pub(super) fn of(ended: &Delivery) -> Self {
        Self { end: ended.end, url: Some(ended.url.clone()).filter(|url| !url.is_empty()) }
    }
}

/// An unknown URL is stored as an empty one.
mod known_url {
    use minicbor::encode::Write;
    use minicbor::{Decoder, Encoder};

    pub(super) fn encode<C, W: Write>(
        url: &Option<String>,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(url.as_deref().unwrap_or_default())?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Option<String>, minicbor::decode::Error> {
        Ok(Some(d.str()?).filter(|url| !url.is_empty()).map(str::to_owned))
    }
}

/// Distinguishes URLs in a lane's row.
#[must_use]
pub fn mark(url: &str) -> u64 {
    let mut half = [0; 8];
    half.copy_from_slice(&blake3::hash(url.as_bytes()).as_bytes()[..8]);
    u64::from_le_bytes(half)
}

impl LaneRow {
    /// A lane with these events to send, from now on.
    #[must_use]
    pub fn new(next: u64, until: u64, next_at: Millis) -> Self {
        Self { next, until, next_at, ..Self::default() }
    }

    /// Whether this row of `lane` has an event whose retry was requested, whichever receiver it is for now.
    #[must_use]
    pub(crate) fn is_again(&self, lane: Lane) -> bool {
        lane.again.is_some() && self.handed != Some(true)
    }

    /// Whether `later` equals this, except for newer events after it.
    #[must_use]
    pub(crate) fn has_grown_to(&self, later: &Self) -> bool {
        self.until < later.until && *self == Self { until: self.until, ..later.clone() }
    }
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum End {
    /// The receiver answered 2xx.
    #[n(0)]
    Delivered,
    /// It was given up.
    #[n(1)]
    Failed,
}

/// A delivery that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Delivery {
    /// When its event happened.
    #[n(0)]
    pub at: Millis,
    /// The event's type.
    #[n(1)]
    pub event: String,
    /// The receiver.
    #[n(2)]
    pub receiver: Receiver,
    /// The URL; empty if it was never known.
    #[n(3)]
    pub url: String,
    /// How it ended.
    #[n(4)]
    pub end: End,
    /// The attempts, oldest first.
    #[n(5)]
    pub attempts: Vec<Attempt>,
}

impl Delivery {
    /// Whether it arrived at this URL, or ended there with a real attempt rather than for lack of a receiver.
    pub(crate) fn was_tried_at(&self, url: &str) -> bool {
        let not_made = |attempt: &Attempt| attempt.error.as_deref().is_some_and(|why| NO_RECEIVER.contains(&why));
        let was_tried = self.end == End::Delivered || self.attempts.last().is_some_and(|last| !not_made(last));
        is_same(&self.url, url) && was_tried
    }

    /// About how many bytes it adds to a commit, with its places in lists.
    pub(crate) fn weight(&self) -> usize {
        300 + self.url.len() + ATTEMPT_BYTES * self.attempts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Address;

    #[test]
    fn lanes_are_read_back_from_their_keys_and_sort_by_time() {
        let endpoint = Receiver::Endpoint(EndpointId::new(Millis(7), Address([9; 10])));
        for receiver in [endpoint, Receiver::Channel, Receiver::Message(3), Receiver::Callback(1 << 39)] {
            for again in [None, Some(12)] {
                let lane = Lane { receiver, again };
                assert_eq!(Lane::parse(&lane.key()), Some(lane));
                assert_eq!(Lane::parse_time_key(&lane.time_key(Millis(5))), Some((Millis(5), lane)));
                assert!(lane.time_key(Millis(255)) < lane.time_key(Millis(256)));
            }
        }
        for damaged in [&[][..], &[1, 2], &[2, 0], &[3], &[5, 0, 0], &[9]] {
            assert_eq!(Lane::parse(damaged), None, "{damaged:?}");
        }
    }

    /// Also where it could not be sent again.
    #[test]
    fn a_delivery_that_arrived_counts_as_tried_at_its_url() {
        let url = "https://example.com/";
        let ended = |end, whys: &[Option<&str>]| Delivery {
            at: Millis(0),
            event: "message.created".to_owned(),
            receiver: Receiver::Channel,
            url: url.to_owned(),
            end,
            attempts: whys.iter().map(|why| Attempt::not_made(Millis(1), "").with_error(*why)).collect(),
        };
        let no_more = Some("channel_deleted");
        assert!(ended(End::Delivered, &[None]).was_tried_at(url));
        assert!(ended(End::Delivered, &[None, no_more]).was_tried_at(url));
        assert!(!ended(End::Delivered, &[None]).was_tried_at("https://example.com/other"));
        assert!(ended(End::Failed, &[Some("timeout")]).was_tried_at(url));
        assert!(!ended(End::Failed, &[Some("timeout"), no_more]).was_tried_at(url));
    }

    #[test]
    fn an_unknown_url_of_an_earlier_end_is_stored_as_an_empty_one() {
        for (url, stored) in [(None, ""), (Some("https://example.com/".to_owned()), "https://example.com/")] {
            let was = EarlierEnd { end: End::Failed, url };
            let bytes = minicbor::to_vec(&was).unwrap();
            assert_eq!(bytes, minicbor::to_vec((End::Failed, stored)).unwrap());
            assert_eq!(minicbor::decode::<EarlierEnd>(&bytes).unwrap(), was);
        }
    }

    #[test]
    fn only_the_newest_attempts_of_a_delivery_are_kept() {
        let mut attempts = Vec::new();
        for n in 0..30 {
            keep(&mut attempts, Attempt::not_made(Millis(n), "x").with_error(Some(&"é".repeat(300))));
        }
        assert_eq!((attempts.len(), attempts[0].at, attempts[19].at), (ATTEMPTS_KEPT, Millis(10), Millis(29)));
        assert_eq!(attempts[0].error.as_ref().map(|error| error.chars().count()), Some(ERROR_CHARS));
    }
}
