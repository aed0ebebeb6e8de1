//! Membership: which processes serve the same store, as far as this one knows.
//!
//! Each process writes a heartbeat to the store every few seconds and reads those of the others; one whose heartbeat is
//! the same in several answers in a row counts as dead. Answers count and time does not: while the store is away,
//! nobody's heartbeat can change. No clocks are compared, and nothing here must be exact: ownership of an entity only
//! saves work, because a commit names the head that it was decided on (invariant I6).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::id::EntityKey;
use crate::node::Node;
use crate::store::{Heartbeat, NodeId, StoreError};
use crate::sync::LockUnpoisoned;

/// The interval of a process's heartbeats.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);
/// How long the store may take to answer a heartbeat.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(12);
/// After so many answers without its new heartbeat a process counts as dead: 12 s where the store is well, so that it
/// survives a slow store or a pause of some seconds.
const DEAD_AFTER_ANSWERS: u32 = 4;
/// After so many answers it counts as dead although there were gaps among them: a store that is slow for long, or fails
/// now and then, delays the verdict and does not prevent it. A process that was almost dead before a gap still has all
/// the time of [`DEAD_AFTER_ANSWERS`] after it.
const DEAD_AFTER_ANSWERS_WITH_GAPS: u32 = 2 * DEAD_AFTER_ANSWERS;
/// After so many answers a process whose heartbeat was never seen to change owns nothing: the heartbeat that a process
/// finds when it starts may be the last one of its predecessor.
const UNPROVEN_AFTER_ANSWERS: u32 = 2;
/// The least time between two answered heartbeats of this process that is a gap, after which [`DEAD_AFTER_ANSWERS`] is
/// counted anew: the store was away or slow for the others too, and they may reach it again later than this one. It is
/// two heartbeats.
const MIN_GAP: Duration = Duration::from_secs(6);
/// Failed heartbeats in a row after which this process counts as disconnected from the store.
const MAX_FAILED_HEARTBEATS: u32 = 3;

/// The known state of another process.
#[derive(Clone, Debug)]
struct Peer {
    /// The count of its newest known heartbeat.
    count: u64,
    /// Answers of the store since its heartbeat was seen to change.
    unchanged: u32,
    /// How many of those answers came after the last gap, not counting the one that ended it. If that is fewer than
    /// `unchanged`, there was a gap, and the store, which keeps a heartbeat for a minute, may have dropped it.
    /// Otherwise a process whose heartbeat is missing has left.
    since_gap: u32,
    /// Its heartbeat was seen to change.
    has_changed: bool,
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

    /// The id of this process.
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// This process accepts forwarded requests at this address from now on; its next heartbeat announces it.
    /// Later calls change nothing.
    pub fn answers_at(&self, address: &Arc<str>) {
        self.address.get_or_init(|| Arc::clone(address));
    }

    /// Whether the store was reached lately. A process that cannot reach it should get no requests.
    pub fn is_connected(&self) -> bool {
        self.failures.load(Ordering::Relaxed) < MAX_FAILED_HEARTBEATS
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
    pub(crate) fn owns(&self, entity: EntityKey) -> bool {
        if !self.is_shared {
            return true;
        }
        let mine = score(self.me, entity);
        self.with(|others| owners(others).all(|(node, _)| score(node, entity) < mine))
    }

    /// The address of the process that owns an entity; `None`: it is this one, or the owner accepts no requests.
    pub fn server_of(&self, entity: EntityKey) -> Option<Arc<str>> {
        if !self.is_shared {
            return None;
        }
        let mine = score(self.me, entity);
        self.with(|others| {
            let scores = owners(others).map(|(node, peer)| (score(node, entity), peer));
            let (best, server) = scores.max_by_key(|(score, _)| *score)?;
            let address = server.address.clone().filter(|_| best > mine)?;
            // The heartbeat of this process's predecessor, at the same address.
            (self.address.get() != Some(&address)).then_some(address)
        })
    }

    /// A hash of the set of the other processes that own entities; it changes with the set.
    pub(crate) fn view(&self) -> u128 {
        let number = |node: NodeId| u128::from_le_bytes(node.0);
        self.with(|others| owners(others).map(|(node, _)| number(node)).fold(0, u128::wrapping_add))
    }

    fn with<T>(&self, read: impl FnOnce(Option<&Others>) -> T) -> T {
        read(self.others.lock_unpoisoned().as_ref())
    }

    /// Notes the heartbeats that the store has returned.
    fn heartbeats_read(&self, heartbeats: &[Heartbeat]) {
        let heartbeats = heartbeats.iter().filter(|heartbeat| heartbeat.node != self.me);
        let mut others = self.others.lock_unpoisoned();
        *others = Some(Others::by(others.take(), heartbeats, Instant::now()));
    }
}

/// The other processes that own entities.
fn owners(others: Option<&Others>) -> impl Iterator<Item = (NodeId, &Peer)> {
    let others = others.into_iter().flat_map(|others| &others.by_node);
    others.filter(|(_, peer)| peer.owns_entities()).map(|(node, peer)| (*node, peer))
}

impl Others {
    /// The other processes, by an answer of the store and what was known before it.
    fn by<'a>(before: Option<Self>, heartbeats: impl Iterator<Item = &'a Heartbeat>, now: Instant) -> Self {
        let is_gap = before.as_ref().is_some_and(|b| now.saturating_duration_since(b.answered) >= MIN_GAP);
        let mut known = before.map(|before| before.by_node).unwrap_or_default();
        let mut by_node: HashMap<_, _> = heartbeats
            .map(|heartbeat| (heartbeat.node, Peer::by(heartbeat, known.remove(&heartbeat.node), is_gap)))
            .collect();
        by_node.extend(known.into_iter().filter_map(|(node, peer)| Some((node, peer.after_answer_without(is_gap)?))));
        Self { answered: now, by_node }
    }
}

impl Peer {
    /// A process by its heartbeat. `is_gap`: the answer ends a gap.
    fn by(heartbeat: &Heartbeat, before: Option<Self>, is_gap: bool) -> Self {
        let address = heartbeat.address.clone();
        match before {
            Some(before) if before.count == heartbeat.count => Self { address, ..before.after_unchanged(is_gap) },
            before => {
                Self { count: heartbeat.count, unchanged: 0, since_gap: 0, has_changed: before.is_some(), address }
            }
        }
    }

    /// The process after another answer in which its heartbeat has not changed. A gap does not revive a dead process.
    fn after_unchanged(self, is_gap: bool) -> Self {
        if !self.is_live() {
            return self;
        }
        Self { unchanged: self.unchanged + 1, since_gap: if is_gap { 0 } else { self.since_gap + 1 }, ..self }
    }

    /// The process after an answer without its heartbeat; `None`: it has left, or is dead.
    fn after_answer_without(self, is_gap: bool) -> Option<Self> {
        let peer = self.after_unchanged(is_gap);
        Some(peer).filter(|peer| peer.since_gap < peer.unchanged && peer.is_live())
    }

    fn is_live(&self) -> bool {
        self.since_gap < DEAD_AFTER_ANSWERS && self.unchanged < DEAD_AFTER_ANSWERS_WITH_GAPS
    }

    fn owns_entities(&self) -> bool {
        self.is_live() && (self.has_changed || self.unchanged < UNPROVEN_AFTER_ANSWERS)
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
        let heartbeat = Heartbeat { node: node.members.me, count, address: node.members.address.get().cloned() };
        let answer = tokio::time::timeout(HEARTBEAT_TIMEOUT, node.store.heartbeat(heartbeat)).await;
        match answer.unwrap_or_else(|_| Err(StoreError::Unavailable("no answer".into()))) {
            Ok(heartbeats) => {
                node.members.failures.store(0, Ordering::Relaxed);
                node.members.heartbeats_read(&heartbeats);
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

    fn heartbeat(node: NodeId, count: u64) -> Heartbeat {
        Heartbeat { node, count, address: None }
    }

    /// The heartbeat of a process that takes requests at this address.
    fn heartbeat_at(node: NodeId, count: u64, address: &str) -> Heartbeat {
        Heartbeat { address: Some(address.into()), ..heartbeat(node, count) }
    }

    /// The store returns these heartbeats in so many answers, one for each heartbeat of this process.
    async fn advance_and_read(members: &Members, heartbeats: &[Heartbeat], answers: u32) {
        advance_and_read_every(HEARTBEAT_INTERVAL, members, heartbeats, answers).await;
    }

    async fn advance_and_read_every(interval: Duration, members: &Members, heartbeats: &[Heartbeat], answers: u32) {
        for _ in 0..answers {
            tokio::time::advance(interval).await;
            members.heartbeats_read(heartbeats);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_whose_heartbeat_does_not_change_counts_as_gone() {
        let members = Members::new(ME, true);
        assert!(members.is_live(OTHER) && members.has_others(), "no answer yet");
        members.heartbeats_read(&[heartbeat(ME, 1)]);
        assert!(!members.is_live(OTHER) && !members.has_others());
        members.heartbeats_read(&[heartbeat(ME, 2), heartbeat(OTHER, 7)]);
        advance_and_read(&members, &[heartbeat(OTHER, 7)], DEAD_AFTER_ANSWERS - 1).await;
        assert!(members.is_live(OTHER));
        advance_and_read(&members, &[heartbeat(OTHER, 7)], 1).await;
        assert!(!members.is_live(OTHER));
        advance_and_read_every(MIN_GAP, &members, &[heartbeat(OTHER, 7)], 1).await;
        assert!(!members.is_live(OTHER), "an outage revives nobody");
        members.heartbeats_read(&[heartbeat(OTHER, 8)]);
        assert!(members.is_live(OTHER) && members.has_others(), "it was only slow");
        assert!(members.is_live(ME));
    }

    /// Its own heartbeat may be the last one to reach the store again.
    #[tokio::test(start_paused = true)]
    async fn an_outage_of_the_store_counts_no_member_as_gone() {
        let members = Members::new(ME, true);
        members.heartbeats_read(&[heartbeat(ME, 1), heartbeat(OTHER, 7)]);
        advance_and_read(&members, &[heartbeat(ME, 2), heartbeat(OTHER, 8)], 1).await;
        let view = members.view();
        let of_other = (0..100).map(entity).find(|entity| !members.owns(*entity)).unwrap();
        for (outage, count) in [MIN_GAP, HEARTBEAT_TIMEOUT, Duration::from_secs(3_600)].into_iter().zip(9..) {
            // It lost the store earlier than this process.
            advance_and_read(&members, &[heartbeat(OTHER, count)], DEAD_AFTER_ANSWERS).await;
            tokio::time::advance(outage).await;
            assert!(members.is_live(OTHER) && members.has_others(), "no answer yet: {outage:?}");
            members.heartbeats_read(&[heartbeat(OTHER, count)]);
            assert!(members.is_live(OTHER) && members.has_others(), "it has not tried again yet: {outage:?}");
            advance_and_read(&members, &[heartbeat(OTHER, count)], DEAD_AFTER_ANSWERS - 1).await;
            assert!(members.is_live(OTHER) && !members.owns(of_other) && members.view() == view, "{outage:?}");
            advance_and_read(&members, &[heartbeat(OTHER, count)], 1).await;
            assert!(!members.is_live(OTHER) && !members.has_others(), "it died meanwhile: {outage:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_outage_restarts_the_count_for_every_member() {
        let members = Members::new(ME, true);
        members.heartbeats_read(&[heartbeat(OTHER, 7)]);
        for _ in 0..2 {
            tokio::time::advance(Duration::from_secs(60)).await;
            advance_and_read(&members, &[heartbeat(OTHER, 7)], 2).await;
        }
        advance_and_read(&members, &[heartbeat(OTHER, 7)], DEAD_AFTER_ANSWERS - 2).await;
        assert!(members.is_live(OTHER), "three heartbeats after the first answer");
        advance_and_read(&members, &[heartbeat(OTHER, 7)], 1).await;
        assert!(!members.is_live(OTHER));
    }

    /// A process with such an interval between its answered heartbeats: one that died or left is dead after eight
    /// answers, and one that is as slow lives.
    async fn every_answer_ends_a_gap(interval: Duration) {
        for last in [vec![heartbeat(OTHER, 7)], vec![]] {
            let members = Members::new(ME, true);
            members.heartbeats_read(&[heartbeat(OTHER, 7)]);
            advance_and_read_every(interval, &members, &last, DEAD_AFTER_ANSWERS_WITH_GAPS - 1).await;
            assert!(members.is_live(OTHER));
            advance_and_read_every(interval, &members, &last, 1).await;
            assert!(!members.is_live(OTHER));
        }
        let members = Members::new(ME, true);
        for count in 7..20 {
            advance_and_read_every(interval, &members, &[heartbeat(OTHER, count)], DEAD_AFTER_ANSWERS).await;
            assert!(members.is_live(OTHER));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_process_counts_as_gone_after_48_s_if_every_second_beat_fails() {
        every_answer_ends_a_gap(2 * HEARTBEAT_INTERVAL).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_process_is_gone_after_56_s_if_every_beat_takes_four() {
        every_answer_ends_a_gap(HEARTBEAT_INTERVAL + Duration::from_secs(4)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_whose_word_was_dropped_during_an_outage_has_time_to_repeat_it() {
        let members = Members::new(ME, true);
        members.heartbeats_read(&[heartbeat(ME, 1), heartbeat(OTHER, 7)]);
        tokio::time::advance(Duration::from_secs(56)).await;
        advance_and_read(&members, &[heartbeat(ME, 2), heartbeat(OTHER, 7)], 1).await;
        advance_and_read(&members, &[heartbeat(ME, 3)], 1).await;
        assert!(members.is_live(OTHER), "it is a minute old now");
        tokio::time::advance(Duration::from_secs(90)).await;
        advance_and_read(&members, &[heartbeat(ME, 2)], DEAD_AFTER_ANSWERS).await;
        assert!(members.is_live(OTHER), "three heartbeats after the first answer");
        advance_and_read(&members, &[heartbeat(ME, 3)], 1).await;
        assert!(!members.is_live(OTHER));
        advance_and_read(&members, &[heartbeat(ME, 4), heartbeat(OTHER, 8)], 1).await;
        assert!(members.is_live(OTHER));
        advance_and_read(&members, &[heartbeat(ME, 5)], 1).await;
        assert!(!members.is_live(OTHER), "it has left");
    }

    #[tokio::test(start_paused = true)]
    async fn each_entity_is_looked_after_by_one_of_the_living() {
        let views = [ME, OTHER].map(|me| {
            let members = Members::new(me, true);
            members.heartbeats_read(&[heartbeat(ME, 1), heartbeat(OTHER, 1)]);
            members
        });
        let mine = (0..1_000).filter(|n| views[0].owns(entity(*n))).count();
        assert!((400..600).contains(&mine), "{mine}");
        assert!((0..1_000).all(|n| views[0].owns(entity(n)) != views[1].owns(entity(n))));
        advance_and_read(&views[0], &[heartbeat(ME, 2), heartbeat(OTHER, 1)], DEAD_AFTER_ANSWERS).await;
        assert!((0..1_000).all(|n| views[0].owns(entity(n))), "alone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stale_heartbeat_does_not_block_takeover() {
        let members = Members::new(ME, true);
        let alone = members.view();
        members.heartbeats_read(&[heartbeat(ME, 1), heartbeat(OTHER, 7)]);
        let of_other = (0..100).map(entity).find(|entity| !members.owns(*entity)).unwrap();
        let both = members.view();
        advance_and_read(&members, &[heartbeat(ME, 2), heartbeat(OTHER, 7)], UNPROVEN_AFTER_ANSWERS).await;
        assert!(members.owns(of_other) && members.is_live(OTHER), "a turn of its would be left to it still");
        assert!(alone == members.view() && alone != both, "and the hash shows the change");
        members.heartbeats_read(&[heartbeat(ME, 3), heartbeat(OTHER, 8)]);
        assert!(!members.owns(of_other));
        advance_and_read(&members, &[heartbeat(ME, 4), heartbeat(OTHER, 8)], UNPROVEN_AFTER_ANSWERS).await;
        assert!(!members.owns(of_other), "it was seen to live, and may be slow");
    }

    /// A process asks nobody for its own entities.
    #[tokio::test(start_paused = true)]
    async fn an_entity_is_requested_from_the_process_that_owns_it() {
        const THIRD: NodeId = NodeId([3; 16]);
        let members = Members::new(ME, true);
        assert!((0..100).all(|n| members.server_of(entity(n)).is_none()), "no answer yet");
        members.heartbeats_read(&[
            heartbeat_at(ME, 1, "http://me"),
            heartbeat_at(OTHER, 1, "http://other"),
            heartbeat(THIRD, 1),
        ]);
        let third = Members::new(THIRD, true);
        third.heartbeats_read(&[
            heartbeat_at(ME, 1, "http://me"),
            heartbeat_at(OTHER, 1, "http://other"),
            heartbeat(THIRD, 1),
        ]);
        for n in 0..1_000 {
            let mine = members.server_of(entity(n));
            let others = third.server_of(entity(n));
            match others.as_deref() {
                // A process without an address gets no requests from others, and keeps its own entities.
                None => assert!(third.owns(entity(n)) && mine.is_none()),
                Some("http://me") => assert!(members.owns(entity(n)) && mine.is_none()),
                Some(_) => assert_eq!(mine, others),
            }
        }
        assert!((0..100).any(|n| members.server_of(entity(n)).is_some()));
        members.heartbeats_read(&[heartbeat_at(OTHER, 2, "http://moved"), heartbeat(THIRD, 2)]);
        let servers: Vec<_> = (0..100).filter_map(|n| members.server_of(entity(n))).collect();
        assert!(!servers.is_empty() && servers.iter().all(|address| &**address == "http://moved"));
        members.answers_at(&"http://moved".into());
        assert!((0..100).all(|n| members.server_of(entity(n)).is_none()), "it is this one's own, of its last life");
        advance_and_read(&members, &[heartbeat_at(OTHER, 2, "http://moved"), heartbeat(THIRD, 2)], DEAD_AFTER_ANSWERS)
            .await;
        assert!((0..100).all(|n| members.server_of(entity(n)).is_none()), "alone");
    }

    #[test]
    fn a_node_on_an_unshared_store_knows_no_other_nodes() {
        let members = Members::new(ME, false);
        assert!(!members.is_live(OTHER) && !members.has_others());
        assert!(members.owns(entity(1)));
        members.heartbeats_read(&[heartbeat_at(OTHER, 1, "http://other")]);
        assert!((0..100).all(|n| members.server_of(entity(n)).is_none()));
    }
}
