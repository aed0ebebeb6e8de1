//! Settling a conditional batch whose outcome is unknown: a pure decision.
//!
//! A batch names the exact head that it builds on, so it applies at most once, however often it is sent. The server may
//! answer that it does not know whether it applied (a write that timed out after it was proposed), or not answer (a
//! broken connection). Then the head is settled, which completes or aborts unfinished proposals; the settled head shows
//! whether this commit is in the chain. If not, the *same* batch is sent again.
//!
//! An unknown outcome never becomes a refusal: it ends as known, or as [`Resolution::Indeterminate`].

use actors::store::{Cause, Head};

/// The result of an attempt or of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Observation {
    /// The attempt was applied.
    Applied,
    /// The attempt was not applied: this is the head (`None`: the row does not exist).
    NotApplied(Option<BucketHead>),
    /// The attempt certainly did not begin.
    NotBegun(Cause),
    /// The attempt may be applied, now or later.
    Unknown(Cause),
    /// The partition, settled.
    Read(PartitionState),
    /// The partition could not be settled.
    Unreadable(Cause),
}

/// The head of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BucketHead {
    pub(super) head: Head,
    /// The next commit opens the next bucket.
    pub(super) closed: bool,
}

/// The content of the batch's partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartitionState {
    /// `None`: nothing.
    pub(super) head: Option<BucketHead>,
    /// The commit at this one's number is this one.
    pub(super) mine: bool,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send the same batch.
    Send,
    /// Settle the partition, and read it.
    Read,
    /// End.
    End(Resolution),
}

/// The final outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// In the chain.
    Committed,
    /// Not in the chain, and never will be: another commit has its position.
    Conflict,
    /// Not in the chain. The bucket is closed, so the commit belongs into the next one.
    Closed,
    /// Not in the chain, and no attempt has begun that could apply it.
    Unavailable(Cause),
    /// The outcome is unknown.
    Indeterminate(Cause),
}

/// Whether there is time for another step before the commit's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    Left,
    Up,
}

/// The state of one commit's attempts.
#[derive(Clone, Debug)]
pub(super) struct Settle {
    /// The head that the partition must have; `None`: it must not exist.
    expected: Option<Head>,
    /// Its head once this is applied.
    next: Head,
    /// Why an attempt's outcome is unknown.
    doubt: Option<Cause>,
}

impl Settle {
    pub(super) fn new(expected: Option<Head>, next: Head) -> Self {
        Self { expected, next, doubt: None }
    }

    /// Whether an attempt's outcome is unknown.
    pub(super) fn in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// The next step after `observation`.
    pub(super) fn observe(&mut self, observation: Observation, time: Time) -> Step {
        match observation {
            Observation::Applied => Step::End(Resolution::Committed),
            // The refusal does not name the commit at this position. If an earlier attempt is in doubt, it may be the
            // reason for the refusal.
            Observation::NotApplied(found) if self.in_doubt() || found.is_some_and(|found| found.head == self.next) => {
                self.read_or_give_up(time, "another commit or an earlier attempt has its position".into())
            }
            Observation::NotApplied(Some(found)) if self.expected == Some(found.head) && found.closed => {
                Step::End(Resolution::Closed)
            }
            Observation::NotApplied(_) => Step::End(Resolution::Conflict),
            Observation::NotBegun(why) if self.in_doubt() => self.read_or_give_up(time, why),
            Observation::NotBegun(why) => Step::End(Resolution::Unavailable(why)),
            Observation::Unknown(why) => {
                self.doubt = Some(why.clone());
                self.read_or_give_up(time, why)
            }
            Observation::Unreadable(why) => self.read_or_give_up(time, why),
            Observation::Read(partition) => self.partition_read(partition, time),
        }
    }

    /// Reads the partition, if there is time for it.
    fn read_or_give_up(&self, time: Time, why: Cause) -> Step {
        if time == Time::Left { Step::Read } else { Step::End(Resolution::Indeterminate(why)) }
    }

    fn partition_read(&mut self, partition: PartitionState, time: Time) -> Step {
        if partition.mine {
            return Step::End(Resolution::Committed);
        }
        if partition.head.map(|found| found.head) != self.expected {
            return Step::End(Resolution::Conflict);
        }
        if partition.head.is_some_and(|found| found.closed) {
            return Step::End(Resolution::Closed);
        }
        // Settling aborted proposals in flight. An attempt whose coordinator was delayed beyond all its timeouts may
        // still arrive; so the doubt remains, and a refusal is checked.
        if time == Time::Left { Step::Send } else { Step::End(self.out_of_time()) }
    }

    /// The end where no time is left to send the batch.
    pub(super) fn out_of_time(&mut self) -> Resolution {
        match self.doubt.take() {
            Some(why) => Resolution::Indeterminate(why),
            None => Resolution::Unavailable("no time left to send it".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: Head = Head { seq: 3, commit: 2 };
    const MINE: Head = Head { seq: 5, commit: 3 };

    fn settle() -> Settle {
        Settle::new(Some(BEFORE), MINE)
    }

    fn at(head: Head) -> Option<BucketHead> {
        Some(BucketHead { head, closed: false })
    }

    fn closed(head: Head) -> Option<BucketHead> {
        Some(BucketHead { head, closed: true })
    }

    fn partition(head: Option<BucketHead>, mine: bool) -> Observation {
        Observation::Read(PartitionState { head, mine })
    }

    fn doubtful() -> Settle {
        let mut settle = settle();
        assert_eq!(settle.observe(Observation::Unknown("timeout".into()), Time::Left), Step::Read);
        settle
    }

    #[test]
    fn an_attempt_that_was_applied_or_refused_is_over() {
        assert_eq!(settle().observe(Observation::Applied, Time::Up), Step::End(Resolution::Committed));
        let elsewhere = at(Head { seq: 9, commit: 7 });
        assert_eq!(settle().observe(Observation::NotApplied(elsewhere), Time::Left), Step::End(Resolution::Conflict));
        assert_eq!(settle().observe(Observation::NotApplied(None), Time::Left), Step::End(Resolution::Conflict));
        assert_eq!(
            settle().observe(Observation::NotApplied(closed(BEFORE)), Time::Left),
            Step::End(Resolution::Closed)
        );
    }

    #[test]
    fn a_head_where_this_commit_would_stand_is_looked_at() {
        let mut settle = settle();
        assert_eq!(settle.observe(Observation::NotApplied(at(MINE)), Time::Left), Step::Read);
        assert_eq!(settle.clone().observe(partition(at(MINE), true), Time::Left), Step::End(Resolution::Committed));
        assert_eq!(settle.observe(partition(at(MINE), false), Time::Left), Step::End(Resolution::Conflict));
    }

    #[test]
    fn an_unknown_outcome_is_looked_at_and_the_same_batch_sent_again() {
        let mut settle = doubtful();
        assert_eq!(settle.observe(partition(at(BEFORE), false), Time::Left), Step::Send);
        assert_eq!(settle.observe(Observation::Applied, Time::Left), Step::End(Resolution::Committed));
    }

    #[test]
    fn an_unknown_outcome_behind_which_others_went_on_is_still_known_by_its_row() {
        let on = at(Head { seq: 8, commit: 5 });
        assert_eq!(doubtful().observe(partition(on, true), Time::Left), Step::End(Resolution::Committed));
        assert_eq!(doubtful().observe(partition(on, false), Time::Left), Step::End(Resolution::Conflict));
    }

    #[test]
    fn in_doubt_a_refusal_is_not_believed() {
        let mut settle = doubtful();
        assert_eq!(settle.observe(partition(at(BEFORE), false), Time::Left), Step::Send);
        let on = at(Head { seq: 8, commit: 5 });
        assert_eq!(
            settle.observe(Observation::NotApplied(on), Time::Left),
            Step::Read,
            "the first attempt may be below it"
        );
        assert_eq!(settle.observe(partition(on, true), Time::Left), Step::End(Resolution::Committed));
    }

    #[test]
    fn without_time_left_an_unknown_outcome_stays_unknown() {
        let unknown = || Observation::Unknown("timeout".into());
        let is_indeterminate = |step| matches!(step, Step::End(Resolution::Indeterminate(_)));
        assert!(is_indeterminate(settle().observe(unknown(), Time::Up)));
        assert!(is_indeterminate(doubtful().observe(Observation::Unreadable("no quorum".into()), Time::Up)));
        assert!(is_indeterminate(doubtful().observe(Observation::NotBegun("no node".into()), Time::Up)));
        assert!(is_indeterminate(doubtful().observe(partition(at(BEFORE), false), Time::Up)));
    }

    #[test]
    fn a_commit_that_did_not_begin_is_unavailable() {
        let step = settle().observe(Observation::NotBegun("no node".into()), Time::Left);
        assert_eq!(step, Step::End(Resolution::Unavailable("no node".into())));
    }

    #[test]
    fn a_batch_without_time_to_be_sent_is_unavailable_unless_it_was_sent_before() {
        assert!(matches!(settle().out_of_time(), Resolution::Unavailable(_)));
        assert_eq!(doubtful().out_of_time(), Resolution::Indeterminate("timeout".into()));
    }

    #[test]
    fn a_creation_is_settled_by_the_absence_of_the_row() {
        let mut settle = Settle::new(None, Head { seq: 1, commit: 1 });
        assert_eq!(settle.observe(Observation::Unknown("timeout".into()), Time::Left), Step::Read);
        assert_eq!(settle.clone().observe(partition(None, false), Time::Left), Step::Send);
        assert_eq!(
            settle.observe(partition(at(Head { seq: 1, commit: 1 }), false), Time::Left),
            Step::End(Resolution::Conflict)
        );
    }

    #[test]
    fn a_closed_bucket_is_known_by_looking_too() {
        assert_eq!(doubtful().observe(partition(closed(BEFORE), false), Time::Left), Step::End(Resolution::Closed));
    }
}
