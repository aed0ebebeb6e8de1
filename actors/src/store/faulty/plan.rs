//! Decides which call meets which fault.

use std::collections::BTreeMap;

use crate::id::EntityKey;
use crate::store::{Commit, CommitId};

/// How often each fault is injected, in 1,000 calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// A commit is refused before it has any effect.
    pub refused: u16,
    /// A commit is applied, but its outcome is not reported.
    pub unanswered: u16,
    /// A commit's outcome is not reported, and it is applied with a later call, or never.
    pub late: u16,
    /// Another writer's commit without content comes first, so that the commit meets a conflict. Only where the
    /// entity exists: a competitor never creates one.
    pub competed: u16,
    /// A read fails.
    pub unread: u16,
}

impl Rates {
    /// Each fault in about one of twenty calls.
    pub const OFTEN: Self = Self { refused: 50, unanswered: 50, late: 50, competed: 50, unread: 50 };
}

/// How often each fault was injected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// See [`Rates::refused`].
    pub refused: u64,
    /// See [`Rates::unanswered`].
    pub unanswered: u64,
    /// See [`Rates::late`].
    pub late: u64,
    /// Late commits that were passed to the store after all.
    pub late_applied: u64,
    /// Late commits that will never be applied.
    pub late_dropped: u64,
    /// See [`Rates::competed`].
    pub competed: u64,
    /// See [`Rates::unread`].
    pub unread: u64,
}

/// Chooses the next fault, by the seed.
#[derive(Debug)]
pub(super) struct Plan {
    random: u64,
    pub(super) rates: Rates,
    pub(super) injected: Injected,
    /// Commits that were reported with an unknown outcome.
    late: BTreeMap<EntityKey, Vec<Commit>>,
}

/// The fault that one commit meets.
pub(super) enum Fate {
    Refused,
    Unanswered,
    Late,
    Competed(CommitId),
    Passed,
}

impl Plan {
    /// A plan by this seed.
    pub(super) fn new(seed: u64, rates: Rates) -> Self {
        Self { random: seed, rates, injected: Injected::default(), late: BTreeMap::new() }
    }

    /// The next number of a splitmix64 sequence.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns true for so many of 1,000 calls.
    pub(super) fn chance(&mut self, per_mille: u16) -> bool {
        self.draw() % 1_000 < u64::from(per_mille)
    }

    /// Chooses the fault that this commit meets.
    pub(super) fn fate(&mut self, commit: &Commit) -> Fate {
        let rates = self.rates;
        let drawn = (self.draw() % 1_000) as u16;
        let edges = [rates.refused, rates.unanswered, rates.late, rates.competed].map(u32::from);
        let edge = |n: usize| u32::from(drawn) < edges[..=n].iter().sum();
        if edge(0) {
            self.injected.refused += 1;
            Fate::Refused
        } else if edge(1) {
            self.injected.unanswered += 1;
            Fate::Unanswered
        } else if edge(2) {
            self.injected.late += 1;
            self.late.entry(commit.entity).or_default().push(commit.clone());
            Fate::Late
        } else if edge(3) && commit.expected.is_some() {
            self.injected.competed += 1;
            let mut id = [0; 16];
            id[..8].copy_from_slice(&self.draw().to_le_bytes());
            id[8..].copy_from_slice(&self.draw().to_le_bytes());
            Fate::Competed(CommitId(id))
        } else {
            Fate::Passed
        }
    }

    /// Takes the late commits of an entity that this call carries out: with `all`, every one is either carried out or
    /// dropped for good; otherwise chance decides whether the oldest one is.
    pub(super) fn due_now(&mut self, entity: EntityKey, all: bool) -> Vec<Commit> {
        let Some(mut waiting) = self.late.remove(&entity) else { return Vec::new() };
        let mut apply = Vec::new();
        let mut dropped = 0_u64;
        let now = if all { waiting.len() } else { usize::from(self.draw().is_multiple_of(4)).min(waiting.len()) };
        for commit in waiting.drain(..now) {
            if all && self.draw().is_multiple_of(2) {
                dropped += 1;
            } else {
                apply.push(commit);
            }
        }
        if !waiting.is_empty() {
            self.late.insert(entity, waiting);
        }
        self.injected.late_applied += apply.len() as u64;
        self.injected.late_dropped += dropped;
        apply
    }
}
