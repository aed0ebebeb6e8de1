//! Idempotency keys whose scope is the whole workspace, while a commit is atomic in one entity only.
//!
//! A key's row is written in the commit of its effect. That is enough if all requests that could use the key go to one
//! entity. If they do not, two requests with one key could each have an effect in a different entity. Then the key is
//! *claimed* first, in an entity derived from workspace and key: its home, which is also the conversation that the key
//! opens. A claim has a number, names its request and the entity of its effect, and never expires.
//!
//! ```text
//! claim at home ──► it is ours ──► the effect, with the claim's number, in one commit with its key row ──► answer
//!      ▲                │ it is another request's
//!      │                ▼
//!      │        has that had its effect? ── yes ──► the key was used for another request
//!      │                │ no
//!      │                ▼
//!      └── next number  hold the key where that would have its effect: from then on it cannot, by that claim
//! ```
//!
//! So a request that was refused, or whose process died, leaves a claim that costs nothing: the next request takes it
//! over. Either the effect or the hold comes first in an entity's log, and the later one sees the earlier. No request
//! has to wait for another, and detecting a dead process's claim needs no clock. Still, a request that finds another
//! one's claim pauses, longer each time: two requests that took the key from each other without pauses would both fail.

use std::convert::Infallible;
use std::fmt::Debug;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use minicbor::{Decode, Encode};
use tokio::time::{Instant, sleep};

use crate::conversation::{self, Conversation, State};
use crate::directory::{Answer, CommandContext, Directory, KeyUse, Refusal, Reply};
use crate::id::{Address, EntityKey, Kind};
use crate::limits;
use crate::machine::{Change, Decision, Effects, Need, ReadSet, Undecided};
use crate::node::Node;
use crate::requests::{Request, typed};
use crate::store::{Fingerprint, KeyHash, RowWrite};
use crate::tables::CLAIMS;

/// How often a claim may be lost to another request. Each time that request was as far as this one.
const MAX_ROUNDS: u32 = 8;
/// How long a request waits for another one with its key to have its effect, doubled each time. A commit takes some
/// milliseconds; a refused or dead request delays the next one with its key by this much.
const FIRST_WAIT_TIMEOUT: Duration = Duration::from_millis(20);
/// How often that effect is checked meanwhile.
const MAX_CHECKS: u32 = 10;

/// Conversations that one key may open in all its lives; each life is 48 hours at least.
pub const MAX_LIVES: u32 = 1_000;

/// The home of a key: the conversation that it opens. A forgotten key that is used again begins another life, with
/// another conversation.
#[must_use]
pub fn home(workspace: Address, key: &[u8], life: u32) -> EntityKey {
    let first = Address::derive("keyed-conversation", &[&workspace.0, key]);
    EntityKey::conversation(workspace, live_again(workspace, first, life))
}

fn live_again(workspace: Address, first: Address, life: u32) -> Address {
    match life {
        0 => first,
        _ => Address::derive("keyed-conversation-again", &[&workspace.0, &first.0, &life.to_be_bytes()]),
    }
}

/// A key that is held for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Claim {
    /// Which claim of this key it is, from 1.
    #[n(0)]
    pub number: u64,
    /// The fingerprint of the request.
    #[n(1)]
    pub fingerprint: Fingerprint,
    /// The entity of its effect.
    #[n(2)]
    pub target: EntityKey,
}

/// A request that wants to hold a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claiming {
    /// The hash of the key.
    pub key: KeyHash,
    /// The fingerprint of the request.
    pub fingerprint: Fingerprint,
    /// The entity of its effect.
    pub target: EntityKey,
    /// The claim that this one may replace.
    pub over: Option<u64>,
}

impl Claiming {
    fn row(&self) -> Bytes {
        Bytes::copy_from_slice(&self.key.0)
    }

    pub(crate) fn needs(&self) -> Vec<Need> {
        vec![Need::Row(CLAIMS, self.row())]
    }

    /// Answers with the resulting claim, or with nothing if this is no longer a home of the key: the conversation was
    /// opened so long ago that its key was forgotten.
    pub(crate) fn decide(&self, state: Option<&State>, reads: &ReadSet) -> Result<Decision<Conversation>, Undecided> {
        if state.is_some() {
            return Ok(Decision::Elsewhere(conversation::Reply::Nothing));
        }
        let current = reads.stored::<Claim>(CLAIMS, self.row())?;
        let number = match current {
            None => 1,
            Some(claim) if self.over == Some(claim.number) => claim.number + 1,
            Some(claim) => return Ok(Decision::Elsewhere(conversation::Reply::Claimed(claim))),
        };
        let claim = Claim { number, fingerprint: self.fingerprint, target: self.target };
        let row = RowWrite::put(CLAIMS, self.row(), crate::codec::encode(&claim));
        let change = Change::new(Vec::new(), conversation::Reply::Claimed(claim));
        Ok(Decision::Change(Change { rows: vec![row], holds: Some(number), ..change }))
    }
}

/// Sends a command to an entity, under a claim if the command's key needs one.
pub(crate) async fn ask<M: Effects>(
    node: &Arc<Node>,
    directory: &Directory<M>,
    entity: EntityKey,
    command: Arc<M::Command>,
    context: CommandContext,
) -> Reply<M> {
    let Some(key) = context.key else { return directory.ask(node, entity, command, context).await };
    let claimer = Claimer { node, key, target: entity, trace: context };
    let mut claim = None;
    let mut lost = None;
    let mut round = 0;
    while round < MAX_ROUNDS {
        if key.home.is_some() {
            // On the heap, like `overtake` below: nearly no command needs it, and all of them would reserve space.
            claim = NonZeroU64::new(Box::pin(claimer.claim(lost, &mut round)).await.map_err(anywhere)?);
        } else if let Some(number) = lost {
            // At its home a request needs no claim, only a higher number than those that it finds there.
            claim = NonZeroU64::new(number);
        }
        let context = CommandContext { key: Some(KeyUse { claim, ..key }), ..context };
        match directory.ask(node, entity, Arc::clone(&command), context).await {
            Err(Refusal::KeyHeld) if key.home.is_some() => lost = claim.map(NonZeroU64::get),
            Err(Refusal::KeyHeld) => {
                lost = Some(Box::pin(claimer.overtake(entity, &mut round)).await.map_err(anywhere)?);
            }
            reply => return reply,
        }
    }
    Err(Refusal::KeyHeld)
}

/// The state of a key at one of its homes.
enum AtHome {
    /// It is held.
    Claimed(Claim),
    /// The same request has had its effect here, just now.
    Done,
    /// It has another home now.
    Elsewhere,
}

/// A request with a key.
struct Claimer<'a> {
    node: &'a Arc<Node>,
    key: KeyUse,
    target: EntityKey,
    trace: CommandContext,
}

impl Claimer<'_> {
    /// Claims the key for this request; returns the number of the claim. `lost` is its previous claim, which was
    /// overtaken.
    async fn claim(&self, lost: Option<u64>, round: &mut u32) -> Result<u64, Refusal<Infallible>> {
        let mut over = lost;
        while *round < MAX_ROUNDS {
            let claim = self.current_claim(over).await?;
            let ours = claim.fingerprint == self.key.fingerprint && claim.target == self.target;
            if ours && lost.is_none_or(|lost| claim.number > lost) {
                return Ok(claim.number);
            }
            if !ours {
                self.end(claim, round).await?;
            }
            over = Some(claim.number);
        }
        Err(Refusal::KeyHeld)
    }

    /// The current claim of the key, after this request has tried to claim it.
    async fn current_claim(&self, over: Option<u64>) -> Result<Claim, Refusal<Infallible>> {
        let Some(first) = self.key.home else { return Err(Refusal::KeyHeld) };
        for life in 0..MAX_LIVES {
            let home = EntityKey { id: live_again(first.workspace, first.id, life), ..first };
            match self.claim_at(home, over).await? {
                AtHome::Claimed(claim) => return Ok(claim),
                AtHome::Done => return Err(Refusal::KeyReused),
                AtHome::Elsewhere => {}
            }
        }
        Err(Refusal::KeyHeld)
    }

    /// The state of the key at a home, after this request has claimed it there.
    async fn claim_at(&self, home: EntityKey, over: Option<u64>) -> Result<AtHome, Refusal<Infallible>> {
        let KeyUse { hash, fingerprint, .. } = self.key;
        let claiming = Claiming { key: hash, fingerprint, target: self.target, over };
        // A hold of the key does not refuse a claim, which is about just that.
        let key = Some(KeyUse { home: None, claim: Some(NonZeroU64::MAX), ..self.key });
        let context = CommandContext { key, ..self.trace };
        let answer = self.node.conversations.ask(self.node, home, claiming.command(), context).await;
        match typed::<_, Claiming>(answer) {
            Ok(Answer::Done(Some(claim))) => Ok(AtHome::Claimed(claim)),
            Ok(Answer::Done(None)) => Ok(AtHome::Elsewhere),
            Ok(Answer::Repeat(_)) => Ok(AtHome::Done),
            Err(refusal) => Err(refusal.map(never)),
        }
    }

    /// Another request holds the key at its home, where this one has its effect: ends that claim, and returns a number
    /// above it.
    async fn overtake(&self, home: EntityKey, round: &mut u32) -> Result<u64, Refusal<Infallible>> {
        match self.claim_at(home, None).await? {
            AtHome::Claimed(claim) => {
                self.end(claim, round).await?;
                Ok(claim.number + 1)
            }
            // A retry gets the first outcome.
            AtHome::Done => Ok(0),
            AtHome::Elsewhere => Err(Refusal::KeyReused),
        }
    }

    /// Ensures that another request has no effect by its claim, unless it has it within a moment.
    async fn end(&self, claim: Claim, round: &mut u32) -> Result<(), Refusal<Infallible>> {
        let patience = FIRST_WAIT_TIMEOUT * 2u32.pow(*round);
        *round += 1;
        let until = Instant::now() + patience;
        loop {
            let known = self.node.store.find_key(claim.target, self.key.hash).await;
            let known = known.map_err(|error| Refusal::of_store(&error))?;
            let now = self.node.clock.now();
            let known = known.filter(|row| now.since(row.at) < limits::KEY_KEPT_MILLIS);
            match known.map(|row| row.held_upto()) {
                Some(None) => return Err(Refusal::KeyReused),
                Some(Some(number)) if number >= claim.number => return Ok(()),
                Some(Some(_)) | None if Instant::now() >= until => break,
                Some(Some(_)) | None => sleep(patience / MAX_CHECKS).await,
            }
        }
        let key = Some(KeyUse { home: None, claim: NonZeroU64::new(claim.number), ..self.key });
        let node = self.node;
        let context = CommandContext { key, ..self.trace };
        match claim.target.kind {
            Kind::Conversation => held(node.conversations.hold(node, claim.target, context).await),
            Kind::Contact => held(node.contacts.hold(node, claim.target, context).await),
            Kind::Memories => held(node.memories.hold(node, claim.target, context).await),
            Kind::Attachment => held(node.attachments.hold(node, claim.target, context).await),
            Kind::Workspace => held(node.workspaces.hold(node, claim.target, context).await),
            Kind::Installation => held(node.installation.hold(node, claim.target, context).await),
        }
    }
}

fn held<R: Debug>(refusal: Refusal<R>) -> Result<(), Refusal<Infallible>> {
    match refusal {
        Refusal::KeyHeld => Ok(()),
        other => Err(other.map(never)),
    }
}

/// Converts a refusal to that of any kind of entity.
fn anywhere<R>(refusal: Refusal<Infallible>) -> Refusal<R> {
    refusal.map(|never| match never {})
}

/// Neither a claim nor a hold is ever rejected.
fn never<R: Debug>(rejection: R) -> Refusal<Infallible> {
    Refusal::Unavailable(format!("a claim was rejected: {rejection:?}").into())
}
