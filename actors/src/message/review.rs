//! Reviews of messages: the question, the votes and the outcome.

use minicbor::{Decode, Encode};

use super::Json;
use crate::clock::Millis;
use crate::key::{Principal, PrincipalKind};
use crate::tool::Asker;

/// An HTTP request to make when a review is over.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Callback {
    /// The URL.
    #[n(0)]
    pub url: String,
    /// `POST`, `PUT` or `PATCH`.
    #[n(1)]
    pub method: String,
    /// Headers to send: secrets, never returned to clients.
    #[n(2)]
    pub headers: Vec<(String, String)>,
}

/// The output omits the headers, so no log line contains these secrets.
impl std::fmt::Debug for Callback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callback").field("url", &self.url).field("method", &self.method).finish_non_exhaustive()
    }
}

/// How many must agree before a review is completed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Quorum {
    /// How many different principals must give the same response.
    #[n(0)]
    pub of: u32,
    /// Only those with these ids may answer; empty: anyone with the scope.
    #[n(1)]
    pub allowed: Vec<String>,
    /// The required kind of each of them, in the order of `allowed`; `None` for any kind. `None` as a whole if any kind
    /// is allowed for all.
    #[n(2)]
    pub kinds: Option<Vec<Option<PrincipalKind>>>,
}

impl Quorum {
    /// A quorum of `of` principals among these, each named by its id alone or by its kind too.
    #[must_use]
    pub fn new(of: u32, allowed: Vec<(String, Option<PrincipalKind>)>) -> Self {
        let (allowed, kinds): (_, Vec<_>) = allowed.into_iter().unzip();
        let kinds = Some(kinds).filter(|kinds| kinds.iter().any(Option::is_some));
        Self { of, allowed, kinds }
    }

    /// Whether this principal may answer; with an empty list any may.
    #[must_use]
    pub fn allows(&self, principal: &Principal) -> bool {
        let kind = |at| self.kinds.as_ref().and_then(|kinds| kinds.get(at).copied().flatten());
        let mut allowed = self.allowed.iter().enumerate();
        self.allowed.is_empty() || allowed.any(|(at, id)| principal.is(id, kind(at)))
    }
}

/// A question to people that a message asks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Review {
    /// `approval`, `selection`, `form`, `text-input`, or a type of the client's own.
    #[n(0)]
    pub kind: String,
    /// The payload of the question; the reader, not this type, fills in the defaults of its kind.
    #[n(1)]
    pub payload: Option<Json>,
    /// The callback that gets the outcome.
    #[n(2)]
    pub callback: Option<Callback>,
    /// From this time on no answer is accepted.
    #[n(3)]
    pub expires_at: Millis,
    /// The response that applies at the deadline if there was no answer.
    #[n(4)]
    pub on_expire: Option<Json>,
    /// How many principals must agree, and which may answer.
    #[n(5)]
    pub quorum: Option<Quorum>,
    /// The turn that waits for the outcome.
    #[n(8)]
    pub asker: Option<Asker>,
    /// Its position among the reviews of its workspace, by creation time: a time of its own, so that successive reviews
    /// of one client keep their order. `None`: that of its message.
    #[n(9)]
    pub place: Option<Millis>,
}

/// The status of a review.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ReviewStatus {
    /// It is undecided, and its deadline has not passed.
    #[default]
    #[n(0)]
    Pending,
    /// It was decided, by an answer or by its default.
    #[n(1)]
    Completed,
    /// Its deadline passed without a decision.
    #[n(2)]
    Expired,
    /// Cancelled by its sender, or superseded by a newer iteration.
    #[n(3)]
    Cancelled,
}

/// One principal's vote in a review with a quorum.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Vote {
    /// The principal's id.
    #[n(0)]
    pub principal: String,
    /// The response.
    #[n(1)]
    pub response: Json,
    /// The feedback.
    #[n(2)]
    pub feedback: Option<String>,
    /// When it was given.
    #[n(3)]
    pub at: Millis,
    /// The hash that equal responses share, however they are written. `None` where an earlier version stored the
    /// response in the form of [`ComparableResponse::canonical`].
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub print: Option<[u8; 16]>,
    /// The principal's kind. `None` where an earlier version took the vote, which distinguished principals by id alone.
    #[n(5)]
    pub kind: Option<PrincipalKind>,
}

impl Vote {
    /// Whether it is this principal's.
    #[must_use]
    pub fn is_of(&self, principal: &Principal) -> bool {
        principal.is(&self.principal, self.kind)
    }
}

/// The forms by which responses are compared, however they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComparableResponse {
    /// A hash of its meaning.
    pub print: [u8; 16],
    /// The form in which responses were stored before votes had a hash. It has numbers as doubles.
    pub canonical: Json,
}

/// About how many bytes a rendered vote has, apart from the principal's id, response and feedback.
const VOTE_BYTES: usize = 100;

/// The state of a review, pending or ended; by default pending, without votes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ReviewState {
    /// Its status.
    #[n(0)]
    pub status: ReviewStatus,
    /// The response that decided it.
    #[n(1)]
    pub response: Option<Json>,
    /// The deciding principal's feedback.
    #[n(2)]
    pub feedback: Option<String>,
    /// The principal that decided; `system` at the deadline.
    #[n(3)]
    pub decided_by: Option<String>,
    /// When it ended.
    #[n(4)]
    pub completed_at: Option<Millis>,
    /// Votes so far, where there is a quorum.
    #[n(5)]
    pub votes: Vec<Vote>,
}

impl ReviewState {
    /// About how many bytes its answers have.
    #[must_use]
    pub fn weight(&self) -> usize {
        let bytes = |response: Option<&Json>, feedback: Option<&String>| {
            response.map_or(0, |response| response.as_str().len()) + feedback.map_or(0, String::len)
        };
        let vote =
            |vote: &Vote| VOTE_BYTES + vote.principal.len() + bytes(Some(&vote.response), vote.feedback.as_ref());
        bytes(self.response.as_ref(), self.feedback.as_ref()) + self.votes.iter().map(vote).sum::<usize>()
    }

    /// The state once the review is cancelled at `at`.
    #[must_use]
    pub fn cancelled(self, at: Millis) -> Self {
        Self { status: ReviewStatus::Cancelled, completed_at: Some(at), ..self }
    }

    /// Its outcome without what the reviewers wrote.
    #[must_use]
    pub fn redacted(&self) -> Self {
        Self { response: None, feedback: None, votes: Vec::new(), ..self.clone() }
    }
}
