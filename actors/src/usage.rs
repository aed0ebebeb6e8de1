//! The usage of models, by workspace and day.
//!
//! Every completed model call is an entry of its workspace's list, written with the call's result; calls that draw
//! memories from the same messages are one entry together. A day's sum is computed from its entries; the sums of past
//! days are cached.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use dashmap::DashMap;
use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::codec;
use crate::conversation::Usage;
use crate::id::Address;
use crate::limits;
use crate::machine::DecisionContext;
use crate::store::{KeyRange, Pages, Store, StoreError, ViewWrite};
use crate::tables::USED;

/// Milliseconds of a day.
pub const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// How long after its end a day may still get entries: clocks of nodes differ, and a commit takes time.
const LATE_MILLIS: u64 = 60 * 60 * 1000;
/// Entries of one read.
const ENTRIES_PER_PAGE: usize = 1_000;

/// An estimate of a text's tokens, if its model reports none: four characters each, rounded up.
#[must_use]
pub fn estimate(text: &str) -> u64 {
    (text.chars().count() as u64).div_ceil(4)
}

/// A day, counted from 1970-01-01 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

impl Day {
    /// The day of a moment.
    #[must_use]
    pub fn of(at: Millis) -> Self {
        Self(u32::try_from(at.0 / DAY_MILLIS).unwrap_or(u32::MAX))
    }

    /// Whether it is over and gets no entries any more.
    fn is_closed(self, now: Millis) -> bool {
        now.0 > (u64::from(self.0) + 1) * DAY_MILLIS + LATE_MILLIS
    }
}

/// A call of a model, or several.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// The agent.
    #[n(0)]
    pub agent: String,
    /// Its usage.
    #[n(1)]
    pub usage: Usage,
    /// Whether it was the last of its turn.
    #[n(2)]
    pub last: bool,
    /// How many calls it is, if it is not one.
    #[n(3)]
    pub calls: Option<u64>,
}

impl Entry {
    /// The entry `before`, if there is one, plus one call that ends no turn.
    #[must_use]
    pub(crate) fn and_call(before: Option<Self>, agent: &str, used: Usage) -> Self {
        let calls = before.as_ref().map(|before| before.calls.unwrap_or(1) + 1);
        let usage = used.added_to(before.as_ref().map(|before| &before.usage));
        Self { agent: agent.to_owned(), usage, last: false, calls }
    }

    /// The entry's write, at its position in the list. Commits that append no event have the same next sequence, hence
    /// the random bytes.
    pub(crate) fn write(&self, context: &DecisionContext) -> ViewWrite {
        let DecisionContext { now, entity, next_seq, random, .. } = context;
        let key = [&begin(Day::of(*now).0)[..], &entity.id.0, &next_seq.to_be_bytes(), &random[..4]].concat();
        ViewWrite { view: USED, key: key.into(), value: Some(codec::encode(self)) }
    }
}

/// A sum of usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Turns that were completed.
    pub turns: u64,
    /// Calls of models.
    pub calls: u64,
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Thousandths of a credit.
    pub millicredits: u64,
}

impl Sum {
    /// Adds the other one.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            turns: self.turns.saturating_add(other.turns),
            calls: self.calls.saturating_add(other.calls),
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            millicredits: self.millicredits.saturating_add(other.millicredits),
        }
    }
}

/// The usage of one day, by agent.
pub type Used = BTreeMap<String, Sum>;

/// The sums of past days.
#[derive(Debug, Default)]
pub(crate) struct UsedDays(DashMap<(Address, Day), Arc<Used>>);

impl UsedDays {
    /// The usage of a workspace on a day.
    ///
    /// # Errors
    ///
    /// `StoreError` if the store, or the stored data, cannot be read.
    pub(crate) async fn get(
        &self,
        store: &dyn Store,
        workspace: Address,
        day: Day,
        now: Millis,
    ) -> Result<Arc<Used>, StoreError> {
        if let Some(known) = self.0.get(&(workspace, day)) {
            return Ok(Arc::clone(&known));
        }
        let used = Arc::new(read(store, workspace, day).await?);
        if day.is_closed(now) {
            if self.0.len() >= limits::USED_DAYS {
                self.0.clear();
            }
            self.0.insert((workspace, day), Arc::clone(&used));
        }
        Ok(used)
    }
}

/// The key prefix of a day's entries: its first millisecond, in 48 bits as in every list ordered by time, so that a
/// store can partition it by time.
fn begin(day: u32) -> [u8; 6] {
    Millis((u64::from(day) * DAY_MILLIS).min((1 << 48) - 1)).to_bytes()
}

async fn read(store: &dyn Store, workspace: Address, day: Day) -> Result<Used, StoreError> {
    let mut used = Used::new();
    let edge = |day: u32| Some(Bytes::copy_from_slice(&begin(day)));
    let range = KeyRange { after: edge(day.0), before: day.0.checked_add(1).and_then(edge) };
    let mut pages = Pages::of_view(store, workspace, USED, range, ENTRIES_PER_PAGE);
    while let Some(page) = pages.next().await? {
        for row in &page {
            let entry: Entry = codec::decode(&row.value)?;
            let sum = Sum {
                turns: u64::from(entry.last),
                calls: entry.calls.unwrap_or(1),
                input_tokens: entry.usage.input_tokens,
                output_tokens: entry.usage.output_tokens,
                millicredits: entry.usage.millicredits,
            };
            let before = used.entry(entry.agent).or_default();
            *before = before.and(sum);
        }
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_calls_are_one_entry_with_a_count() {
        let used = |tokens| Usage { input_tokens: tokens, output_tokens: 1, millicredits: 2, model: "m".to_owned() };
        let one = Entry::and_call(None, "bot", used(5));
        assert_eq!((one.calls, one.usage.input_tokens), (None, 5));
        let three = Entry::and_call(Some(Entry::and_call(Some(one), "bot", used(7))), "bot", used(1));
        let sum = Usage { output_tokens: 3, millicredits: 6, ..used(13) };
        assert_eq!(three, Entry { agent: "bot".to_owned(), usage: sum, last: false, calls: Some(3) });
    }
}
