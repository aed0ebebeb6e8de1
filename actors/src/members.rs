//! Membership: which processes serve the same store, as far as this one knows.
//!
//! Each process writes a heartbeat to the store every few seconds and reads those of the others; one whose heartbeat is
//! the same in several answers in a row counts as gone. Answers count and time does not: while the store is away,
//! nobody's heartbeat can change. No clocks are compared, and nothing here must be exact: ownership of an entity only
//! saves work, because a commit names the head that it was decided on (invariant I6).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::id::EntityKey;
use crate::node::Node;
use crate::store::{Heartbeat, NodeId, StoreError};

/// The interval of a process's heartbeats.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);
/// How long the store may take for one.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(12);
/// After so many answers without its new heartbeat a process counts as gone: 12 s where the store is well, so that it
/// survives a slow store or a pause of some seconds.
const GONE_AFTER_ANSWERS: u32 = 4;
/// After so many answers it counts as gone though there were gaps among them: a store that is slow for long, or fails
/// now and then, puts the verdict off and does not prevent it. Enough for a process that was almost gone before a gap
/// to have all the time of [`GONE_AFTER_ANSWERS`] after it.
const GONE_AFTER_ANSWERS_WITH_GAPS: u32 = 2 * GONE_AFTER_ANSWERS;
/// After so many answers a process whose heartbeat was never seen to change owns nothing: the heartbeat that a process
/// finds when it starts may be the last one of its predecessor.
const UNPROVEN_AFTER_ANSWERS: u32 = 2;
/// So much time between two answered heartbeats of this process is a gap, after which [`GONE_AFTER_ANSWERS`] is counted anew:
/// the store was away or slow for the others too, and they may reach it again later than this one. Two beats.
const MIN_GAP: Duration = Duration::from_secs(6);
/// Failed beats in a row after which the store counts as lost.
const MAX_FAILED_BEATS: u32 = 3;

/// The known state of another process.
#[derive(Clone, Debug)]
struct Peer {
    count: u64,
    /// Answers of the store since its heartbeat was seen to change.
    unchanged: u32,
    /// Those of them after the last gap, without the one that ended it. If they are fewer, there was a gap, and the
    /// store, which keeps a heartbeat for a minute, may have dropped it; if not, one that is missing has left.
    since_gap: u32,
    /// Its heartbeat was seen to change.
    moved: bool,
    /// The address at which it accepts requests.
    address: Option<Arc<str>>,
}

/// The other processes, by the store's last answer.
#[derive(Debug)]
struct Others {
    answered: Instant,
    by_node: HashMap<NodeId, Peer>,
}

/// The processes of this store.
#[derive(Debug)]
pub struct Members {
    me: NodeId,
    /// Other processes may commit to the same entities.
    is_shared: bool,
    /// The address at which this process accepts requests, once it does.
    address: OnceLock<Arc<str>>,
    /// `None` before the store's first answer.
    others: Mutex<Option<Others>>,
    failures: AtomicU32,
}

impl Members {
    pub(crate) fn new(me: NodeId, is_shared: bool) -> Self {
        let address = OnceLock::new();
        let others = Mutex::default();
        Self { me, is_shared, address, others, failures: AtomicU32::new(0) }
    }

    /// This process.
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// This process accepts forwarded requests at this address from now on; its next heartbeat has it. The first
    /// address stays.
    pub fn answers_at(&self, address: &Arc<str>) {
        self.address.get_or_init(|| Arc::clone(address));
    }

    /// Whether the store was reached lately. A process that cannot reach it should get no requests.
    pub fn is_connected(&self) -> bool {
        self.failures.load(Ordering::Relaxed) < MAX_FAILED_BEATS
    }

    /// Whether a process is alive, as far as known: before the first answer of the store, all are.
    pub(crate) fn is_live(&self, node: NodeId) -> bool {
        if node == self.me {
            return true;
        }
        let is_live = |others: &Others| others.by_node.get(&node).is_some_and(Peer::is_live);
        self.is_shared && self.with(|others| others.is_none_or(is_live))
    }

    /// Whether another process is alive, as far as known: before the first answer of the store, one is.
    pub(crate) fn has_others(&self) -> bool {
        self.is_shared && self.with(|others| others.is_none_or(|others| others.by_node.values().any(Peer::is_live)))
    }

    /// Whether this process owns an entity. While views differ, none or two may think so.
    pub(crate) fn looks_after(&self, entity: EntityKey) -> bool {
        if !self.is_shared {
            return true;
        }
        let mine = score(self.me, entity);
        self.with(|others| at_work(others).all(|(node, _)| score(node, entity) < mine))
    }

    /// The address of the process that owns an entity; `None`: it is this one, or the owner accepts no requests.
    pub fn server_of(&self, entity: EntityKey) -> Option<Arc<str>> {
        if !self.is_shared {
            return None;
        }
        let mine = score(self.me, entity);
        self.with(|others| {
            let scores = at_work(others).map(|(node, heard)| (score(node, entity), heard));
            let (best, server) = scores.max_by_key(|(score, _)| *score)?;
            let address = server.address.clone().filter(|_| best > mine)?;
            // The heartbeat of this process's predecessor, at the same address.
            (self.address.get() != Some(&address)).then_some(address)
        })
    }

    /// A hash of the set of the other processes that own entities; it changes with the set.
    pub(crate) fn view(&self) -> u128 {
        let number = |node: NodeId| u128::from_le_bytes(node.0);
        self.with(|others| at_work(others).map(|(node, _)| number(node)).fold(0, u128::wrapping_add))
    }

    fn with<T>(&self, read: impl FnOnce(Option<&Others>) -> T) -> T {
        // Nothing panics while it is held.
        read(self.others.lock().unwrap_or_else(PoisonError::into_inner).as_ref())
    }

    /// Notes the heartbeats in the store.
    fn heard(&self, beats: &[Heartbeat]) {
        let beats = beats.iter().filter(|beat| beat.node != self.me);
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        *others = Some(Others::by(others.take(), beats, Instant::now()));
    }
}

/// The other processes that own entities.
fn at_work(others: Option<&Others>) -> impl Iterator<Item = (NodeId, &Peer)> {
    let others = others.into_iter().flat_map(|others| &others.by_node);
    others.filter(|(_, heard)| heard.is_at_work()).map(|(node, heard)| (*node, heard))
}

impl Others {
    /// The other processes, by an answer of the store and what was known before it.
    fn by<'a>(before: Option<Self>, beats: impl Iterator<Item = &'a Heartbeat>, now: Instant) -> Self {
        let is_gap = before.as_ref().is_some_and(|b| now.saturating_duration_since(b.answered) >= MIN_GAP);
        let mut known = before.map(|before| before.by_node).unwrap_or_default();
        let mut by_node: HashMap<_, _> =
            beats.map(|beat| (beat.node, Peer::by(beat, known.remove(&beat.node), is_gap))).collect();
        by_node.extend(known.into_iter().filter_map(|(node, heard)| Some((node, heard.missing(is_gap)?))));
        Self { answered: now, by_node }
    }
}

impl Peer {
    /// A process by its heartbeat. `is_gap`: the answer ends a gap.
    fn by(beat: &Heartbeat, before: Option<Self>, is_gap: bool) -> Self {
        let address = beat.address.clone();
        match before {
            Some(before) if before.count == beat.count => Self { address, ..before.unchanged(is_gap) },
            before => Self { count: beat.count, unchanged: 0, since_gap: 0, moved: before.is_some(), address },
        }
    }

    /// The same process after another answer in which its heartbeat has not changed. A gap revives none that is gone.
    fn unchanged(self, is_gap: bool) -> Self {
        if !self.is_live() {
            return self;
        }
        Self { unchanged: self.unchanged + 1, since_gap: if is_gap { 0 } else { self.since_gap + 1 }, ..self }
    }

    /// The same process after an answer without its heartbeat; `None`: it has left, or is gone.
    fn missing(self, is_gap: bool) -> Option<Self> {
        let heard = self.unchanged(is_gap);
        Some(heard).filter(|heard| heard.since_gap < heard.unchanged && heard.is_live())
    }

    fn is_live(&self) -> bool {
        self.since_gap < GONE_AFTER_ANSWERS && self.unchanged < GONE_AFTER_ANSWERS_WITH_GAPS
    }

    fn is_at_work(&self) -> bool {
        self.is_live() && (self.moved || self.unchanged < UNPROVEN_AFTER_ANSWERS)
    }
}

/// Each process has a score for each entity; the highest one owns it. A process that joins or leaves moves only the
/// entities that it gets or had.
fn score(node: NodeId, entity: EntityKey) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&node.0).update(&entity.to_bytes());
    let mut score = [0; 8];
    score.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    score
}

/// Writes this process's heartbeats and reads those of the others, until the node stops.
pub(crate) async fn run(node: Arc<Node>) {
    let mut count = 0;
    loop {
        count += 1;
        let beat = Heartbeat { node: node.members.me, count, address: node.members.address.get().cloned() };
        let answer = tokio::time::timeout(HEARTBEAT_TIMEOUT, node.store.heartbeat(beat)).await;
        match answer.unwrap_or_else(|_| Err(StoreError::Unavailable("no answer".into()))) {
            Ok(beats) => {
                node.members.failures.store(0, Ordering::Relaxed);
                node.members.heard(&beats);
            }
            Err(error) => {
                let failures = node.members.failures.fetch_add(1, Ordering::Relaxed) + 1;
                tracing::warn!(%error, failures, "the store did not acknowledge this process's heartbeat");
            }
        }
        if node.stopping.run_until_cancelled(tokio::time::sleep(HEARTBEAT_INTERVAL)).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Address;

    const ME: NodeId = NodeId([1; 16]);
    const OTHER: NodeId = NodeId([2; 16]);

    fn entity(n: u64) -> EntityKey {
        EntityKey::conversation(Address([1; 10]), Address::derive("test", &[&n.to_le_bytes()]))
    }

    fn beat(node: NodeId, count: u64) -> Heartbeat {
        Heartbeat { node, count, address: None }
    }

    /// The heartbeat of a process that takes requests at this address.
    fn beat_at(node: NodeId, count: u64, address: &str) -> Heartbeat {
        Heartbeat { address: Some(address.into()), ..heartbeat(node, count) }
    }

    /// The store gives this answer so many times, as soon as it is asked.
    async fn hears(members: &Members, beats: &[Heartbeat], answers: u32) {
        hears_every(HEARTBEAT_INTERVAL, members, beats, answers).await;
    }

    async fn hears_every(interval: Duration, members: &Members, beats: &[Heartbeat], answers: u32) {
        for _ in 0..answers {
            tokio::time::advance(interval).await;
            members.heard(beats);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_whose_word_does_not_change_is_gone_after_a_while() {
        let members = Members::new(ME, true);
        assert!(members.is_live(OTHER) && members.has_others(), "nothing was heard yet");
        members.heard(&[beat(ME, 1)]);
        assert!(!members.is_live(OTHER) && !members.has_others());
        members.heard(&[beat(ME, 2), beat(OTHER, 7)]);
        hears(&members, &[beat(OTHER, 7)], GONE_AFTER_ANSWERS - 1).await;
        assert!(members.is_live(OTHER));
        hears(&members, &[beat(OTHER, 7)], 1).await;
        assert!(!members.is_live(OTHER));
        hears_every(MIN_GAP, &members, &[beat(OTHER, 7)], 1).await;
        assert!(!members.is_live(OTHER), "an outage revives nobody");
        members.heard(&[beat(OTHER, 8)]);
        assert!(members.is_live(OTHER) && members.has_others(), "it was only slow");
        assert!(members.is_live(ME));
    }

    /// Its own heartbeat may be the last one to reach the store again.
    #[tokio::test(start_paused = true)]
    async fn nobody_is_gone_for_the_silence_of_a_store_that_did_not_answer() {
        let members = Members::new(ME, true);
        members.heard(&[beat(ME, 1), beat(OTHER, 7)]);
        hears(&members, &[beat(ME, 2), beat(OTHER, 8)], 1).await;
        let view = members.view();
        let theirs = (0..100).map(entity).find(|entity| !members.looks_after(*entity)).unwrap();
        for (outage, count) in [MIN_GAP, HEARTBEAT_TIMEOUT, Duration::from_secs(3_600)].into_iter().zip(9..) {
            // It lost the store earlier than this process.
            hears(&members, &[beat(OTHER, count)], GONE_AFTER_ANSWERS).await;
            tokio::time::advance(outage).await;
            assert!(members.is_live(OTHER) && members.has_others(), "nothing was heard: {outage:?}");
            members.heard(&[beat(OTHER, count)]);
            assert!(members.is_live(OTHER) && members.has_others(), "it has not tried again yet: {outage:?}");
            hears(&members, &[beat(OTHER, count)], GONE_AFTER_ANSWERS - 1).await;
            assert!(members.is_live(OTHER) && !members.looks_after(theirs) && members.view() == view, "{outage:?}");
            hears(&members, &[beat(OTHER, count)], 1).await;
            assert!(!members.is_live(OTHER) && !members.has_others(), "it died meanwhile: {outage:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_soon_after_another_gives_everybody_time_again() {
        let members = Members::new(ME, true);
        members.heard(&[beat(OTHER, 7)]);
        for _ in 0..2 {
            tokio::time::advance(Duration::from_secs(60)).await;
            hears(&members, &[beat(OTHER, 7)], 2).await;
        }
        hears(&members, &[beat(OTHER, 7)], GONE_AFTER_ANSWERS - 2).await;
        assert!(members.is_live(OTHER), "three beats after the first answer");
        hears(&members, &[beat(OTHER, 7)], 1).await;
        assert!(!members.is_live(OTHER));
    }

    /// A process with such an interval between its answered beats: one that died or left is gone after eight answers,
    /// and one that is as slow lives.
    async fn every_answer_ends_a_gap(interval: Duration) {
        for last in [vec![beat(OTHER, 7)], vec![]] {
            let members = Members::new(ME, true);
            members.heard(&[beat(OTHER, 7)]);
            hears_every(interval, &members, &last, GONE_AFTER_ANSWERS_WITH_GAPS - 1).await;
            assert!(members.is_live(OTHER));
            hears_every(interval, &members, &last, 1).await;
            assert!(!members.is_live(OTHER));
        }
        let members = Members::new(ME, true);
        for count in 7..20 {
            hears_every(interval, &members, &[beat(OTHER, count)], GONE_AFTER_ANSWERS).await;
            assert!(members.is_live(OTHER));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_process_is_gone_after_48_s_if_every_second_beat_fails() {
        every_answer_ends_a_gap(2 * HEARTBEAT_INTERVAL).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_process_is_gone_after_56_s_if_every_beat_takes_four() {
        every_answer_ends_a_gap(HEARTBEAT_INTERVAL + Duration::from_secs(4)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_whose_word_was_dropped_during_an_outage_has_time_to_repeat_it() {
        let members = Members::new(ME, true);
        members.heard(&[beat(ME, 1), beat(OTHER, 7)]);
        tokio::time::advance(Duration::from_secs(56)).await;
        hears(&members, &[beat(ME, 2), beat(OTHER, 7)], 1).await;
        hears(&members, &[beat(ME, 3)], 1).await;
        assert!(members.is_live(OTHER), "it is a minute old now");
        tokio::time::advance(Duration::from_secs(90)).await;
        hears(&members, &[beat(ME, 2)], GONE_AFTER_ANSWERS).await;
        assert!(members.is_live(OTHER), "three beats after the first answer");
        hears(&members, &[beat(ME, 3)], 1).await;
        assert!(!members.is_live(OTHER));
        hears(&members, &[beat(ME, 4), beat(OTHER, 8)], 1).await;
        assert!(members.is_live(OTHER));
        hears(&members, &[beat(ME, 5)], 1).await;
        assert!(!members.is_live(OTHER), "it has left");
    }

    #[tokio::test(start_paused = true)]
    async fn each_entity_is_looked_after_by_one_of_the_living() {
        let views = [ME, OTHER].map(|me| {
            let members = Members::new(me, true);
            members.heard(&[beat(ME, 1), beat(OTHER, 1)]);
            members
        });
        let mine = (0..1_000).filter(|n| views[0].looks_after(entity(*n))).count();
        assert!((400..600).contains(&mine), "{mine}");
        assert!((0..1_000).all(|n| views[0].looks_after(entity(n)) != views[1].looks_after(entity(n))));
        hears(&views[0], &[beat(ME, 2), beat(OTHER, 1)], GONE_AFTER_ANSWERS).await;
        assert!((0..1_000).all(|n| views[0].looks_after(entity(n))), "alone");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_word_of_a_process_that_is_gone_keeps_nobody_from_its_work() {
        let members = Members::new(ME, true);
        let alone = members.view();
        members.heard(&[beat(ME, 1), beat(OTHER, 7)]);
        let theirs = (0..100).map(entity).find(|entity| !members.looks_after(*entity)).unwrap();
        let both = members.view();
        hears(&members, &[beat(ME, 2), beat(OTHER, 7)], UNPROVEN_AFTER_ANSWERS).await;
        assert!(members.looks_after(theirs) && members.is_live(OTHER), "a turn of its would be left to it still");
        assert!(alone == members.view() && alone != both, "and whoever looks is told of the change");
        members.heard(&[beat(ME, 3), beat(OTHER, 8)]);
        assert!(!members.looks_after(theirs));
        hears(&members, &[beat(ME, 4), beat(OTHER, 8)], UNPROVEN_AFTER_ANSWERS).await;
        assert!(!members.looks_after(theirs), "it was seen to live, and may be slow");
    }

    /// A process asks nobody for its own entities.
    #[tokio::test(start_paused = true)]
    async fn an_entity_is_asked_of_the_process_that_looks_after_it() {
        const THIRD: NodeId = NodeId([3; 16]);
        let members = Members::new(ME, true);
        assert!((0..100).all(|n| members.server_of(entity(n)).is_none()), "nothing was heard yet");
        members.heard(&[beat_at(ME, 1, "http://me"), beat_at(OTHER, 1, "http://other"), beat(THIRD, 1)]);
        let third = Members::new(THIRD, true);
        third.heard(&[beat_at(ME, 1, "http://me"), beat_at(OTHER, 1, "http://other"), beat(THIRD, 1)]);
        for n in 0..1_000 {
            let mine = members.server_of(entity(n));
            let others = third.server_of(entity(n));
            match others.as_deref() {
                // A process without an address gets no requests from others, and keeps its own entities.
                None => assert!(third.looks_after(entity(n)) && mine.is_none()),
                Some("http://me") => assert!(members.looks_after(entity(n)) && mine.is_none()),
                Some(_) => assert_eq!(mine, others),
            }
        }
        assert!((0..100).any(|n| members.server_of(entity(n)).is_some()));
        members.heard(&[beat_at(OTHER, 2, "http://moved"), beat(THIRD, 2)]);
        let asked: Vec<_> = (0..100).filter_map(|n| members.server_of(entity(n))).collect();
        assert!(!asked.is_empty() && asked.iter().all(|address| &**address == "http://moved"));
        members.answers_at(&"http://moved".into());
        assert!((0..100).all(|n| members.server_of(entity(n)).is_none()), "it is this one's own, of its last life");
        hears(&members, &[beat_at(OTHER, 2, "http://moved"), beat(THIRD, 2)], GONE_AFTER_ANSWERS).await;
        assert!((0..100).all(|n| members.server_of(entity(n)).is_none()), "alone");
    }

    #[test]
    fn a_node_on_an_unshared_store_knows_no_other_nodes() {
        let members = Members::new(ME, false);
        assert!(!members.is_live(OTHER) && !members.has_others());
        assert!(members.looks_after(entity(1)));
        members.heard(&[beat_at(OTHER, 1, "http://other")]);
        assert!((0..100).all(|n| members.server_of(entity(n)).is_none()));
    }
}
